"""One HTML page of evidence: readable without a network, on light and dark screens, on a desk and on a phone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from sparseopt.proofs_checks.evidence import Evidence, Finding, Statement, Verdict
from sparseopt.proofs_checks.figures import svg
from sparseopt.proofs_checks.running import statement

__all__ = ["page", "write_report"]

_CLASS = {
    Verdict.PROVED: "proved",
    Verdict.HOLDS: "holds",
    Verdict.REFUTED: "refuted",
    Verdict.NOT_APPLICABLE: "apart",
}

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5c6370; --paper: #ffffff; --panel: #f4f5f7; --line: #d9dce1;
  --green: #14724f; --blue: #1f5fa8; --amber: #8a5a00; --red: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #a3aab5; --paper: #15171a; --panel: #1f2226;
  --line: #363b42; --green: #5fd0a5; --blue: #7fb6f2; --amber: #e5b567; --red: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; color: var(--ink); background: var(--paper);
  font: 16px/1.55 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.3rem; line-height: 1.25; margin: 0 0 .4rem; }
section { border-top: 1px solid var(--line); margin-top: 2.2rem; padding-top: 1.4rem; }
.soft { color: var(--soft); } .small { font-size: .875rem; }
.formula { display: block; margin: .35rem 0 .35rem 1.2rem; font-family: "STIX Two Math", "Cambria Math", Georgia, serif;
  font-size: 1.06rem; white-space: pre-wrap; }
ul { padding-left: 1.2rem; margin: .4rem 0; }
nav ol { padding-left: 0; list-style: none; margin: .6rem 0 0; display: grid; gap: .15rem .9rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 27rem), 1fr)); }
nav a { color: inherit; text-decoration: none; display: flex; gap: .5rem; align-items: baseline; }
nav a:hover { text-decoration: underline; }
a { color: var(--blue); }
.badge { flex: none; font-size: .78rem; font-weight: 600; padding: .05rem .45rem; border: 1px solid currentColor;
  border-radius: .6rem; white-space: nowrap; }
.proved { color: var(--green); } .holds { color: var(--blue); } .refuted { color: var(--amber); }
.apart { color: var(--soft); } .wrong { color: var(--red); }
.finding { background: var(--panel); border-radius: .5rem; padding: .7rem .9rem; margin: .6rem 0; }
.finding p { margin: .3rem 0 0; }
.head { display: flex; gap: .6rem; justify-content: space-between; align-items: baseline; }
.head > :first-child { min-width: 0; overflow-wrap: anywhere; }
sub, sup { line-height: 0; font-size: .75em; }
.versions { display: grid; gap: .5rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr));
  margin-top: .5rem; }
.versions div { border-left: 3px solid var(--line); padding-left: .6rem; }
figure { margin: 1rem 0 0; } figure svg { width: 100%; height: auto; max-width: 46rem; display: block; }
figcaption { margin-top: .3rem; }
"""


def write_report(found: Sequence[Evidence], path: str | Path, size: str, seed: int, subject: str = "") -> None:
    """Write `page` to a file."""
    Path(path).write_text(page(found, size, seed, subject), encoding="utf-8")


def page(found: Sequence[Evidence], size: str, seed: int, subject: str = "") -> str:
    """The evidence as one HTML page; `subject` names a regularizer of one's own that was checked."""
    tried = sum(evidence.tried for evidence in found)
    good = sum(evidence.as_expected for evidence in found)
    about = f" for {escape(subject)}" if subject else ""
    parts = [
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Checks of the statements{about}</title><style>{_STYLE}</style></head><body>",
        f"<h1>The statements of SequentialAttention++, checked{about}</h1>",
        '<p class="soft">Lemmas and theorems of arXiv 2402.17902 (version 1) and extensions of them, run on instances. '
        f"Size {escape(size)}, seed {seed}: {tried} instances; {good} of {len(found)} statements came out as the "
        "theory predicts.</p>",
        '<p class="small soft">A verdict is <b class="proved">proved</b> (on the instances, in ball arithmetic or by a '
        'verified certificate), <b class="holds">holds to tolerance</b>, <b class="refuted">refuted</b> (by a '
        'counterexample; expected where a hypothesis was dropped on purpose) or <b class="apart">not applicable</b>.'
        "</p>",
        '<nav aria-label="Contents"><ol>',
        *(_entry(evidence) for evidence in found),
        "</ol></nav>",
        *(_section(evidence) for evidence in found),
        "</body></html>\n",
    ]
    return "\n".join(parts)


