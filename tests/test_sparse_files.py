"""Files of block-sparse models: what is loaded is what was saved, in other processes too, and without pickle."""

from __future__ import annotations

import copy
import inspect
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="saving models needs torch")
pytest.importorskip("safetensors", reason="saving models needs safetensors")

import safetensors  # noqa: E402
import stored_models as stored  # noqa: E402
from torch import fx, nn  # noqa: E402
from torch.nn.utils import parametrize  # noqa: E402
from torch.utils import _pytree as pytree  # noqa: E402

from sparseopt.nn.sparse import files, graphs, vocabulary  # noqa: E402
from sparseopt.nn.sparse.files import load, save  # noqa: E402
from sparseopt.nn.sparse.layers import BlockSparseConv2d, BlockSparseLinear  # noqa: E402


@pytest.fixture(autouse=True)
def _quiet(one_thread: None) -> None:
    """Equal bits need equal threads."""


def outputs(model: nn.Module, x: Any) -> list[Any]:
    with torch.no_grad():
        return pytree.tree_leaves(model(x.clone()))


def check_same(ours: nn.Module, theirs: nn.Module, x: Any) -> None:
    """Equal names in the same order, equal tensors to the bit and to their strides, equal ties, equal results."""
    mine, other = ours.state_dict(), theirs.state_dict()
    assert list(mine) == list(other)
    for name in mine:
        assert mine[name].dtype == other[name].dtype, name
        assert mine[name].stride() == other[name].stride(), name
        assert torch.equal(mine[name], other[name]), name
    for named in ("named_parameters", "named_buffers"):
        pairs = [list(getattr(m, named)(remove_duplicate=False)) for m in (ours, theirs)]
        assert {n for n, _ in pairs[1]} <= {n for n, _ in pairs[0]}
        assert [n for n, _ in getattr(ours, named)()][: len(mine)]
    trains = [{n: p.requires_grad for n, p in m.named_parameters(remove_duplicate=False)} for m in (ours, theirs)]
    assert trains[0] == trains[1]
    assert ties(ours) == ties(theirs)
    assert not any(module.training for module in ours.modules())
    got, expected = outputs(ours, x), outputs(theirs, x)
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b) if isinstance(b, torch.Tensor) else a == b


def ties(model: nn.Module) -> set[frozenset[str]]:
    """The names of parameters that share one."""
    names: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), set()).add(name)
    return {frozenset(each) for each in names.values() if len(each) > 1}


def check_round_trip(
    write: Callable[..., Any], read: Callable[..., Any], model: nn.Module, x: Any, folder: Path
) -> None:
    """What `read` makes of what `write` wrote is the model; neither changes anything else; and again from there."""
    model.train()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    attributes = set(vars(model))
    write(model, folder / "one.safetensors")
    again = read(folder / "one.safetensors")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert set(vars(model)) == attributes
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    check_same(again, model.eval(), x)
    write(again, folder / "two.safetensors")
    check_same(read(folder / "two.safetensors"), model, x)
    assert {p.name for p in folder.iterdir()} == {"one.safetensors", "two.safetensors"}


@pytest.mark.parametrize("name", stored.MODELS)
def test_round_trip(name: str, tmp_path: Path) -> None:
    check_round_trip(save, load, *stored.made(name), tmp_path)


def _half(model: nn.Module, path: Path) -> None:
    save(copy.deepcopy(model).half(), path)


def _strayed(model: nn.Module, path: Path) -> None:
    save(model, path)
    model.eval()


def _in_training(path: Path) -> nn.Module:
    return load(path).train()


def _untied(path: Path) -> nn.Module:
    model = load(path)
    model.decoder.weight = nn.Parameter(model.decoder.weight.detach().clone())
    return model


def _contiguous(path: Path) -> nn.Module:
    return load(path).to(memory_format=torch.contiguous_format)


@pytest.mark.parametrize(
    ("name", "write", "read"),
    [
        ("mlp", _half, load),
        ("mlp", _strayed, load),
        ("mlp", save, _in_training),
        ("tied", save, _untied),
        ("channels last", save, _contiguous),
    ],
)
def test_a_wrong_round_trip_is_rejected(name: str, write: Any, read: Any, tmp_path: Path) -> None:
    model, x = stored.made(name)
    with pytest.raises(AssertionError):
        check_round_trip(write, read, model, x, tmp_path)


