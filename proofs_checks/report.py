"""One HTML page of evidence: readable without a network, on light and dark screens, on a desk and on a phone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from sparseopt.proofs_checks.evidence import Evidence, Finding, Statement, Verdict
from sparseopt.proofs_checks.figures import svg
from sparseopt.proofs_checks.own_regularizer import Answer, Summary
from sparseopt.proofs_checks.running import statement

__all__ = ["page", "write_report"]

_CLASS = {
    Verdict.PROVED: "proved",
    Verdict.HOLDS: "holds",
    Verdict.REFUTED: "refuted",
    Verdict.NOT_APPLICABLE: "apart",
}

# ", Power(p=0.5)" or ", p = 0.3" at the end of a claim: what it is about.
_PARAMETER = re.compile(r", (\w+\([^()]*\)|\w+ = [-\d.]+)$")
_GREEK = {"lam": "λ", "tau": "τ", "mu": "μ", "kappa": "κ", "alpha": "α", "eps": "ε", "delta": "δ", "Gamma": "Γ"}
_LETTERS = {r">=": "≥", r"<=": "≤", r"\|\|": "‖", r"\bgrad_": "∇_"} | {
    rf"(?<![\w-]){word}(?=_|\b)(?![=-])": letter for word, letter in _GREEK.items()
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
nav { margin-top: 1.5rem; }
nav ol { padding-left: 0; list-style: none; margin: .6rem 0 0; display: grid; gap: .15rem .9rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 27rem), 1fr)); }
nav a { color: inherit; text-decoration: none; display: flex; gap: .5rem; align-items: baseline; }
nav a:hover { text-decoration: underline; }
a { color: var(--blue); }
.badge { flex: none; font-size: .78rem; font-weight: 600; padding: .05rem .45rem; border: 1px solid currentColor;
  border-radius: .6rem; white-space: nowrap; }
.proved { color: var(--green); } .holds { color: var(--blue); } .refuted { color: var(--amber); }
.apart { color: var(--soft); } .wrong { color: var(--red); }
.open { color: var(--soft); }
.findings { border: 1px solid var(--line); border-radius: .5rem; margin: .8rem 0; }
.finding + .finding { border-top: 1px solid var(--line); }
.finding summary { display: grid; grid-template-columns: 1fr auto auto; gap: .6rem; align-items: baseline;
  padding: .4rem .8rem; cursor: pointer; list-style: none; overflow-wrap: anywhere; }
.finding summary::-webkit-details-marker { display: none; }
.finding summary::after { content: "+"; color: var(--soft); width: .7rem; text-align: center; }
.finding[open] summary::after { content: "−"; }
.finding summary:hover, .finding[open] { background: var(--panel); }
.inside { padding: 0 .8rem .6rem; overflow-wrap: anywhere; } .inside p { margin: .15rem 0 0; }
.head { display: flex; gap: .6rem; justify-content: space-between; align-items: baseline; }
.head > :first-child { min-width: 0; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: auto 1fr; gap: .4rem .9rem; margin: .8rem 0 0; }
dt { font-weight: 600; } dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
@media (max-width: 36rem) { dl { grid-template-columns: 1fr; gap: .1rem; } dd { margin-bottom: .6rem; }
  .formula { margin-left: .4rem; } h1 { font-size: 1.35rem; } h2 { font-size: 1.15rem; }
  .badge { white-space: normal; max-width: 6rem; text-align: center; } }
sub, sup { line-height: 0; font-size: .75em; }
.versions { display: grid; gap: .5rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr));
  margin-top: .5rem; }
.versions div { border-left: 3px solid var(--line); padding-left: .6rem; }
figure { margin: 1rem 0 0; } .plot { overflow-x: auto; }
.plot svg { width: 100%; height: auto; min-width: 32rem; max-width: 46rem; display: block; }
figcaption { margin-top: .3rem; }
"""


