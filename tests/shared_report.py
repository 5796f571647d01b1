"""A report that takes long to make, and that all workers of pytest-xdist want: the first makes it, the others wait."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

__all__ = ["shared_report"]


def shared_report(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], dict[str, Any]], limit: float
) -> dict[str, Any]:
    """What `make` returned for a folder of its own; if it raised, the tests of every worker fail with its traceback.

    Parameters
    ----------
    factory : pytest.TempPathFactory
    name : str
        Of the folder, and so of the report in this run of the tests.
    make : callable
        Its result must survive JSON.
    limit : float
        Seconds that the others wait.
    """
    folder = factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / name
    ready = folder / "report.json"
    try:
        folder.mkdir()
    except FileExistsError:
        end = time.monotonic() + limit
        while not ready.exists() and time.monotonic() < end:
            time.sleep(0.1)
    else:
        try:
            made = {"report": make(folder)}
        except Exception:
            made = {"failed": traceback.format_exc()}
        part = folder / "report.part"
        part.write_text(json.dumps(made))
        part.rename(ready)
    found = json.loads(ready.read_text())
    if "failed" in found:
        pytest.fail(f"{name} could not be made:\n{found['failed']}", pytrace=False)
    return found["report"]
