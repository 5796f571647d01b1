"""Plans: the real sparsities of the paper, overrides, budgets, tables, and plans that are written and compared."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="plans are made for networks")

from plan_cases import mlp, reasons  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from sparseopt.experiments.networks import click_model, resnet20, resnet50  # noqa: E402
from sparseopt.nn import Sparsifier, plan, planning  # noqa: E402

PAPER = {32: (68, 78, 88, 92), 64: (58, 66, 74, 79)}  # arXiv 2402.17902, table 1, at 70, 80, 90 and 95 %
NOMINAL = (0.7, 0.8, 0.9, 0.95)


@pytest.fixture(scope="module")
def meta_resnet50() -> nn.Module:
    with torch.device("meta"):
        return resnet50()


# --------------------------------------------------------------------------------------------------- the paper's plan


def unlike_the_paper(model: nn.Module, **settings: Any) -> list[tuple[int, float, float]]:
    """Block, nominal sparsity and printed real sparsity wherever that is not the paper's, in whole percents."""
    found = []
    for block, wanted in PAPER.items():
        for nominal, percents in zip(NOMINAL, wanted, strict=True):
            table = str(plan(model, nominal, block, **settings))
            printed = float(re.search(r"real sparsity (\d\.\d+) of", table)[1])  # type: ignore[index]
            if math.floor(100.0 * printed + 0.5) != percents:
                found.append((block, nominal, printed))
    return found


def test_resnet50_has_the_real_sparsities_of_the_paper(meta_resnet50: nn.Module) -> None:
    assert unlike_the_paper(meta_resnet50) == []


@pytest.mark.parametrize(
    ("block", "percents"), [(32, (68.12, 77.83, 87.56, 92.42)), (64, (57.94, 66.18, 74.45, 78.58))]
)
def test_real_sparsities_to_two_digits(meta_resnet50: nn.Module, block: int, percents: tuple[float, ...]) -> None:
    found = [round(100.0 * plan(meta_resnet50, s, block).real_sparsity, 2) for s in NOMINAL]
    assert found == list(percents)


@pytest.mark.parametrize("rounding", [round, math.ceil], ids=["nearest", "ceiling"])
def test_other_roundings_of_kept_blocks_are_not_the_papers(
    meta_resnet50: nn.Module, rounding: Callable[[float], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "kept_blocks", lambda n, s: max(1, rounding(round((1.0 - s) * n, 9))))
    assert unlike_the_paper(meta_resnet50) != []


@pytest.mark.parametrize("settings", [{"exclude": ["fc"]}, {"min_blocks": 2}, {"min_blocks": 200}], ids=str)
def test_other_layers_are_not_the_papers(meta_resnet50: nn.Module, settings: dict[str, Any]) -> None:
    assert unlike_the_paper(meta_resnet50, **settings) != []


@pytest.mark.parametrize(("block", "eligible"), [(8, 53), (16, 46), (32, 35), (64, 18)])
def test_eligible_layers_of_resnet50(meta_resnet50: nn.Module, block: int, eligible: int) -> None:
    made = plan(meta_resnet50, 0.9, block)
    assert (len(made.layers), len(made.skipped)) == (eligible, 54 - eligible)
    assert made.weights == 25_502_912
    assert all(layer.grid.n_blocks >= 100 for layer in made.layers)
    assert all(re.fullmatch(r"\d\d? blocks?, fewer than 100", entry.reason) for entry in made.skipped)


def test_the_real_sparsity_is_that_of_the_weights_where_blocks_are_equally_large() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Conv2d(16, 32, 3), nn.Linear(4, 4))
    made = plan(model, 0.83, 8, min_blocks=20)
    zeros = sum(layer.grid.numel - 64 * layer.kept for layer in made.layers)
    assert made.weights == 64 * 64 + 32 * 16 * 9 + 16
    assert made.real_sparsity == pytest.approx(zeros / made.weights, rel=1e-14)


def test_the_networks_of_the_experiments() -> None:
    made = plan(click_model([5] * 39), 0.9, 20)
    assert made.layers[0].grid.matrix_shape == (400, 390)
    assert made.layers[0].grid.counts == (20, 20)  # ragged: 390 is 19.5 times 20
    assert reasons(made) == {
        "embedding.weight": "its type is not in include",
        "dense.6.weight": "20 blocks, fewer than 100",
    }
    assert len(plan(resnet20(), 0.8, 8, min_blocks=30).layers) == 18


