"""What pruning costs a training step: time and memory against the same network trained dense.

    python -m sparseopt.experiments.bench_nn_overhead                              all cases: about ten minutes
    python -m sparseopt.experiments.bench_nn_overhead --cases click --repeats 40 --json overhead.json
    python -m sparseopt.experiments.bench_nn_overhead --method ac/dc --profile     and where the time goes

    resnet50     ResNet-50, 16 images of 224 x 224, SGD with momentum, all layers of 100 blocks and more
    click        the network for Criteo, 4096 rows, Adam, its first dense layer pruned
    click-all    the same, all its dense layers of 100 blocks and more

Time: both networks live in one process and take steps in turn (A B A B ...). A ratio is that of two neighbours, so a
slow minute of the machine slows both; the table has the median of the ratios and the quartiles, and the ratio of all
steps together, which counts the dearest ones. The pruned network is in a sparsify phase of 300 steps, where logits
train and the blocks are chosen anew every third step: no phase costs more.

Memory: the largest resident set of a fresh process that trains one network for a few steps, interpreter and libraries
included, over that of a process that trains the dense one; the table has the median over fresh processes. "added" is
the difference, over the bytes of the pruned weights.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sparseopt.experiments.bench_solvers import environment
from sparseopt.experiments.networks import click_model, resnet50
from sparseopt.nn import METHODS, PhaseSchedule, plan, prune

__all__ = ["CASES", "Case", "Row", "main", "memory", "peak", "step_times", "table"]

TIME, MEMORY = 1.10, 1.15  # targets
SPARSITY = 0.9
WARM = 2  # dense steps, not timed

# Values of the 26 categorical fields in 110,824 rows of Criteo's data, after 13 fields of numbers in 40 classes.
VOCABULARY = (
    *[40] * 13,
    *(563, 515, 50985, 27340, 142, 12, 8188, 266, 3, 12655, 3939, 46644, 2884),
    *(26, 5529, 38613, 10, 2697, 1285, 4, 43323, 13, 14, 12846, 53, 9778),
)


class Case(NamedTuple):
    """A network, its loss on one batch, its optimizer, the blocks to try and the layers to leave out."""

    model: Callable[[], nn.Module]
    batch: Callable[[int], tuple[Tensor, Tensor]]
    loss: Callable[[Tensor, Tensor], Tensor]
    optimizer: Callable[[Any], torch.optim.Optimizer]
    size: int
    blocks: tuple[int, ...]
    exclude: tuple[str, ...] = ()


def _images(n: int) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 3, 224, 224), torch.randint(0, 1000, (n,))


def _clicks(n: int) -> tuple[Tensor, Tensor]:
    rows = torch.stack([torch.randint(0, size, (n,)) for size in VOCABULARY], 1)
    return rows, torch.randint(0, 2, (n,)).float()


def _sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, weight_decay=1e-4)


def _adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3)


_CLICK = Case(
    lambda: click_model(VOCABULARY), _clicks, nn.functional.binary_cross_entropy_with_logits, _adam, 4096, (5, 10, 20)
)
CASES = {
    "resnet50": Case(resnet50, _images, nn.functional.cross_entropy, _sgd, 16, (16, 32)),
    "click": _CLICK._replace(exclude=("dense.2", "dense.4", "dense.6")),
    "click-all": _CLICK,
}


@dataclass(frozen=True)
class Row:
    """The cost of one case: seconds of a dense step, ratios of time, megabytes of the dense run, ratio of memory."""

    case: str
    block: int
    method: str
    seconds: float
    time: float
    low: float
    high: float
    total: float
    megabytes: float | None = None
    memory: float | None = None
    added: float | None = None

    @property
    def passed(self) -> bool:
        """Whether both ratios reach their targets."""
        return self.time <= TIME and (self.memory is None or self.memory <= MEMORY)


# -- steps -------------------------------------------------------------------------------------------------------------


def trainer(case: Case, method: str | None, block: int, size: int) -> Callable[[], float]:
    """A function that takes one step and returns its seconds; dense if `method` is None."""
    torch.manual_seed(0)
    model = case.model()
    optimizer = case.optimizer(model.parameters())
    if method is not None:
        phases = PhaseSchedule.from_list([("dense", WARM), ("sparsify", 300), ("sparse", 100)])
        prune(model, optimizer, method, SPARSITY, block, schedule=phases, exclude=case.exclude)
    x, y = case.batch(size)

    def step() -> float:
        began = time.perf_counter()
        optimizer.zero_grad()
        case.loss(model(x), y).backward()
        optimizer.step()
        return time.perf_counter() - began

    return step


def step_times(case: Case, method: str, block: int, size: int, repeats: int) -> tuple[list[float], list[float]]:
    """Seconds of dense and pruned steps, taken in turn."""
    dense, pruned = trainer(case, None, block, size), trainer(case, method, block, size)
    for _ in range(WARM):
        dense()
        pruned()
    pairs = [(dense(), pruned()) for _ in range(repeats)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def peak() -> int:
    """The largest resident set of this process so far, in bytes.

    Linux lets a new process inherit the `ru_maxrss` of the one that started it, so its own mark is read where there is
    one.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _measure(pipe: Any, name: str, method: str | None, block: int, size: int, threads: int) -> None:
    torch.set_num_threads(threads)
    step = trainer(CASES[name], method, block, size)
    for _ in range(WARM + 4):
        step()
    pipe.send(peak())


