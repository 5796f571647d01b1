"""Hostile files of models: nothing in a file is ever executed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="loading models needs torch")
pytest.importorskip("safetensors", reason="loading models needs safetensors")

from hostile_cases import Change, check_refused, module, node, renamed, verdict, whole_file  # noqa: E402
from stored_models import Forger  # noqa: E402
from torch import fx  # noqa: E402

from sparseopt.nn.sparse import graphs  # noqa: E402


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_file(tmp_path_factory.mktemp("whole"))


WHERE = "fired"
CODE = f"__import__('os').mkdir('{WHERE}')"
HOSTILE = [
    f"x, y={CODE}",
    f"a\n    {CODE}\n",
    f"a'); {CODE} #",
    f'a"); {CODE} #',
    f'"+str({CODE})+"',
    "{" + CODE + "}",
    "a\\",
    "a\u2028b",
    "naïve",
    "ﬁ",  # a letter that Python takes for another two
    "class",
    "None",
    "__import__",
    "",
    "self",
    "torch",
    "\x00",
    "a" * 10_000,
]
PLACES: dict[str, Callable[[str], Change]] = {
    "an input": lambda text: node("placeholder", "x", target=text),
    "a default": lambda text: node("placeholder", "x", args=[text]),
    "an argument": lambda text: node("call_method", "view", args=[{"node": 0}, text]),
    "a nested argument": lambda text: node("call_method", "view", args=[{"node": 0}, {"tuple": [[text]]}]),
    "a key": lambda text: node("call_function", "torch.cat", kwargs={text: 1}),
    "a key of a dict": lambda text: node("output", "output", args=[{"dict": {text: {"node": 0}}}]),
    "a function": lambda text: node("call_function", "torch.cat", target=text),
    "a method": lambda text: node("call_method", "view", target=text),
    "an attribute": lambda text: node("call_function", "getattr", args=[{"node": 0}, text]),
    "a module": lambda text: renamed("last", text),
    "a module in a module": lambda text: renamed("last", f"inner.{text}.last"),
    "a layer": lambda text: renamed("fc", text),
    "a parameter": lambda text: renamed("scale", text),
    "a class": lambda text: module("last", **{"class": text}),
    "an argument of a class": lambda text: module("last", arguments={"in_features": 8, "out_features": 4, text: 1}),
    "a value of a class": lambda text: module("conv", arguments={"padding_mode": text}),
    "a device": lambda text: node("call_method", "view", args=[{"node": 0}, {"device": text}]),
}


def check_not_run(place: str, text: str, whole: Path, folder: Path) -> None:
    """Neither loading the file nor running what was loaded does what the text says."""
    file = Forger(whole)
    PLACES[place](text)(file)
    file.write(folder / "m")
    with contextlib.suppress(FileExistsError):  # when the code has run more than once
        verdict(folder / "m")
    assert not (folder / WHERE).exists()


@pytest.mark.parametrize("place", PLACES)
def test_no_text_of_a_file_becomes_code(
    place: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    seen = []
    written = fx.graph_module._exec_with_source

    def spy(source: str, *args: Any, **kwargs: Any) -> None:
        seen.append(source)
        written(source, *args, **kwargs)

    monkeypatch.setattr(fx.graph_module, "_exec_with_source", spy)
    for text in HOSTILE:
        if text or place not in ("a module", "a layer", "a parameter"):
            check_not_run(place, text, whole, tmp_path)
    assert not any(CODE in source for source in seen)
    assert all(source.isascii() for source in seen)


def test_names_of_python_and_torch_are_no_names_of_tensors(whole: Path, tmp_path: Path) -> None:
    for name in (
        "__dict__",
        "__class__",
        "forward",
        "training",
        "_parameters",
        "graph",
        "code",
        "state_dict",
        "_graph",
    ):
        file = Forger(whole)
        renamed("scale", name)(file)
        file.write(tmp_path / "m")
        assert verdict(tmp_path / "m") is not None, name
        file = Forger(whole)
        renamed("last", name)(file)
        file.write(tmp_path / "m")
        assert verdict(tmp_path / "m") is not None, name


def _any_word(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(graphs, "_is_word", lambda text: True)


def test_a_loader_that_writes_any_word_into_code_is_rejected(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _any_word(monkeypatch)
    with pytest.raises(AssertionError):
        check_not_run("an input", f"x, y={CODE}", whole, tmp_path)


def test_a_loader_that_pickles_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (WHERE,)

    monkeypatch.chdir(tmp_path)
    torch.save(Bomb(), tmp_path / "m")
    check_refused(tmp_path / "m", "no file of safetensors")
    assert not (tmp_path / WHERE).exists()
