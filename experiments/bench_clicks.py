"""How fast raw clicks become columns and columns become batches, and in how much memory.

    python -m sparseopt.experiments.bench_clicks                                         1, 5 and 20 million rows
    python -m sparseopt.experiments.bench_clicks --rows 1e6 --folder /tmp/clicks --json clicks.json
    python -m sparseopt.experiments.bench_clicks --rows 1e6 --hash-bins 100000 --plain

Rows are made by `clicks.synthetic` and removed afterwards: a million takes 110 MB packed (250 MB with --plain), and
its conversion 100 MB of staging and 60 MB of columns at most at the same time.

    convert    from the packed file to the finished folder, protocol x1, every step included; rows per second
    CPU        seconds of all threads of the conversion, per million rows: what does not depend on who else computes
    load       one epoch of shuffled batches of 4096 rows, as training reads them; rows per second
    memory     the largest resident set of a fresh process that converts, or loads, with its children: all of it, and
               without pages of files that are mapped, which the system takes back when it needs room

Each size runs in processes of its own. The table says whether the targets are met: memory, that a row of the largest
file takes no longer than one of the smallest by more than a quarter, and a million rows loaded per second.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sparseopt.console import columns
from sparseopt.experiments.bench_solvers import environment
from sparseopt.experiments.clicks.batches import Batches
from sparseopt.experiments.clicks.columns import Columns
from sparseopt.experiments.clicks.conversion import convert
from sparseopt.experiments.clicks.synthetic import write_raw

__all__ = ["Row", "main", "measured", "table"]

MEMORY, SLOWER, LOADED = 2 << 30, 1.25, 1e6  # targets
BATCH = 4096
_INTERVAL = 0.05  # seconds between looks at a process


@dataclass(frozen=True)
class Row:
    """What was measured on one size; bytes and seconds."""

    rows: int
    raw_bytes: int
    convert_seconds: float
    convert_cpu: float
    convert_memory: int
    convert_own: int
    load_seconds: float
    load_memory: int
    load_own: int
    columns_bytes: int
    load_average: float  # of the machine, when it began


def measured(task: str, *arguments: str) -> dict[str, Any]:
    """What a fresh process says about `task`, and its memory: "memory" and "own", the largest seen, in bytes."""
    command = [sys.executable, "-m", "sparseopt.experiments.bench_clicks", "--task", task, *arguments]
    memory = own = 0
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said)
        while process.poll() is None:
            with contextlib.suppress(OSError):  # a process has just ended
                resident, mapped = zip(*map(_resident, _tree(process.pid)), strict=True)
                memory, own = max(memory, sum(resident)), max(own, sum(resident) - sum(mapped))
            time.sleep(_INTERVAL)
        if process.returncode:
            raise RuntimeError(f"the process for {task} ended with status {process.returncode}: see its error above.")
        said.seek(0)
        result = json.loads(said.read().splitlines()[-1])
    return {**result, "memory": max(memory, result.pop("peak", 0)), "own": own}


def _tree(pid: int) -> list[int]:
    """A process and all that it has started; without /proc, itself."""
    children = [int(word) for file in Path(f"/proc/{pid}/task").glob("*/children") for word in file.read_text().split()]
    return [pid, *(each for child in children for each in _tree(child))]


def _resident(pid: int) -> tuple[int, int]:
    """Bytes in memory of a process, and how many of them are pages of files; 0 without /proc."""
    status = Path(f"/proc/{pid}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    found = {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines if line.startswith("Rss")}
    return sum(found.values()), found.get("RssFile", 0)


def _peak() -> int:
    """The largest resident set of this process so far; 0 without /proc, since `ru_maxrss` begins with the parent's."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


# -- tasks, each in a process of its own -------------------------------------------------------------------------------


def make(path: str, rows: str) -> dict[str, Any]:
    write_raw(Path(path), int(rows))
    return {"bytes": Path(path).stat().st_size}


def conversion(raw: str, folder: str, hash_bins: str) -> dict[str, Any]:
    began, cpu = time.perf_counter(), time.process_time()
    convert(raw, folder, protocol="x1", hash_bins=int(hash_bins) or None, progress=None)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return {"seconds": seconds, "cpu": cpu, "bytes": size, "peak": _peak()}


def loading(folder: str) -> dict[str, Any]:
    part = Columns.open(Path(folder)).part("train")
    batches = Batches(part, BATCH, seed=0)
    rows = 0
    began = time.perf_counter()
    for batch in batches.epoch(0):
        rows += len(batch.labels)
    return {"rows": rows, "seconds": time.perf_counter() - began, "peak": _peak()}


TASKS: dict[str, Callable[..., dict[str, Any]]] = {"make": make, "convert": conversion, "load": loading}


