"""Budgets against plain sorting in exact fractions: numbers of blocks, rankings, ties, and the way to the target."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="budgets rank tensors")

from torch import Tensor  # noqa: E402

from sparseopt.nn import BlockGrid  # noqa: E402
from sparseopt.nn import budget as budgets  # noqa: E402
from sparseopt.nn.budget import BUDGETS, Share, allot, choose, keep_best, kept_blocks  # noqa: E402

Choose = Callable[[str, Sequence[Share], Sequence[Tensor], float], list[Tensor]]
EPS = 2.0**-52

# ------------------------------------------------------------------------------------------------ numbers of blocks

THOUSANDTHS = [*range(0, 1000, 25), 1, 7, 333, 667, 990, 998, 999]


def wrong_number(kept: Callable[[int, float], int]) -> tuple[int, float] | None:
    """Blocks and sparsity for which `kept` is not max(1, floor((1 - s) n)) of the decimal number s."""
    few = ((n, k) for k in THOUSANDTHS for n in range(1, 1200))
    many = ((n, k) for k in THOUSANDTHS for n in (10**6 - 1, 10**6, 33_000_326, 330_003_269, 330_003_270, 10**9 - 1))
    for n, k in (*few, *many):
        if kept(n, k / 1000) != max(1, n * (1000 - k) // 1000):
            return n, k / 1000
    return None


def test_kept_blocks_is_the_floor_of_the_decimal_product() -> None:
    assert (1.0 - 0.9) * 100 < 10.0  # the trap
    assert kept_blocks(100, 0.9) == 10
    assert wrong_number(kept_blocks) is None


@pytest.mark.parametrize(
    "wrong",
    [
        lambda n, s: max(1, math.floor((1.0 - s) * n)),
        lambda n, s: max(1, math.floor((1.0 - s) * n + 1e-9 * n)),
        lambda n, s: max(1, round((1.0 - s) * n)),
        lambda n, s: max(1, math.ceil((1.0 - s) * n)),
        lambda n, s: math.floor((1.0 - s) * n + 1e-13 * n),
    ],
    ids=["no care for floats", "too much care", "nearest", "ceiling", "none kept"],
)
def test_other_roundings_are_rejected(wrong: Callable[[int, float], int]) -> None:
    assert wrong_number(wrong) is not None


# ------------------------------------------------------------------------------------------------------------- erk


def erk(grids: Sequence[BlockGrid], sparsity: float) -> list[Fraction]:
    """Densities in exact arithmetic: the k layers of largest ease are dense, k the first number that fits."""
    ease = [Fraction(sum(grid.shape), grid.numel) for grid in grids]
    order = sorted(range(len(grids)), key=lambda i: -ease[i])
    left = (1 - Fraction(sparsity)) * sum(grid.numel for grid in grids)
    densities = [Fraction(1)] * len(grids)
    for k, first in enumerate(order):
        factor = left / sum(ease[i] * grids[i].numel for i in order[k:])
        if factor * ease[first] <= 1:
            for i in order[k:]:
                densities[i] = factor * ease[i]
            break
        left -= grids[first].numel
    return densities


def erk_error(allot: Callable[[Sequence[BlockGrid], float], list[float]], grids: list[BlockGrid], s: float) -> str:
    found, exact = allot(grids, s), erk(grids, s)
    if not all(0.0 <= each <= 1.0 for each in found):
        return "a sparsity outside [0, 1]"
    # Each of a few sums of the numbers of entries is off by at most one rounding of the total per layer.
    allowed = (4 + 4 * len(grids)) * EPS * sum(grid.numel for grid in grids)
    for grid, got, wanted in zip(grids, found, exact, strict=True):
        if abs((1.0 - got) * grid.numel - float(wanted * grid.numel)) > allowed:
            return "another density"
    if (
        abs(
            sum((1.0 - each) * grid.numel for each, grid in zip(found, grids, strict=True))
            - (1.0 - s) * sum(grid.numel for grid in grids)
        )
        > allowed
    ):
        return "another total"
    return ""


NETWORK = [
    BlockGrid(shape, (1, 1))
    for shape in ((64, 3, 7, 7), (64, 64, 1, 1), (64, 64, 3, 3), (512, 512, 3, 3), (1000, 2048))
]
SPARSITIES = (0.0, 1e-16, 1e-12, 1e-6, 0.01, 0.3, 0.5, 0.9, 0.99, 0.9999, 1.0 - 1e-12)


@pytest.mark.parametrize("s", SPARSITIES)
def test_erk_is_its_formula_with_layers_that_saturate(s: float) -> None:
    assert erk_error(allot, NETWORK, s) == ""
    assert erk_error(allot, NETWORK[:1], s) == ""
    assert erk_error(allot, NETWORK[2:3] * 4, s) == ""


@settings(max_examples=200)
@given(
    st.lists(st.lists(st.integers(1, 40), min_size=2, max_size=4), min_size=1, max_size=7),
    st.one_of(st.sampled_from(SPARSITIES), st.floats(0.0, 1.0, exclude_max=True)),
)
def test_erk_is_its_formula_for_any_layers(shapes: list[list[int]], s: float) -> None:
    assert erk_error(allot, [BlockGrid(tuple(shape), (1, 1)) for shape in shapes], s) == ""


def test_erk_counts_kernels_as_evci_et_al() -> None:
    first, second = allot([BlockGrid((64, 32, 3, 3), (8, 8)), BlockGrid((512, 512, 3, 3), (8, 8))], 0.97)
    ratio = ((64 + 32 + 3 + 3) / (64 * 32 * 9)) / ((512 + 512 + 3 + 3) / (512 * 512 * 9))
    assert (1.0 - first) / (1.0 - second) == pytest.approx(ratio, rel=1e-12)


def test_erk_of_nothing_is_nothing() -> None:
    assert allot([], 0.5) == []


def _unsaturated(grids: Sequence[BlockGrid], s: float) -> list[float]:
    ease = [sum(grid.shape) / grid.numel for grid in grids]
    factor = (1.0 - s) * sum(grid.numel for grid in grids) / sum(sum(grid.shape) for grid in grids)
    return [1.0 - factor * each for each in ease]


def _clipped(grids: Sequence[BlockGrid], s: float) -> list[float]:
    return [max(0.0, each) for each in _unsaturated(grids, s)]


def _without_kernel(grids: Sequence[BlockGrid], s: float) -> list[float]:
    return [float(1 - each) for each in erk([BlockGrid(grid.matrix_shape, (1, 1)) for grid in grids], s)]


@pytest.mark.parametrize("wrong", [_unsaturated, _clipped, _without_kernel])
def test_wrong_erk_is_rejected(wrong: Callable[[Sequence[BlockGrid], float], list[float]]) -> None:
    assert any(erk_error(wrong, NETWORK, s) for s in SPARSITIES)


# -------------------------------------------------------------------------------------------------------- rankings


class Case(NamedTuple):
    """Layers with small whole scores; sparsities and progress in hundredths, so that all products are decimal."""

    budget: str
    grids: list[BlockGrid]
    sparsities: list[int]
    uses: list[int]
    fixed: list[bool]
    scores: list[Tensor]
    progress: int

    def shares(self) -> list[Share]:
        rows = zip(self.grids, self.sparsities, self.uses, self.fixed, strict=True)
        return [Share(grid, s / 100, float(uses), fixed) for grid, s, uses, fixed in rows]


def reference(case: Case) -> list[set[int]]:
    """The blocks to keep, by sorting in exact fractions: one list of (layer, block), the best first."""
    kept: list[set[int]] = [set() for _ in case.grids]
    ranked: list[tuple[Fraction | float, int, int, int]] = []
    limit = Fraction(0)
    for i, (grid, values) in enumerate(zip(case.grids, case.scores, strict=True)):
        density = 1 - Fraction(case.progress * case.sparsities[i], 10_000)
        scores = values.flatten().tolist()
        best = sorted(range(len(scores)), key=lambda j: (-scores[j], j))
        if case.budget in ("uniform", "erk") or case.fixed[i]:
            kept[i] = set(best[: max(1, math.floor(density * grid.n_blocks))])
            continue
        for j, size in enumerate(grid.sizes().flatten().tolist()):
            cost = 1 if case.budget == "global" else size * case.uses[i]
            limit += density * cost
            barred = scores[j] == -math.inf
            first = j == best[0]
            worth = (
                math.inf if first or (cost == 0 and not barred) else -math.inf if barred else Fraction(scores[j]) / cost
            )
            ranked.append((worth, i, j, cost))
    spent = 0
    for worth, i, j, cost in sorted(ranked, key=lambda entry: (-entry[0], entry[1], entry[2])):
        spent += cost
        if worth != -math.inf and spent <= limit:
            kept[i].add(j)
    for _, i, j, _ in (entry for entry in ranked if entry[0] == math.inf and entry[3] != 0):
        kept[i].add(j)
    for i, fixed in enumerate(case.fixed):
        if case.budget in ("global", "flops") and not fixed:
            scores = case.scores[i].flatten().tolist()
            kept[i].add(max(range(len(scores)), key=lambda j: (scores[j], -j)))
    return kept


def cases(seed: int, number: int) -> Iterator[Case]:
    draw = random.Random(seed)
    for _ in range(number):
        budget = draw.choice(BUDGETS)
        layers = draw.randint(1, 4)
        grids = [
            BlockGrid((draw.randint(1, 9), draw.randint(1, 9)), (draw.randint(1, 3), draw.randint(1, 3)))
            for _ in range(layers)
        ]
        pool = draw.choice([[1], [0, 1], [0, 1, 2, 3], [0, 1, 2, -math.inf], list(range(50))])
        yield Case(
            budget,
            grids,
            [draw.choice([0, 5, 30, 50, 70, 80, 90, 95, 99]) for _ in range(layers)],
            [draw.choice([0, 1, 2, 49]) for _ in range(layers)],
            [draw.random() < 0.2 for _ in range(layers)],
            [torch.tensor([float(draw.choice(pool)) for _ in range(g.n_blocks)]).view(g.counts) for g in grids],
            draw.choice([0, 10, 50, 90, 100]),
        )


CASES = list(cases(0, 600))


def first_failure(choose: Choose, cases: Sequence[Case]) -> Case | None:
    for case in cases:
        found = choose(case.budget, case.shares(), case.scores, case.progress / 100)
        masks = [set(mask.flatten().nonzero().flatten().tolist()) for mask in found]
        if masks != reference(case) or any(m.shape != v.shape for m, v in zip(found, case.scores, strict=True)):
            return case
    return None


def test_the_blocks_are_those_of_exact_sorting() -> None:
    assert first_failure(choose, CASES) is None
    for budget in BUDGETS:  # the table knows all budgets, ties, barred blocks and weights without multiplications
        mine = [case for case in CASES if case.budget == budget]
        assert len(mine) > 100
        assert any(bool((values == -math.inf).any()) for case in mine for values in case.scores)


def _threshold(scores: Tensor, k: int) -> Tensor:
    return scores >= scores.flatten().sort(descending=True).values[min(k, scores.numel()) - 1]


def _last_of_equals(scores: Tensor, k: int) -> Tensor:
    return keep_best(scores.flatten().flip(0), k).flip(0).view(scores.shape)


@pytest.mark.parametrize("wrong", [_threshold, _last_of_equals])
def test_masks_that_depend_on_ties_are_rejected(
    wrong: Callable[[Tensor, int], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budgets, "keep_best", wrong)
    failure = first_failure(choose, [case for case in CASES if case.budget == "uniform"])
    assert failure is not None


def _no_guard(budget: str, shares: Sequence[Share], scores: Sequence[Tensor], progress: float) -> list[Tensor]:
    """Wrong: one ranking of all blocks, and a layer may lose them all."""
    if budget != "global":
        return choose(budget, shares, scores, progress)
    n = sum(share.grid.n_blocks for share in shares)
    s = progress * sum(share.sparsity * share.grid.n_blocks for share in shares) / n
    mask = keep_best(torch.cat([values.flatten() for values in scores]), kept_blocks(n, s))
    pieces = mask.split([share.grid.n_blocks for share in shares])
    return [piece.view(values.shape) for piece, values in zip(pieces, scores, strict=True)]


def _cost_forgotten(budget: str, shares: Sequence[Share], scores: Sequence[Tensor], progress: float) -> list[Tensor]:
    """Wrong: all blocks cost the same."""
    return choose("global" if budget == "flops" else budget, shares, scores, progress)


def _fixed_forgotten(budget: str, shares: Sequence[Share], scores: Sequence[Tensor], progress: float) -> list[Tensor]:
    """Wrong: a layer with a sparsity of its own is ranked with the others."""
    return choose(budget, [Share(each.grid, each.sparsity, each.uses) for each in shares], scores, progress)


def _no_progress(budget: str, shares: Sequence[Share], scores: Sequence[Tensor], progress: float) -> list[Tensor]:
    """Wrong: everything at once."""
    return choose(budget, shares, scores, 1.0)


@pytest.mark.parametrize("wrong", [_no_guard, _cost_forgotten, _fixed_forgotten, _no_progress])
def test_wrong_budgets_are_rejected(wrong: Choose) -> None:
    assert first_failure(wrong, CASES) is not None


# ------------------------------------------------------------------------------------------- laws of single budgets


def layers(*counts: int, sparsity: float = 0.9, uses: Sequence[float] = ()) -> list[Share]:
    factors = uses or [1.0] * len(counts)
    return [Share(BlockGrid((n, 4), (1, 4)), sparsity, use) for n, use in zip(counts, factors, strict=True)]


def random_scores(shares: Sequence[Share], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(share.grid.counts, generator=generator, dtype=torch.float64) for share in shares]


def not_monotone(choose: Choose, budget: str) -> str:
    """What is wrong with the masks on the way from progress 0 to 1."""
    shares = layers(100, 37, 250, uses=(3.0, 0.0, 7.0))
    scores = random_scores(shares)
    way = [choose(budget, shares, scores, step / 20) for step in range(21)]
    if not all(bool(mask.all()) for mask in way[0]):
        return "blocks are missing at progress 0"
    if any(bool((after & ~before).any()) for a, b in pairwise(way) for before, after in zip(a, b, strict=True)):
        return "a block comes back"
    if all(torch.equal(a, b) for a, b in zip(way[0], way[-1], strict=True)):
        return "nothing is dropped"
    return ""


@pytest.mark.parametrize("budget", BUDGETS)
def test_more_progress_keeps_fewer_of_the_same_blocks(budget: str) -> None:
    assert not_monotone(choose, budget) == ""


def test_masks_that_come_back_are_rejected() -> None:
    def shuffled(budget: str, shares: Sequence[Share], scores: Sequence[Tensor], progress: float) -> list[Tensor]:
        turned = [values.roll(round(20 * progress), 0) for values in scores]
        return choose(budget, shares, turned, progress)

    assert not_monotone(shuffled, "uniform") == "a block comes back"


@pytest.mark.parametrize("budget", BUDGETS)
def test_equal_scores_give_the_exact_number_of_first_blocks(budget: str) -> None:
    shares = layers(100, 100)
    masks = choose(budget, shares, [torch.ones(100, 1), torch.ones(100, 1)])
    numbers = [int(mask.sum()) for mask in masks]
    assert numbers == ([10, 10] if budget in ("uniform", "erk") else [19, 1])
    assert all(bool(mask[:n].all()) for mask, n in zip(masks, numbers, strict=True))


@pytest.mark.parametrize("budget", ["global", "flops"])
def test_every_layer_keeps_a_block(budget: str) -> None:
    shares = layers(50, 1, 50, sparsity=0.99)
    scores = [torch.zeros(50, 1), torch.zeros(1, 1), torch.ones(50, 1)]
    assert [int(mask.sum()) for mask in choose(budget, shares, scores)] == [1, 1, 1]


def test_global_keeps_the_exact_total() -> None:
    shares = layers(100, 300, 7, sparsity=0.9)
    assert sum(int(mask.sum()) for mask in choose("global", shares, random_scores(shares))) == 40  # floor(40.7)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("s", [0.5, 0.8, 0.95])
def test_flops_spends_what_is_allowed_and_no_more_fits(s: float, seed: int) -> None:
    grids = [BlockGrid((30, 9), (4, 2)), BlockGrid((20, 10, 3, 3), (4, 7)), BlockGrid((50, 7), (5, 5))]
    shares = [Share(grid, s, uses) for grid, uses in zip(grids, (1.0, 196.0, 2.5), strict=True)]
    scores = random_scores(shares, seed)
    masks = choose("flops", shares, scores)
    costs = [share.grid.sizes() * share.uses for share in shares]
    worth = torch.cat([(values / cost).flatten() for values, cost in zip(scores, costs, strict=True)])
    kept, cost = torch.cat([mask.flatten() for mask in masks]), torch.cat([each.flatten() for each in costs])
    spent, limit = float(cost[kept].sum()), (1.0 - s) * float(cost.sum())
    assert spent <= limit * (1.0 + 8 * EPS)
    best = int(torch.where(kept, -math.inf, worth).argmax())
    assert spent + float(cost[best]) > limit  # the most worthy of the dropped blocks is one too many
    firsts = torch.cat([keep_best(values, 1).flatten() for values in scores])
    assert worth[kept & ~firsts].min() > worth[~kept].max()


def test_weights_without_multiplications_stay_under_flops() -> None:
    shares = layers(10, 10, uses=(0.0, 1.0), sparsity=0.5)
    scores = [torch.zeros(10, 1), torch.ones(10, 1)]
    scores[0][3] = -math.inf
    table, dense = choose("flops", shares, scores)
    assert table.flatten().tolist() == [i != 3 for i in range(10)]
    assert int(dense.sum()) == 5


@pytest.mark.parametrize("budget", BUDGETS)
def test_barred_blocks_are_kept_only_where_there_are_no_others(budget: str) -> None:
    shares = layers(20, 20, sparsity=0.5)
    scores = random_scores(shares)
    scores[0][:10] = -math.inf
    scores[1][:] = -math.inf
    first, second = choose(budget, shares, scores)
    assert not bool(first[:10].any())
    assert int(first.sum()) == 10
    assert int(second.sum()) == (10 if budget in ("uniform", "erk") else 1)


@pytest.mark.parametrize("budget", BUDGETS)
def test_a_sparsity_of_its_own_holds_and_leaves_the_others_alone(budget: str) -> None:
    shares = [*layers(40, 60, sparsity=0.5), Share(BlockGrid((100, 4), (1, 4)), 0.9, fixed=True)]
    for factor in (1e-9, 1.0, 1e9):
        scores = random_scores(shares)
        masks = choose(budget, shares, [*scores[:2], scores[2] * factor])
        alone = choose(budget, shares[:2], scores[:2])
        assert int(masks[2].sum()) == 10
        assert all(torch.equal(a, b) for a, b in zip(masks, alone, strict=False))


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_scores_of_any_precision_that_need_gradients_are_ranked(budget: str, dtype: torch.dtype) -> None:
    shares = layers(16, 16, sparsity=0.75)
    scores = [torch.arange(16.0).view(16, 1).to(dtype).requires_grad_() for _ in shares]
    masks = choose(budget, shares, scores)
    assert [mask.flatten().nonzero().flatten().tolist() for mask in masks] == [[12, 13, 14, 15]] * 2


def test_wrong_arguments_get_a_sentence() -> None:
    shares = layers(3)
    with pytest.raises(
        ValueError, match=re.escape("budget must be one of uniform, global, erk, flops, got 'latency'.")
    ):
        choose("latency", shares, random_scores(shares))
    negative = [torch.tensor([[1.0], [-1.0], [0.0]])]
    with pytest.raises(ValueError, match=r"^budget='flops' divides scores by costs, and got negative scores: use"):
        choose("flops", shares, negative)
    assert int(choose("global", shares, negative)[0].sum()) == 1