LOADER = """
    import sys, pathlib, torch
    from sparseopt.nn.sparse.files import load
    torch.set_num_threads(1)
    for file in sorted(pathlib.Path(sys.argv[1]).glob("*.safetensors")):
        x = torch.load(file.with_suffix(".input"), weights_only=True)
        with torch.no_grad():
            y = load(file)(x)
        torch.save(torch.utils._pytree.tree_leaves(y), file.with_suffix(".output"))
    assert not {"stored_models", "sparseopt.experiments"} & set(sys.modules)
"""


def test_a_process_without_the_code_of_the_models_computes_the_same_bits(tmp_path: Path) -> None:
    expected = {}
    for name in stored.MODELS:
        model, x = stored.made(name)
        save(model, tmp_path / f"{name}.safetensors")
        torch.save(x, tmp_path / f"{name}.input")
        expected[name] = outputs(model, x)
    elsewhere = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(LOADER), str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=elsewhere, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, values in expected.items():
        got = torch.load(tmp_path / f"{name}.output", weights_only=True)
        assert len(got) == len(values)
        for a, b in zip(got, values, strict=True):
            assert torch.equal(a, b) if isinstance(b, torch.Tensor) else a == b


def test_other_readers_of_safetensors_find_the_tensors_and_the_records(tmp_path: Path) -> None:
    model, _ = stored.made("tied")
    save(model, tmp_path / "m.safetensors")
    with safetensors.safe_open(tmp_path / "m.safetensors", "pt") as file:
        metadata, names = file.metadata(), set(file.keys())
        for name, tensor in model.state_dict().items():
            if name != "decoder.weight":
                assert torch.equal(file.get_tensor(name), tensor)
    assert names == set(model.state_dict()) - {"decoder.weight"}
    assert metadata["format"] == "pt"
    description = json.loads(metadata["sparseopt"])
    assert description["version"] == 1
    assert description["tied"] == {"decoder.weight": "embedding.weight"}
    (record,) = description["layers"]
    arguments = {"shape": [16, 16], "block": [4, 4], "activation": "none"}
    assert record == {"names": ["middle"], "kind": "BlockSparseLinear", "arguments": arguments, "bias": True}


def test_a_convolution_keeps_its_geometry_and_activation(tmp_path: Path) -> None:
    dense = nn.Conv2d(8, 12, (3, 1), stride=(2, 1), padding=(0, 1), dilation=(1, 2))
    save(BlockSparseConv2d.from_dense(dense, (4, 2), activation="relu"), tmp_path / "m")
    layer = load(tmp_path / "m")
    assert (layer.stride, layer.padding, layer.dilation) == ((2, 1), (0, 1), (1, 2))
    assert (layer.shape, layer.block, layer.activation) == ((12, 8, 3, 1), (4, 2), "relu")
    (record,) = stored.Forger(tmp_path / "m").description["layers"]
    arguments = {"shape": [12, 8, 3, 1], "block": [4, 2], "activation": "relu"}
    arguments |= {"stride": [2, 1], "padding": [0, 1], "dilation": [1, 2]}
    assert record["arguments"] == arguments


# ------------------------------------------------------------------------------------------------ words


NEEDED = {
    "in_features": 4, "out_features": 6, "in1_features": 2, "in2_features": 3, "in_channels": 4, "out_channels": 8,
    "kernel_size": 2, "num_features": 4, "num_groups": 2, "num_channels": 4, "normalized_shape": (3, 2), "size": 3,
    "num_embeddings": 5, "embedding_dim": 2, "norm_type": 2.0, "output_size": (3,), "padding": 1, "value": 0.5,
    "threshold": 0.25, "dim": 1, "unflattened_size": (2, 2), "upscale_factor": 2, "downscale_factor": 2, "groups": 2,
    "input_size": 3, "hidden_size": 4, "embed_dim": 8, "num_heads": 2,
}  # fmt: skip
OTHERS = {
    "stride": 2, "bias": False, "eps": 0.125, "affine": False, "momentum": None, "padding_idx": 1, "dilation": 3,
    "ceil_mode": True, "elementwise_affine": False, "kdim": 3, "vdim": 5, "batch_first": True, "add_bias_kv": True,
    "padding_mode": "reflect", "approximate": "tanh", "nonlinearity": "relu", "num_layers": 2, "bidirectional": True,
    "p": 0.75, "alpha": 2.5, "negative_slope": 0.5, "num_parameters": 3, "mode": "bilinear", "align_corners": True,
    "min_val": -2.0, "max_val": 3.0, "beta": 3.0, "lambd": 0.75, "return_indices": True, "track_running_stats": False,
}  # fmt: skip


