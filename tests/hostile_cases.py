"""A small file of a model, ways to forge it, and the law that a wrong file is refused in a sentence.

Imported by tests of damaged and hostile files.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from stored_models import Forger, sparse
from torch import nn

from sparseopt.nn.sparse.files import load, save

Change = Callable[[Forger], Any]


def whole_file(folder: Path) -> Path:
    """A small valid file: sparse and dense layers, a convolution, batch norm, a loose parameter, tied tensors."""
    torch.manual_seed(0)
    path = folder / "whole.safetensors"
    save(sparse(Small()), path)
    return path


class Small(nn.Module):
    """A bit of everything that can be attacked."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 8)
        self.last = nn.Linear(8, 4)
        self.twin = nn.Linear(8, 4)
        self.twin.weight = self.last.weight
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, x: Any) -> Any:
        x = nn.functional.relu(self.norm(self.conv(x))).mean(dim=(2, 3))
        return torch.cat([self.last(self.fc(x) * self.scale), self.twin(x)], dim=1).view(x.shape[0], -1)


INPUT = (2, 8, 4, 4)


def verdict(path: Path, model: nn.Module | None = None) -> str | None:
    """None if the file is loaded and runs, or the one sentence with which it is refused."""
    try:
        model = load(path, model)
    except ValueError as error:
        text = str(error)
        assert text.startswith(f"{path} cannot be loaded: "), text
        assert text.endswith("."), text
        assert text.isprintable(), text
        assert not re.search(r"\.\s", text.replace("...", "")), text
        assert len(text) < len(str(path)) + 700, text
        return text.removeprefix(f"{path} cannot be loaded: ")
    with torch.no_grad():
        try:
            model(torch.randn(INPUT))
        except (RuntimeError, TypeError, ValueError, IndexError, AttributeError, AssertionError, NotImplementedError):
            pass  # a valid file of a model that cannot take this input, or none
    return None


def check_refused(path: Path, words: str, model: nn.Module | None = None) -> None:
    """The law of this file."""
    said = verdict(path, model)
    assert said is not None, "the file was loaded"
    assert words in said, said


def layer(file: Forger, name: str = "fc") -> dict[str, Any]:
    return next(record for record in file.description["layers"] if record["names"] == [name])


def arguments(name: str = "fc", **changed: Any) -> Change:
    return lambda file: layer(file, name)["arguments"].update(changed)


def record(**changed: Any) -> Change:
    return lambda file: layer(file).update(changed)


def described(**changed: Any) -> Change:
    return lambda file: file.description.update(changed)


def architecture(**changed: Any) -> Change:
    return lambda file: file.description["model"].update(changed)


def entries(name: str, change: Callable[[list[Any]], Any]) -> Change:
    def edit(file: Forger) -> None:
        numbers = file.numbers(name)
        change(numbers)
        file.put(name, numbers)

    return edit


def at(place: int, number: int) -> Callable[[list[Any]], Any]:
    return lambda numbers: numbers.__setitem__(place, number)


def module(name: str, /, **changed: Any) -> Change:
    def edit(file: Forger) -> None:
        (found,) = (m for m in file.description["model"]["modules"] if m["names"] == [name])
        found.update(changed)

    return edit


def node(op: str, target: str, /, **changed: Any) -> Change:
    def edit(file: Forger) -> None:
        found = [n for n in file.description["model"]["graph"] if (n["op"], n["target"]) == (op, target)]
        found[0].update(changed)

    return edit


def both(*changes: Change) -> Change:
    return lambda file: [change(file) for change in changes]


def renamed(old: str, new: str) -> Change:
    """A module or tensor under another name, everywhere."""

    def edit(file: Forger) -> None:
        def swap(value: Any) -> Any:
            if isinstance(value, dict):
                return {swap(k): swap(v) for k, v in value.items()}
            if isinstance(value, list):
                return [swap(each) for each in value]
            if isinstance(value, str) and (value == old or value.startswith(f"{old}.")):
                return new + value[len(old) :]
            return value

        file.description = swap(file.description)
        file.header, file.tensors = swap(file.header), swap(file.tensors)

    return edit


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else 0
