"""Every pruning method on the pretrained ResNet-20, with one budget: 8 x 8 blocks, 70 and 80 % of them dropped.

    python -m sparseopt.experiments.prune_cifar                              tuning and all runs: more than an hour
    python -m sparseopt.experiments.prune_cifar --methods ac/dc --seeds 1    some of them
    python -m sparseopt.experiments.prune_cifar --table --figure cifar.png   what is known so far

Budget: 320 batches of 64 augmented training images (lossy ones, see `cifar`), about 0.4 epochs, with the optimizer and
the learning rates of `fine_tuning`. "dense" is the network fine-tuned as long without pruning.

Tuning: each method has four candidates in `fine_tuning.CANDIDATES`, which differ in phases, in the learning rate of the
logits or in the strength of the penalty. One run of each at 80 %, with a seed of its own, trains on 45,000 training
images; the best accuracy on the other 5,000 decides. The pretrained network has seen those too, whatever the method.

Accuracy is that on the 1,000 exact test images (standard error of that sample 0.9 points or more, but the images are
the same for all methods), and on all 10,000 as JPEG, which is lower and not comparable with it. Every finished run is
one JSON line in `--runs`; runs that are there are not repeated, so the script may be stopped and started.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from sparseopt.experiments.bench_solvers import environment
from sparseopt.experiments.cifar import Images, load_test_jpeg, load_test_lossless, load_train
from sparseopt.experiments.fine_tuning import Budget, Candidate, accuracy, candidates, dropped, fine_tune, pretrained
from sparseopt.nn import METHODS

__all__ = ["Row", "Runs", "best", "figure", "main", "rows_of", "run", "table", "tune"]

SPARSITIES = (0.8, 0.7)
TUNED_AT = 0.8
TUNING_SEED = 1000
HELD_OUT = 5000
TESTS = {"lossless": "1,000 exact", "jpeg": "10,000 JPEG"}
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73")

Record = dict[str, Any]


class Runs:
    """Finished runs, one JSON line each in a file that only grows.

    A record has what was asked for (method, candidate, sparsity, seed, budget, part) and what came out of it; part is
    "tuning" or "test".
    """

    ASKED = ("part", "method", "candidate", "sparsity", "seed", "budget")

    def __init__(self, file: Path) -> None:
        self.file = file
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        self.records: list[Record] = []
        for line in text.splitlines():
            with suppress(ValueError):  # the line that a killed process left half written
                self.records.append(json.loads(line))
        self._gap = "" if text.endswith("\n") or not text else "\n"

    def find(self, **asked: Any) -> Record | None:
        """The last finished run that was asked for so, None if there is none."""
        return next((each for each in reversed(self.records) if asked == {key: each[key] for key in self.ASKED}), None)

    def get(self, work: Callable[[], Record], **asked: Any) -> Record:
        """The record of a run: known, or made by `work`. What `work` raises is a result too, but not kept."""
        known = self.find(**asked)
        if known is not None:
            return known
        began = time.perf_counter()
        try:
            record = {**asked, **work()}
        except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
            print(f"{asked}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            return {**asked, "failed": f"{type(error).__name__}: {error}"}
        record["seconds"] = round(time.perf_counter() - began, 1)
        self.records.append(record)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as file:
            file.write(self._gap + json.dumps(record) + "\n")
        self._gap = ""
        return record


class Data(NamedTuple):
    """The images of a study, and the folder that they and the network come from."""

    folder: Path
    train: Images
    lossless: Images
    jpeg: Images

    @classmethod
    def load(cls, folder: Path, cache: Path | None) -> Data:
        """Everything that the data folder has."""
        return cls(folder, load_train(folder, cache), load_test_lossless(folder), load_test_jpeg(folder))

    def split(self, held_out: int) -> tuple[Images, Images]:
        """Training images without `held_out` of them, and these: the same ones every time."""
        order = np.random.default_rng(0).permutation(len(self.train.labels))
        return self.train.take(order[held_out:]), self.train.take(order[:held_out])


def tune(method: str, data: Data, budget: Budget, runs: Runs) -> list[Record]:
    """One run of each candidate, on training images only: records with "validation"."""
    images, held_out = data.split(min(HELD_OUT, len(data.train.labels) // 10))

    def work(candidate: Candidate) -> Record:
        model = fine_tune(pretrained(data.folder), images, method, candidate, TUNED_AT, TUNING_SEED, budget)
        return {"validation": accuracy(model, held_out, budget.bfloat16), "dropped": dropped(model)}

    asked = {"part": "tuning", "method": method, "sparsity": TUNED_AT, "seed": TUNING_SEED, "budget": asdict(budget)}
    return [runs.get(partial(work, each), **asked, candidate=str(each)) for each in candidates(method)]


def best(method: str, tuned: Sequence[Record]) -> Candidate | None:
    """The candidate with the best validation, the first of equals; None if all have failed."""
    known = {record["candidate"]: record["validation"] for record in tuned if "validation" in record}
    tried = [each for each in candidates(method) if str(each) in known]
    return max(tried, key=lambda each: known[str(each)], default=None)


def run(
    method: str, candidate: Candidate, sparsity: float, seed: int, data: Data, budget: Budget, runs: Runs
) -> Record:
    """One run on all training images: a record with "lossless" and "jpeg", accuracies on the two test sets."""

    def work() -> Record:
        model = fine_tune(pretrained(data.folder), data.train, method, candidate, sparsity, seed, budget)
        tests = {name: accuracy(model, getattr(data, name), budget.bfloat16) for name in TESTS}
        return {**tests, "dropped": dropped(model)}

    asked = {"method": method, "sparsity": sparsity, "seed": seed, "budget": asdict(budget)}
    return runs.get(work, part="test", **asked, candidate=str(candidate))


# -- what is printed ---------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """A method at one sparsity: mean and standard error over the seeds, in percent, on the two test sets."""

    method: str
    sparsity: float
    seeds: int
    lossless: float
    lossless_error: float
    jpeg: float
    jpeg_error: float
    dropped: float
    validation: float | None
    candidate: str


def rows_of(records: Sequence[Record], budget: Budget) -> list[Row]:
    """One row per method and sparsity, of the candidate that tuning prefers; best on the exact images first."""
    mine = [record for record in records if record["budget"] == asdict(budget)]
    rows = []
    for method in dict.fromkeys(record["method"] for record in mine):
        tuned = [record for record in mine if (record["part"], record["method"]) == ("tuning", method)]
        chosen = str(best(method, tuned) or candidates(method)[0])
        validation = next((record["validation"] for record in tuned if record["candidate"] == chosen), None)
        for sparsity in sorted({record["sparsity"] for record in mine if record["method"] == method}):
            wanted = ("test", method, sparsity, chosen)
            found = {
                record["seed"]: record
                for record in mine
                if (record["part"], record["method"], record["sparsity"], record["candidate"]) == wanted
            }
            if found:
                lossless, jpeg = (_mean_and_error([each[name] for each in found.values()]) for name in TESTS)
                share = float(np.mean([each["dropped"] for each in found.values()]))
                rows.append(Row(method, sparsity, len(found), *lossless, *jpeg, share, validation, chosen))
    return sorted(rows, key=lambda row: (row.sparsity, -row.lossless))


def _mean_and_error(shares: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error, in percent; nan for the error of one number."""
    percent = 100.0 * np.array(shares)
    error = float(percent.std(ddof=1) / np.sqrt(len(percent))) if len(percent) > 1 else float("nan")
    return float(percent.mean()), error


