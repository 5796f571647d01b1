"""Which blocks pruning finds when the true ones are known.

    python -m sparseopt.experiments.planted_teacher                        all methods, 10 seeds: half an hour
    python -m sparseopt.experiments.planted_teacher --quick                3 methods, 3 seeds: a minute or two
    python -m sparseopt.experiments.planted_teacher --methods ac/dc rigl --json results.json

A teacher y = V relu(W x) + noise has a first layer W of 64 x 256 with few nonzero blocks of 8 x 8. The student has the
same shape and the teacher's V, and learns W from 500 samples by Adam with a cosine schedule, 1200 steps of 64 samples.
Every method has the same steps and the same tuning: the one of its three candidate settings whose folded network has
the smallest loss on fresh data, over tuning seeds that are not used again. The candidates are learning rates, or
strengths for the methods that have one.

    found     share of the true blocks among those kept, as many as there are true ones; chance is the density
    loss      squared error on fresh data over the variance of y, after folding; the noise alone is .01
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor, nn

from sparseopt.nn import METHODS, kept_blocks, prune

__all__ = ["LEARNING_RATES", "Row", "Teacher", "compare", "main", "table", "teacher", "train", "tune"]

OUTPUTS, HIDDEN, INPUTS, BLOCK = 16, 64, 256, 8
SAMPLES, FRESH, NOISE = 500, 1000, 0.1
STEPS, BATCH = 1200, 64
SPARSITIES = (0.8, 0.9, 0.95)

Setting = Mapping[str, Any]
LEARNING_RATES: tuple[Setting, ...] = ({"lr": 3e-3}, {"lr": 1e-2}, {"lr": 3e-2})
# Attention between 0 and 1 / density has farther to go than weights of size .1: its logits move ten times as fast.
FAST_LOGITS = tuple({**setting, "logit_lr": 10.0} for setting in LEARNING_RATES)
STRENGTHS: tuple[Setting, ...] = tuple({"lr": 1e-2, "lam": lam} for lam in (3e-4, 3e-3, 3e-2))
CANDIDATES: Mapping[str, tuple[Setting, ...]] = {
    "sequential-attention++": FAST_LOGITS,
    "expm1": FAST_LOGITS,
    "masked-l1": STRENGTHS,
    "group-lasso": STRENGTHS,
    "proximal": tuple({**setting, "q": "log"} for setting in STRENGTHS),
}


@dataclass(frozen=True)
class Teacher:
    """Data of one seed: inputs x, outputs y, the same for validation, the true blocks, and the second layer V."""

    x: Tensor
    y: Tensor
    x_fresh: Tensor
    y_fresh: Tensor
    blocks: Tensor
    second: Tensor


@dataclass(frozen=True)
class Row:
    """A method at a sparsity: means over seeds, with the standard error of `found`."""

    method: str
    sparsity: float
    setting: Mapping[str, Any]
    found: float
    error: float
    loss: float


def teacher(seed: int, sparsity: float) -> Teacher:
    """A teacher with random blocks, entries, inputs and noise.

    >>> int(teacher(0, 0.9).blocks.sum()), teacher(0, 0.9).blocks.shape
    (25, torch.Size([8, 32]))
    """
    source = torch.Generator().manual_seed(seed)
    counts = (HIDDEN // BLOCK, INPUTS // BLOCK)
    n_blocks = counts[0] * counts[1]
    blocks = torch.zeros(n_blocks, dtype=torch.bool)
    blocks[torch.randperm(n_blocks, generator=source)[: kept_blocks(n_blocks, sparsity)]] = True
    blocks = blocks.view(counts)
    first = torch.randn(HIDDEN, INPUTS, generator=source) * blocks.repeat_interleave(BLOCK, 0).repeat_interleave(
        BLOCK, 1
    )
    first /= first.square().sum(1).mean().sqrt()
    second = torch.randn(OUTPUTS, HIDDEN, generator=source) / HIDDEN**0.5
    x = torch.randn(SAMPLES + FRESH, INPUTS, generator=source)
    y = torch.relu(x @ first.T) @ second.T
    y += NOISE * y.std() * torch.randn(y.shape, generator=source)
    return Teacher(x[:SAMPLES], y[:SAMPLES], x[SAMPLES:], y[SAMPLES:], blocks, second)


def train(method: str, seed: int, sparsity: float, setting: Setting, steps: int = STEPS) -> tuple[float, float]:
    """Share of the true blocks found, and the loss on fresh data, with a learning rate and settings of `prune`."""
    truth = teacher(seed, sparsity)
    torch.manual_seed(seed)
    student = nn.Sequential(nn.Linear(INPUTS, HIDDEN, bias=False), nn.ReLU(), nn.Linear(HIDDEN, OUTPUTS, bias=False))
    student[2].load_state_dict({"weight": truth.second})
    student[2].requires_grad_(False)
    settings = dict(setting)
    optimizer = torch.optim.Adam(student[0].parameters(), lr=settings.pop("lr"))
    s = prune(student, optimizer, method, sparsity, BLOCK, steps, min_blocks=2, exclude=["2"], **settings)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        batch = torch.randint(SAMPLES, (BATCH,))
        optimizer.zero_grad()
        (student(truth.x[batch]) - truth.y[batch]).square().mean().backward()
        optimizer.step()
        schedule.step()
    s.fold()
    first = student.state_dict()["0.weight"]
    kept = first.unflatten(0, (-1, BLOCK)).unflatten(2, (-1, BLOCK)).abs().amax((1, 3)) > 0.0
    with torch.no_grad():
        loss = (student(truth.x_fresh) - truth.y_fresh).square().mean() / truth.y_fresh.var()
    return float((kept & truth.blocks).sum() / truth.blocks.sum()), float(loss)


def tune(method: str, sparsity: float, seeds: Sequence[int], steps: int = STEPS) -> Setting:
    """The candidate with the smallest mean loss on fresh data; one that diverges is out."""
    candidates = CANDIDATES.get(method, LEARNING_RATES)
    losses: dict[int, float] = {}
    for number, setting in enumerate(candidates):
        try:
            losses[number] = mean(train(method, seed, sparsity, setting, steps)[1] for seed in seeds)
        except FloatingPointError:
            continue
    if not losses:
        raise FloatingPointError(f"{method} diverges with each of {candidates}: lower the learning rates.")
    return candidates[min(losses, key=losses.__getitem__)]


def compare(method: str, sparsity: float, seeds: int, steps: int = STEPS) -> Row:
    """Tune on three seeds, then run `seeds` others."""
    setting = tune(method, sparsity, range(1000, 1003), steps)
    results = [train(method, seed, sparsity, setting, steps) for seed in range(seeds)]
    found = [share for share, _ in results]
    error = stdev(found) / seeds**0.5 if seeds > 1 else float("nan")
    return Row(method, sparsity, setting, mean(found), error, mean(loss for _, loss in results))


def table(rows: Sequence[Row]) -> str:
    """One line per method: found ± standard error, and loss, for each sparsity."""
    levels = sorted({row.sparsity for row in rows})
    cells = {(row.method, row.sparsity): row for row in rows}
    width = max(len(row.method) for row in rows)
    lines = [" " * width + "".join(f"{f'{100 * level:g} %: found':>20}{'loss':>8}" for level in levels)]
    for method in dict.fromkeys(row.method for row in rows):
        line = method.ljust(width)
        for level in levels:
            row = cells.get((method, level))
            line += f"{'not run':>28}" if row is None else f"{f'{row.found:.3f} ± {row.error:.3f}':>20}{row.loss:>8.3f}"
        lines.append(line)
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment; see `--help`."""
    parser = argparse.ArgumentParser(
        prog="python -m sparseopt.experiments.planted_teacher",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), metavar="NAME", help=", ".join(METHODS))
    parser.add_argument("--sparsities", nargs="+", type=float, default=list(SPARSITIES), metavar="S")
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds after tuning (default 10, quick 3)")
    parser.add_argument("--quick", action="store_true", help="magnitude, AC/DC and SequentialAttention++ with 3 seeds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    options = parser.parse_args(arguments)
    quick = ["magnitude", "ac/dc", "sequential-attention++"]
    methods = options.methods or (quick if options.quick else list(METHODS))
    torch.set_num_threads(1)  # the matrices are small: a second thread costs more than it brings
    rows: list[Row] = []
    for method in methods:
        for sparsity in options.sparsities:
            rows.append(compare(method, sparsity, options.seeds or (3 if options.quick else 10)))
            print(f"{method} at {sparsity:g}: found {rows[-1].found:.3f}, loss {rows[-1].loss:.3f}", flush=True)
    print(table(rows))
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