def test_resnet20_takes_published_weights(shared_data: Path) -> None:
    files = sorted((shared_data / "pretrained").glob("resnet20-*.th"))
    if not files:
        pytest.skip("no published ResNet-20 lies in the folder of data sets")
    published = torch.load(files[0], map_location="cpu", weights_only=True)["state_dict"]
    resnet20().load_state_dict({name.removeprefix("module."): value for name, value in published.items()})


# --------------------------------------------------------------------------------------------------------- overrides


def test_overrides_change_single_layers() -> None:
    overrides = {
        "*": {"min_blocks": 4},
        "1": {"block": (2, 4), "min_blocks": 8},
        "2": {"sparsity": 0.5, "min_blocks": 4},
        "3": {"segments": 3, "min_blocks": 4},
    }
    made = plan(mlp(32, 32, 32, 32, 33), 0.9, 8, min_blocks=1000, overrides=overrides)
    found = {
        layer.name[0]: (layer.grid.block, layer.sparsity, layer.grid.segments, layer.fixed) for layer in made.layers
    }
    assert found == {
        "0": ((8, 8), 0.9, 1, False),
        "1": ((2, 4), 0.9, 1, False),
        "2": ((8, 8), 0.5, 1, True),
        "3": ((8, 8), 0.9, 3, False),
    }


def test_the_last_override_that_matches_counts_alone() -> None:
    overrides: dict[str, Any] = {"*": {"block": 4, "sparsity": 0.25}, "0": {"sparsity": 0.5}}
    first, second = plan(mlp(64, 64, 64), 0.9, 2, overrides=overrides).layers
    assert (first.grid.block, first.sparsity) == ((2, 2), 0.5)
    assert (second.grid.block, second.sparsity) == ((4, 4), 0.25)


@pytest.mark.parametrize("budget", ["uniform", "global", "erk", "flops"])
def test_a_sparsity_of_its_own_holds_under_every_budget(budget: str) -> None:
    torch.manual_seed(0)
    model = mlp(80, 80, 160, 40)
    made = plan(model, 0.9, 4, overrides={"1": {"sparsity": 0.25}}, budget=budget)
    s = Sparsifier(model, made, "magnitude", total_steps=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    s.attach(optimizer)
    for _ in range(10):
        model(torch.ones(1, 80)).sum().backward()
        optimizer.step()
    kept = {layer.name: int(layer.kept.sum()) for layer in s.layers}
    total = sum(layer.grid.n_blocks for layer in made.layers)
    assert kept["1.weight"] == 600
    assert sum(kept.values()) - 600 <= round(0.1 * (total - 800))


def test_what_overrides_change_shows_in_the_table() -> None:
    overrides: dict[str, Any] = {"1": {"sparsity": 0.25, "block": 8}}
    rows = {line.split()[0]: line for line in str(plan(mlp(80, 80, 80), 0.9, 4, overrides=overrides)).splitlines()}
    assert rows["0.weight"].split() == "0.weight 80 x 80 4 x 4 20 x 20 400 40 0.900".split()
    assert rows["1.weight"].split() == "1.weight 80 x 80 8 x 8 10 x 10 100 75 0.250".split()


# -------------------------------------------------------------------------------------------------- budgets and table


def test_erk_spreads_the_entries_over_the_layers() -> None:
    made = plan(mlp(64, 64, 256, 512), 0.8, 2, budget="erk")
    assert sum(layer.grid.numel * (1.0 - layer.sparsity) for layer in made.layers) == pytest.approx(
        0.2 * made.weights, rel=1e-12
    )
    assert made.layers[0].sparsity < made.layers[1].sparsity < made.layers[2].sparsity


def test_flops_needs_to_know_what_layers_cost() -> None:
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.aside = nn.Conv2d(4, 16, 3), nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x)

    with pytest.raises(ValueError, match=r"^budget='flops' needs example_input in a model with convolutions: pass one"):
        plan(Forked(), 0.5, 2, min_blocks=2, budget="flops")
    with pytest.raises(ValueError, match=r"^example_input does not reach aside.weight, and budget='flops' must know"):
        plan(Forked(), 0.5, 2, min_blocks=2, budget="flops", example_input=torch.zeros(1, 4, 8, 8))
    made = plan(
        Forked(), 0.5, 2, min_blocks=2, budget="flops", exclude=["aside"], example_input=torch.zeros(1, 4, 8, 8)
    )
    assert [layer.uses for layer in made.layers] == [36.0]
    uniform = plan(Forked(), 0.5, 2, min_blocks=2, example_input=torch.zeros(1, 4, 8, 8))
    assert [layer.uses for layer in uniform.layers] == [36.0, 0.0]


