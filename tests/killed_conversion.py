"""Conversions that are killed with SIGKILL or run out of space. A script: tests run it as a process of its own.

    python killed_conversion.py FOLDER TASK ...

    every:N     kill before every N-th operation, convert again to the end, and compare with a conversion in one go
    chain:N     kill after N operations, go on and kill after N more, and so on
    early,TASK  the same with a wrong implementation, which says that a part counts before its rows are written
    limit:WHAT  from the first call of WHAT on, no file may grow beyond a few hundred bytes; then there is room again
    space:SIZE  FOLDER is on a disk with little room; when it is full, it is remounted with SIZE

Operations are what changes names on the disk, and steps in between at which a file is half written or half of the
files are. They are counted, so nothing depends on how fast anything is. This process imports torch and pyarrow once,
and forks the processes that convert. It prints what it saw as JSON.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np

from sparseopt.experiments.clicks import conversion, staging, vocabulary
from sparseopt.experiments.clicks.columns import ColumnsWriter
from sparseopt.experiments.clicks.lines import parsed
from sparseopt.experiments.clicks.synthetic import write_raw

ROWS = 400  # of a staged part
OPTIONS = {"min_count": 2, "rows": ROWS}


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def forked(task: Callable[[], Any], errors: Path) -> int:
    """The status of a process that does `task`: negative for a signal, 1 after an error, which is in `errors`."""
    child = os.fork()
    if not child:
        code = 1
        try:
            task()
            code = 0
        except OSError as error:
            errors.write_text(f"OSError: {error}", encoding="utf-8")
            code = 3
        except BaseException:
            errors.write_text(traceback.format_exc(), encoding="utf-8")
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Counter:
    """Counts operations, and kills this process before the one with number `last`."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8)

    @property
    def count(self) -> int:
        return struct.unpack("q", self._memory[:8])[0]

    @count.setter
    def count(self, value: int) -> None:
        self._memory[:8] = struct.pack("q", value)

    def install(self, last: int) -> None:
        self.count = 0
        for name in ("replace", "rename", "fsync", "unlink", "mkdir", "rmdir"):
            setattr(os, name, self.counted(getattr(os, name), last))
        staging._batch = self.counted(staging._batch, last)  # a file is half written
        ColumnsWriter.write = self.counted(ColumnsWriter.write, last)  # type: ignore[method-assign]
        conversion._malformed = self.counted(conversion._malformed, last)

    def counted(self, call: Callable[..., Any], last: int) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            if self.count == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return wrapped


def early() -> None:
    """A wrong implementation: a part counts before its rows are there."""
    replacing = staging.replacing

    def marked(path: Path) -> Any:
        if path.suffix == ".arrow":
            record = {"rows": 0, "clicks": 0, "lines": 0, "malformed": 0, "end": 10**6}
            path.with_suffix(".json").write_text(json.dumps(record), encoding="utf-8")
        return replacing(path)

    staging.replacing = marked


