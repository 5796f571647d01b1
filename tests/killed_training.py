"""Trainings that are killed, stopped or run out of space. A script: tests run it as a process of its own.

    python killed_training.py FOLDER TASK ...

    kill:WHAT:K[:WHAT:K...]   kill at the K-th call of WHAT, go on and kill again, ..., and go on to the end
    chain:SEED                kill again and again, after numbers of steps that a generator draws
    stop:K                    SIGTERM in step K
    damage:HOW                the newest checkpoint is damaged (flip, cut), or all are (all)
    limit:WHAT:K              at the K-th call of WHAT no file can grow any more; then there is room again
    space:SIZE                the run is on a disk of that size, which is full; then there is room again
    truncated                 the raw file is cut short
    wrong:HOW                 a deliberately wrong implementation goes on with a run that was killed in step 13

Calls are counted, so nothing depends on how fast anything is. Every task reports what was said, the exit statuses, and
in what the end differs from that of a run in one go: {"statuses": [...], "said": ..., "differs": [...]}.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import torch
from training_cases import CHECKPOINT, NAME, Forked, different, outcome, write_recipe, write_rows

from sparseopt.experiments.clicks import conversion
from sparseopt.experiments.training import click_task, engine, finishing, resuming, run_folder, running
from sparseopt.nn import wholefile

torch.set_num_threads(1)
IMPORTED = click_task, conversion  # what the forked processes would import, each for itself
Action = Callable[[], None]


def wrap(holder: Any, name: str, before: Callable[..., None]) -> None:
    call = getattr(holder, name)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        before(*arguments, **options)
        return call(*arguments, **options)

    setattr(holder, name, wrapped)


def kill(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at(what: str, number: int, action: Callable[..., None]) -> None:
    """Do something at the `number`-th call of `what`."""
    seen = 0

    def count(*arguments: Any, **options: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            action(*arguments, **options)

    def count_files(mode: str) -> Callable[..., None]:
        return lambda source, target, *_: count() if mode in str(target) else None

    holders: dict[str, tuple[Any, str]] = {
        "step": (engine.Trainer, "_advance"),
        "evaluate": (engine.Trainer, "_evaluate_and_log"),
        "save": (engine, "save"),
        "write": (wholefile._Digesting, "put"),  # a checkpoint is half written
        "line": (run_folder.RunFolder, "add"),
        "forget": (run_folder.RunFolder, "forget_old_checkpoints"),
        "rewind": (run_folder.RunFolder, "rewind"),
        "begin": (running, "_begin"),
        "fold": (finishing, "_folded"),
        "model": (finishing, "tensor_bytes"),
        "end": (running, "_end"),
    }
    if what in holders:
        wrap(*holders[what], count)
    else:  # replace-NAME: a whole file is about to get its name
        wrap(os, "replace", count_files(what.removeprefix("replace-")))


def half_line(folder: run_folder.RunFolder, name: str, row: Any) -> None:
    with (folder.path / name).open("a") as file:
        file.write("9,0.6")
    kill()


# Wrong implementations. Each is in force in the process that goes on.


def forgetting(part: str) -> Action:
    load = resuming.load_checkpoint

    def wrong(path: Any, model: Any, optimizer: Any, sparsifier: Any, rates: Any, scaler: Any) -> Any:
        lr = [group["lr"] for group in optimizer.param_groups]
        fresh = {key: value.clone() for key, value in model.named_buffers()}
        extra = load(path, model, optimizer, sparsifier, rates, scaler)
        if part == "optimizer":
            optimizer.state.clear()
        elif part == "rates":
            rates.last_epoch = 0
            for group, rate in zip(optimizer.param_groups, lr, strict=True):
                group["lr"] = rate
        elif part == "sums":
            extra["sums"].zero_()
        elif part == "counts":
            extra["counts"] = [0, 0]
        elif part == "logits":
            with torch.no_grad():
                for name, parameter in sparsifier.new_parameters():
                    del name
                    parameter.zero_()
        elif part == "masks":
            with torch.no_grad():
                for key, buffer in model.named_buffers():
                    buffer.copy_(fresh[key])
        return extra

    def install() -> None:
        resuming.load_checkpoint = wrong  # type: ignore[assignment]

    return install


def seeds_of_the_process() -> None:
    """As right as the others in one go: the n-th call in a process seeds as that of step n - 1 should."""
    seed, calls = torch.manual_seed, iter(range(1000))
    torch.manual_seed = lambda _: seed(max(0, next(calls) - 1) * 4099)  # type: ignore[assignment]


def batches_from_the_start() -> None:
    def wrong(self: engine.Trainer) -> Any:
        while self.step < self.total:
            for batch in self.feed.epoch(self.step // len(self.feed)):
                yield batch
                if self.step >= self.total:
                    return

    engine.Trainer._batches = wrong  # type: ignore[method-assign]


def lines_stay() -> None:
    run_folder.RunFolder.rewind = lambda self, step: None  # type: ignore[method-assign]


WRONG: dict[str, Action] = {
    **{part: forgetting(part) for part in ("optimizer", "rates", "sums", "counts", "logits", "masks")},
    "seeds": seeds_of_the_process,
    "batches": batches_from_the_start,
    "lines": lines_stay,
}


class Bench:
    """A recipe, its data, and what becomes of it in one go."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.runs = folder, folder / "runs"
        self.words = ""
        self.raw = write_rows(folder / "raw")
        self.recipe = write_recipe(folder / "recipe.yaml", data={"path": str(self.raw), "min_count": 20})
        self.run = self.runs / NAME
        self.statuses: list[int] = []
        if self.command():
            raise RuntimeError(self.words)
        self.reference = outcome(self.run)
        (self.columns,) = (self.runs / "data").iterdir()
        self.clear()
        self.command(lambda: at("step", 13, kill))  # after step 12, with checkpoints after steps 5 and 10
        self.killed = folder / "killed"
        self.run.rename(self.killed)

    def clear(self) -> None:
        shutil.rmtree(self.run, ignore_errors=True)
        self.words = ""
        self.statuses = []

    def begin(self) -> None:
        """The run as it was when it was killed in step 13."""
        shutil.copytree(self.killed, self.run)

    def command(self, prepare: Action | None = None, *more: str, runs: Path | None = None) -> int:
        arguments = ["prune", self.recipe, f"output.folder={runs or self.runs}", *more, "--quiet"]
        status, words = Forked(arguments, prepare).wait()
        self.statuses.append(status)
        self.words += words
        return status

    def differs(self) -> list[str]:
        return different(outcome(self.run), self.reference) if (self.run / "result.json").exists() else ["no result"]

    def checkpoints(self) -> list[Path]:
        return run_folder.RunFolder(self.run).checkpoints()