def instances(kind: str) -> Iterator[nn.Module]:
    """With as many default arguments as possible, and with as few."""
    cls, names = vocabulary.MODULES[kind]
    known = inspect.signature(cls).parameters
    recurrent = kind in ("RNN", "GRU", "LSTM")
    needed = {key: NEEDED[key] for key in names if (key in known and known[key].default is inspect.Parameter.empty)}
    if recurrent:
        needed = {key: NEEDED[key] for key in ("input_size", "hidden_size")}
    yield cls(**needed)
    if "Transpose" in kind:  # pads with zeros only
        known = {key: value for key, value in known.items() if key != "padding_mode"}
    own = {key: value for key, value in OTHERS.items() if key in names and (recurrent or key in known)}
    if kind == "RNN" or not recurrent:
        yield cls(**needed | own)
    else:
        yield cls(**needed | {key: value for key, value in own.items() if key != "nonlinearity"})


@pytest.mark.parametrize("kind", vocabulary.MODULES)
def test_every_module_is_made_again_from_its_record(kind: str, tmp_path: Path) -> None:
    made = list(instances(kind))
    assert made
    for module in made:
        save(nn.Sequential(module, nn.Identity()), tmp_path / "m")
        again = load(tmp_path / "m").get_submodule("0")
        assert type(again) is type(module)
        assert repr(again) == repr(module)
        skip = ("training", "_parameters", "_buffers", "_modules", "_flat_weights", "_flat_weight_refs")
        assert {k: v for k, v in vars(again).items() if k not in skip} == {
            k: v for k, v in vars(module).items() if k not in skip
        }
        states = again.state_dict(), module.state_dict()
        assert list(states[0]) == list(states[1])
        assert all(torch.equal(a, b) for a, b in zip(*(state.values() for state in states), strict=True))


@pytest.mark.parametrize("name", vocabulary.FUNCTIONS)
def test_every_function_can_be_written_and_read(name: str) -> None:
    function = vocabulary.FUNCTIONS[name]
    assert vocabulary.FUNCTIONS[vocabulary.FUNCTION_NAMES[function]] is function
    input_ = {"op": "placeholder", "target": "x", "args": [], "kwargs": {}}
    args = [{"node": 0}, "shape"] if name == "getattr" else [{"node": 0}, {"node": 0}]
    args = args[:1] if name in ("operator.neg", "operator.pos", "operator.abs", "operator.invert") else args
    call = {"op": "call_function", "target": name, "args": args, "kwargs": {}}
    output = {"op": "output", "target": "output", "args": [{"node": 1}], "kwargs": {}}
    model = graphs.build(
        {"modules": [], "order": [], "parameters": [], "buffers": {}, "graph": [input_, call, output]}, {}, {}
    )
    assert [node.target for node in model.graph.nodes][1] is function
    assert "return" in model.code


UNSAFE = """
    as_strided empty empty_like new_empty new_empty_strided resize_ set_ data grad numpy item tolist type apply_ map_
    share_memory_ requires_grad_ register_hook transpose_ t_ squeeze_ unsqueeze_ swapaxes_ untyped_storage storage
    __class__ __dict__ __init__ __reduce_ex__ copy_ set_data resize_as_ backward
"""


def test_no_word_shows_other_memory_or_leaves_torch() -> None:
    unsafe = set(UNSAFE.split())
    assert not unsafe & vocabulary.METHODS
    assert not unsafe & vocabulary.ATTRIBUTES
    assert not unsafe & {name.rpartition(".")[2] for name in vocabulary.FUNCTIONS}
    assert not any("sparseopt" in str(function) for function in vocabulary.FUNCTIONS.values())


# ------------------------------------------------------------------------------------------------ skeletons


class Doubling(nn.Module):
    """A function that no file may name."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(16, 16)
        self.norm = nn.BatchNorm1d(16)

    def forward(self, x: Any) -> Any:
        return torch.fft.fft(self.norm(self.inner(x))).real


class Branching(Doubling):
    """What torch.fx cannot trace."""

    def forward(self, x: Any) -> Any:
        x = self.norm(self.inner(x))
        return x if x.sum() > 0 else -x


class Variadic(Doubling):
    """Any number of arguments."""

    def forward(self, *xs: Any) -> Any:
        return self.norm(self.inner(xs[0]))


class Half(nn.Module):
    """A parametrization."""

    def forward(self, x: Any) -> Any:
        return 0.5 * x


def _hooked() -> nn.Module:
    model = nn.Sequential(nn.Linear(16, 16))
    model.register_forward_hook(lambda module, args, out: out + 1)
    return model


def _inner_hook() -> nn.Module:
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 3))
    model[1].register_forward_hook(lambda module, args, out: out + 1)
    return model


def _replaced_forward() -> nn.Module:
    model = nn.Sequential(nn.Linear(16, 16))
    model.forward = lambda x: x
    return model


def _changed() -> nn.Module:
    model = nn.Sequential(nn.Linear(16, 16), nn.Unflatten(1, (16, 1)), nn.Conv1d(16, 3, 1))
    model[2]._reversed_padding_repeated_twice = [1, 1]
    return model


def _parametrized() -> nn.Module:
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 3))
    parametrize.register_parametrization(model[1], "weight", Half())
    return model


class Keyed(nn.Module):
    """A layer with some name."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key, self.inner = key, nn.ModuleDict({key: nn.Linear(16, 16)})

    def forward(self, x: Any) -> Any:
        return self.inner[self.key](x)


