"""What every command of the package shares: lines printed as they become known, errors as sentences, exit status.

0    done; if an accuracy was not reached, a line on stderr says so      130  stopped by Ctrl-C
1    the answer is no: a claim is refused, a check is not as expected    141  nobody reads the output any more
2    wrong input, with one sentence on stderr
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NoReturn

__all__ = ["Parser", "add_parameters", "columns", "import_from_here", "named_number", "positive_integer", "run_command"]


class Parser(argparse.ArgumentParser):
    """Errors as one sentence, without the usage. The words of a list `overrides` may stand after options as well."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """The arguments; argparse itself fills a list of words once, and does not know those after an option."""
        found, rest = self.parse_known_args(args, namespace)
        words: list[str] | None = getattr(found, "overrides", None)
        if words is not None and not any(word.startswith("-") for word in rest):
            words.extend(rest)
        elif rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see {self.prog} --help).")


def run_command(
    name: str,
    parser: Callable[[], argparse.ArgumentParser],
    lines: Callable[[argparse.Namespace], Iterator[str]],
    argv: Sequence[str] | None = None,
) -> int:
    """Print the lines of a command as they come; what cannot be done is told in one sentence on stderr.

    Parameters
    ----------
    name : str
        What errors begin with.
    parser : callable
        Makes the parser; it raises ValueError for wrong arguments, see `Parser`.
    lines : callable
        From parsed arguments to an iterator of lines; a generator may return an exit status.
    argv : list of str, optional
        Arguments; default those of the process.

    Returns
    -------
    int
        The exit status.
    """
    with suppress(AttributeError, ValueError):  # names in a data file need not be in the terminal's alphabet
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        return _run(name, parser, lines, argv)
    except BrokenPipeError:
        with suppress(OSError, ValueError):  # what is still buffered must not raise once more at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return _refuse(name, "stopped by Ctrl-C.", 130)
    except (ValueError, TypeError, OSError, ImportError, MemoryError) as error:
        return _refuse(name, _sentence(error), 2)
    except Exception as error:
        if not type(error).__module__.startswith("numba."):
            raise
        told = [line.strip() for line in str(error).splitlines() if line.strip()]
        why = next((line for line in told if not line.startswith("Failed in")), type(error).__name__).strip("-.: ")
        return _refuse(name, f"the penalty cannot be compiled ({why}): use the words of sparseopt.scalar in it.", 2)


def columns(rows: Sequence[Sequence[str]], indent: str = "  ", left: int = 1) -> list[str]:
    """Lines of a table: the first `left` columns left, the others right; the first row is a heading.

    Examples
    --------
    >>> columns([("group", "size"), ("a", "10")], indent="")
    ['group  size', 'a        10']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [f"{e:<{w}}" if i < left else f"{e:>{w}}" for i, (e, w) in enumerate(zip(row, widths, strict=True))]
        lines.append((indent + "  ".join(cells)).rstrip())
    return lines


def import_from_here(names: Iterable[Any]) -> None:
    """Let regularizers named module:Class come from the current folder."""
    if any(":" in str(name) for name in names) and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def add_parameters(parser: argparse.ArgumentParser, whose: str) -> None:
    """The option --param NAME=VALUE, repeatable: parameters of `whose`, a list of (name, value)."""
    told = f"of the {whose} (repeatable)"
    parser.add_argument("--param", metavar="NAME=VALUE", action="append", default=[], type=named_number, help=told)


def named_number(text: str) -> tuple[str, float]:
    """The words of an option NAME=NUMBER.

    Examples
    --------
    >>> named_number("eps=0.5")
    ('eps', 0.5)
    """
    name, equals, value = text.partition("=")
    try:
        return name.strip(), float(value if equals else "")
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form name=number") from None


def positive_integer(text: str) -> int:
    """The value of an option that counts something."""
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no integer >= 1")
    return value


def _run(
    name: str,
    parser: Callable[[], argparse.ArgumentParser],
    lines: Callable[[argparse.Namespace], Iterator[str]],
    argv: Sequence[str] | None,
) -> int:
    try:
        args = parser().parse_args(argv)
    except SystemExit as finished:  # --help, --version
        return int(finished.code or 0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answer = lines(args)
        while True:
            try:
                print(next(answer), flush=True)
            except StopIteration as end:
                status = int(end.value or 0)
                break
    for message in dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, UserWarning)):
        print(f"{name}: warning: {' '.join(message.split())}", file=sys.stderr)
    return status


def _refuse(name: str, message: str, status: int) -> int:
    print(f"{name}: {message}", file=sys.stderr)
    return status


def _sentence(error: Exception) -> str:
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"{error.filename} does not exist: check the name."
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename} cannot be used: {error.strerror}."
    return " ".join(str(error).split()) or f"{type(error).__name__}."
