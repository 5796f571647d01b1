"""Networks and the core: decay of a mask and its block, at its least, is a regularizer of the core."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

torch = pytest.importorskip("torch", reason="the bridge to networks needs torch")

from torch import nn  # noqa: E402

from sparseopt import Composite, Penalty  # noqa: E402
from sparseopt.nn import BlockGrid, correspondence  # noqa: E402
from sparseopt.nn.correspondence import SoftmaxPairing, groups_of, imprint, pairing_of  # noqa: E402
from sparseopt.nn.layers import Layer  # noqa: E402
from sparseopt.nn.masking import attach_mask  # noqa: E402
from sparseopt.nn.masks import BlockMask, Expm1Mask, ExpMask, LinearMask, PowerMask, SoftmaxMask  # noqa: E402
from sparseopt.nn.planning import LayerPlan  # noqa: E402
from sparseopt.regularizers import L2, LambertW, Power, Scaled  # noqa: E402
from sparseopt.regularizers import Expm1Mask as Expm1Penalty  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

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
