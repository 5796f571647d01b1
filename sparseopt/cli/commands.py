"""The commands by name; `sparseopt.console` runs them and tells errors."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from sparseopt.cli.arguments import parser
from sparseopt.console import import_from_here, run_command

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0, 1 if `verify` or `check` says no, or 2 after an error told in one sentence.

    Parameters
    ----------
    argv : list of str, optional
        Arguments after the name of the program; default those of the process.
    """
    return run_command("sparseopt", parser, _lines, argv)


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
    if args.command == "check":
        from sparseopt.cli.check import run_check

        return run_check(args)
    if args.command == "nn":
        from sparseopt.cli.bench import run_nn

        return run_nn(args)
    if args.command == "prune":
        from sparseopt.cli.prune import run_prune

        return run_prune(args)
    if args.command == "sweep":
        from sparseopt.cli.prune import run_sweep

        return run_sweep(args)
    if args.command == "table":
        from sparseopt.cli.table import run_table

        return run_table(args)
    if args.command == "convert":
        from sparseopt.cli.convert import run_convert

        return run_convert(args)
    if args.command == "select":
        from sparseopt.cli.select import run_select

        import_from_here(value for _, value in args.method_option)
        return run_select(args)
    import_from_here([args.penalty])
    if args.command == "certify":
        from sparseopt.cli.certify import run_certify

        return run_certify(args)
    from sparseopt.cli.solve import run_solve

    return run_solve(args)