# -- the run -----------------------------------------------------------------------------------------------------------


def measure(rows: int, folder: Path, hash_bins: int, plain: bool) -> Row:
    """Make, convert and load; what was made is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    load_average = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=folder) as name:
        raw, out = Path(name, "rows.tsv" if plain else "rows.tsv.gz"), Path(name, "columns")
        raw_bytes = measured("make", str(raw), str(rows))["bytes"]
        converted = measured("convert", str(raw), str(out), str(hash_bins))
        loaded = measured("load", str(out))
        return Row(
            rows,
            raw_bytes,
            converted["seconds"],
            converted["cpu"],
            converted["memory"],
            converted["own"],
            loaded["seconds"] * rows / loaded["rows"],
            loaded["memory"],
            loaded["own"],
            converted["bytes"],
            load_average,
        )


def table(rows: Sequence[Row]) -> str:
    """One line per size, and the targets.

    >>> row = Row(1_000_000, 10**8, 4.0, 7.0, 10**9, 5 * 10**8, 0.5, 10**9, 5 * 10**8, 6 * 10**7, 0.1)
    >>> print(table([row]))
         rows  convert/s  CPU s/M  MiB  own MiB     load/s  MiB  own MiB  bytes/row
    1,000,000    250,000      7.0  954      477  2,000,000  954      477         60
    memory 954 MiB of at most 2048: pass
    a row of the largest file takes 1.00 times one of the smallest, at most 1.25: pass
    2,000,000 rows/s loaded, at least 1,000,000: pass
    """
    lines = [("rows", "convert/s", "CPU s/M", "MiB", "own MiB", "load/s", "MiB", "own MiB", "bytes/row")]
    for row in rows:
        lines.append(
            (
                f"{row.rows:,}",
                f"{row.rows / row.convert_seconds:,.0f}",
                f"{1e6 * row.convert_cpu / row.rows:.1f}",
                f"{round(row.convert_memory / 2**20)}",
                f"{round(row.convert_own / 2**20)}",
                f"{row.rows / row.load_seconds:,.0f}",
                f"{round(row.load_memory / 2**20)}",
                f"{round(row.load_own / 2**20)}",
                f"{row.columns_bytes / row.rows:.0f}",
            )
        )
    told = [f"{what}: {'pass' if passed else 'FAIL'}" for what, passed in targets(rows)]
    return "\n".join([*columns(lines, indent="", left=0), *told])


def targets(rows: Sequence[Row]) -> list[tuple[str, bool]]:
    """What was asked for, and whether it is so."""
    memory = max(max(row.convert_memory, row.load_memory) for row in rows)
    first, last = min(rows, key=lambda row: row.rows), max(rows, key=lambda row: row.rows)
    slower = (last.convert_seconds / last.rows) / (first.convert_seconds / first.rows)
    loaded = min(row.rows / row.load_seconds for row in rows)
    return [
        (f"memory {round(memory / 2**20)} MiB of at most {MEMORY >> 20}", memory <= MEMORY),
        (f"a row of the largest file takes {slower:.2f} times one of the smallest, at most {SLOWER}", slower <= SLOWER),
        (f"{loaded:,.0f} rows/s loaded, at least {LOADED:,.0f}", loaded >= LOADED),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; see `--help`. The exit status is 1 where a target is missed."""
    options = _parser().parse_args(arguments)
    if options.task:
        print(json.dumps(TASKS[options.task](*options.words)))
        return 0
    about = environment([], os.cpu_count() or 1)
    print(json.dumps(about), flush=True)
    rows: list[Row] = []
    for count in options.rows:
        rows.append(measure(int(count), options.folder, options.hash_bins, options.plain))
        print(f"\n{table(rows[-1:])}", file=sys.stderr, flush=True)
        if options.json is not None:
            result = {"environment": about, "rows": [asdict(row) for row in rows]}
            options.json.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(f"\n{table(rows)}", flush=True)
    return 0 if all(passed for _, passed in targets(rows)) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sparseopt.experiments.bench_clicks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--rows", nargs="+", type=float, default=[1e6, 5e6, 20e6], metavar="N", help="sizes (1e6 5e6 20e6)")
    add(
        "--folder",
        type=Path,
        default=Path(tempfile.gettempdir()),
        metavar="DIR",
        help="where to (that of temporary files)",
    )
    add("--hash-bins", type=int, default=0, metavar="N", help="hash ids instead of counting values")
    add("--plain", action="store_true", help="raw rows are not packed")
    add("--json", type=Path, metavar="FILE", help="write all numbers to this file")
    add("--task", choices=TASKS, help=argparse.SUPPRESS)
    add("words", nargs="*", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
