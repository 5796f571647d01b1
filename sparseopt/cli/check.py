"""The command `check`: the same as `python -m sparseopt.proofs_checks`, which has the options and the work."""

from __future__ import annotations

import argparse

from sparseopt.proofs_checks.command import EPILOG, add_arguments, run_check

__all__ = ["add_check", "run_check"]


def add_check(command: argparse.ArgumentParser) -> None:
    """Give the command its options and its examples."""
    command.epilog = EPILOG.replace("COMMAND", "sparseopt check")
    add_arguments(command)
