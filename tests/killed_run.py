"""Trainings that are killed with SIGKILL. A script: tests run it as a process of its own.

    python killed_run.py FOLDER TASK ...

    random:N         kill at N random moments, resume each time, until the run ends
    operations:N     kill a save at every N-th of its writes and at the last of them, and at each of its system calls
    in-place,TASK    the same with a wrong implementation, which saves over the old file

This process imports torch once, with one thread, and forks the processes that train: what it imported is theirs as
well, also what torch imports when it is used first. It prints what it saw as JSON.
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

# With an accelerator, torch would start threads for it at the first backward pass, and threads do not survive a fork.
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch

torch.set_num_threads(1)

from resumable import Run, leaves  # noqa: E402

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
    slowly(0.0001)
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
    write = wholefile._Digesting.put

    def slow(self: Any, data: Any) -> None:
        time.sleep(pause)
        write(self, data)

    wholefile._Digesting.put = slow  # type: ignore[method-assign]


def in_place(path: Any, content: Any) -> None:
    """A wrong implementation of `write_whole`: the old file is gone before the new one is there."""
    with open(path, "wb", buffering=0) as file:
        out = wholefile._Digesting(file)
        torch.save(content, out)  # type: ignore[arg-type]
        out.finish()


def kill_when(child: int, board: Board, saving: int, moments: random.Random) -> None:
    """Kill `child` at a random moment at which it is, or is not, inside a save, unless it ends before.

    It is looked at while it is stopped: otherwise it could enter a save, or leave it, between the look and the kill.
    """
    while True:
        os.kill(child, signal.SIGSTOP)
        if os.waitid(os.P_PID, child, os.WSTOPPED | os.WEXITED | os.WNOWAIT).si_code == os.CLD_EXITED:  # type: ignore[union-attr]
            return
        if board["saving"] == saving:
            os.kill(child, signal.SIGKILL)
            return
        os.waitid(os.P_PID, child, os.WSTOPPED)
        os.kill(child, signal.SIGCONT)
        time.sleep(moments.uniform(0.0, 0.01))


def at_random(folder: Path, kills: int) -> dict[str, Any]:
    path, errors, end = folder / "run.pt", folder / "error.txt", folder / "end.txt"
    os.waitpid(forked(lambda: train(folder / "reference.pt", Board(), folder / "reference.txt"), errors), 0)
    reference = (folder / "reference.txt").read_text(encoding="utf-8")
    moments = random.Random(int.from_bytes(os.urandom(4), "little"))
    report: dict[str, Any] = {"kills": 0, "while_saving": 0, "while_training": 0, "finished": 0, "ends": [], "lost": []}
    problems: list[str] = []
    before: dict[str, int] | None = None  # of the process that was killed last and had begun to train
    ended = False
    while not ended:
        board = Board()
        child = forked(lambda board=board: train(path, board, end), errors)  # type: ignore[misc]
        if report["kills"] < kills:
            time.sleep(moments.uniform(0.0, 0.15))
            kill_when(child, board, saving=report["kills"] % 2, moments=moments)
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
            before = seen if seen["loaded"] else before
        elif status == 0:
            report["finished"] += 1
            report["ends"].append(end.read_text(encoding="utf-8"))
            ended = report["kills"] == kills
            path.unlink()  # what remains of the kills is for another run
        else:
            problems.append(errors.read_text(encoding="utf-8"))
            break
    left = sorted(each.name for each in folder.glob("*.tmp"))
    return {**report, "problems": problems, "reference": reference, "interval": INTERVAL, "left_over": left}


def at_operations(folder: Path, every: int) -> dict[str, Any]:
    path, errors = folder / "run.pt", folder / "error.txt"
    board = Board()  # "done" counts operations
    run = build(0)
    files, contents = [], []
    for _ in range(2):
        for _ in range(INTERVAL):
            run.step()
        run.save(path)
        files.append(path.read_bytes())
        contents.append(leaves(wholefile.read_whole(path)))

    def counted(call: Callable[..., Any], last: int) -> Callable[..., Any]:
        def wrapped(*arguments: Any) -> Any:
            board["done"] += 1
            if board["done"] == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments)

        return wrapped

    drawn = random.getstate()

    def save(last: int) -> None:
        random.setstate(drawn)  # Python seeds its generator anew in a forked process
        wholefile._Digesting.put = counted(wholefile._Digesting.put, last)  # type: ignore[method-assign]
        for name in ("fsync", "replace"):
            setattr(os, name, counted(getattr(os, name), last))
        run.save(path)

    def after(last: int) -> str:
        board["done"] = 0
        path.write_bytes(files[0])
        status = os.waitstatus_to_exitcode(os.waitpid(forked(lambda: save(last), errors), 0)[1])
        if status != (-signal.SIGKILL if last else 0):
            problems.append(f"operation {last}: status {status}, {errors.read_text(encoding='utf-8')}")
        try:
            there = leaves(wholefile.read_whole(path))
        except ValueError:
            return "damaged"
        return "old" if there == contents[0] else "new" if there == contents[1] else "mixed"

    problems: list[str] = []
    found = [after(0)]  # not killed
    total = board["done"]
    moments = sorted({*range(1, total + 1, every), *range(total - 5, total + 1)})
    found = [after(last) for last in moments] + found
    problems += [
        f"operation {n}: the file is {what}"
        for n, what in zip(moments, found, strict=False)
        if what not in ("old", "new")
    ]
    return {"operations": total, "found": found, "problems": problems}


def main() -> None:
    folder, *tasks = Path(sys.argv[1]), *sys.argv[2:]
    run = build(0)
    run.step()
    run.save(folder / "warm.pt")
    run.load(folder / "warm.pt")
    reports = []
    for number, task in enumerate(tasks):
        own = folder / str(number)
        own.mkdir()
        mode, argument = task.removeprefix("in-place,").split(":")
        checkpoint.write_whole = in_place if task.startswith("in-place,") else wholefile.write_whole
        reports.append((at_random if mode == "random" else at_operations)(own, int(argument)))
    print(json.dumps(reports))


if __name__ == "__main__":
    main()