def _entry(evidence: Evidence) -> str:
    about = statement(evidence.statement)
    return (
        f'<li><a href="#{escape(about.name)}">{_verdict(evidence)}<span>{escape(about.number)}: {escape(about.title)}'
        "</span></a></li>"
    )


def _section(evidence: Evidence) -> str:
    about = statement(evidence.statement)
    drawn = svg(about.figure(evidence), about.name)
    hypotheses = "".join(f"<li>{escape(words)}</li>" for words in about.hypotheses)
    return "\n".join(
        [
            f'<section id="{escape(about.name)}"><div class="head"><h2>{escape(about.number)}: '
            f"{escape(about.title)}</h2>{_verdict(evidence)}</div>",
            f'<p class="small soft">{escape(about.source)}</p>',
            _text(about),
            f"<p>It assumes:</p><ul>{hypotheses}</ul>" if hypotheses else "",
            *(_finding(finding) for finding in evidence.findings),
            f'<figure role="img" aria-label="{escape(about.caption)}">{drawn}'
            f'<figcaption class="small">{escape(about.caption)}</figcaption></figure></section>',
        ]
    )


def _text(about: Statement) -> str:
    """Lines that start with four blanks are formulas, blank lines separate paragraphs."""
    out: list[str] = []
    words: list[str] = []

    def flush() -> None:
        if words:
            out.append(f"<p>{_indices(escape(' '.join(words)))}</p>")
            words.clear()

    for line in about.text.strip("\n").splitlines():
        if line.startswith("    "):
            flush()
            out.append(f'<span class="formula">{_indices(escape(line[4:]))}</span>')
        elif line.strip():
            words.append(line.strip())
        else:
            flush()
    flush()
    return "\n".join(out)


def _indices(text: str) -> str:
    """a_b and a_{b c} as subscripts, a^b and a^{b c} as superscripts."""
    for mark, tag in (("_", "sub"), (r"\^", "sup")):
        text = re.sub(mark + r"(?:\{([^{}]*)\}|([^\W_]+))", rf"<{tag}>\1\2</{tag}>", text)
    return text


def _finding(finding: Finding) -> str:
    wrong = "" if finding.as_expected else f' <b class="wrong">expected: {finding.expected.value}</b>'
    instances = "instance" if finding.tried == 1 else "instances"
    measure = f"{finding.tried} {instances}"
    if finding.verdict is not Verdict.PROVED and finding.tried:
        measure += f", largest violation {finding.violation:.2g} against {finding.tolerance:.2g}"
    versions = ""
    if finding.printed:
        versions = (
            f'<div class="versions small"><div><b>As printed in version 1</b><br>{escape(finding.printed)}</div>'
            f"<div><b>What does hold</b><br>{escape(finding.corrected)}</div></div>"
        )
    files = "".join(f" <code>{escape(name)}</code>" for name in finding.certificates)
    return (
        f'<div class="finding"><div class="head"><span>{escape(finding.claim)}</span>'
        f'<span class="badge {_CLASS[finding.verdict]}">{finding.verdict.value}</span></div>'
        f'<p class="small soft">{measure}.{wrong}</p>'
        + (f'<p class="small">{escape(finding.detail)}</p>' if finding.detail else "")
        + versions
        + (f'<p class="small">Certificates:{files}</p>' if files else "")
        + "</div>"
    )


def _verdict(evidence: Evidence) -> str:
    kind, word = ("holds", "as expected") if evidence.as_expected else ("wrong", "not as expected")
    return f'<span class="badge {kind}">{word}</span>'
