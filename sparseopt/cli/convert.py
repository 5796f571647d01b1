"""The command `convert`: raw rows of Criteo's competition as a folder of columns that training reads."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from sparseopt.console import columns, positive_integer

if TYPE_CHECKING:  # torch and pyarrow take seconds to import, and other commands do without
    from sparseopt.experiments.clicks.columns import Columns

__all__ = ["add_convert", "run_convert"]

_EPILOG = """\
protocols:
  files   RAW trains, --valid and --test are files of their own (the default)
  time    the first six sevenths train, of the last the halves test and validate, as in DLRM; or --shares
  x1      sizes of Criteo_x1 in BARS (7 : 2 : 1), rows drawn anew: the published split is known by its files only
  x4      Criteo_x4 in BARS (8 : 1 : 1), row by row

RAW is the competition's train.txt: label, 13 whole numbers, 26 words of eight hexadecimal digits, tabs between them;
plain or gzip. Other lines are left out, counted, and kept in FOLDER/malformed.tsv. A conversion that was stopped goes
on when it is started again; one that was finished is not repeated.

examples:
  sparseopt convert train.txt.gz --protocol x4 --out criteo_x4
  sparseopt convert train.tsv.gz --valid valid.tsv.gz --min-count 2
  sparseopt convert train.txt --protocol time --hash-bins 100000 --numbers values
"""


def add_convert(command: argparse.ArgumentParser) -> None:
    """Give the command `convert` its options."""
    command.epilog = _EPILOG
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    add = command.add_argument
    add("raw", metavar="RAW", help="file of raw rows")
    add("--out", metavar="FOLDER", help="what to create (default: RAW without its endings, beside it)")
    add("--protocol", choices=("files", "time", "x1", "x4"), default="files", help="how rows are split, see below")
    add("--valid", metavar="FILE", help="validation rows, for the protocol files")
    add("--test", metavar="FILE", help="test rows, for the protocol files")
    add("--shares", metavar="S", nargs="+", type=float, help="of training, validation and test rows, for time")
    add("--min-count", metavar="N", type=positive_integer, help="training rows that a value needs for an id (10)")
    add("--hash-bins", metavar="N", type=positive_integer, help="ids are hashes into N bins per field instead")
    add("--numbers", choices=("buckets", "values"), default="buckets", help="I1 to I13 as ids, or as numbers")
    add("--check", action="store_true", help="read the result once more and compare its SHA-256")


def run_convert(args: argparse.Namespace) -> Iterator[str]:
    """The lines that `sparseopt convert` prints."""
    for name in ("torch", "pyarrow"):
        if find_spec(name) is None:
            raise ValueError(f'the package {name} is not installed: pip install "sparseopt[nn, experiments]".')
    if args.hash_bins and args.min_count:
        raise ValueError("--min-count and --hash-bins exclude each other: a hash needs no counts.")
    if args.protocol != "files" and (args.valid or args.test):
        raise ValueError(f"--valid and --test are for the protocol files, not {args.protocol}: leave them out.")
    from sparseopt.experiments.clicks.columns import Columns
    from sparseopt.experiments.clicks.conversion import convert

    raw = Path(args.raw)
    folder = Path(args.out) if args.out else raw.with_name(raw.name.split(".")[0] + ".columns")
    sources = {"train": raw, "valid": args.valid, "test": args.test}
    made = convert(
        {part: path for part, path in sources.items() if path},
        folder,
        protocol=args.protocol,
        min_count=args.min_count or 10,
        hash_bins=args.hash_bins,
        numbers=args.numbers,
        shares=args.shares,
        progress=None,
    )
    yield from _told(made)
    if args.check:
        Columns.open(folder, check=True)
        yield "Every column has the SHA-256 that meta.json says."


def _told(made: Columns) -> Iterator[str]:
    """What there is, in two tables, and where the malformed lines are."""
    about = made.meta["conversion"]
    options = about["options"]
    yield f"{made.folder}: protocol {options['protocol']}"
    rows = [("part", "rows", "positive")]
    for name, part in made.parts.items():
        rows.append((name, f"{part.rows:,}", f"{about['clicks'][name] / part.rows:.4f}"))
    yield from columns(rows)
    how = f"hashes into {options['hash_bins']:,} bins" if options["hash_bins"] else f"min_count {options['min_count']}"
    yield f"{sum(made.vocabulary):,} ids in {len(made.vocabulary)} fields ({how})"
    cells = [f"{field.name} {field.ids:,}" if field.ids else f"{field.name} a number" for field in made.fields]
    for start in range(0, len(cells), 6):
        yield "  " + "".join(f"{cell:<18}" for cell in cells[start : start + 6]).rstrip()
    malformed = sum(source["malformed"] for source in about["sources"].values())
    where = f": see {made.folder / 'malformed.tsv'}" if malformed else ""
    yield f"{malformed:,} malformed line{'s' * (malformed != 1)}{where}"
