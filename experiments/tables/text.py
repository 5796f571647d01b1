"""Paragraphs, lists and grids as plain text or as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

__all__ = ["Grid", "Heading", "Items", "Part", "as_markdown", "as_text"]

Row = tuple[str, ...]


class Heading(NamedTuple):
    """The title of what follows."""

    words: str


class Items(NamedTuple):
    """Sentences, one below the other."""

    sentences: tuple[str, ...]


class Grid(NamedTuple):
    """Tables with the same number of columns, each with a heading row of its own; the first columns are words."""

    tables: tuple[tuple[Row, ...], ...]
    words: int = 2


Part = str | Heading | Items | Grid


def as_text(parts: Iterable[Part]) -> str:
    """For a terminal: columns of all tables of a grid in line.

    >>> print(as_text([Heading("Sizes"), Grid(((("who", "size"), ("a", "10")),), words=1)]))
    Sizes
    <BLANKLINE>
    who  size
    a    10
    """
    found = []
    for part in parts:
        if isinstance(part, Grid):
            found.append("\n\n".join(_aligned(part)))
        elif isinstance(part, Items):
            found.append("\n".join(f"* {each}" for each in part.sentences))
        else:
            found.append(part.words if isinstance(part, Heading) else part)
    return "\n\n".join(found)


def _aligned(grid: Grid) -> list[str]:
    rows = [row for table in grid.tables for row in table]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        return "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()

    return ["\n".join(map(line, table)) for table in grid.tables]


def as_markdown(parts: Iterable[Part]) -> str:
    """For a file: headings of the second level, tables with lines.

    >>> print(as_markdown([Heading("Sizes"), Grid(((("who", "size"), ("a|b", "10")),), words=1)]))
    ## Sizes
    <BLANKLINE>
    | who | size |
    |:---|---:|
    | a\\|b | 10 |
    <BLANKLINE>
    """
    found = []
    for part in parts:
        if isinstance(part, Heading):
            found.append(f"## {_safe(part.words)}")
        elif isinstance(part, Items):
            found.append("\n".join(f"* {_safe(each)}" for each in part.sentences))
        elif isinstance(part, Grid):
            found += ["\n".join(_ruled(table, part.words)) for table in part.tables]
        else:
            found.append(_safe(part))
    return "\n\n".join(found) + "\n"


def _ruled(table: Sequence[Row], words: int) -> list[str]:
    rule = "|" + "|".join(":---" if i < words else "---:" for i in range(len(table[0]))) + "|"
    lines = ["| " + " | ".join(_safe(cell).replace("|", r"\|") for cell in row) + " |" for row in table]
    return [lines[0], rule, *lines[1:]]


def _safe(words: str) -> str:
    """Names of files and settings as they are: stars and underscores would be read as emphasis, < as a tag."""
    for letter in "\\*_<`":
        words = words.replace(letter, f"\\{letter}")
    return words
