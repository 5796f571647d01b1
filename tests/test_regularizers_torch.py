"""The same text on tensors: values, dtypes, NaN, and gradients of `value` that are `slope`."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="regularizers on tensors need torch")

import sparseopt.nn  # noqa: E402, F401  lets the words act on tensors
from sparseopt.regularizers import MCP, REGULARIZERS, LambertW, Power, Scaled  # noqa: E402

ALL = [*REGULARIZERS.values(), Power(0.3), Power(2.0 / 3.0), Scaled(MCP(3.0), 0.5), Scaled(LambertW(), 2.0)]
NORMS = np.array([0.0, 1e-6, 0.013, 0.21, 0.77, 1.31, 2.9, 3.7, 7.3, 41.0, 997.0])
STEPS = (1e-4, 0.07, 0.53, 1.9, 13.0, 310.0)


@pytest.mark.parametrize("q", ALL, ids=repr)
def test_tensors_agree_with_arrays(q) -> None:
    u = torch.tensor(NORMS)
    v = np.minimum(q.value(NORMS), 0.5 * min(q.ceiling(), 1e6))
    pairs = [
        (q.value(u), q.value(NORMS)),
        (q.slope(u[1:]), q.slope(NORMS[1:])),
        (q.inverse(torch.tensor(v)), q.inverse(v)),
    ]
    pairs += [(q.prox(u, t), q.prox(NORMS, t)) for t in STEPS]
    steps = np.resize(STEPS, NORMS.shape)
    pairs.append((q.prox(u, torch.tensor(steps)), q.prox(NORMS, steps)))
    for tensor, array in pairs:
        assert tensor.dtype == torch.float64
        np.testing.assert_allclose(tensor.numpy(), array, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("q", ALL, ids=repr)
def test_float32_stays_float32(q) -> None:
    u = torch.tensor(NORMS[1:], dtype=torch.float32).reshape(2, 5)
    wide = u.double()
    for narrow, exact in (
        (q.value(u), q.value(wide)),
        (q.slope(u), q.slope(wide)),
        (q.inverse(q.value(u) * 0.5), None),
    ):
        assert narrow.dtype == torch.float32
        assert narrow.shape == u.shape
        if exact is not None:
            assert torch.allclose(narrow.double(), exact, rtol=2e-5, atol=2e-7)
    for t in STEPS:
        prox, best = q.prox(u, t), q.prox(wide, t)
        assert prox.dtype == torch.float32
        assert prox.shape == u.shape
        v = prox.double()
        excess = 0.5 * (v - best) * (v + best - 2.0 * wide) + t * (q.value(v) - q.value(best))
        assert bool((excess <= 1e-5 * wide**2).all())


@pytest.mark.parametrize("q", ALL, ids=repr)
def test_the_gradient_of_value_is_slope(q) -> None:
    u = torch.tensor([1e-8, 1e-3, 0.21, 0.77, 1.31, 2.9, 3.8, 41.0, 1e4], dtype=torch.float64, requires_grad=True)
    q.value(u).sum().backward()
    slope = q.slope(u.detach())
    assert u.grad is not None
    np.testing.assert_allclose(u.grad.numpy(), slope.numpy(), rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("q", ALL, ids=repr)
def test_the_gradient_of_value_at_zero_is_no_nan(q) -> None:
    u = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    q.value(u).sum().backward()
    assert u.grad is not None
    if repr(q) == "L0()":  # a jump has no gradient: any number will do
        assert bool(torch.isfinite(u.grad).all())
    else:
        np.testing.assert_allclose(u.grad.numpy(), np.full(3, q.slope_at_zero()), rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("q", ALL, ids=repr)
def test_nan_stays_nan(q) -> None:
    u = torch.tensor([math.nan, 1.0])
    answers = [q.value(u), q.slope(u), q.inverse(u), *(q.prox(u, t) for t in STEPS)]
    assert [bool(torch.isnan(answer[0])) for answer in answers] == [True] * len(answers)