def table(rows: Sequence[Row]) -> str:
    """One line per row; the best of the pruned networks first at each sparsity."""
    lines = [("", "asked", "zeros", "seeds", *TESTS.values(), "validation", "")]
    for row in rows:
        exact, jpeg = (
            f"{mean:.2f} +- {error:.2f}"
            for mean, error in ((row.lossless, row.lossless_error), (row.jpeg, row.jpeg_error))
        )
        validation = "-" if row.validation is None else f"{100.0 * row.validation:.1f}"
        shares = (f"{row.sparsity:.2f}", f"{row.dropped:.3f}")
        lines.append((row.method, *shares, str(row.seeds), exact, jpeg, validation, row.candidate))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    left = (0, len(widths) - 1)
    text = []
    for line in lines:
        pairs = enumerate(zip(line, widths, strict=True))
        text.append("  ".join(cell.ljust(w) if i in left else cell.rjust(w) for i, (cell, w) in pairs).rstrip())
    return "\n".join(text)


def figure(rows: Sequence[Row], file: Path) -> None:
    """Means and standard errors of all methods, one panel per test set, one colour per sparsity."""
    from matplotlib.figure import Figure

    order = sorted(rows, key=lambda row: (-row.sparsity, row.lossless))
    methods = list(dict.fromkeys(row.method for row in order))
    sparsities = sorted({row.sparsity for row in rows})
    picture = Figure(figsize=(8.0, 1.0 + 0.28 * len(methods)), layout="constrained")
    panels = picture.subplots(1, len(TESTS), sharey=True)
    for ax, (name, what) in zip(panels, TESTS.items(), strict=True):
        for number, sparsity in enumerate(sparsities):
            mine = [row for row in rows if row.sparsity == sparsity]
            ax.errorbar(
                [getattr(row, name) for row in mine],
                [methods.index(row.method) for row in mine],
                xerr=np.nan_to_num([getattr(row, f"{name}_error") for row in mine]),
                fmt="o",
                markersize=4,
                color=COLOURS[number % len(COLOURS)],
                label=f"{100 * sparsity:.0f} % dropped" if sparsity else "dense",
            )
        ax.set_xlabel(f"accuracy on {what} test images (%)")
        ax.set_yticks(range(len(methods)), methods)
        ax.grid(axis="x", alpha=0.3)
    # Over the panels: markers of a legend inside would look like results.
    picture.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    picture.savefig(file, dpi=150)


