"""The command line: arguments, errors as sentences, exit status.

0  done; if an accuracy was not reached, a line on stderr says so        130  stopped by Ctrl-C
1  `verify` refused a claim                                              141  nobody reads the output any more
2  wrong input, with one sentence on stderr
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from sparseopt.cli.arguments import parser

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0, 1 if `verify` refused, or 2 after an error that was told in one sentence.

    Parameters
    ----------
    argv : list of str, optional
        Arguments after the name of the program; default those of the process.
    """
    with suppress(AttributeError, ValueError):  # names in a data file need not be in the terminal's alphabet
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        return _run(argv)
    except BrokenPipeError:
        with suppress(OSError, ValueError):  # what is still buffered must not raise once more at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return _refuse("stopped by Ctrl-C.", 130)
    except (ValueError, TypeError, OSError, ImportError, MemoryError) as error:
        return _refuse(_sentence(error), 2)
    except Exception as error:
        if not type(error).__module__.startswith("numba."):
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        why = next((line for line in lines if not line.startswith("Failed in")), type(error).__name__).strip("-.: ")
        return _refuse(f"the penalty cannot be compiled ({why}): use the words of sparseopt.scalar in it.", 2)


def _run(argv: Sequence[str] | None) -> int:
    try:
        args = parser().parse_args(argv)
    except SystemExit as finished:  # --help, --version
        return int(finished.code or 0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lines = _lines(args)
        while True:
            try:
                print(next(lines), flush=True)
            except StopIteration as end:
                status = int(end.value or 0)
                break
    for message in dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, UserWarning)):
        print(f"sparseopt: warning: {' '.join(message.split())}", file=sys.stderr)
    return status


def _lines(args: argparse.Namespace) -> Iterator[str]:
    """What a command prints; it may return an exit status."""
    if args.command == "regularizers":
        from sparseopt.cli.describe import describe_regularizers

        return iter(describe_regularizers())
    if args.command == "demo":
        from sparseopt.cli.demo import run_demo

        return run_demo(args)
    if args.command == "verify":
        from sparseopt.cli.certify import run_verify

        return run_verify(args)
    if args.command == "select":
        from sparseopt.cli.select import run_select

        _import_from_here(value for _, value in args.method_option)
        return run_select(args)
    _import_from_here([args.penalty])
    if args.command == "certify":
        from sparseopt.cli.certify import run_certify

        return run_certify(args)
    from sparseopt.cli.solve import run_solve

    return run_solve(args)


def _import_from_here(names: Iterable[Any]) -> None:
    """Let regularizers named module:Class come from the current folder."""
    if any(":" in str(name) for name in names) and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def _refuse(message: str, status: int) -> int:
    print(f"sparseopt: {message}", file=sys.stderr)
    return status


def _sentence(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{error.filename} does not exist: check the name."
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename} cannot be used: {error.strerror}."
    return " ".join(str(error).split()) or f"{type(error).__name__}."
