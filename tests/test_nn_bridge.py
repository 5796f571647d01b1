"""Networks and the core are the same mathematics: one linear layer trained by a method is an algorithm of the core."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the bridge to networks needs torch")

from bridge_cases import BRIDGES, Bridge, T  # noqa: E402

from sparseopt import AtMost, lam_max, solve  # noqa: E402
from sparseopt.nn import ACDC, BlockGrid, PhaseSchedule, prune  # noqa: E402
from sparseopt.nn.correspondence import groups_of  # noqa: E402
from sparseopt.nn.penalty import BlockPenalty  # noqa: E402
from sparseopt.nn.planning import Plan  # noqa: E402
from sparseopt.nn.proximal import Proximal  # noqa: E402
from sparseopt.optimality import duality_gap, stationarity  # noqa: E402
from sparseopt.regularizers import REGULARIZERS  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", BRIDGES)
def test_the_layer_has_the_value_and_the_gradient_of_the_problem(name: str) -> None:
    bridge = BRIDGES[name]
    model = bridge.network(start=1.0)
    loss = bridge.loss(model)
    loss.backward()
    w = model.weight.detach().numpy().flatten()
    problem = bridge.problem()
    assert problem.value(w) == pytest.approx(float(loss.detach()), rel=1e-13)
    assert model.weight.grad is not None
    np.testing.assert_allclose(model.weight.grad.numpy().flatten(), problem.gradient(w)[0], rtol=1e-11, atol=1e-13)


GRIDS = [
    BlockGrid((1, 24), (1, 4)),
    BlockGrid((7, 10), (3, 4)),
    BlockGrid((9, 5), (2, 2), segments=3),
    BlockGrid((6, 4, 3, 3), (4, 8)),
    BlockGrid((5, 3, 2), (2, 4)),
    BlockGrid((4, 4), (9, 9)),
]


@pytest.mark.parametrize("grid", GRIDS, ids=repr)
def test_blocks_are_groups(grid: BlockGrid) -> None:
    weight = torch.randn(grid.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    groups = groups_of(grid)
    assert len(groups) == grid.n_blocks
    np.testing.assert_allclose(groups.norms(weight.flatten()), grid.norms(weight).flatten(), rtol=1e-13)
    np.testing.assert_array_equal(groups.sizes, grid.sizes().flatten())
    np.testing.assert_allclose(groups.weights**2, grid.sizes().flatten(), rtol=1e-14)
    assert set(groups_of(grid, "ones").weights) == {1.0}
    values = torch.arange(grid.n_blocks, dtype=torch.float64).view(grid.counts)
    np.testing.assert_array_equal(groups.expand(values.flatten().numpy()), grid.expand(values).flatten())


# -- AC/DC is iterative hard thresholding ------------------------------------------------------------------------------


def iht(bridge: Bridge, steps: list[str]) -> Iterator[np.ndarray]:
    """w <- w - T grad in the blocks that are in use, and after every dense step H_k, from the core."""
    problem = bridge.problem()
    constraint = AtMost(problem.groups, bridge.layer.kept)
    w = bridge.network(start=1.0).weight.detach().numpy().flatten()
    used = np.ones(w.size, dtype=bool)
    for kind in steps:
        if kind == "dense":
            w = constraint.prox(w - T * problem.gradient(w)[0], T)
            used = problem.groups.expand(problem.groups.norms(w) > 0.0)
        else:
            w = np.where(used, w - T * problem.gradient(w)[0], 0.0)
        yield w


def check_iht(bridge: Bridge, phases: list[tuple[str, int]], method: Any = "ac/dc", make: Any = None) -> None:
    """Both sides sum the same numbers in another order: 1e-15 per step, and steps of T < 2 / L do not spread it."""
    model = bridge.network(start=1.0)
    optimizer = (make or (lambda p: torch.optim.SGD(p, lr=T)))(model.parameters())
    schedule = PhaseSchedule.from_list(phases)
    s = prune(model, optimizer, method, plan=Plan((bridge.layer,), (), bridge.sparsity), schedule=schedule)
    steps = [kind for kind, count in phases for _ in range(count)]
    (layer,) = s.layers
    for number, (_, expected) in enumerate(
        zip(bridge.train(model, optimizer, len(steps) - 1), iht(bridge, steps), strict=False)
    ):
        found = layer.stored.detach().numpy().flatten()
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13, err_msg=f"after {number + 1} steps")
    assert np.count_nonzero(bridge.problem().groups.norms(expected)) == bridge.layer.kept


ONE_EACH = [("dense", 1)] * 40 + [("sparse", 1)]
CYCLES = [("dense", 1), ("sparse", 4)] * 8


@pytest.mark.parametrize("name", BRIDGES)
def test_acdc_with_dense_phases_of_one_step_is_iterative_hard_thresholding(name: str) -> None:
    check_iht(BRIDGES[name], ONE_EACH)


@pytest.mark.parametrize("name", BRIDGES)
def test_sparse_phases_are_gradient_steps_on_the_kept_groups(name: str) -> None:
    check_iht(BRIDGES[name], CYCLES)


@pytest.mark.parametrize("name", BRIDGES)
def test_the_iteration_changes_its_mind(name: str) -> None:
    """Else the comparison would only be one of gradient steps."""
    supports = {tuple(np.flatnonzero(w)) for w in iht(BRIDGES[name], ["dense"] * 40)}
    assert len(supports) >= 2


def _heavy(p: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(p, lr=T, momentum=0.9)


def test_momentum_within_a_phase_is_not_iht() -> None:
    """With phases of one step the cleared state hides it; with longer ones, or without clearing, it shows."""
    bridge = BRIDGES["ragged"]
    check_iht(bridge, ONE_EACH, make=_heavy)
    with pytest.raises(AssertionError):
        check_iht(bridge, CYCLES, make=_heavy)
    with pytest.raises(AssertionError):
        check_iht(bridge, ONE_EACH, ACDC(reset="none"), _heavy)


WRONG_METHODS: dict[str, Any] = {
    "dropped blocks stay under the mask": (ACDC(zero=False), None),
    "another step": ("ac/dc", lambda p: torch.optim.SGD(p, lr=1.01 * T)),
    "weight decay": ("ac/dc", lambda p: torch.optim.SGD(p, lr=T, weight_decay=1e-3)),
    "attention": ("sequential-attention++", None),
}


@pytest.mark.parametrize("name", WRONG_METHODS)
def test_what_is_not_iht_is_rejected(name: str) -> None:
    method, make = WRONG_METHODS[name]
    with pytest.raises(AssertionError):
        check_iht(BRIDGES["one output"], ONE_EACH, method, make)


# -- proximal steps are proximal gradient ------------------------------------------------------------------------------


def check_proximal_gradient(bridge: Bridge, q: Any, lam: float, weights: str = "sqrt", other: Any = None) -> np.ndarray:
    """Proximal(SGD) against w <- prox_{T Omega}(w - T grad L(w)) with the core's `Penalty`."""
    problem = bridge.problem(q, lam, "sqrt" if weights == "sqrt" else "ones")
    model = bridge.network()
    penalty = BlockPenalty([bridge.layer], q if other is None else other, lam, weights)
    optimizer = Proximal(torch.optim.SGD(model.parameters(), lr=T), penalty, model)
    w = np.zeros(bridge.grid.numel)
    for found in bridge.train(model, optimizer, 25):
        w = problem.penalty.prox(w - T * problem.gradient(w)[0], T)
        # A prox may multiply differences by 1 / (1 - t rho), and does so once per step.
        np.testing.assert_allclose(found, w, rtol=1e-10, atol=1e-12)
        total = problem.value(w)
        assert float(bridge.loss(model).detach()) + penalty.value(model) == pytest.approx(total, rel=1e-11)
    return w