def test_embeddings_never_multiply_counted_or_not() -> None:
    model = nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 50))
    for example in (None, torch.zeros(2, 7, dtype=torch.int64)):
        settings: dict[str, Any] = {"include": [nn.Linear, nn.Embedding], "example_input": example}
        made = plan(model, 0.5, 2, budget="flops", **settings)
        assert [layer.uses for layer in made.layers] == [0.0, 1.0 if example is None else 7.0]


@pytest.mark.parametrize("budget", ["global", "flops"])
def test_numbers_that_depend_on_scores_are_marked_as_forecasts(budget: str) -> None:
    table = str(plan(mlp(80, 80, 80), 0.9, 4, overrides={"1": {"sparsity": 0.5}}, budget=budget))
    rows = {line.split()[0]: line.split()[-2:] for line in table.splitlines()}
    assert rows["0.weight"] == ["~40", "~0.900"]
    assert rows["1.weight"] == ["200", "0.500"]
    assert "about 240 blocks stay" in table
    assert "~" not in str(plan(mlp(80, 80, 80), 0.9, 4))


def test_the_table_is_aligned_and_complete(meta_resnet50: nn.Module) -> None:
    lines = str(plan(meta_resnet50, 0.9, 32)).splitlines()
    assert len(lines) == 1 + 54 + 2
    assert lines[0].split() == ["layer", "matrix", "block", "grid", "blocks", "kept", "sparsity"]
    assert len({len(line) for line in lines[:36]}) == 1
    assert {line.index("dense:") for line in lines[36:55]} == {lines[0].index("block")}
    assert max(map(len, lines)) < 100
    assert lines[-2] == "35 of 54 weights are cut into 24,256 blocks"
    assert lines[-1] == "2,407 blocks stay: real sparsity 0.876 of 25,502,912 weights, budget uniform"


def test_a_plan_goes_through_json_without_differences() -> None:
    model = nn.Sequential(nn.MultiheadAttention(16, 2), nn.Conv2d(8, 8, 3), nn.Linear(16, 16))
    made = plan(model, 0.9, 4, min_blocks=4, overrides={"2": {"sparsity": 0.5}}, budget="erk")
    assert made.differences(json.loads(json.dumps(made.to_dict()))) == []


def test_numpy_numbers_become_plain_ones() -> None:
    np = pytest.importorskip("numpy", reason="a plan may get its numbers from NumPy")
    size = np.int64(4)
    made = plan(mlp(32, 32), np.float64(0.5), size, np.int64(4), overrides={"0": {"sparsity": np.float32(0.25)}})
    assert json.loads(json.dumps(made.to_dict())) == made.to_dict()
    assert type(made.to_dict()["sparsity"]) is type(made.to_dict()["layers"][0]["sparsity"]) is float


def test_differences_name_what_differs() -> None:
    mine = plan(mlp(32, 32, 32), 0.9, 4, min_blocks=4)

    def against(**settings: Any) -> list[str]:
        model = settings.pop("model", mlp(32, 32, 32))
        return mine.differences(plan(model, **{"sparsity": 0.9, "block": 4, "min_blocks": 4, **settings}).to_dict())

    assert against() == []
    assert against(sparsity=0.5) == [
        "sparsity is 0.5 there, 0.9 here",
        "sparsity of 0.weight is 0.5 there, 0.9 here",
        "sparsity of 1.weight is 0.5 there, 0.9 here",
    ]
    assert against(budget="global") == ["budget is global there, uniform here"]
    assert against(exclude=["1"]) == ["1.weight is pruned here, not there"]
    assert against(model=mlp(32, 32, 32, 32)) == ["2.weight is pruned there, not here"]
    assert against(overrides={"1": {"block": 8, "min_blocks": 4}}) == ["block of 1.weight is [8, 8] there, [4, 4] here"]
    assert against(overrides={"1": {"segments": 2}}) == ["segments of 1.weight is 2 there, 1 here"]
    assert against(model=mlp(32, 32, 64)) == ["shape of 1.weight is [64, 32] there, [32, 32] here"]
    assert against(overrides={"1": {"sparsity": 0.9}}) == ["fixed of 1.weight is True there, False here"]
    assert against(example_input=torch.zeros(2, 5, 32)) == []  # counts matter where they are ranked by
    ranked = plan(mlp(32, 32), 0.9, 4, min_blocks=4, budget="flops")
    other = plan(mlp(32, 32), 0.9, 4, min_blocks=4, budget="flops", example_input=torch.zeros(2, 5, 32))
    assert ranked.differences(other.to_dict()) == ["uses of 0.weight is 5.0 there, 1.0 here"]