class Named(nn.Module):
    """A layer with some name, right in the model."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key
        self.add_module(key, nn.Linear(16, 16))

    def forward(self, x: Any) -> Any:
        return self._modules[self.key](x)


UNTRACED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "a foreign function": (Doubling, "fft_fft"),
    "a branch": (Branching, "cannot trace"),
    "any number of arguments": (Variadic, "cannot trace"),
    "a hook": (_hooked, "hook"),
    "a hook inside": (_inner_hook, "_forward_hooks was changed"),
    "another forward": (_replaced_forward, "forward"),
    "a changed module": (_changed, "_reversed_padding_repeated_twice was changed"),
    "a parametrization": (_parametrized, "parametrizations"),
    "a keyword as name": (lambda: Keyed("if"), "'inner.if' is no name"),
    "a letter that is none": (lambda: Keyed("naïve"), "'inner.naïve' is no name"),
    "a name that fx uses": (lambda: Named("graph"), "its graph gives no code"),
}


def refused(path: Path, model: nn.Module | None = None) -> str:
    """The one sentence with which `load` refuses a file."""
    try:
        load(path, model)
    except ValueError as error:
        text = str(error)
    else:
        raise AssertionError("the file was loaded")
    assert text.startswith(f"{path} cannot be loaded: ")
    assert text.endswith(".")
    assert "\n" not in text
    assert ". " not in text.replace("...", "")
    assert len(text) < len(str(path)) + 600
    return text.removeprefix(str(path))


@pytest.mark.parametrize("name", UNTRACED)
def test_a_model_that_cannot_be_described_is_loaded_into_its_skeleton(name: str, tmp_path: Path) -> None:
    make, why = UNTRACED[name]
    torch.manual_seed(0)
    model, x = stored.sparse(make(), least=16), torch.randn(4, 16)
    save(model, tmp_path / "m")
    message = refused(tmp_path / "m")
    assert why in message
    assert "load(path, model=...)" in message
    skeleton = make()
    again = load(tmp_path / "m", model=skeleton)
    assert again is skeleton
    assert not again.training
    assert any(isinstance(module, BlockSparseLinear) for module in again.modules())
    assert list(again.state_dict()) == list(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True))
    assert torch.equal(again(x), model(x))


def test_a_skeleton_on_meta_takes_the_dtypes_of_the_file(tmp_path: Path) -> None:
    model = stored.sparse(Branching()).bfloat16()
    save(model, tmp_path / "m")
    with torch.device("meta"):
        skeleton = Branching()
    again = load(tmp_path / "m", skeleton)
    x = torch.randn(4, 16).bfloat16()
    assert torch.equal(again(x), model(x))


def test_what_was_folded_into_a_layer_is_folded_in_the_skeleton(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Branching().eval()
    model.inner.bias = None
    folded = copy.deepcopy(model)
    folded.inner.bias = nn.Parameter(torch.randn(16))
    folded.norm = nn.Identity()
    save(folded, tmp_path / "m")
    again, x = load(tmp_path / "m", model), torch.randn(4, 16)
    assert torch.equal(again(x), folded(x))


def _wider() -> nn.Module:
    model = Branching()
    model.norm = nn.BatchNorm1d(17)
    return model


def _other_block() -> nn.Module:
    model = Branching()
    model.inner = nn.Linear(16, 17)
    return model


def _other_kind() -> nn.Module:
    model = Branching()
    model.inner = nn.Conv1d(16, 16, 1)
    return model


def _more() -> nn.Module:
    model = Branching()
    model.more = nn.Linear(2, 2)
    return model


def _fewer() -> nn.Module:
    model = Branching()
    model.norm = nn.ReLU()
    return model


def _nothing_there() -> nn.Module:
    model = Branching()
    del model.inner
    return model


@pytest.mark.parametrize(
    ("skeleton", "why"),
    [
        (_wider, "(16,), and torch.float32 (17,) in the model"),
        (lambda: Branching().double(), "torch.float64 (16,) in the model"),
        (_other_block, "where the model has Linear of shape (17, 16)"),
        (_other_kind, "where the model has Conv1d"),
        (_nothing_there, "where the model has NoneType"),
        (_more, "it has no tensor 'more.weight'"),
        (_fewer, "has no place in the model"),
    ],
)
def test_a_skeleton_that_does_not_fit_is_refused_and_stays_as_it_was(skeleton: Any, why: str, tmp_path: Path) -> None:
    save(stored.sparse(Branching()), tmp_path / "m")
    model = skeleton()
    before, modules = {k: v.clone() for k, v in model.state_dict().items()}, list(model.modules())
    assert why in refused(tmp_path / "m", model)
    assert list(model.modules()) == modules
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_layers_of_a_rewritten_graph_are_not_put_into_the_model_that_it_was(tmp_path: Path) -> None:
    # torch.fx may have moved a ReLU or a sum into a layer: in the old forward, it would come twice, or too early.
    make, x = stored.MODELS["mlp"]
    save(make(), tmp_path / "m")
    rewritten = load(tmp_path / "m")
    save(rewritten, tmp_path / "m")
    assert "rewritten by torch.fx: load it without model=" in refused(tmp_path / "m", make())
    again = load(tmp_path / "m", copy.deepcopy(rewritten))
    check_same(again, rewritten, x())


# ------------------------------------------------------------------------------------------------ saving


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (lambda: nn.Linear(2, 2, device="meta"), "on meta"),
        (lambda: nn.LazyLinear(2), "UninitializedParameter"),
        (lambda: nn.ParameterList([torch.eye(2).to_sparse()]), "sparse_coo"),
        (lambda: nn.ParameterList([torch.zeros(2, dtype=torch.complex128)]), "complex128"),
    ],
)
def test_tensors_without_plain_data_are_refused(model: Any, why: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=why) as refusal:
        save(model(), tmp_path / "m")
    assert str(refusal.value).endswith(".")
    assert list(tmp_path.iterdir()) == []


def test_tensors_that_share_memory_otherwise_are_saved_apart(tmp_path: Path) -> None:
    flat = torch.randn(12)
    model = nn.ParameterList([nn.Parameter(flat[:8].view(2, 4)), nn.Parameter(flat[4:]), nn.Parameter(flat)])
    save(model, tmp_path / "m")
    again = load(tmp_path / "m", nn.ParameterList([torch.zeros(2, 4), torch.zeros(8), torch.zeros(12)]))
    assert all(torch.equal(a, b) for a, b in zip(again, model, strict=True))


def test_a_compiled_model_is_saved_as_the_model_that_it_is(tmp_path: Path) -> None:
    model, x = stored.made("mlp")
    save(torch.compile(model, backend="eager"), tmp_path / "m")
    check_same(load(tmp_path / "m"), model, x)


def test_a_loaded_model_compiles_exports_trains_and_copies(tmp_path: Path) -> None:
    model, x = stored.made("residual")
    save(model, tmp_path / "m")
    again = load(tmp_path / "m")
    expected = model(x)
    assert torch.equal(copy.deepcopy(again)(x), expected)
    torch.testing.assert_close(torch.compile(again, backend="eager", fullgraph=True)(x), expected)
    torch.testing.assert_close(torch.export.export(again, (x,)).module()(x), expected)
    again.train()(x).square().mean().backward()
    assert all(parameter.grad is not None for parameter in again.parameters())


@pytest.mark.parametrize("moment", ["while writing", "before the new name"])
def test_a_failure_leaves_the_old_file(moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = stored.made("mlp")
    save(model, tmp_path / "m")

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync" if moment == "while writing" else "replace", fail)
    with pytest.raises(OSError, match="No space"):
        save(nn.Linear(2, 2), tmp_path / "m")
    monkeypatch.undo()
    assert [file.name for file in tmp_path.iterdir()] == ["m"]
    check_same(load(tmp_path / "m"), model, x)


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "m")


def test_without_safetensors_a_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ImportError, match=r"pip install 'sparseopt\[nn\]'"):
        save(nn.Linear(2, 2), tmp_path / "m")


def test_the_graph_module_is_a_graph_module(tmp_path: Path) -> None:
    model, _ = stored.made("functional")
    save(model, tmp_path / "m")
    again = load(tmp_path / "m")
    assert isinstance(again, fx.GraphModule)
    assert list(inspect.signature(again.forward).parameters) == ["x"]
    assert files.VERSION == 1
