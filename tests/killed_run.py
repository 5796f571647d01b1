"""Trainings that are killed with SIGKILL. A script: tests run it as a process of its own.

    python killed_run.py FOLDER random KILLS [in-place]     kill at random moments, resume, until the run ends
    python killed_run.py FOLDER operations [in-place]       kill one save at each of its writes and system calls in turn

This process imports torch once, with one thread, and forks the processes that train: what it imported is theirs as
well. It prints what it saw as JSON. "in-place" saves as a wrong implementation would, over the old file.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import random
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

torch.set_num_threads(1)

from resumable import Run  # noqa: E402

from sparseopt.nn import checkpoint, wholefile  # noqa: E402

INTERVAL = 4
FIELDS = ("loaded", "resumed", "done", "saved", "saving")


class Board:
    """A few numbers that a forked process writes and its parent reads, also after it was killed."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8 * len(FIELDS))

    def __setitem__(self, name: str, value: int) -> None:
        struct.pack_into("q", self._memory, 8 * FIELDS.index(name), value)

    def __getitem__(self, name: str) -> int:
        return struct.unpack_from("q", self._memory, 8 * FIELDS.index(name))[0]


def build(seed: int) -> Run:
    return Run(seed, "sequential-attention++", "adamw")


def digest(run: Run) -> str:
    return hashlib.sha256(repr(sorted(run.state().items())).encode()).hexdigest()


def forked(task: Callable[[], None], errors: Path) -> int:
    """The id of a process that does `task` and ends."""
    child = os.fork()
    if child:
        return child
    try:
        task()
        code = 0
    except BaseException:
        errors.write_text(traceback.format_exc(), encoding="utf-8")
        code = 1
    os._exit(code)


def train(path: Path, board: Board, end: Path) -> None:
    """Continue from `path` if it is there, save now and then, and leave a digest of the end in `end`."""
    run = build(os.getpid())
    if path.exists():
        run.load(path)
    else:
        run = build(0)
    board["resumed"] = board["done"] = board["saved"] = run.done
    board["loaded"] = 1
    while run.done < run.sparsifier.schedule.total:
        run.step()
        board["done"] = run.done
        if run.done % INTERVAL == 0:
            board["saving"] = 1
            run.save(path)
            board["saved"] = run.done
            board["saving"] = 0
    end.write_text(digest(run), encoding="utf-8")


def slowly(pause: float) -> None:
    """Make every write of a checkpoint take a while, as on a real disk with a real model."""
    write = wholefile._Digesting.write

    def slow(self: Any, data: Any) -> int:
        time.sleep(pause)
        return write(self, data)

    wholefile._Digesting.write = slow  # type: ignore[method-assign]


def in_place(path: Any, content: Any) -> None:
    """A wrong implementation of `write_whole`: the old file is gone before the new one is there."""
    with open(path, "wb", buffering=0) as file:
        out = wholefile._Digesting(file)
        torch.save(content, out)  # type: ignore[arg-type]
        out.write(wholefile._MARK % wholefile.VERSION)
        file.write(out.sum.hexdigest().encode() + b"\n")


def at_random(folder: Path, kills: int) -> dict[str, Any]:
    slowly(0.0001)
    path, errors, end = folder / "run.pt", folder / "error.txt", folder / "end.txt"
    os.waitpid(forked(lambda: train(folder / "reference.pt", Board(), folder / "reference.txt"), errors), 0)
    reference = (folder / "reference.txt").read_text(encoding="utf-8")
    moments = random.Random(int.from_bytes(os.urandom(4), "little"))
    report: dict[str, Any] = {"kills": 0, "while_saving": 0, "while_training": 0, "finished": 0, "ends": [], "lost": []}
    problems: list[str] = []
    before: dict[str, int] | None = None  # of the process that was killed last and had begun to train
    while report["kills"] < kills or before is not None:
        board = Board()
        child = forked(lambda board=board: train(path, board, end), errors)  # type: ignore[misc]
        kill = report["kills"] < kills
        if kill:
            if report["kills"] % 2:  # aim at a save: it takes much of the time, but not all
                while not board["saving"] and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                    time.sleep(0.0002)
                time.sleep(moments.uniform(0.0, 0.02))
            else:
                time.sleep(moments.uniform(0.0, 0.15))
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        seen = {name: board[name] for name in FIELDS}
        if seen["loaded"] and before is not None:
            report["lost"].append(before["done"] - seen["resumed"])
            if seen["resumed"] < before["saved"]:
                problems.append(f"saved step {before['saved']}, and continued from step {seen['resumed']}")
            before = None
        if status == -signal.SIGKILL:
            report["kills"] += 1
            report["while_saving" if seen["saving"] else "while_training"] += 1
            before = seen if seen["loaded"] else before or {**seen, "done": 0, "saved": 0}
        elif status == 0:
            before = None
            report["finished"] += 1
            report["ends"].append(end.read_text(encoding="utf-8"))
            end.unlink()
            if report["kills"] < kills:
                path.unlink()
        else:
            problems.append(errors.read_text(encoding="utf-8"))
            break
    left = sorted(each.name for each in folder.glob("*.tmp"))
    return {**report, "problems": problems, "reference": reference, "interval": INTERVAL, "left_over": left}


def at_every_operation(folder: Path) -> dict[str, Any]:
    old, new, path, errors = folder / "old.pt", folder / "new.pt", folder / "run.pt", folder / "error.txt"
    board = Board()  # "done" counts operations

    def tick(limit: int) -> None:
        board["done"] += 1
        if board["done"] == limit:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(call: Callable[..., Any], limit: int) -> Callable[..., Any]:
        def wrapped(*arguments: Any) -> Any:
            tick(limit)
            result = call(*arguments)
            tick(limit)
            return result

        return wrapped

    def save(limit: int) -> None:
        run = build(1)
        run.load(old)
        for _ in range(INTERVAL):
            run.step()
        wholefile._Digesting.write = counted(wholefile._Digesting.write, limit)  # type: ignore[method-assign]
        for name in ("fsync", "replace"):
            setattr(os, name, counted(getattr(os, name), limit))
        run.save(path)

    def first() -> None:
        run = build(0)
        for _ in range(INTERVAL):
            run.step()
        run.save(old)
        for _ in range(INTERVAL):
            run.step()
        run.save(new)

    os.waitpid(forked(first, errors), 0)
    contents = {old.read_bytes(): "old", new.read_bytes(): "new"}
    found, problems, limit = [], [], 0
    while True:
        limit += 1
        board["done"] = 0
        path.write_bytes(old.read_bytes())
        status = os.waitstatus_to_exitcode(os.waitpid(forked(lambda limit=limit: save(limit), errors), 0)[1])  # type: ignore[misc]
        found.append(contents.get(path.read_bytes(), "damaged"))
        if found[-1] == "damaged":
            problems.append(f"killed at operation {limit}: neither the old file nor the new one")
        if status != -signal.SIGKILL:
            if status:
                problems.append(errors.read_text(encoding="utf-8"))
            break
    return {"operations": limit - 1, "found": found, "problems": problems}


def main() -> None:
    folder, mode, *rest = Path(sys.argv[1]), *sys.argv[2:]
    if "in-place" in rest:
        checkpoint.write_whole = in_place
    report = at_random(folder, int(rest[0])) if mode == "random" else at_every_operation(folder)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
