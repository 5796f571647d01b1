"""Forged files of models: each is refused in one sentence, and a loader that checks less is rejected."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="loading models needs torch")
pytest.importorskip("safetensors", reason="loading models needs safetensors")

from hostile_cases import (  # noqa: E402
    Change,
    Small,
    architecture,
    arguments,
    at,
    both,
    check_refused,
    described,
    entries,
    layer,
    module,
    nested,
    node,
    record,
    renamed,
    verdict,
    whole_file,
)
from stored_models import Forger, sparse  # noqa: E402
from stored_models import shrunk as shrunk_model  # noqa: E402
from torch import fx, nn  # noqa: E402

from sparseopt.nn.sparse import files, format, graphs, records, tensorfiles, vocabulary  # noqa: E402
from sparseopt.nn.sparse.files import load, save  # noqa: E402


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_file(tmp_path_factory.mktemp("whole"))


DENSE_GIANT = {"in_features": 2**40, "out_features": 4}
POSITIONS: dict[str, tuple[Change, str]] = {
    "a column outside": (entries("fc.col", at(0, 2)), "columns of blocks run from 0 to 1"),
    "a column far outside": (entries("fc.col", at(-1, 2**31 - 1)), "columns of blocks run from 0 to 1"),
    "a negative column": (entries("fc.col", at(0, -1)), "columns of blocks run from 0 to 1"),
    "columns out of order": (entries("conv.col", lambda c: c.reverse()), "must increase"),
    "crow that falls": (entries("conv.crow", at(1, 1000)), "crow must increase"),
    "crow that starts late": (entries("conv.crow", at(0, 1)), "crow must increase"),
    "crow that ends late": (entries("conv.crow", at(-1, 1000)), "crow must increase"),
    "negative crow": (entries("conv.crow", at(1, -5)), "crow must increase"),
    "too short a crow": (entries("conv.crow", lambda c: c.pop()), "crow has"),
    "too long a col": (entries("fc.col", lambda c: c.append(0)), "each block needs one"),
}
TENSORS: dict[str, tuple[Change, str]] = {
    "crow of floats": (lambda f: f.put("fc.crow", [0.0, 1.0, 2.0], "f", "F32"), "crow must be int32"),
    "crow of int64": (lambda f: f.put("fc.crow", [0, 1, 2], "q", "I64"), "crow must be int32"),
    "col of two dimensions": (lambda f: f.put("fc.col", [0, 1], shape=[1, 2]), "one dimension"),
    "values of integers": (lambda f: f.header["fc.values"].update(dtype="I32"), "not multiplied"),
    "values of eight bits": (lambda f: f.header["fc.values"].update(dtype="F8_E4M3"), "truncated, damaged or no file"),
    "a bias of integers": (lambda f: f.header["fc.bias"].update(dtype="I32"), "not multiplied"),
    "too short a bias": (lambda f: f.put("fc.bias", [0.0], "f", "F32"), "bias must be (8,)"),
    "a missing bias": (lambda f: f.remove("fc.bias"), "lacks its tensor 'fc.bias'"),
    "missing values": (lambda f: f.remove("fc.values"), "lacks its tensor 'fc.values'"),
    "a missing parameter": (lambda f: f.remove("last.bias"), "no tensor 'last.bias'"),
    "a missing tied one": (lambda f: f.remove("last.weight"), "cannot be the same"),
    "a missing loose one": (lambda f: f.remove("scale"), "'scale' is missing"),
    "an extra tensor": (lambda f: f.put("more", [1]), "'more' has no place"),
    "an extra tensor of a layer": (lambda f: f.put("fc.more", [1]), "'fc.more' has no place"),
    "another shape": (lambda f: f.put("last.bias", [0.0] * 5, "f", "F32"), "torch.float32 (4,) in the model"),
    "integers for numbers": (lambda f: f.header["last.bias"].update(dtype="I32"), "torch.int32 (4,)"),
    "other values of a block": (lambda f: f.header["fc.values"]["shape"].__setitem__(0, 0), "truncated"),
}
DESCRIPTIONS: dict[str, tuple[Change, str]] = {
    "a later version": (described(version=2), "has format 2"),
    "version 0": (described(version=0), "has format 0"),
    "version true": (described(version=True), "no description"),
    "version 1.0": (described(version=1.0), "no description"),
    "no version": (lambda f: f.description.pop("version"), "no description"),
    "another entry": (described(more=1), "must have the entries"),
    "a missing entry": (lambda f: f.description.pop("tied"), "must have the entries"),
    "layers that are none": (described(layers=3), "must be list"),
    "a layer that is none": (described(layers=[3]), "must be dict"),
    "no layers": (described(layers=[]), "has blocks in one place"),
    "a layer twice": (lambda f: f.description["layers"].append(layer(f)), "that of another layer"),
    "a layer without a name": (record(names=[]), "has no name"),
    "a layer elsewhere": (record(names=["last"]), "lacks its tensor"),
    "an unknown kind": (record(kind="os.system"), "may not name the layer"),
    "another kind": (record(kind="BlockSparseConv2d"), "must have the entries"),
    "a convolution that is linear": (
        lambda f: layer(f, "conv").update(kind="BlockSparseConv1d"),
        "takes a weight (out, in, k)",
    ),
    "another shape": (arguments(shape=[9, 8]), "crow has"),
    "a huge shape": (arguments(shape=[2**30, 2**30]), "crow has"),
    "an overflowing shape": (arguments(shape=[2**70, 8]), "numbers that no layer has"),
    "a negative shape": (arguments(shape=[-8, 8]), "numbers that no layer has"),
    "an empty shape": (arguments(shape=[]), "is not valid"),
    "a shape of floats": (arguments(shape=[8.0, 8]), "must be int"),
    "a shape of truth": (arguments(shape=[True, 8]), "must be int"),
    "another block": (arguments(block=[2, 4]), "described as"),
    "an unknown activation": (arguments(activation="exec"), "activation must be"),
    "a stride of 0": (arguments("conv", stride=[0, 1]), "stride must be"),
    "a negative padding": (arguments("conv", padding=[-1, 0]), "numbers that no layer has"),
    "a huge dilation": (arguments("conv", dilation=[2**40, 1]), "numbers that no layer has"),
    "a padding of three": (arguments("conv", padding=[0, 0, 0]), "padding must be"),
    "a padding in words": (arguments("conv", padding="same"), "must be list"),
    "a layer in another": (renamed("fc", "conv.fc"), "inside of another module"),
    "tied to nothing": (described(tied={"twin.weight": "nothing"}), "cannot be the same"),
    "tied to itself": (described(tied={"last.weight": "last.weight"}), "cannot be the same"),
    "tied in a circle": (described(tied={"twin.weight": "a", "a": "twin.weight"}), "cannot be the same"),
    "crow as a parameter": (
        both(lambda f: f.remove("scale"), described(tied={"twin.weight": "last.weight", "scale": "fc.crow"})),
        "cannot be the same",
    ),
    "crow of another": (
        both(lambda f: f.remove("fc.crow"), described(tied={"twin.weight": "last.weight", "fc.crow": "conv.crow"})),
        "cannot be the same",
    ),
    "rewritten in numbers": (described(rewritten=[1]), "must be str"),
    "identities of numbers": (described(identities=[1]), "must be str"),
    "an architecture that is none": (described(model=[]), "must be dict"),
    "an obstacle": (described(model=None, obstacle="\n" * 1000), "pass it, load(path, model=...)"),
}
ARCHITECTURES: dict[str, tuple[Change, str]] = {
    "an unknown module": (module("last", **{"class": "os.system"}), "may not name the module"),
    "a module by its path": (module("last", **{"class": "torch.nn.Linear"}), "may not name the module"),
    "a module that torch has": (module("last", **{"class": "EmbeddingBag"}), "may not name the module"),
    "an unknown argument": (module("last", arguments={"device": "cpu"}), "no argument 'device'"),
    "a giant": (module("last", arguments=DENSE_GIANT), "(4, 1099511627776)"),
    "a greater giant": (
        module("last", arguments={"in_features": 2**62, "out_features": 2**62}),
        "Linear cannot be made",
    ),
    "a negative size": (module("last", arguments={"in_features": -8, "out_features": 4}), "cannot be made"),
    "a size of text": (module("last", arguments={"in_features": "8", "out_features": 4}), "cannot be made"),
    "no size": (module("last", arguments={}), "cannot be made"),
    "a number of 100 digits": (module("last", arguments={"in_features": 10**100}), "cannot be an argument"),
    "a loop": (
        module("last", **{"class": "LSTM", "arguments": {"input_size": 8, "hidden_size": 8, "num_layers": 10**9}}),
        "does not fit to",
    ),
    "a giant norm": (module("norm", arguments={"num_features": 2**50}), "in the model"),
    "a module with a name twice": (
        lambda f: f.description["model"]["modules"].append(f.description["model"]["modules"][-1]),
        "two of its modules have the name",
    ),
    "another order": (architecture(order=["conv"]), "the order of its modules"),
    "a layer as a module": (module("fc", **{"class": "Linear"}), "has blocks in one place"),
    "no such buffer": (architecture(buffers={"nothing": True}), "'nothing' is missing"),
    "a parameter that is a module": (architecture(parameters=["scale", "fc"]), "'fc' is missing"),
    "no graph": (architecture(graph=[]), "has no output"),
    "no output": (lambda f: f.description["model"]["graph"].pop(), "has no output"),
    "two outputs": (
        lambda f: f.description["model"]["graph"].append(f.description["model"]["graph"][-1]),
        "may not stand there",
    ),
    "an unknown function": (node("call_function", "torch.cat", target="os.system"), "may not stand there"),
    "eval": (node("call_function", "torch.cat", target="eval"), "may not stand there"),
    "a function of torch that is none of ours": (
        node("call_function", "torch.cat", target="torch.load"),
        "may not stand there",
    ),
    "a product past the layers": (
        node("call_function", "torch.cat", target="torch.ops.sparseopt.block_product"),
        "may not stand there",
    ),
    "an unknown method": (node("call_method", "view", target="__reduce_ex__"), "may not stand there"),
    "a method that shows memory": (node("call_method", "view", target="as_strided"), "may not stand there"),
    "a method of a string": (node("call_method", "view", args=["text"]), "may not stand there"),
    "an unknown attribute": (
        node("call_function", "getattr", args=[{"node": 0}, "__class__"]),
        "may not stand there",
    ),
    "an attribute of no tensor": (node("call_function", "getattr", args=[[], "shape"]), "may not stand there"),
    "an unknown kind of node": (node("call_method", "view", op="exec"), "may not stand there"),
    "a module that is not there": (node("call_module", "fc", target="nothing"), "may not stand there"),
    "a module of modules": (node("call_module", "fc", target=""), "may not stand there"),
    "the positions of blocks": (node("get_attr", "scale", target="fc.crow"), "may not stand there"),
    "the values of blocks": (node("get_attr", "scale", target="fc.values"), "may not stand there"),
    "an attribute of the module": (node("get_attr", "scale", target="__dict__"), "may not stand there"),
    "a reference forwards": (node("call_module", "fc", args=[{"node": 1000}]), "cannot be an argument"),
    "a circle": (node("call_module", "conv", args=[{"node": 1}]), "cannot be an argument"),
    "a reference backwards": (node("call_module", "fc", args=[{"node": -1}]), "cannot be an argument"),
    "a reference of text": (node("call_module", "fc", args=[{"node": "x"}]), "cannot be an argument"),
    "a reference of truth": (node("call_module", "fc", args=[{"node": True}]), "cannot be an argument"),
    "an unknown kind of argument": (node("call_module", "fc", args=[{"object": 1}]), "cannot be an argument"),
    "two kinds of argument": (node("call_module", "fc", args=[{"node": 0, "float": "nan"}]), "cannot be an argument"),
    "an unknown constant": (node("call_module", "fc", args=[{"torch": "load"}]), "cannot be an argument"),
    "an unknown float": (node("call_module", "fc", args=[{"float": "1e5"}]), "cannot be an argument"),
    "an unknown device": (node("call_module", "fc", args=[{"device": "nowhere"}]), "cannot be an argument"),
    "a deep argument": (node("call_module", "fc", args=[nested(50)]), "nested more than"),
    "an output elsewhere": (node("call_function", "torch.cat", kwargs={"out": {"node": 0}}), "may not stand there"),
    "an input twice": (
        lambda f: f.description["model"]["graph"].insert(0, f.description["model"]["graph"][0]),
        "may not stand there",
    ),
    "a graph that is no code": (node("call_function", "operator.mul", args=[]), "gives no code"),
}
FORGED = {
    f"{kind}: {name}": case
    for kind, cases in {
        "positions": POSITIONS,
        "tensors": TENSORS,
        "description": DESCRIPTIONS,
        "architecture": ARCHITECTURES,
    }.items()
    for name, case in cases.items()
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_file_is_refused(name: str, whole: Path, tmp_path: Path) -> None:
    change, words = FORGED[name]
    file = Forger(whole)
    change(file)
    file.write(tmp_path / "m")
    check_refused(tmp_path / "m", words)


TEXTS: dict[str, tuple[str, str]] = {
    "no JSON": ("{", "not JSON"),
    "nothing": ("", "not JSON"),
    "a number": ("1", "no description"),
    "a list": ("[]", "no description"),
    "NaN": ('{"version": NaN}', "not JSON"),
    "a name twice": ('{"version": 1, "version": 1}', "comes twice"),
    "deep nesting": ("[" * 100_000, "not JSON"),
    "a number of a million digits": ('{"version": 1' + "0" * 10**6 + "}", "not JSON"),
    "a surrogate": ('{"version": "\\ud800"}', "no description"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_forged_text_is_refused(name: str, whole: Path, tmp_path: Path) -> None:
    text, words = TEXTS[name]
    Forger(whole).write(tmp_path / "m", text)
    check_refused(tmp_path / "m", words)


def shrunk(**changed: Any) -> Change:
    return lambda file: file.description["layers"][0]["arguments"].update(changed)


SHRUNK: dict[str, tuple[Change, str]] = {
    "an input outside": (lambda f: f.put("0.inputs", [0, 1, 3, 4, 5, 6, 8], "q", "I64"), "lie between 0 and 7"),
    "a negative output": (lambda f: f.put("0.outputs", [-1, 0, 1, 2, 3, 4, 6], "q", "I64"), "lie between 0 and 7"),
    "outputs out of order": (lambda f: f.put("0.outputs", [0, 2, 1, 3, 4, 6, 7], "q", "I64"), "must increase"),
    "short indices": (lambda f: f.put("0.outputs", [0, 1, 2, 3, 4, 6, 7]), "int64"),
    "too few inputs": (lambda f: f.put("0.inputs", [0], "q", "I64"), "must be 7 int64 numbers"),
    "a smaller size": (shrunk(size=[7, 8]), "is not valid"),
    "one side": (shrunk(size=[8]), "does not fit to"),
    "three strides": (shrunk(stride=[1, 1, 1]), "does not fit to"),
    "a stride of 0": (shrunk(stride=[0, 1]), "does not fit to"),
    "a negative dilation": (shrunk(dilation=[-1, 1]), "numbers that no layer has"),
    "an unknown padding": (shrunk(padding="exec"), "does not fit to"),
    "a padding of objects": (shrunk(padding={"a": 1}), "does not fit to"),
    "the other kind": (
        lambda f: f.description["layers"][0].update(kind="ShrunkLinear", arguments={"size": [8, 8]}),
        "does not fit to",
    ),
}


@pytest.mark.parametrize("name", SHRUNK)
def test_a_forged_layer_without_some_channels_is_refused(name: str, tmp_path: Path) -> None:
    save(shrunk_model(), tmp_path / "m")
    file = Forger(tmp_path / "m")
    file.write(tmp_path / "m")
    assert isinstance(load(tmp_path / "m"), fx.GraphModule)
    change, words = SHRUNK[name]
    change(file)
    file.write(tmp_path / "m")
    check_refused(tmp_path / "m", words)


def test_the_positions_of_a_model_that_is_one_layer_are_not_shared(tmp_path: Path) -> None:
    save(sparse(nn.Sequential(nn.Linear(8, 8)))[0], tmp_path / "m")
    file = Forger(tmp_path / "m")
    file.remove("crow")
    file.description["tied"] = {"crow": "col"}
    file.write(tmp_path / "m")
    check_refused(tmp_path / "m", "cannot be the same")


class _Imports(dict):
    """Looks words up as an importer would."""

    def __missing__(self, name: str) -> Any:
        home, _, key = name.rpartition(".")
        return getattr(importlib.import_module(home or "builtins"), key)

    def __contains__(self, name: object) -> bool:
        return True


def _no_structure(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(format, "validate", lambda *args: None)


def _no_columns(patch: pytest.MonkeyPatch) -> None:
    checked = format.validate
    zeros = torch.zeros_like

    def wrong(values: Any, crow: Any, col: Any, shape: Any) -> None:
        spread = torch.cat(
            [torch.arange(n, dtype=col.dtype) for n in crow.diff().clamp(0, 99).tolist()] or [zeros(col)]
        )
        checked(values, crow, spread if len(spread) == len(col) else col, shape)

    patch.setattr(format, "validate", wrong)


def _no_ties(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(files, "_tied", lambda tensors, description: {
        name: tensors[origin] for name, origin in description["tied"].items() if origin in tensors
    })  # fmt: skip


def _importing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(graphs, "FUNCTIONS", _Imports(vocabulary.FUNCTIONS))


def _any_form(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(files, "conform", lambda *args: None)
    patch.setattr(records, "conform", lambda *args: None)


def _any_names(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(files, "_check_names", lambda *args: [])


WRONG: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str]] = {
    "without any check of positions": (_no_structure, "positions: a column far outside"),
    "without a check of columns": (_no_columns, "positions: a column far outside"),
    "that lets positions be shared": (_no_ties, "description: crow as a parameter"),
    "that imports functions": (_importing, "architecture: an unknown function"),
    "that takes any form": (_any_form, "description: another entry"),
    "that takes any tensors": (_any_names, "tensors: an extra tensor"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_loader_is_rejected(name: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_, case = WRONG[name]
    test_a_forged_file_is_refused(case, whole, tmp_path)
    monkeypatch.setattr(nn.Module, "__call__", lambda *args: None)  # what is out of bounds stays unread
    break_(monkeypatch)
    with pytest.raises(AssertionError):
        test_a_forged_file_is_refused(case, whole, tmp_path)


def test_a_loader_without_a_checksum_is_rejected(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(whole.read_bytes())
    begin = 8 + int.from_bytes(content[:8], "little")
    content[begin + Forger(whole).header["last.bias"]["data_offsets"][0]] ^= 1
    (tmp_path / "m").write_bytes(content)
    check_refused(tmp_path / "m", "checksum")
    monkeypatch.setattr(tensorfiles, "_digest", lambda text, tensors: Forger(whole).metadata["sha256"])
    with pytest.raises(AssertionError, match="the file was loaded"):
        check_refused(tmp_path / "m", "checksum")


def test_a_hostile_file_for_a_skeleton_is_refused_too(whole: Path, tmp_path: Path) -> None:
    for change, words in (*POSITIONS.values(), TENSORS["an extra tensor"], TENSORS["a missing parameter"]):
        file = Forger(whole)
        change(file)
        file.write(tmp_path / "m")
        check_refused(tmp_path / "m", words, Small())
    assert verdict(whole, Small()) is None