def write_report(found: Sequence[Evidence], path: str | Path, size: str, seed: int, own: Summary | None = None) -> None:
    """Write `page` to a file."""
    Path(path).write_text(page(found, size, seed, own), encoding="utf-8")


def page(found: Sequence[Evidence], size: str, seed: int, own: Summary | None = None) -> str:
    """The evidence as one HTML page; `own` is about a regularizer of one's own, and stands first."""
    tried = sum(evidence.tried for evidence in found)
    good = sum(evidence.as_expected for evidence in found)
    about = f" for {escape(own.name)}" if own else ""
    parts = [
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Checks of the statements{about}</title><style>{_STYLE}</style></head><body>",
        f"<h1>Checks of SequentialAttention++{about}</h1>",
        '<p class="soft">Lemmas and theorems of arXiv 2402.17902 (version 1) and extensions of them, run on instances. '
        f"Size {escape(size)}, seed {seed}: {tried} instances; {good} of {len(found)} statements came out as the "
        "theory predicts.</p>",
        '<p class="small soft">Every claim opens. A verdict is <b class="proved">proved</b> (on the instances, in ball '
        'arithmetic or by a verified certificate), <b class="holds">holds to tolerance</b>, <b class="refuted">refuted'
        '</b> (by a counterexample; expected where a hypothesis was dropped on purpose) or <b class="apart">not '
        "applicable</b>.</p>",
        *((f"<section><h2>{escape(own.name)}</h2><dl>", *map(_answer, own.answers), "</dl></section>") if own else ()),
        '<nav aria-label="Contents"><ol>',
        *(_entry(evidence) for evidence in found),
        "</ol></nav>",
        *(_section(evidence, own is not None) for evidence in found),
        "</body></html>\n",
    ]
    return "\n".join(parts)


def _entry(evidence: Evidence) -> str:
    about = statement(evidence.statement)
    kind, mark, word = ("holds", "✓", "As expected") if evidence.as_expected else ("wrong", "✗", "Not as expected")
    return (
        f'<li><a href="#{escape(about.name)}"><b class="{kind}" role="img" aria-label="{word}">{mark}</b>'
        f"<span>{_title(about)}</span></a></li>"
    )


def _title(about: Statement) -> str:
    return f"{escape(about.number[:1].upper() + about.number[1:])}: {_typeset(about.title)}"


def _section(evidence: Evidence, is_own: bool) -> str:
    about = statement(evidence.statement)
    hypotheses = "".join(f"<li>{_typeset(words)}</li>" for words in about.hypotheses)
    return "\n".join(
        [
            f'<section id="{escape(about.name)}"><div class="head"><h2>{_title(about)}</h2>{_verdict(evidence)}</div>',
            f'<p class="small soft">{escape(about.source)}</p>',
            _text(about),
            f"<p>It assumes:</p><ul>{hypotheses}</ul>" if hypotheses else "",
            '<div class="findings">',
            *map(_findings, _alike(evidence.findings)),
            "</div>",
            _figure(evidence, about, is_own) if evidence.series else "",
            "</section>",
        ]
    )


