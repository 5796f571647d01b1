"""The command `table`: the paper's tables and figures, ours beside the paper's, from finished runs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from sparseopt.cli.figures import can_draw
from sparseopt.experiments.tables.cells import KINDS

__all__ = ["add_table", "run_table"]

_EPILOG = """\
tables:
  criteo      Table 2: validation loss by method, blocks and sparsity
  imagenet    Tables 1, 3 and 4: validation accuracy; without the sparsification phase; by its exponent
  cifar       validation accuracy on CIFAR-10, which the paper does not have

Means over seeds, with standard errors. Runs that differ in more than the seed are never averaged. Cells without a run
say "not run".

examples:
  sparseopt table criteo runs                                     what is known so far
  sparseopt table criteo runs --json results.json --figures out   a small file, and pictures
  sparseopt table criteo results.json --markdown table.md         the same table, without the runs
"""


def add_table(parser: argparse.ArgumentParser) -> None:
    """Arguments of `sparseopt table`."""
    parser.add_argument("kind", choices=KINDS, metavar="TABLE", help=f"{', '.join(KINDS)}, see below")
    parser.add_argument("runs", metavar="RUNS", help="a folder of runs, or a file that --json has written")
    parser.add_argument("--json", metavar="FILE", help="write all runs, their curves thinned, as one small file")
    parser.add_argument("--markdown", metavar="FILE", help="write the tables as Markdown")
    parser.add_argument("--figures", metavar="FOLDER", help="draw trade-off, schedule, training and exponent (.png)")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG


def run_table(args: argparse.Namespace) -> Iterator[str]:
    """The lines that `sparseopt table` prints."""
    from sparseopt.experiments.tables import as_markdown, as_text, collect, document, write

    for file in (args.json, args.markdown, args.figures):
        if file and not Path(file).absolute().parent.is_dir():
            raise ValueError(f"The folder of {file!r} does not exist: create it first.")
    if args.figures and not can_draw():
        raise ValueError("matplotlib, which draws, is not installed: pip install matplotlib, or leave out --figures.")
    collection = collect(args.runs)
    parts = document(collection, args.kind)
    yield as_text(parts)
    if args.json:
        write(collection, args.json)
        yield f"\nWrote the runs to {args.json}."
    if args.markdown:
        Path(args.markdown).write_text(as_markdown(parts), encoding="utf-8")
        yield f"\nWrote the tables to {args.markdown}."
    if args.figures:
        from sparseopt.experiments.tables.pictures import draw

        yield f"\nDrew {', '.join(map(str, draw(collection, args.kind, Path(args.figures))))}."
