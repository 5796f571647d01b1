"""The commands `certify` and `verify`: claims about a solution in a file, and their check by code that trusts none."""

from __future__ import annotations

import argparse
import errno
import os
import time
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

from sparseopt.certificates import Report
from sparseopt.cli.case import Case
from sparseopt.cli.solve import solved
from sparseopt.evidence import KINDS, certify

__all__ = ["certified", "check_prefix", "run_certify", "run_verify"]


def run_certify(args: argparse.Namespace) -> Iterator[str]:
    """The lines that `sparseopt certify` prints: the solution as `solve` does, then what is proved of it."""
    started = time.perf_counter()
    for kind in args.kind or ():
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}, which is unknown: choose among {', '.join(KINDS)}.")
    if args.out is not None:
        _check_file(Path(args.out))
    case, solution = yield from solved(args)
    report = certify(solution, kinds=args.kind, seconds=args.seconds)
    yield from _units(case, args)
    yield str(report)
    yield ""
    if args.out is not None:
        report.save(args.out)
        yield _saved(Path(args.out))
    yield f"{time.perf_counter() - started:.2f} s in all"


def run_verify(args: argparse.Namespace) -> Generator[str, None, int]:
    """The lines that `sparseopt verify` prints: one per file and one per claim; returns the exit status."""
    for file in args.files:
        if not Path(file).is_file():
            missing = errno.EISDIR if Path(file).is_dir() else errno.ENOENT
            raise OSError(missing, os.strerror(missing), file)
    from sparseopt.certificates.verify import verify

    refused = 0
    for file in args.files:
        outcome = verify(file)
        refused += not outcome.ok
        yield str(outcome)
    return int(refused > 0)


def certified(reports: Mapping[str, Report], case: Case, args: argparse.Namespace) -> Iterator[str]:
    """Reports in words, each saved as a file of the folder or prefix `args.certify` if it is not empty."""
    yield from _units(case, args)
    for name, report in reports.items():
        if not args.quiet:
            yield f"{name}:"
            yield from (f"  {line}" for line in str(report).splitlines())
        if args.certify:
            report.save(_file(args.certify, name))
    if args.certify and len(reports) == 1:
        yield _saved(_file(args.certify, next(iter(reports))))
    elif args.certify:
        every = _file(args.certify, "*")
        yield f"Saved {len(reports)} files of certificates, {every}; `sparseopt verify {every}` checks them."
    yield ""


def check_prefix(prefix: str) -> None:
    """ValueError if files cannot be written in this folder, or under names that begin so."""
    if prefix:
        _check_file(_file(prefix, "x"))


def _units(case: Case, args: argparse.Namespace) -> Iterator[str]:
    if case.is_scaled and not args.quiet:
        yield "What follows is about the scaled columns."


def _file(prefix: str, name: str) -> Path:
    if prefix.endswith(("/", os.sep)) or Path(prefix).is_dir():
        return Path(prefix, f"{name}.json")
    return Path(f"{prefix.removesuffix('.json')}_{name}.json")


def _check_file(file: Path) -> None:
    if file.suffix != ".json":
        raise ValueError(f"Certificates are saved as .json, with an .npz beside it, not as {str(file)!r}: mend it.")
    if not file.parent.is_dir():
        raise ValueError(f"The folder of {str(file)!r} does not exist: create it first.")


def _saved(file: Path) -> str:
    return (
        f"Saved the certificates in {file} and {file.with_suffix('.npz').name}; `sparseopt verify {file}` checks them."
    )