def memory(name: str, method: str | None, block: int, size: int, threads: int) -> int:
    """Bytes of the largest resident set of a fresh process that takes six steps."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(theirs, name, method, block, size, threads))
    process.start()
    theirs.close()
    try:
        return int(ours.recv())
    except EOFError:
        raise RuntimeError(f"the process that measures {name} died: see its error above.") from None
    finally:
        process.join()
        ours.close()


# -- the run -----------------------------------------------------------------------------------------------------------


def compare(name: str, method: str, block: int, options: argparse.Namespace) -> Row:
    """Time and memory of one case."""
    case = CASES[name]
    size = options.batch or case.size
    row = row_of(name, block, method, *step_times(case, method, block, size, options.repeats))
    if not options.processes:
        return row
    dense, pruned = [], []
    for _ in range(options.processes):
        dense.append(memory(name, None, block, size, options.threads))
        pruned.append(memory(name, method, block, size, options.threads))
    weights = sum(layer.grid.numel for layer in plan(case.model(), SPARSITY, block, exclude=case.exclude).layers)
    return with_memory(row, dense, pruned, 4 * weights)


def row_of(name: str, block: int, method: str, dense: Sequence[float], pruned: Sequence[float]) -> Row:
    """The row of steps taken in turn.

    >>> row = row_of("click", 5, "ac/dc", [1.0, 2.0, 1.0], [1.5, 2.0, 1.1])
    >>> row.seconds, row.time, round(row.total, 3), row.passed
    (1.0, 1.1, 1.15, True)
    """
    ratios = np.array(pruned) / np.array(dense)
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    total = float(np.sum(pruned) / np.sum(dense))
    return Row(name, block, method, float(np.median(dense)), float(middle), float(low), float(high), total)


def with_memory(row: Row, dense: Sequence[int], pruned: Sequence[int], weights: int) -> Row:
    """The row with the memory of fresh processes, in bytes; `weights` is the size of the pruned weights."""
    before, after = float(np.median(dense)), float(np.median(pruned))
    return replace(row, megabytes=before / 1e6, memory=after / before, added=(after - before) / weights)


def table(rows: Sequence[Row]) -> str:
    """One line per case and block, with pass or fail."""
    header = ("", "block", "method", "dense s", "time", "quartiles", "total", "MB", "memory", "added", "")
    lines: list[tuple[str, ...]] = [header]
    for row in rows:
        quartiles = f"{row.low:.3f}-{row.high:.3f}"
        used = [_cell(row.megabytes, ".0f"), _cell(row.memory, ".3f"), _cell(row.added, ".1f")]
        verdict = "pass" if row.passed else "FAIL"
        times = [f"{row.seconds:.3g}", f"{row.time:.3f}", quartiles, f"{row.total:.3f}"]
        lines.append((row.case, str(row.block), row.method, *times, *used, verdict))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    left = (0, 2, 10)
    text = [
        "  ".join(
            cell.ljust(w) if i in left else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return (
        "\n".join(line.rstrip() for line in text) + f"\ntargets: time at most {TIME:.2f}, memory at most {MEMORY:.2f}"
    )


def _cell(value: float | None, how: str) -> str:
    return "-" if value is None else format(value, how)


def profile(case: Case, method: str, block: int, size: int, steps: int = 3) -> str:
    """The operators that take longest, dense and then pruned: seconds of `steps` steps."""
    text = []
    for each in (None, method):
        step = trainer(case, each, block, size)
        for _ in range(WARM):
            step()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as record:
            for _ in range(steps):
                step()
        text += [each or "dense", record.key_averages().table(sort_by="self_cpu_time_total", row_limit=15)]
    return "\n".join(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; see `--help`. The exit status is 1 where a target is missed."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    about = environment([], options.threads)
    about["versions"]["torch"] = torch.__version__
    print(json.dumps(about))
    rows = []
    for name in options.cases:
        for block in options.blocks or CASES[name].blocks:
            rows.append(compare(name, options.method, block, options))
            print(f"\n{table(rows[-1:])}", file=sys.stderr, flush=True)
            if options.profile:
                print(profile(CASES[name], options.method, block, options.batch or CASES[name].size), flush=True)
    print(f"\n{table(rows)}", flush=True)
    if options.json is not None:
        result = {"environment": about, "rows": [asdict(row) | {"passed": row.passed} for row in rows]}
        options.json.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return 0 if all(row.passed for row in rows) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sparseopt.experiments.bench_nn_overhead",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = list(CASES)
    parser.add_argument("--cases", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument(
        "--method", choices=METHODS, default="sequential-attention++", metavar="NAME", help="one method"
    )
    parser.add_argument(
        "--blocks", nargs="+", type=int, metavar="B", help="sizes (default 16 and 32; clicks 5, 10, 20)"
    )
    parser.add_argument("--repeats", type=int, default=15, metavar="N", help="pairs of timed steps (default 15)")
    parser.add_argument(
        "--processes", type=int, default=1, metavar="N", help="per memory figure, 0 for none (default 1)"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), metavar="N", help="of torch")
    parser.add_argument("--batch", type=int, metavar="N", help="rows or images (default 16 images, 4096 rows)")
    parser.add_argument("--profile", action="store_true", help="also print which operators take the time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