def kills(bench: Bench, words: list[str]) -> dict[str, Any]:
    for what, number in zip(words[::2], words[1::2], strict=True):
        action = half_line if what == "half" else kill
        bench.command(
            lambda what=what, number=number, action=action: at(what.replace("half", "line"), int(number), action)
        )
    bench.command()
    return {"differs": bench.differs()}


def chain(bench: Bench, seed: int) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    while len(bench.statuses) < 60:
        steps = int(generator.integers(1, 2 * CHECKPOINT + 1))
        if bench.command(lambda steps=steps: at("step", steps, kill)) != -signal.SIGKILL:
            break
    return {"differs": bench.differs()}


def stop(bench: Bench, step: int) -> dict[str, Any]:
    bench.command(lambda: at("step", step, lambda *_: os.kill(os.getpid(), signal.SIGTERM)))
    saved = [path.name for path in bench.checkpoints()]
    bench.command()
    return {"saved": saved, "differs": bench.differs()}


def damage(bench: Bench, how: str) -> dict[str, Any]:
    bench.begin()
    for path in bench.checkpoints()[: None if how == "all" else 1]:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content[: len(content) // 3] if how == "cut" else content)
    before = {file.name: file.read_bytes() for file in bench.run.iterdir()}
    bench.command()
    if how != "all":
        return {"differs": bench.differs()}
    kept = before == {file.name: file.read_bytes() for file in bench.run.iterdir()}
    told = bench.words
    bench.command(None, "--resume", "never")
    return {"kept": kept, "told": told, "differs": bench.differs()}


def limit(bench: Bench, what: str, number: int) -> dict[str, Any]:
    def full(*_: Any, **__: Any) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30, resource.RLIM_INFINITY))

    bench.command(lambda: at(what, number, full))
    told, partial = bench.words, sorted(file.name for file in bench.run.iterdir())
    bench.command()
    return {"told": told, "partial": partial, "differs": bench.differs()}


def space(bench: Bench, size: str) -> dict[str, Any]:
    disk = bench.folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        return {"mounted": False}
    own, bench.run = bench.run, disk / NAME
    try:
        # Converted rows would take the room.
        bench.command(None, f"data={bench.columns}", runs=disk)
        told = bench.words
        subprocess.run(["mount", "-o", "remount,size=32m", str(disk)], check=True)
        bench.command(None, f"data={bench.columns}", runs=disk)
        return {"mounted": True, "told": told, "differs": bench.differs()}
    finally:
        bench.run = own
        subprocess.run(["umount", str(disk)], check=True)


def truncated(bench: Bench) -> dict[str, Any]:
    raw = bench.folder / "truncated"
    shutil.copytree(bench.raw, raw)
    content = (raw / "train.tsv.gz").read_bytes()
    (raw / "train.tsv.gz").write_bytes(content[: len(content) // 2])
    bench.command(None, f"data={raw}")
    return {"begun": sorted(file.name for file in bench.run.iterdir()) if bench.run.exists() else []}


def wrong(bench: Bench, how: str) -> dict[str, Any]:
    def install() -> None:
        warnings.simplefilter("ignore")
        WRONG[how]()

    bench.begin()
    bench.command(install)
    return {"differs": bench.differs()}


def task(bench: Bench, words: list[str]) -> dict[str, Any]:
    kind, *rest = words
    bench.clear()
    try:
        found = _done(bench, kind, rest)
    except Exception:
        found = {"failed": traceback.format_exc()}
    return {"said": bench.words, **found, "statuses": bench.statuses}


def _done(bench: Bench, kind: str, rest: list[str]) -> dict[str, Any]:
    if kind == "kill":
        return kills(bench, rest)
    if kind == "chain":
        return chain(bench, int(rest[0]))
    if kind == "stop":
        return stop(bench, int(rest[0]))
    if kind == "limit":
        return limit(bench, rest[0], int(rest[1]))
    if kind == "truncated":
        return truncated(bench)
    return {"damage": damage, "space": space, "wrong": wrong}[kind](bench, rest[0])


def main() -> None:
    bench = Bench(Path(sys.argv[1]))
    print(json.dumps({name: task(bench, name.split(":")) for name in sys.argv[2:]}))


if __name__ == "__main__":
    main()