def _figure(evidence: Evidence, about: Statement, is_own: bool) -> str:
    """A figure was made for the package's regularizers; one of your own may give it nothing that can be drawn."""
    try:
        drawn = svg(about.figure(evidence), about.name)
    except (ArithmeticError, ValueError, LookupError) as error:
        if not is_own:
            raise
        return f'<p class="small soft">The figure cannot be drawn for this regularizer: {escape(str(error))}</p>'
    caption = about.caption
    if is_own and any(finding.verdict in (Verdict.REFUTED, Verdict.NOT_APPLICABLE) for finding in evidence.findings):
        caption = f"To see where the hypotheses hold: {caption[0].lower()}{caption[1:]}"
    return (
        f'<figure><div class="plot" role="img" tabindex="0" aria-label="{escape(caption)}">{drawn}</div>'
        f'<figcaption class="small">{_typeset(caption)}</figcaption></figure>'
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


def _typeset(text: str) -> str:
    """Claims are typed on a keyboard: >=, lam, a^2 and R_q in their letters, parameters to four digits."""
    text = re.sub(r"(?<==)\d+\.\d{5,}", lambda found: f"{float(found[0]):.4g}", text)
    for typed, letter in _LETTERS.items():
        text = re.sub(typed, letter, text)
    text = re.sub(r"\^(?:\(([^()]*)\)|(-?\w+))", r"<sup>\1\2</sup>", escape(text))
    return re.sub(r"(?<![\w.])([^\W\d_]|∇)_(?:\{([^{}]*)\}|(\w+))", r"\1<sub>\2\3</sub>", text)


def _parameter(finding: Finding) -> str:
    found = _PARAMETER.search(finding.claim)
    return found[1] if found else ""


def _alike(findings: Sequence[Finding]) -> list[list[Finding]]:
    """The same claim for several regularizers, with the same verdict, together; what is news stands alone."""
    groups: dict[object, list[Finding]] = {}
    for finding in findings:
        alone = finding.printed or not finding.as_expected
        stem = _PARAMETER.sub("", finding.claim)
        key = id(finding) if alone else (stem, stem == finding.claim, finding.verdict, finding.expected)
        groups.setdefault(key, []).append(finding)
    return list(groups.values())


def _findings(alike: list[Finding]) -> str:
    """One line that opens; open from the start if there is something to read for everybody."""
    first = alike[0]
    claim = _typeset(first.claim)
    if len(alike) > 1:
        several = ", ".join(map(_parameter, alike)) if _parameter(first) else f"{len(alike)} times"
        claim = f'{_typeset(_PARAMETER.sub("", first.claim))} <small class="soft">{_typeset(several)}</small>'
    is_open = " open" if first.printed or not first.as_expected else ""
    return (
        f'<details class="finding"{is_open}><summary><span>{claim}</span>'
        f'<span class="badge {_CLASS[first.verdict]}">{_badge(first)}</span></summary><div class="inside">'
        + "".join(_numbers(finding, len(alike) > 1 and _parameter(first) != "") for finding in alike)
        + "</div></details>"
    )


def _numbers(finding: Finding, named: bool) -> str:
    measure = f"{finding.tried} {'instance' if finding.tried == 1 else 'instances'}"
    if named:
        measure = f"{_typeset(_parameter(finding))}: {measure}"
    if finding.verdict is not Verdict.PROVED and finding.tried:
        measure += f", largest violation {finding.violation:.2g} against {finding.tolerance:.2g}"
    wrong = "" if finding.as_expected else f' <b class="wrong">Expected: {finding.expected.value}.</b>'
    versions = ""
    if finding.printed:
        versions = (
            f'<div class="versions small"><div><b>Version 1 has, in short</b><br>{_typeset(finding.printed)}</div>'
            f"<div><b>What does hold</b><br>{_typeset(finding.corrected)}</div></div>"
        )
    files = "".join(f" <code>{escape(name)}</code>" for name in finding.certificates)
    return (
        f'<p class="small soft">{measure}.{wrong}</p>'
        + (f'<p class="small">{_typeset(finding.detail)}</p>' if finding.detail else "")
        + versions
        + (f'<p class="small">Certificates:{files}</p>' if files else "")
    )


def _badge(finding: Finding) -> str:
    if finding.verdict is Verdict.HOLDS:
        return "holds"
    control = finding.verdict is finding.expected is Verdict.REFUTED
    return "refuted, as expected" if control else finding.verdict.value


def _answer(answer: Answer) -> str:
    mark = f'<span class="badge {answer.kind}">{escape(answer.answer)}</span>'
    return f"<dt>{escape(answer.question)}</dt><dd>{mark} <span>{_typeset(answer.detail)}</span></dd>"


def _verdict(evidence: Evidence) -> str:
    kind, word = ("holds", "as expected") if evidence.as_expected else ("wrong", "not as expected")
    return f'<span class="badge {kind}">{word}</span>'
