"""`sparseopt nn bench`: what it times, against what, and how it tells.

Times are made by hand wherever a number is tested: `Clock` stands in for the race and says what it was asked to time.
Oracles of results: the dense network in float64.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="sparseopt.nn needs torch")

from torch import nn  # noqa: E402

from sparseopt.nn import BlockGrid, plan, report  # noqa: E402
from sparseopt.nn.sparse import benchmark, rivals  # noqa: E402
from sparseopt.nn.sparse.benchmark import (  # noqa: E402
    Result,
    bench_linear,
    bench_network,
    compressed,
    drop_random_blocks,
    environment,
)
from sparseopt.nn.sparse.files import save  # noqa: E402
from sparseopt.nn.sparse.layers import BlockSparseConv2d, BlockSparseLinear  # noqa: E402
from sparseopt.nn.sparse.rivals import Contestant  # noqa: E402
from sparseopt.nn.sparse.timing import race  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


class Clock:
    """A race whose times are known: 1 ms for the first, 2 ms for the second contestant, ...; it runs each once."""

    def __init__(self) -> None:
        self.races: list[dict[str, Any]] = []

    def __call__(self, calls: Mapping[str, Any], seconds: float, **limits: int) -> dict[str, float]:
        self.races.append(dict(calls))
        return {name: 1e-3 * number for number, name in enumerate(calls, start=1) if call_returns(calls[name])}


def call_returns(call: Callable[[], Any]) -> bool:
    return call() is not None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(benchmark, "race", fake)
    return fake


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 3))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(8, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, stride=2, groups=2, padding=1),
        nn.Conv2d(16, 8, 3, dilation=2, padding="same", padding_mode="circular"),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


# -- dropping blocks ---------------------------------------------------------------------------------------------------


def kept_of(model: nn.Module, chosen: Any) -> list[int]:
    return [int((each.grid.pool(model.get_parameter(each.name) != 0) > 0).sum()) for each in chosen.layers]


def require_exact_shares(drop: Callable[..., Any]) -> None:
    """The law: as many blocks as the plan keeps, whole ones, and nothing else changes."""
    model = mlp()
    before = copy.deepcopy(model.state_dict())
    chosen = drop(model, 0.75, 8, min_blocks=20)
    assert chosen == plan(mlp(), 0.75, 8, min_blocks=20)
    assert kept_of(model, chosen) == [each.kept for each in chosen.layers] == [8, 12]
    for name, value in model.state_dict().items():
        assert torch.equal(value[value != 0], before[name][value != 0])
    assert torch.equal(model[4].weight, before["4.weight"])


def by_lot(model: nn.Module, sparsity: float, block: int, min_blocks: int) -> Any:
    chosen = plan(model, sparsity, block, min_blocks)
    for each in chosen.layers:
        mask = torch.rand(each.grid.counts, generator=torch.Generator().manual_seed(3)) > sparsity
        model.get_parameter(each.name).data.mul_(each.grid.expand(mask.float()))
    return chosen


def single_entries(model: nn.Module, sparsity: float, block: int, min_blocks: int) -> Any:
    chosen = drop_random_blocks(model, sparsity, block, min_blocks)
    model.get_parameter(chosen.layers[0].name).data[0, 0] = 1.0
    return chosen


def test_random_blocks_are_dropped_in_exact_shares() -> None:
    require_exact_shares(drop_random_blocks)
    for wrong in (by_lot, single_entries):
        with pytest.raises(AssertionError):
            require_exact_shares(wrong)


def test_blocks_are_random_and_the_seed_decides() -> None:
    def zeros(seed: int) -> Any:
        linear = nn.Linear(64, 64)
        drop_random_blocks(linear, 0.5, 8, min_blocks=64, seed=seed)
        return linear.weight == 0

    assert torch.equal(zeros(1), zeros(1))
    assert not torch.equal(zeros(1), zeros(2))


# -- rivals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "x"),
    [
        (mlp, lambda: torch.randn(5, 32)),
        (mlp, lambda: torch.randn(2, 3, 32)),
        (mlp, lambda: torch.randn(0, 32)),
        (convolutional, lambda: torch.randn(3, 8, 9, 9)),
        (lambda: nn.Linear(32, 3, bias=False), lambda: torch.randn(4, 32)),
    ],
)
def test_all_dense_forms_compute_the_network(make: Callable[[], nn.Module], x: Callable[[], Any]) -> None:
    model, inputs = make().eval(), x()
    exact = copy.deepcopy(model).double()(inputs.double())
    before = copy.deepcopy(model.state_dict())
    found = rivals.rivals(model, inputs)
    assert next(iter(found)).startswith("torch")
    for each in found.values():
        assert each.model is not model
        torch.testing.assert_close(each().double(), exact, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.state_dict().keys() ^ before.keys()


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN")
def test_memory_orders_and_libraries_are_told_apart() -> None:
    assert set(rivals.rivals(mlp(), torch.randn(2, 32))) >= {"torch", "oneDNN", "packed"}
    found = rivals.rivals(convolutional().eval(), torch.randn(2, 8, 9, 9))
    assert list(found) == [f"{way}, channels {order}" for way in ("torch", "packed") for order in ("first", "last")]
    for name, each in found.items():
        (x,) = each.example
        assert x.is_contiguous(memory_format=torch.channels_last) == name.endswith("last")
        assert x.is_contiguous() == name.endswith("first")
    plain, packed = found["torch, channels last"].model, found["packed, channels last"].model
    assert [isinstance(packed[i], nn.Conv2d) for i in (0, 3, 4)] == [False, False, True]  # a circular one stays
    assert all(isinstance(plain[i], nn.Conv2d) for i in (0, 3, 4))
    assert plain[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_other_dtypes_have_one_form() -> None:
    assert list(rivals.rivals(mlp().double(), torch.randn(2, 32, dtype=torch.float64))) == ["torch"]


# -- results -----------------------------------------------------------------------------------------------------------


def test_a_result_compares_with_the_fastest_dense_form() -> None:
    result = Result("mlp", (8, 16), 0.9, 0.125, 32, {"torch": 6.0, "packed": 4.0}, {"auto": 2.0, "sparse": 8.0})
    assert (result.rival, result.limit) == ("packed", 8.0)
    assert (result.speed_up("auto"), result.speed_up("sparse")) == (2.0, 0.5)
    assert (result.throughput("auto"), result.throughput("packed")) == (16_000.0, 8_000.0)
    written = json.loads(json.dumps(result.to_dict()))
    assert written == {
        "case": "mlp",
        "block": [8, 16],
        "sparsity": 0.9,
        "density": 0.125,
        "batch": 32,
        "dense": {"torch": 6.0, "packed": 4.0},
        "sparse": {"auto": 2.0, "sparse": 8.0},
        "rival": "packed",
        "speed_up": {"auto": 2.0, "sparse": 0.5},
        "throughput": {"torch": 32e3 / 6.0, "packed": 8e3, "auto": 16e3, "sparse": 4e3},
    }


def test_the_environment_says_what_numbers_depend_on() -> None:
    about = environment()
    assert about["threads"] == 1
    assert about["versions"]["torch"] == torch.__version__
    assert set(about["versions"]) == {"torch", "numpy", "numba"}
    assert about["cpu"]
    assert json.loads(json.dumps(about)) == about


def test_one_race_has_all_blocks_and_sparsities_of_a_layer(clock: Clock) -> None:
    results = list(bench_linear(48, 64, [8, 16], [0.5, 0.75], [1, 3]))
    assert len(clock.races) == 2
    assert [(each.batch, each.block, each.sparsity) for each in results[:4]] == [
        (1, (8, 8), 0.5),
        (1, (8, 8), 0.75),
        (1, (16, 16), 0.5),
        (1, (16, 16), 0.75),
    ]
    assert [each.batch for each in results[4:]] == [3] * 4
    assert [each.density for each in results[:4]] == [0.5, 0.25, 0.5, 0.25]
    assert all(each.dense["torch"] == 1.0 for each in results)
    first = len(results[0].dense) + 1
    assert [each.sparse["sparse"] for each in results[:4]] == pytest.approx([first, first + 1, first + 2, first + 3])
    layers = [each.model for each in clock.races[1].values() if isinstance(each.model, BlockSparseLinear)]
    assert [layer.block for layer in layers] == [(8, 8), (8, 8), (16, 16), (16, 16)]
    assert all(each.example[0].shape == (3, 64) for each in clock.races[1].values())


def test_a_network_is_timed_folded_on_every_batch_size(clock: Clock) -> None:
    model = convolutional()
    model(torch.randn(64, 8, 9, 9))
    drop_random_blocks(model, 0.5, 8, min_blocks=18)
    before = copy.deepcopy(model.state_dict())
    ways = {"given": lambda x: compressed(model.eval(), (8, 8))["sparse"](x)}
    results = list(bench_network(model, ways, lambda n: torch.randn(n, 8, 9, 9), [1, 2], "small", (8, 8), 0.5))
    assert [each.batch for each in results] == [1, 2]
    counted = report(model, torch.randn(1, 8, 9, 9))
    assert results[0].density == pytest.approx(counted.macs_kept / counted.macs)
    assert 0.5 < results[0].density < 0.9
    assert list(results[0].sparse) == ["given"]
    assert results[0].sparse["given"] == pytest.approx(len(results[0].dense) + 1.0)
    for calls in clock.races:
        assert not [m for each in calls.values() for m in each.model.modules() if isinstance(m, nn.BatchNorm2d)]
        assert any(isinstance(m, BlockSparseConv2d) for m in calls["given"].model.modules())
        assert calls["given"].example[0].is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_both_backends_of_compress_are_timed(clock: Clock) -> None:
    model = mlp().eval()
    drop_random_blocks(model, 0.75, 8, min_blocks=20)
    (result,) = bench_network(model, compressed(model, (8, 8)), lambda n: torch.randn(n, 32), [2], "mlp", (8, 8), 0.75)
    assert list(result.sparse) == ["auto", "sparse"]
    forced = clock.races[0]["sparse"].model
    assert [type(forced[i]) for i in (0, 2, 4)] == [BlockSparseLinear, BlockSparseLinear, nn.Linear]


def _without_bias(layer: Any, x: Any) -> Any:
    return nn.functional.linear(x, layer.weight.to_dense())


def _not_a_number(layer: Any, x: Any) -> Any:
    return nn.functional.linear(x, layer.weight.to_dense(), layer.bias) / 0.0 * 0.0


@pytest.mark.parametrize("wrong", [_without_bias, _not_a_number])
def test_a_wrong_product_is_not_timed(clock: Clock, monkeypatch: pytest.MonkeyPatch, wrong: Any) -> None:
    monkeypatch.setattr(BlockSparseLinear, "forward", wrong)
    with pytest.raises(RuntimeError, match="sparse computes something else than dense: they differ by"):
        list(bench_linear(64, 64, [8], [0.5], [4]))
    model = mlp().eval()
    drop_random_blocks(model, 0.75, 8, min_blocks=20)
    layer = BlockSparseLinear.from_dense(model[0], 8)
    network = nn.Sequential(layer, *list(model)[1:])
    with pytest.raises(RuntimeError, match="given computes something else than torch"):
        list(bench_network(model, {"given": lambda x: network}, lambda n: torch.randn(n, 32), [4], "mlp", None, 0.75))
    assert clock.races == []


def test_a_wrong_dense_form_is_not_a_rival(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def dishonest(model: nn.Module, example: Any) -> dict[str, Contestant]:
        return {"torch": Contestant(model, (example,)), "instant": Contestant(nn.Identity(), (example[..., :48],))}

    monkeypatch.setattr(benchmark, "rivals", dishonest)
    with pytest.raises(RuntimeError, match="instant computes something else than torch"):
        list(bench_linear(48, 64, [8], [0.5], [4]))


def test_a_network_without_weights_is_refused() -> None:
    empty = nn.Linear(8, 8)
    empty.weight.data.zero_()
    with pytest.raises(ValueError, match="empty multiplies by no weight that is left: there is nothing to time"):
        list(bench_network(empty, {}, lambda n: torch.randn(n, 8), [1], "empty", None, 1.0))


def test_real_times_order_a_small_and_a_large_layer() -> None:
    (small,) = bench_linear(64, 64, [8], [0.5], [1], seconds=0.02)
    (large,) = bench_linear(64, 64, [8], [0.5], [8192], seconds=0.2)
    assert small.dense["torch"] < large.dense["torch"]
    assert small.sparse["sparse"] < large.sparse["sparse"]


# -- pictures ----------------------------------------------------------------------------------------------------------


def results_of(name: str = "sparse", case: str = "1024x1024") -> list[Result]:
    return [
        Result(case, (block, block), sparsity, 1.0 - sparsity, batch, {"torch": 1.0}, {name: block / 64.0})
        for sparsity in (0.75, 0.875)
        for block in (8, 32)
        for batch in (16, 1, 4)
    ]


def test_the_picture_has_a_line_for_every_block_and_one_at_the_limit() -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    from sparseopt.nn.sparse.pictures import plot_speed_up

    figure = Figure()
    panels = plot_speed_up(results_of(), figure)
    assert [ax.get_title() for ax in panels] == [f"1024x1024, {p} % of the blocks dropped" for p in ("75", "87.5")]
    for ax, limit in zip(panels, (4.0, 8.0), strict=True):
        drawn = {line.get_label(): line for line in ax.get_lines()}
        assert list(drawn["blocks of 8 x 8"].get_xdata()) == [1, 4, 16]
        assert list(drawn["blocks of 8 x 8"].get_ydata()) == [8.0] * 3
        assert list(drawn["blocks of 32 x 32"].get_ydata()) == [2.0] * 3
        levels = [line.get_ydata()[0] for name, line in drawn.items() if name.startswith("_")]
        assert levels == [1.0, limit]
        low, high = ax.get_ylim()
        assert low < 1.0
        assert high > 8.0
        assert f"1 / density = {limit:g}" in [text.get_text() for text in ax.texts]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["blocks of 8 x 8", "blocks of 32 x 32"]


def test_a_picture_shows_one_case() -> None:
    pytest.importorskip("matplotlib")
    from sparseopt.nn.sparse.pictures import plot_speed_up

    for wrong, number in (([], 0), ([*results_of(), *results_of(case="2048x2048")], 2)):
        with pytest.raises(ValueError, match=f"a picture shows the results of one case, got {number}"):
            plot_speed_up(wrong)


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_table_of_layers(run: Run, clock: Clock) -> None:
    status, out, err = run("nn", "bench", "--linear", "64x48", "--block", 8, 16, "--sparsity", ".5", "--batch", 1, 2)
    assert (status, err) == (0, "")
    about, empty, title, shares, heading, first, second, limit = out.splitlines()
    assert f"torch {torch.__version__}" in about
    assert ", 1 threads, " in about
    assert (empty, title) == ("", "64 x 48, times faster than dense, by the share of dropped blocks and their side B")
    assert shares.split() == ["dense", "ms", "50", "%", "50", "%"]
    assert heading.split() == ["batch", "B=8", "B=16", "dense", "is"]
    forms = len(clock.races[0]) - 2
    faster = [f"{1.0 / (forms + 1):.2f}", f"{1.0 / (forms + 2):.2f}"]
    assert first.split() == ["1", "1", *faster, "torch"]
    assert second.split() == ["2", "1", *faster, "torch"]
    assert limit.split() == ["limit", "2.00", "2.00"]


def test_the_table_of_a_network(run: Run, clock: Clock) -> None:
    arguments = ("--model", "mlp", "--sparsity", ".9", "--block", 32, "--batch", 5, 500)
    status, out, err = run("nn", "bench", *arguments)
    assert (status, err) == (0, "")
    _, _, title, heading, first, second = out.splitlines()
    assert title == (
        "mlp, 90 % of the blocks of 32 x 32 dropped in 3 of 3 weights: 10.0 % of the multiplications are left"
    )
    assert heading.split()[:3] == ["batch", "dense", "ms"]
    forms = len(clock.races[0]) - 2
    auto, sparse = forms + 1, forms + 2
    assert first.split()[:3] == ["5", "1", "5,000"]
    assert first.split()[3:] == [
        *(str(auto), f"{5000 / auto:,.0f}", f"{1 / auto:.2f}"),
        *(str(sparse), f"{5000 / sparse:,.0f}", f"{1 / sparse:.2f}"),
        "torch",
    ]
    assert second.split()[:3] == ["500", "1", "500,000"]


def test_files_of_numbers_and_pictures(run: Run, clock: Clock, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    options = ("--block", 8, "--sparsity", ".5", ".75", "--batch", 1, "--json", "t.json", "--plot", "p.png")
    status, out, err = run("nn", "bench", "--linear", "32x32", "64x32", *options)
    assert (status, err) == (0, "")
    content = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    assert set(content) == {"environment", "results"}
    assert content["environment"]["versions"]["torch"] == torch.__version__
    told = [(each["case"], each["block"], each["sparsity"], each["batch"]) for each in content["results"]]
    assert told == [(case, [8, 8], sparsity, 1) for case in ("32x32", "64x32") for sparsity in (0.5, 0.75)]
    assert out.splitlines()[-2:] == ["Wrote the times to t.json.", "Drew p_32x32.png, p_64x32.png."]
    for name in ("p_32x32.png", "p_64x32.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_threads_are_set_and_given_back(run: Run, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    monkeypatch.setattr(
        benchmark, "race", lambda calls, *_, **__: used.append(torch.get_num_threads()) or clock(calls, 1)
    )
    arguments = ("nn", "bench", "--linear", "32x32", "--block", 8, "--sparsity", ".5", "--batch", 1, "--threads", 2)
    status, out, _ = run(*arguments)
    assert status == 0
    assert ", 2 threads, " in out.splitlines()[0]
    assert used == [2]
    assert torch.get_num_threads() == 1


def test_a_real_run(run: Run, tmp_path: Path) -> None:
    options = ("--block", 8, "--sparsity", ".9", "--batch", 2, "--seconds", "0.01", "--json", "t.json")
    status, out, err = run("nn", "bench", "--model", "resnet20", *options)
    assert (status, err) == (0, "")
    assert "resnet20, 90 % of the blocks of 8 x 8 dropped in " in out
    (result,) = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))["results"]
    assert min([*result["dense"].values(), *result["sparse"].values()]) > 0.0
    assert set(result["sparse"]) == {"auto", "sparse"}
    assert 0.4 < result["density"] < 0.5  # the first stage has too few blocks and stays dense


def test_a_saved_network_is_timed_as_it_is(run: Run, clock: Clock, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 3)).eval()
    drop_random_blocks(model, 0.75, 8, min_blocks=32)
    save(compressed(model, (8, 8))["sparse"](torch.randn(2, 32)), tmp_path / "small.safetensors")
    arguments = ("nn", "bench", "--model", "small.safetensors", "--input", "32", "--batch", 4, "--json", "t.json")
    status, out, err = run(*arguments)
    assert (status, err) == (0, "")
    left = 100.0 * (8 * 64 + 64 * 3) / (32 * 64 + 64 * 3)
    assert f"small.safetensors, blocks of 8 x 8: {left:.1f} % of the multiplications are left" in out
    (result,) = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))["results"]
    assert (list(result["sparse"]), result["block"]) == (["saved"], [8, 8])
    assert any(isinstance(each, BlockSparseLinear) for each in clock.races[0]["saved"].model.modules())
    assert not any(isinstance(each, BlockSparseLinear) for each in clock.races[0]["torch"].model.modules())
    status, _, err = run("nn", "bench", "--model", "small.safetensors")
    assert (status, "give it, such as --input 3x224x224" in err) == (2, True)
    status, _, err = run("nn", "bench", "--model", "small.safetensors", "--input", "4x31")
    assert (status, "small.safetensors cannot run on --input 4x31 (" in err, err.count("\n")) == (2, True, 1)
    save(model, tmp_path / "dense.safetensors")
    status, _, err = run("nn", "bench", "--model", "dense.safetensors", "--input", "32")
    assert (status, "dense.safetensors holds no block-sparse layer" in err) == (2, True)


REFUSED = {
    "no command": (["nn"], "the following arguments are required: COMMAND"),
    "unknown model": (["nn", "bench", "--model", "resnet18"], "--model 'resnet18' is unknown: use resnet50, resnet20"),
    "missing file": (["nn", "bench", "--model", "a.safetensors", "--input", "3"], "a.safetensors does not exist"),
    "share above one": (["nn", "bench", "--sparsity", "1.5"], "'1.5' is no share in [0, 1), such as 0.9"),
    "no number": (["nn", "bench", "--sparsity", "most"], "'most' is no share in [0, 1), such as 0.9"),
    "batch of none": (["nn", "bench", "--batch", "0"], "'0' is no integer >= 1"),
    "no time": (["nn", "bench", "--seconds", "0"], "'0' is no number of seconds > 0"),
    "block too big": (
        ["nn", "bench", "--model", "resnet20", "--block", "512"],
        "choose a smaller block than 512, or a lower min_blocks than 100",
    ),
    "block larger than the layer": (
        ["nn", "bench", "--linear", "32x64", "--block", "8", "64"],
        "a block of 64 x 64 is larger than the layer, 32 x 64",
    ),
    "half a layer": (["nn", "bench", "--linear", "1024"], "'1024' is no size of a layer: write OUTPUTSxINPUTS"),
    "no layer": (["nn", "bench", "--linear", "wide"], "'wide' is no shape, such as 3x224x224"),
    "both": (["nn", "bench", "--linear", "8x8", "--model", "mlp"], "not allowed with argument"),
    "input of a known model": (["nn", "bench", "--model", "mlp", "--input", "3"], "--input is for a FILE.safetensors"),
    "blocks of a file": (
        ["nn", "bench", "--model", "a.safetensors", "--block", "8"],
        "a.safetensors has blocks of its own: leave out --sparsity and --block",
    ),
    "no folder": (["nn", "bench", "--json", "nowhere/t.json"], "The folder of 'nowhere/t.json' does not exist"),
    "no picture": (["nn", "bench", "--plot", "times.txt"], "A figure is saved as .png, .pdf, .svg or .jpg"),
}


@pytest.mark.parametrize(("arguments", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_is_told_in_one_sentence(run: Run, arguments: list[str], reason: str) -> None:
    status, _, err = run(*arguments)
    assert status == 2
    assert reason in err
    assert err.startswith("sparseopt: ")
    assert err.count("\n") == 1


def test_without_torch_the_package_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from sparseopt.cli import bench

    monkeypatch.setattr(bench, "find_spec", lambda name: None)
    status, _, err = run("nn", "bench")
    assert status == 2
    assert err == 'sparseopt: PyTorch, which runs networks, is not installed: pip install "sparseopt[nn]".\n'


def test_help_lists_options_and_models(run: Run) -> None:
    status, out, _ = run("nn", "bench", "--help")
    assert status == 0
    for word in (
        "--model",
        "--linear",
        "--sparsity",
        "--block",
        "--batch",
        "--threads",
        "--json",
        "--plot",
        "--seconds",
    ):
        assert f"  {word} " in out
    for name in ("resnet50", "resnet20", "mlp", "click", "FILE"):
        assert f"  {name} " in out
    status, out, _ = run("--help")
    assert "    nn          time block-sparse networks\n" in out


def test_other_commands_do_not_load_torch() -> None:
    code = "import sys; from sparseopt.cli import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    for arguments in (["--help"], ["nn", "bench", "--help"], ["regularizers"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "False"


def test_race_takes_turns() -> None:
    turns: list[str] = []
    race({name: lambda name=name: turns.append(name) for name in "ab"}, seconds=0.0, least=6)
    assert "".join(turns).endswith("aaaabbbbaaaabbbb")


def test_grids_of_the_benchmark_are_those_of_the_package() -> None:
    (result,) = bench_linear(20, 20, [8], [0.5], [1], seconds=0.001)
    assert result.density == 4 / BlockGrid((20, 20), (8, 8)).n_blocks