class Bench:
    """Raw files in a folder, and what they become in one go."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.errors = folder, folder / "error.txt"
        self.errors.write_text("no error", encoding="utf-8")
        self.sources = {"train": folder / "train.tsv.gz", "valid": folder / "valid.tsv"}
        write_raw(self.sources["train"], 2500, seed=4, malformed=6)
        write_raw(self.sources["valid"], 300, seed=4, part=1, malformed=2)
        self.out = folder / "out"
        self.counter = Counter()
        self.problems: list[str] = []
        for _ in ("compile", "count"):  # the first conversion on a machine also writes compiled kernels to the disk
            self.clear()
            if self.run():
                raise RuntimeError(self.errors.read_text(encoding="utf-8"))
        self.reference = tree(self.out)
        self.total = self.counter.count
        self.clear()

    def clear(self) -> None:
        for path in (self.out, self.out.with_name("out.staging")):
            if path.exists():
                shutil.rmtree(path)

    def run(self, last: int = 0, prepare: Callable[[], None] | None = None) -> int:
        def task() -> None:
            self.counter.install(last)
            if prepare:
                prepare()
            conversion.convert(self.sources, self.out, **OPTIONS)

        return forked(task, self.errors)

    def check(self, name: str, status: int) -> bool:
        """Whether a conversion that was not killed ended as it should."""
        if status:
            self.problems.append(f"{name}: status {status}, {self.errors.read_text(encoding='utf-8')}")
        elif tree(self.out) != self.reference:
            self.problems.append(f"{name}: another result")
        elif self.out.with_name("out.staging").exists():
            self.problems.append(f"{name}: the staging folder is still there")
        else:
            return True
        return False


def every(bench: Bench, step: int, wrong: Callable[[], None] | None) -> dict[str, Any]:
    finished: list[int] = []
    right = 0
    moments = range(1, bench.total + 1, step)
    for last in moments:
        bench.clear()
        status = bench.run(last, wrong)
        if status != -signal.SIGKILL:
            bench.problems.append(f"operation {last}: status {status}")
        if bench.out.exists():
            finished.append(last)
            if tree(bench.out) != bench.reference:
                bench.problems.append(f"operation {last}: looks finished, and is not")
        right += bench.check(f"operation {last}", bench.run(0, wrong))
    return {"operations": bench.total, "kills": len(moments), "finished": finished, "right": right}


def chain(bench: Bench, step: int, wrong: Callable[[], None] | None) -> dict[str, Any]:
    bench.clear()
    kills = 0
    while (status := bench.run(step, wrong)) == -signal.SIGKILL and kills < 200:
        kills += 1
    return {"operations": bench.total, "kills": kills, "right": int(bench.check("chain", status))}


def limit(bench: Bench, what: str) -> dict[str, Any]:
    """No file may grow beyond 300 bytes, once WHAT is called."""
    holder: Any = {"replacing": staging, "count_run": conversion, "merged": conversion, "_malformed": conversion}.get(
        what, ColumnsWriter
    )
    call = getattr(holder, what)

    def limited(*arguments: Any, **options: Any) -> Any:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, resource.RLIM_INFINITY))
        return call(*arguments, **options)

    bench.clear()
    status = bench.run(0, lambda: setattr(holder, what, limited))
    sentence = bench.errors.read_text(encoding="utf-8")
    looks_finished = bench.out.exists()
    return {
        "status": status,
        "sentence": sentence,
        "looks_finished": looks_finished,
        "right": int(bench.check(what, bench.run())),
    }


def space(bench: Bench, size: str) -> dict[str, Any]:
    """Fill the disk of the folder but for some bytes, and try again with more and more of them."""
    sentences = set()
    filler = bench.folder / "filler"
    for left in range(100_000, 1_000_000, 250_000):
        bench.clear()
        free = shutil.disk_usage(bench.folder).free
        filler.write_bytes(bytes(max(0, free - left)))
        if bench.run() != 3:
            break
        sentences.add(bench.errors.read_text(encoding="utf-8"))
        if bench.out.exists():
            bench.problems.append(f"{left} bytes: looks finished")
        subprocess.run(["mount", "-o", f"remount,size={size}", str(bench.folder)], check=True)
        filler.unlink()
        bench.check(f"{left} bytes", bench.run())
    return {"sentences": sorted(sentences)}


def main() -> None:
    folder, *tasks = Path(sys.argv[1]), *sys.argv[2:]
    parsed(b"0" + b"\t" * 39 + b"\n")  # kernels are compiled once, here
    empty, no = np.empty(0, np.uint32), np.empty(0, np.bool_)
    vocabulary.field_ids(empty, np.empty(0, np.int64)).of(empty, no)
    bench = Bench(folder)
    reports = []
    for task in tasks:
        mode, argument = task.removeprefix("early,").split(":")
        wrong = early if task.startswith("early,") else None
        bench.problems = []
        if mode in ("limit", "space"):
            report = {"limit": limit, "space": space}[mode](bench, argument)
        else:
            report = {"every": every, "chain": chain}[mode](bench, int(argument), wrong)
        reports.append({**report, "problems": bench.problems})
    print(json.dumps(reports))


if __name__ == "__main__":
    main()
