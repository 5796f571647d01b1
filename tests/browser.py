"""A real browser without a window, for pages that the package writes; tests skip where there is none.

A page is put into a frame of the width that is asked for, because browsers do not make windows as narrow as a phone. A
script beside the frame looks at what is drawn, and its answer comes back as JSON in the text of the outer page.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

__all__ = ["look"]

_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--virtual-time-budget=10000",  # for questions that wait
)
_OUTER = """<!DOCTYPE html><body><iframe style="width: {width}px; height: 900px; border: 0" srcdoc="{page}"></iframe>
<pre id="answer"></pre><script>
window.onload = async () => {{
  const view = document.querySelector("iframe").contentWindow, page = view.document;
  document.getElementById("answer").textContent = JSON.stringify(await ({question})(page, view));
}};
</script></body>"""


def look(page: str, question: str, folder: Path, width: int = 1280) -> Any:
    """What the JavaScript function `question(document, window)` says of a page of that width."""
    browser = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
    )
    if not browser:
        pytest.skip("no browser is here: install Debian's chromium to look at pages")
    file = folder / "outer.html"
    file.write_text(_OUTER.format(width=width, page=html.escape(page), question=question), encoding="utf-8")
    command = [browser, *_OPTIONS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", "--window-size=1400,1000"]
    done = subprocess.run([*command, file.as_uri()], capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r'<pre id="answer">(.+?)</pre>', done.stdout, flags=re.DOTALL)
    assert found, f"the browser did not answer: {done.stderr[-500:]}"
    return json.loads(html.unescape(found[1]))
