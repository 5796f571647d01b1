"""Networks and the core are the same mathematics: one linear layer trained by a method is an algorithm of the core."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

torch = pytest.importorskip("torch", reason="the bridge to networks needs torch")

from torch import nn  # noqa: E402

from sparseopt import AtMost, Composite, Penalty, Problem, lam_max, solve  # noqa: E402
from sparseopt.nn import ACDC, BlockGrid, PhaseSchedule, correspondence, prune  # noqa: E402
from sparseopt.nn.correspondence import Pairing, SoftmaxPairing, groups_of, imprint, pairing_of  # noqa: E402
from sparseopt.nn.layers import Layer  # noqa: E402
from sparseopt.nn.masking import attach_mask  # noqa: E402
from sparseopt.nn.masks import (  # noqa: E402
    BlockMask,
    Expm1Mask,
    ExpMask,
    LinearMask,
    PowerMask,
    SoftmaxMask,
)
from sparseopt.nn.penalty import BlockPenalty  # noqa: E402
from sparseopt.nn.planning import LayerPlan, Plan  # noqa: E402
from sparseopt.nn.proximal import Proximal  # noqa: E402
from sparseopt.optimality import duality_gap, stationarity  # noqa: E402
from sparseopt.regularizers import L2, REGULARIZERS, LambertW, Power, Scaled  # noqa: E402
from sparseopt.regularizers import Expm1Mask as Expm1Penalty  # noqa: E402


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


# -- a layer is a problem ----------------------------------------------------------------------------------------------


@dataclass
class Bridge:
    """Squares (1/n) sum 1/2 r^2 of a linear layer, and the same problem in the core."""

    grid: BlockGrid
    sparsity: float = 0.6
    n: int = 60

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        outputs, inputs = self.grid.shape
        distance = np.abs(np.subtract.outer(np.arange(inputs), np.arange(inputs)))
        self.X = rng.normal(size=(self.n, inputs)) @ np.linalg.cholesky(0.5**distance).T
        truth = rng.normal(size=self.grid.shape) * np.asarray(
            self.grid.expand(torch.tensor(rng.random(self.grid.counts) < 0.4))
        )
        self.false = torch.tensor(truth == 0.0)
        self.Y = self.X @ truth.T + 0.1 * rng.normal(size=(self.n, outputs))
        self.layer = LayerPlan("weight", self.grid, self.sparsity)

    def problem(self, q: Any = "l2", lam: float = 0.0, weights: str = "sqrt") -> Problem:
        """The core's: one output after the other, weight.flatten() for w."""
        outputs = self.grid.shape[0]
        return Problem.build(
            np.kron(np.eye(outputs), self.X),
            self.Y.T.flatten(),
            groups_of(self.grid, weights),
            penalty=q,
            lam=lam,
            intercept=False,
            sample_weight=np.full(self.n * outputs, 1.0 / self.n),
        )

    def network(self, start: float = 0.0) -> nn.Linear:
        """The layer, at 0 or at random numbers of the size `start` in the blocks that the truth does not use."""
        model = nn.Linear(self.grid.shape[1], self.grid.shape[0], bias=False).double()
        nn.init.normal_(model.weight, std=start, generator=torch.Generator().manual_seed(0))
        model.weight.data *= self.false
        return model

    def loss(self, model: nn.Module) -> torch.Tensor:
        return 0.5 * (model(torch.tensor(self.X)) - torch.tensor(self.Y)).square().sum() / self.n

    def train(self, model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> Iterator[np.ndarray]:
        """The weight that the layer computes with after every step."""
        for _ in range(steps):
            optimizer.zero_grad()
            self.loss(model).backward()
            optimizer.step()
            yield model.weight.detach().numpy().flatten().copy()


BRIDGES = {
    "one output": Bridge(BlockGrid((1, 24), (1, 4))),
    "ragged": Bridge(BlockGrid((5, 11), (2, 4))),
    "stacked": Bridge(BlockGrid((6, 8), (2, 3), segments=2)),
}
T = 0.15


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


# -- masks and regularizers --------------------------------------------------------------------------------------------

GRID = BlockGrid((6, 8), (2, 2))


def masks(alpha: float = 2.0) -> dict[str, tuple[BlockMask, str]]:
    """One mask of every row of the table, in float64, and the decay of its logits."""
    float64 = torch.float64
    return {
        "exp": (ExpMask(GRID, dtype=float64), "squares"),
        "expm1": (Expm1Mask(GRID, dtype=float64), "squares"),
        "linear, l1": (LinearMask(GRID, dtype=float64), "l1"),
        "linear": (LinearMask(GRID, dtype=float64), "squares"),
        "power 2": (PowerMask(GRID, alpha=2.0), "squares"),
        "power 3": (PowerMask(GRID, alpha=3.0), "squares"),
        "softmax": (SoftmaxMask(GRID, dtype=float64), "squares"),
    }


# factor and q, written down once more from THEORY, independently of the table in the package.
PENALTIES: dict[str, tuple[float, Any]] = {
    "exp": (1.0, LambertW()),
    "expm1": (1.0, Expm1Penalty()),
    "linear, l1": (1.0, Scaled(Power(2.0 / 3.0), 6.75)),
    "linear": (2.0, L2()),
    "power 2": (1.0, L2()),
    "power 3": (1.0, Power(2.0 / 3.0)),
}


def coefficients(scale: float = 1.0) -> torch.Tensor:
    """Blocks of norms from 1e-3 to 1e3, none of them 0."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(GRID.shape, dtype=torch.float64, generator=generator)
    norms = torch.logspace(-3.0, 3.0, GRID.n_blocks, dtype=torch.float64).view(GRID.counts) * scale
    return GRID.scale(weight, norms / GRID.norms(weight))


def masked(mask: BlockMask) -> Layer:
    model = nn.Linear(GRID.shape[1], GRID.shape[0], bias=False).double()
    attach_mask(model, "weight", mask)
    return Layer(LayerPlan("weight", GRID, 0.5), model)


def decay_of(layer: Layer, decay: str, lam: float = 1.0, mu: float = 1.0) -> float:
    """What an optimizer's weight decay and an l1 penalty see: stored weight and logits, from the layer itself."""
    logits = layer.logits
    total = lam * float(layer.stored.detach().square().sum())
    if logits is None or isinstance(layer.mask, SoftmaxMask):
        return total
    return total + mu * float((logits.detach().abs() if decay == "l1" else logits.detach().square()).sum())


def penalty_of(name: str, weight: torch.Tensor) -> float:
    """The core's penalty of the weight that the layer computes with."""
    groups = groups_of(GRID, "ones")
    w = weight.flatten().numpy()
    if name == "softmax":
        return (Composite(Power(2.0 / 3.0), groups, 1.0).value(w) / GRID.n_blocks) ** 2
    factor, q = PENALTIES[name]
    return Penalty(q, groups, factor).value(w)


def check_reverse_map(name: str, penalty: str, write: Callable[..., None] = imprint) -> None:
    """The layer computes with the weight it was given, and its decay is the penalty of that weight."""
    mask, decay = masks()[name]
    layer, weight = masked(mask), coefficients()
    write(layer, weight, decay)
    torch.testing.assert_close(layer.weight(), weight, rtol=1e-12, atol=0.0)
    assert decay_of(layer, decay) == pytest.approx(penalty_of(penalty, weight), rel=1e-12)


@pytest.mark.parametrize("name", masks())
def test_decay_at_the_reverse_map_is_the_regularizer_of_the_core(name: str) -> None:
    check_reverse_map(name, name)


@pytest.mark.parametrize("name", masks())
def test_a_wrong_pairing_is_rejected(name: str) -> None:
    for penalty in (*PENALTIES, "softmax"):
        if penalty != name:
            with pytest.raises(AssertionError):
                check_reverse_map(name, penalty)


WRONG_MAPS = {
    "exp": ("_lambert", lambda u: (0.5 * torch.log1p(2.0 * u * u), u * (1.0 + 2.0 * u * u) ** -0.5)),
    "expm1": ("_expm1", lambda u: (torch.log1p(u.sqrt()), u.sqrt())),
    "linear, l1": ("_cube_roots", lambda u: (u ** (2.0 / 3.0), u ** (1.0 / 3.0))),
}


@pytest.mark.parametrize("name", WRONG_MAPS)
def test_a_wrong_reverse_map_is_rejected(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each still multiplies to u, but not at the least decay."""
    monkeypatch.setattr(correspondence, *WRONG_MAPS[name])
    with pytest.raises(AssertionError):
        check_reverse_map(name, name)


@pytest.mark.parametrize("name", masks())
def test_the_maps_go_there_and_back(name: str) -> None:
    mask, decay = masks()[name]
    for lam, mu in ((1.0, 1.0), (0.3, 0.02)):
        pairing = pairing_of(mask, decay, lam, mu)
        u = GRID.norms(coefficients())
        logits, stored = pairing.split(u)
        torch.testing.assert_close(pairing.join(logits, stored), u, rtol=1e-12, atol=0.0)
        torch.testing.assert_close(pairing.cost(logits, stored), pairing.value(u), rtol=1e-12, atol=0.0)
        assert pairing.split(u.float())[1].dtype == torch.float32


@pytest.mark.parametrize("name", ["exp", "expm1", "linear, l1", "linear"])
@pytest.mark.parametrize(("lam", "mu"), [(1.0, 1.0), (0.3, 0.02), (0.01, 2.0)])
def test_the_least_decay_is_found_by_minimising_as_well(name: str, lam: float, mu: float) -> None:
    """One block at a time, over the logit alone, by a search that knows nothing but the mask and the decay."""
    mask, decay = masks()[name]
    u = torch.tensor([[1e-2, 0.1, 1.0, 3.0, 30.0]], dtype=torch.float64)
    factor, q = pairing_of(mask, decay, lam, mu).regularizer  # type: ignore[union-attr]
    logits, _ = pairing_of(mask, decay, lam, mu).split(u)
    assert logits is not None
    single = type(mask)(BlockGrid((1, 2), (1, 2)), dtype=torch.float64)

    def cost(log_logit: np.ndarray, norm: float) -> float:
        logit = float(np.exp(log_logit[0]))
        single.logits.data.fill_(logit)  # type: ignore[union-attr]
        attention = float(single.attention().detach())
        return mu * (logit if decay == "l1" else logit**2) + lam * (norm / attention) ** 2

    for norm, logit in zip(u.flatten().tolist(), logits.flatten().tolist(), strict=True):
        best = min(
            (
                minimize(cost, [start], args=(norm,), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-16})
                for start in (-6.0, -2.0, 1.0)
            ),
            key=lambda found: found.fun,
        )
        assert best.fun == pytest.approx(factor * q.value(norm), rel=1e-10)
        assert float(np.exp(best.x[0])) == pytest.approx(logit, rel=2e-5)  # the square root of fun's rounding


def test_softmax_logits_of_least_decay_are_found_by_minimising_as_well() -> None:
    mask = SoftmaxMask(BlockGrid((1, 8), (1, 2)), dtype=torch.float64)
    u = torch.tensor([[0.2, 1.0, 3.0, 7.0]], dtype=torch.float64)

    def cost(logits: np.ndarray) -> float:
        mask.logits.data.copy_(torch.tensor(logits).view(1, 4))  # type: ignore[union-attr]
        return float(((u / mask.attention().detach()) ** 2).sum())

    best = minimize(cost, np.zeros(4), method="Nelder-Mead", options={"maxiter": 5000, "xatol": 1e-9, "fatol": 1e-14})
    pairing = SoftmaxPairing()
    logits, _ = pairing.split(u)
    assert best.fun == pytest.approx(float(pairing.value(u)), rel=1e-9)
    np.testing.assert_allclose(best.x - best.x.mean(), (logits - logits.mean()).flatten(), atol=1e-4)
    assert float(pairing.value(u)) == pytest.approx(float((u ** (2 / 3)).sum() ** 3 / 16), rel=1e-14)


@pytest.mark.parametrize("name", [name for name in masks() if name != "softmax"])
def test_blocks_of_zero_cost_nothing(name: str) -> None:
    mask, decay = masks()[name]
    logits, stored = pairing_of(mask, decay).split(torch.zeros(3, 4, dtype=torch.float64))
    assert not bool(stored.any())
    assert logits is None or not bool(logits.any())
    layer, weight = masked(mask), coefficients()
    weight[:2] = 0.0
    imprint(layer, weight, decay)
    assert not bool(layer.weight()[:2].any())
    torch.testing.assert_close(layer.weight(), weight, rtol=1e-12, atol=0.0)


def test_a_clip_that_is_in_the_way_is_named() -> None:
    layer = masked(SoftmaxMask(GRID, dtype=torch.float64, clip=(0.2, 5.0)))
    imprint(layer, coefficients() ** 0.0)
    with pytest.raises(ValueError, match=r"outside of the clip \(0.2, 5.0\)"):
        imprint(layer, coefficients())
    with pytest.raises(ValueError, match=r"shape \(2, 2\), the layer weight \(6, 8\)"):
        imprint(layer, torch.ones(2, 2))


WRONG_PAIRS: dict[str, tuple[Callable[[], Any], str]] = {
    "plain": (lambda: pairing_of(BlockMask(GRID)), "trains nothing but the block"),
    "l1 of exp": (lambda: pairing_of(ExpMask(GRID), "l1"), "goes with LinearMask, got ExpMask"),
    "decay": (lambda: pairing_of(ExpMask(GRID), "l2"), "got 'l2'"),
    "alpha": (lambda: pairing_of(PowerMask(GRID, alpha=1.6)), r"alpha=1.6 leaves u\^1.25"),
    "lam": (lambda: pairing_of(ExpMask(GRID), lam=0.0), "lam and mu must be positive"),
}


@pytest.mark.parametrize("name", WRONG_PAIRS)
def test_a_pair_without_a_formula_gets_a_sentence(name: str) -> None:
    call, text = WRONG_PAIRS[name]
    with pytest.raises(ValueError, match=text):
        call()


# -- and training them ends at the same solutions ----------------------------------------------------------------------


STEPS = 1400


def trained(bridge: Bridge, mask: BlockMask, decays: dict[str, float], steps: int, lr: float = 0.1) -> np.ndarray:
    """Full-batch training of a masked layer with weight decay, from the least-squares solution."""
    model = bridge.network()
    attach_mask(model, "weight", mask)
    layer = Layer(bridge.layer, model)
    start = torch.tensor(np.linalg.lstsq(bridge.X, bridge.Y, rcond=None)[0].T)
    imprint(layer, start)
    groups: list[dict[str, Any]] = [{"params": [layer.stored], "weight_decay": decays["weight"]}]
    if layer.logits is not None:
        groups.append({"params": [layer.logits], "weight_decay": decays["logits"]})
    optimizer = torch.optim.SGD(groups, lr=lr)
    return list(bridge.train(model, optimizer, steps))[-1]


@pytest.mark.parametrize("kind", ["linear", "power"])
def test_masks_of_the_group_lasso_train_to_its_solution(kind: str) -> None:
    """Weight decay on a linear mask and its block (Hoff), and on block powers of 2 (Lemma 2.3)."""
    bridge = BRIDGES["one output"]
    mask: BlockMask
    if kind == "linear":
        mask = LinearMask(bridge.grid, dtype=torch.float64)
        decays = {"weight": 0.1, "logits": 0.4}
        pairing = pairing_of(mask, lam=0.05, mu=0.2)
    else:
        mask = PowerMask(bridge.grid, alpha=2.0)
        decays = {"weight": 0.4}
        pairing = pairing_of(mask, lam=0.2)
    assert isinstance(pairing, Pairing)
    strength, q = pairing.regularizer
    assert strength == pytest.approx(0.2)
    problem = bridge.problem(q, strength, "ones")
    w = trained(bridge, mask, decays, STEPS)
    best = solve(problem, tol=1e-12)
    assert 0 < best.support.size < len(problem.groups)
    assert problem.value(w) == pytest.approx(best.objective, rel=1e-9)
    assert float(problem.groups.norms(w)[best.group_norms == 0.0].max()) <= 1e-6


def test_an_exponential_mask_leaves_no_block_at_zero_and_expm1_does() -> None:
    """Lemma 2.1's mask is a ridge near 0; its repair is stationary for the sparse penalty, zeros included."""
    bridge = BRIDGES["one output"]
    decays = {"weight": 0.4, "logits": 0.4}
    groups = bridge.problem().groups
    dense = trained(bridge, ExpMask(bridge.grid, dtype=torch.float64), decays, STEPS)
    assert float(groups.norms(dense).min()) > 1e-3
    gradient = bridge.problem("lambertw", 0.2, "ones")
    moved = gradient.penalty.prox(dense - T * gradient.gradient(dense)[0], T)
    assert float(np.abs(moved - dense).max()) <= 1e-9
    sparse = trained(bridge, Expm1Mask(bridge.grid, dtype=torch.float64), decays, STEPS)
    small = groups.norms(sparse) <= 1e-6
    assert 0 < int(small.sum()) < len(groups)
    problem = bridge.problem("expm1", 0.2, "ones")
    clean = np.where(groups.expand(small), 0.0, sparse)
    moved = problem.penalty.prox(clean - T * problem.gradient(clean)[0], T)
    np.testing.assert_allclose(moved, clean, atol=1e-6)


def test_a_solution_of_the_core_is_a_network_at_rest() -> None:
    """Put into a masked layer by the reverse map, a solution has no gradient left: decay and loss balance."""
    bridge = BRIDGES["one output"]
    mask = LinearMask(bridge.grid, dtype=torch.float64)
    pairing = pairing_of(mask, lam=0.2)
    assert isinstance(pairing, Pairing)
    strength, q = pairing.regularizer
    best = solve(bridge.problem(q, strength, "ones"), tol=1e-13)

    def pull(weight: torch.Tensor) -> float:
        model = bridge.network()
        attach_mask(model, "weight", mask)
        layer = Layer(bridge.layer, model)
        imprint(layer, weight, lam=0.2)
        logits = layer.logits
        assert logits is not None
        (bridge.loss(model) + 0.2 * (layer.stored.square().sum() + logits.square().sum())).backward()
        return max(float(each.grad.abs().max()) for each in layer.parameters)  # type: ignore[union-attr]

    weight = torch.tensor(best.w).view(bridge.grid.shape)
    assert pull(weight) <= 1e-5
    assert pull(1.1 * weight) > 1e-2


# -- the check of the recipe -------------------------------------------------------------------------------------------


def recipe() -> Any:
    from sparseopt.proofs_checks.running import run

    (evidence,) = run(["sequential_attention_recipe"], size="small", seed=0, jobs=1)
    return evidence


def about_networks(evidence: Any) -> list[Any]:
    return [finding for finding in evidence.findings if "sparseopt.nn" in finding.claim]


def test_the_check_of_the_recipe_looks_at_this_package() -> None:
    evidence = recipe()
    assert evidence.as_expected
    assert len(about_networks(evidence)) >= 4
    assert all(finding.tried > 0 for finding in about_networks(evidence))


WRONG_RECIPES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "masks": lambda patch: patch.setattr(SoftmaxMask, "attention", lambda self: torch.softmax(self.logits, 1)),
    "schedule": lambda patch: patch.setattr(
        sys.modules["sparseopt.nn.schedule"].Exponential, "__call__", lambda self, t: t
    ),
    "phases": lambda patch: patch.setattr(
        PhaseSchedule, "criteo", classmethod(lambda cls, total, sparsify=True: PhaseSchedule.imagenet(total, False))
    ),
    "choice": lambda patch: patch.setattr(
        sys.modules["sparseopt.nn.methods.method"],
        "choose",
        lambda budget, shares, scores, progress: [each > each.median() for each in scores],
    ),
    "clip": lambda patch: patch.setattr(
        sys.modules["sparseopt.nn.methods.attention"],
        "SoftmaxMask",
        lambda grid, device, dtype, clip, over: SoftmaxMask(grid, device, dtype, None, over),
    ),
}


@pytest.mark.parametrize("name", WRONG_RECIPES)
def test_a_package_that_departs_from_the_recipe_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    WRONG_RECIPES[name](monkeypatch)
    assert not recipe().as_expected


def test_without_torch_the_check_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for module in [module for module in sys.modules if module.startswith("sparseopt.nn")]:
        monkeypatch.delitem(sys.modules, module)
    evidence = recipe()
    assert evidence.as_expected
    (finding,) = about_networks(evidence)
    assert finding.verdict.name == "NOT_APPLICABLE"
    assert "torch is not installed" in finding.detail
    assert "sparseopt.nn" not in sys.modules or sys.modules["sparseopt.nn"] is None