# -- the script --------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study; see `--help`."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    budget = Budget(options.steps, options.batch, bfloat16=options.bfloat16)
    runs = Runs(options.runs)
    if not options.table:
        _study(options, budget, runs)
    rows = rows_of(runs.records, budget)
    print(table(rows), flush=True)
    if options.figure is not None and rows:
        figure(rows, options.figure)
    if options.json is not None:
        about = environment([], options.threads)
        about["versions"]["torch"] = torch.__version__
        result = {"environment": about, "budget": asdict(budget), "rows": [row._asdict() for row in rows]}
        options.json.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return 0


def _study(options: argparse.Namespace, budget: Budget, runs: Runs) -> None:
    """Tuning and all runs that are not in the file yet; seed by seed, so that an early table has all methods."""
    data = Data.load(options.data, options.cache)
    before = {name: accuracy(pretrained(data.folder), getattr(data, name)) for name in TESTS}
    scores = ", ".join(f"{before[name]:.4f} on {what}" for name, what in TESTS.items())
    print(f"the pretrained network: {scores}", flush=True)
    chosen: dict[str, Candidate | None] = {}
    for seed in range(options.seeds):
        for sparsity in options.sparsities:
            for method in options.methods:
                if method not in chosen:
                    tuned = tune(method, data, budget, runs) if method != "dense" else []
                    chosen[method] = best(method, tuned) if method != "dense" else candidates(method)[0]
                candidate = chosen[method]
                if candidate is not None:
                    record = run(method, candidate, sparsity if method != "dense" else 0.0, seed, data, budget, runs)
                    print(json.dumps({key: record[key] for key in record if key != "budget"}), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sparseopt.experiments.prune_cifar",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = ["dense", *METHODS]
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), metavar="FOLDER", help="real data")
    parser.add_argument("--runs", type=Path, default=Path("prune_cifar.jsonl"), metavar="FILE", help="finished runs")
    parser.add_argument("--cache", type=Path, metavar="FILE", help="keeps decoded training images (.npy)")
    parser.add_argument("--methods", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--sparsities", nargs="+", type=float, default=SPARSITIES, metavar="S", help="default 0.8 0.7")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each (default 3)")
    parser.add_argument("--steps", type=int, default=Budget.steps, metavar="N", help=f"default {Budget.steps}")
    parser.add_argument("--batch", type=int, default=Budget.batch, metavar="N", help=f"images (default {Budget.batch})")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of torch (default 1)")
    parser.add_argument("--bfloat16", action="store_true", help="autocast: twice as fast on processors that have it")
    parser.add_argument("--table", action="store_true", help="run nothing, print what is known")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the table")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