@pytest.mark.parametrize("q", REGULARIZERS)
@pytest.mark.parametrize("name", BRIDGES)
def test_proximal_steps_are_those_of_the_core(q: str, name: str) -> None:
    for weights, omega in (("sqrt", "sqrt"), ("one", "ones")):
        steepness = min(max(REGULARIZERS[q].slope_at_zero(), 1.0), 10.0)
        lam = 0.3 * lam_max(BRIDGES[name].problem(weights=omega)) / steepness
        w = check_proximal_gradient(BRIDGES[name], q, lam, weights)
        zeros = BRIDGES[name].problem().groups.norms(w) == 0.0
        assert bool(zeros.any()) == (q != "lambertw")  # the exponential mask is not sparse
        assert not bool(zeros.all())


def test_another_regularizer_is_rejected() -> None:
    with pytest.raises(AssertionError):
        check_proximal_gradient(BRIDGES["ragged"], "log", 0.05, other="l2")
    with pytest.raises(AssertionError):
        check_proximal_gradient(BRIDGES["ragged"], "mcp", 0.05, other=REGULARIZERS["mcp"])  # knots without lam


@pytest.mark.parametrize("name", BRIDGES)
def test_proximal_steps_end_where_solve_does(name: str) -> None:
    """The group lasso: the duality gap bounds the error of either side."""
    bridge = BRIDGES[name]
    lam = 0.3 * lam_max(bridge.problem())
    problem = bridge.problem("l2", lam)
    model = bridge.network(start=1.0)
    optimizer = Proximal(torch.optim.SGD(model.parameters(), lr=T), BlockPenalty([bridge.layer], "l2", lam), model)
    w = list(bridge.train(model, optimizer, 1000))[-1]
    assert duality_gap(problem, w, 0.0).relative <= 1e-12
    best = solve(problem, tol=1e-12)
    np.testing.assert_array_equal(problem.groups.norms(w) > 0.0, best.group_norms > 0.0)
    np.testing.assert_allclose(w, best.w, rtol=1e-5, atol=1e-5)  # the square root of the gap
    assert 0 < best.support.size < len(problem.groups)


@pytest.mark.parametrize("q", ["mcp", "log"])
def test_with_nonconvex_regularizers_they_end_where_solve_stays(q: str) -> None:
    bridge = BRIDGES["one output"]
    problem = bridge.problem(q, 0.1)
    model = bridge.network(start=1.0)
    optimizer = Proximal(torch.optim.SGD(model.parameters(), lr=T), BlockPenalty([bridge.layer], q, 0.1), model)
    w = list(bridge.train(model, optimizer, 1000))[-1]
    assert stationarity(problem, w, 0.0) <= 1e-10
    restarted = solve(problem, (w, 0.0), tol=1e-8)
    np.testing.assert_allclose(restarted.w, w, atol=1e-8)
    assert 0 < restarted.support.size < len(problem.groups)
