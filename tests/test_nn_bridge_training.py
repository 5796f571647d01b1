"""Networks and the core: layers under masks train to the solutions of the problems that their decay belongs to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the bridge to networks needs torch")

from bridge_cases import BRIDGES, Bridge, T  # noqa: E402

from sparseopt import solve  # noqa: E402
from sparseopt.nn.correspondence import Pairing, imprint, pairing_of  # noqa: E402
from sparseopt.nn.layers import Layer  # noqa: E402
from sparseopt.nn.masking import attach_mask  # noqa: E402
from sparseopt.nn.masks import BlockMask, Expm1Mask, ExpMask, LinearMask, PowerMask  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

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
