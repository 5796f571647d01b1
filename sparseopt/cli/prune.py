"""`sparseopt prune` and `sparseopt sweep`: networks pruned by recipes."""

from __future__ import annotations

import argparse
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from sparseopt.console import columns, positive_integer

__all__ = ["add_prune", "add_sweep", "run_prune", "run_sweep"]

_WORDS = """\
RECIPE is a YAML file, or the name of one that comes with the package: {names}.

key=value replaces a value of the recipe; a key is dotted (training.lr=0.01), or its last part where that is clear
(method=ac/dc, block=10, sparsity=.95, seed=1), and data=PATH names the data.
"""

_PRUNE = """
examples:
  sparseopt prune criteo-laptop data=DIR                         raw TSV files in DIR, to a compressed network
  sparseopt prune criteo-laptop data=DIR method=ac/dc seed=1     another method
  sparseopt prune imagenet-table1 data=DIR method=sequential-attention++ block=16 sparsity=.9 devices=8
  torchrun --nproc-per-node 8 -m sparseopt prune recipe.yaml     processes by torchrun, one or several machines

The same command goes on with a run that was interrupted. The run's folder has its recipe, tables, checkpoints, the
folded network (model.safetensors), the compressed one (fast.safetensors), pictures and result.json.
"""

_SWEEP = """
examples:
  sparseopt sweep criteo-laptop-sweep data=DIR --jobs 2
  sparseopt sweep imagenet-table1 data=DIR --list                the runs and their names

Finished runs are not repeated, interrupted ones go on; `sparseopt table` shows all of them.
"""


def add_prune(parser: argparse.ArgumentParser) -> None:
    """Arguments of `sparseopt prune`."""
    _add_recipe(parser, _PRUNE)
    parser.add_argument("--resume", choices=("auto", "never"), default="auto", help="go on with an earlier run (auto)")
    parser.add_argument("--name", metavar="NAME", help="folder of the run in output.folder (from method, block, ...)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no table")


def add_sweep(parser: argparse.ArgumentParser) -> None:
    """Arguments of `sparseopt sweep`."""
    _add_recipe(parser, _SWEEP)
    parser.add_argument("--jobs", metavar="N", type=positive_integer, default=1, help="runs at a time (1)")
    parser.add_argument("--list", action="store_true", help="only list the runs")


def _add_recipe(parser: argparse.ArgumentParser, words: str) -> None:
    parser.add_argument("recipe", metavar="RECIPE")
    parser.add_argument("overrides", metavar="key=value", nargs="*")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _WORDS.format(names="criteo-laptop, cifar-laptop, imagenet-smoke, ...") + words


def run_prune(args: argparse.Namespace) -> Generator[str, None, int]:
    """One run, and what came out."""
    from sparseopt.experiments.training.engine import Preempted
    from sparseopt.experiments.training.launching import Elsewhere
    from sparseopt.experiments.training.recipes import read_recipe
    from sparseopt.experiments.training.running import run_recipe

    cell = read_recipe(args.recipe, args.overrides).single()
    try:
        result = run_recipe(cell.recipe, args.name or cell.name, args.resume, not args.quiet, _say)
    except Preempted as error:
        yield str(error)
        return 143  # as if SIGTERM had ended it at once
    except Elsewhere:
        return 0  # the status of the first process counts, and it tells why
    if result is not None and not args.quiet:
        yield from describe(result)
        yield from _tables(Path(cell.recipe.output.folder, result["name"]))
    return 0


def _tables(folder: Path) -> Iterator[str]:
    """Write the run beside the paper's tables, and say what the folder has."""
    from sparseopt.experiments.tables import as_markdown, collect, document
    from sparseopt.experiments.tables.cells import KINDS, kind_of

    layers = folder / "compression.txt"
    if layers.is_file():
        yield layers.read_text(encoding="utf-8").rstrip()
    runs = collect(folder)
    tables = [
        as_markdown(document(runs, kind)) for kind in KINDS if any(kind_of(run.settings) == kind for run in runs.runs)
    ]
    if tables:
        (folder / "table.md").write_text("\n".join(tables), encoding="utf-8")
    names = sorted(file.name for file in folder.iterdir() if file.suffix in (".md", ".png", ".safetensors"))
    yield f"{folder} has {', '.join(names)}"


def _say(sentence: str) -> None:
    """Print at once what one should know while a long training goes on."""
    print(sentence, flush=True)


def describe(result: dict[str, Any]) -> Iterator[str]:
    """What a result says, for people."""
    if result.get("diverged"):
        yield f"{result['name']} diverged: {result['diverged']}"
        return
    numbers = {name: float("nan") if value is None else value for name, value in result["metrics"].items()}
    metrics = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in numbers.items())
    yield f"{result['name']}: {metrics}; {result['steps']} steps in {result['seconds']:.0f} s"
    if result["dropped"]:
        yield f"{100.0 * result['dropped']:.1f} % of the weights in the pruned layers are exactly 0"
    fast = result["compressed"]
    if fast and "failed" in fast:
        yield f"not compressed: {fast['failed']}"
    elif fast and fast["dense_ms"] and fast["fast_ms"]:
        yield (
            f"compressed: {fast['dense_ms']:.3g} -> {fast['fast_ms']:.3g} ms for {fast['batch']} examples; metrics "
            f"differ by {fast['difference']:.1e}"
        )


def run_sweep(args: argparse.Namespace) -> Generator[str, None, int]:
    """All runs of a grid; the exit status is 1 if one of them failed."""
    from sparseopt.experiments.training.engine import Preempted
    from sparseopt.experiments.training.recipes import read_recipe
    from sparseopt.experiments.training.sweeping import run_sweep as run

    cells = read_recipe(args.recipe, args.overrides).cells()
    if args.list:
        yield from columns([(cell.name,) for cell in cells])
        return 0
    failed = 0
    try:
        for number, outcome in enumerate(run(cells, args.jobs), start=1):
            done, failure = outcome.result, outcome.failure
            told = f"{outcome.name}: {failure}" if done is None else next(describe(done))
            failed += failure is not None
            yield f"[{number}/{len(cells)}] {told}"
    except Preempted as error:
        yield str(error)
        return 143
    return 1 if failed else 0
