"""`python -m sparseopt.proofs_checks`, and the work of `sparseopt check`: checks as a table, a page and a file.

Exit status 0 if everything is as the theory predicts, 1 if something is not, 2 for wrong input. `evidence.json` depends
on what is checked, on size and seed, and on nothing else.
"""

from __future__ import annotations

import argparse
import math
import os
import textwrap
import time
from collections import Counter
from collections.abc import Generator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sparseopt.console import Parser, add_parameters, columns, import_from_here, positive_integer, run_command
from sparseopt.proofs_checks.evidence import SIZES, Evidence, Verdict

__all__ = ["EPILOG", "add_arguments", "main", "run_check"]

EPILOG = """examples:
  COMMAND                                           all statements, in less than a minute
  COMMAND --size medium --jobs 2 --seed 7           more instances, larger ones
  COMMAND --only omp_rate ompr_rate --out somewhere
  COMMAND --regularizer mymodule:MyRegularizer      a class in mymodule.py in this folder
  COMMAND --regularizer log --param eps=0.1

exit status: 0 if everything is as expected (controls are expected to be refuted), 1 if not, 2 for wrong input.
"""
_NEEDED = {"matplotlib": "matplotlib", "cvxpy": "cvxpy", "flint": "python-flint"}
_WORDS = {
    Verdict.PROVED: "proved",
    Verdict.HOLDS: "hold",
    Verdict.REFUTED: "refuted",
    Verdict.NOT_APPLICABLE: "not applicable",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    add = parser.add_argument
    add("--only", metavar="NAME", nargs="+", action="extend", help="these statements; default all, see --list")
    add("--size", choices=SIZES, default="small", help="how many instances, and how large (small)")
    add("--seed", metavar="N", type=_seed, default=0, help="same seed, same evidence.json (0)")
    add("--jobs", metavar="N", type=positive_integer, default=1, help="checks at a time (1)")
    add("--out", metavar="FOLDER", default="checks", help="for report.html and evidence.json (checks)")
    add("--regularizer", metavar="NAME", help="check this one: module:Class, or a name of `sparseopt regularizers`")
    add_parameters(parser, "regularizer")
    add("--list", action="store_true", help="list the statements and do nothing else")
    add("--quiet", action="store_true", help="print what is not as expected only, and no progress bar")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see `sparseopt.console` for the exit status.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; default those of the process.
    """
    return run_command("proofs_checks", _parser, run_check, argv)


def run_check(args: argparse.Namespace) -> Generator[str, None, int]:
    """The lines that the command prints; returns the exit status."""
    if args.list:
        yield from _listed()
        return 0
    from sparseopt.proofs_checks.running import run, write_certificates, write_evidence

    started = time.perf_counter()
    q = _regularizer(args)
    folder = _folder(args.out)
    found = run(
        args.only,
        size=args.size,
        seed=args.seed,
        jobs=args.jobs,
        regularizer=q,
        progress=False if args.quiet else None,
    )
    own = None
    if q is not None:
        from sparseopt.proofs_checks.own_regularizer import summary

        own = summary(q, found)
        yield from own.lines()
        yield ""
    if not args.quiet:
        yield from _table(found)
        yield ""
    yield from _surprises(found)
    from sparseopt.proofs_checks.report import write_report

    write_evidence(found, folder / "evidence.json", args.size, args.seed, own)
    write_certificates(found, folder)
    write_report(found, folder / "report.html", args.size, args.seed, own)
    wrong = sum(not evidence.as_expected for evidence in found)
    if not args.quiet or wrong:
        told = "all as expected" if not wrong else f"{wrong} not as expected"
        yield f"{len(found)} statements, {told}; {time.perf_counter() - started:.1f} s"
        yield f"Wrote {folder / 'report.html'} and {folder / 'evidence.json'}."
        files = [name for evidence in found for finding in evidence.findings for name in finding.certificates]
        if files:
            yield f"Certificates: sparseopt verify {' '.join(str(folder / name) for name in files)}"
    return int(wrong > 0)


def _parser() -> argparse.ArgumentParser:
    command = "python -m sparseopt.proofs_checks"
    parser = Parser(
        prog=command,
        description="Check the statements of arXiv 2402.17902 (version 1) and extensions of them.",
        epilog=EPILOG.replace("COMMAND", command),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    return parser


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no integer >= 0")
    return int(text)


def _regularizer(args: argparse.Namespace) -> Any:
    """The regularizer of one's own, or None; every name is looked at before anything is run."""
    from sparseopt.proofs_checks.running import STATEMENTS, statement

    lacking = [package for module, package in _NEEDED.items() if find_spec(module) is None]
    if lacking:
        raise ImportError(f"The checks need {', '.join(lacking)}: pip install {' '.join(lacking)}.")
    chosen = [statement(name) for name in args.only or ()]
    if args.regularizer is None:
        if args.param:
            raise ValueError("--param sets a parameter of --regularizer: name that as well.")
        return None
    for about in chosen:
        if not about.takes_regularizer:
            able = ", ".join(name for name in STATEMENTS if statement(name).takes_regularizer)
            raise ValueError(f"statement {about.name!r} takes no regularizer: choose among {able}.")
    from sparseopt import get_regularizer

    import_from_here([args.regularizer])
    return get_regularizer(args.regularizer, **dict(args.param))


def _folder(name: str) -> Path:
    """The folder to write to, made if only itself is missing."""
    folder = Path(name)
    if not folder.parent.is_dir():
        raise ValueError(f"The folder of {name!r} does not exist: create it first.")
    folder.mkdir(exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(13, os.strerror(13), name)
    return folder


def _listed() -> Generator[str, None, None]:
    from sparseopt.proofs_checks.running import STATEMENTS, statement

    rows = [("name", "number", "statement")]
    for name in STATEMENTS:
        about = statement(name)
        rows.append((name + (" *" if about.takes_regularizer else ""), about.number, about.title))
    yield from columns(rows, indent="", left=3)
    yield ""
    yield "* also for a regularizer of your own: --regularizer module:Class"


def _table(found: Sequence[Evidence]) -> list[str]:
    rows = [("statement", "verdicts", "instances", "largest violation", "as expected")]
    for evidence in found:
        counts = Counter(finding.verdict for finding in evidence.findings)
        verdicts = ", ".join(f"{counts[verdict]} {word}" for verdict, word in _WORDS.items() if counts[verdict])
        expected = "yes" if evidence.as_expected else "NO"
        rows.append((evidence.statement, verdicts, str(evidence.tried), _largest(evidence), expected))
    return columns(rows, indent="", left=2)


def _largest(evidence: Evidence) -> str:
    """The violation that comes closest to its tolerance, among claims that are expected to hold."""
    held = [f for f in evidence.findings if f.expected is Verdict.HOLDS and f.tried and f.verdict is not Verdict.PROVED]
    if not held:
        return "-"

    def share(finding: Any) -> float:
        if math.isnan(finding.violation):
            return math.inf
        excess = finding.violation / finding.tolerance if finding.tolerance else finding.violation * math.inf
        return excess if finding.violation > 0.0 else 0.0

    worst = max(held, key=share)
    return f"{max(worst.violation, 0.0):.1e} of {worst.tolerance:.0e}" if share(worst) else "0"


def _surprises(found: Sequence[Evidence]) -> Generator[str, None, None]:
    for evidence in found:
        for finding in evidence.findings:
            if not finding.as_expected:
                yield f"{evidence.statement}: {finding.claim}"
                said = f"{finding.verdict.value}, expected: {finding.expected.value}. {finding.detail}"
                yield from textwrap.wrap(said, 110, initial_indent="  ", subsequent_indent="  ")
                yield ""
