"""One text, every number type: floats, arrays of both precisions and compiled kernels give the same regularizer.

A method written in the words of `sparseopt.scalar` runs everywhere, but only if both branches of each `where` are
finite, no comparison swallows NaN, and no constant widens a float32 array. Tensors are compared in the package's own
tests: the core does not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt.jit import kernel

__all__ = ["kernel_law", "nan_law", "parity_laws", "precision_law", "range_law"]

_NORMS = np.array([0.0, 1e-7, 0.013, 0.21, 0.77, 1.31, 2.9, 3.7, 7.3, 41.0, 997.0])
_STEPS = (1e-4, 0.07, 0.53, 1.9, 13.0, 310.0)


def nan_law(q: Any) -> None:
    """NaN in, NaN out: a diverged solver must not look converged."""
    single = np.array([math.nan, 1.0], np.float32)
    for kind, nan in {"a float": math.nan, "an array": np.array([math.nan, 1.0]), "float32": single}.items():
        for name in ("value", "slope", "inverse"):
            _nan(q, f"{name} of NaN in {kind}", getattr(q, name)(nan))
        for t in _STEPS:
            _nan(q, f"prox of NaN in {kind} with step {t}", q.prox(nan, t))
    _nan(q, "lifted_prox of NaN", q.lifted_prox(math.nan, 1.0, 0.1))


def _nan(q: Any, what: str, answer: Any) -> None:
    if not np.isnan(np.ravel(answer)[0]):
        raise AssertionError(f"{q} breaks: NaN stays NaN; {what} = {np.ravel(answer)[0]!r}.")


def precision_law(q: Any) -> None:
    """A float32 array stays float32 and is right to its precision; an array of any shape keeps its shape."""
    u = _NORMS[1:].astype(np.float32).reshape(2, 5)
    wide = u.astype(np.float64)
    cases = [("value", q.value(u), q.value(wide)), ("slope", q.slope(u), q.slope(wide))]
    inner = np.minimum(q.value(u), np.float32(0.5 * min(q.ceiling(), 1e6)))
    cases.append(("q(inverse)", q.value(q.inverse(inner)), q.value(q.inverse(inner.astype(np.float64)))))
    for name, narrow, exact in cases:
        _float32(q, name, u, narrow)
        error = np.abs(narrow - exact)
        bound = 2e-5 * (np.abs(exact) + (q.value(wide) / wide if name == "slope" else 0.0))
        if not (error <= bound).all():
            raise AssertionError(
                f"{q} breaks: {name} is right in float32; error {error.max()!r} at {u[error > bound][0]!r}."
            )
    for t in _STEPS:
        narrow = q.prox(u, t)
        _float32(q, "prox", u, narrow)
        v, exact = narrow.astype(np.float64), q.prox(wide, t)
        # The minimum is what float32 must reach: where two minimisers nearly tie it may choose the other one.
        excess = 0.5 * (v - exact) * (v + exact - 2.0 * wide) + t * (q.value(v) - q.value(exact))
        if not (excess <= 1e-5 * wide**2).all():
            at = int(np.argmax(excess / wide**2))
            wrong = f"prox({u.flat[at]!r}, {t}) = {narrow.flat[at]!r}, not {exact.flat[at]!r}"
            raise AssertionError(f"{q} breaks: prox is right in float32; {wrong}.")


def _float32(q: Any, name: str, u: NDArray, answer: Any) -> None:
    if not (isinstance(answer, np.ndarray) and answer.dtype == np.float32 and answer.shape == u.shape):
        kind = getattr(answer, "dtype", type(answer).__name__)
        raise AssertionError(
            f"{q} breaks: {name} keeps dtype and shape; float32 {u.shape} became {kind} {np.shape(answer)}."
        )


def range_law(q: Any) -> None:
    """For u up to 1e8 and t from 1e-10 to 1e10 everything is finite, in both precisions, and no operation overflows."""
    for dtype in (np.float64, np.float32):
        u = np.concatenate([[0.0], np.geomspace(1e-8, 1e8, 65)]).astype(dtype)
        answers = {"value": q.value(u), "slope": q.slope(u[1:])}
        answers |= {f"prox with step {t:g}": q.prox(u, float(t)) for t in np.geomspace(1e-10, 1e10, 21)}
        for name, answer in answers.items():
            bad = ~(np.isfinite(answer) & (answer >= 0.0))
            if bad.any():
                at = int(np.argmax(bad))
                raise AssertionError(f"{q} breaks: {name} is finite up to 1e8; {np.dtype(dtype)} gives {answer[at]!r}.")


@kernel
def _tabulate(q, u, v, t, rest, table, answers):
    for i in range(u.size):
        table[0, i] = q.value(u[i])
        table[1, i] = q.slope(u[i])
        table[2, i] = q.inverse(v[i])
        table[3, i] = q.prox(u[i], t)
        table[4, i] = q.lifted_prox(u[i], t, rest)
    answers[0] = q.slope_at_zero()
    answers[1] = q.weak_convexity()
    answers[2] = q.ceiling()
    answers[3] = q.increasing()
    answers[4] = q.concave()
    answers[5] = q.subadditive()
    answers[6] = q.bounded()


def kernel_law(q: Any) -> None:
    """A compiled kernel, an array and a Python float give the same numbers."""
    u = _NORMS[1:]
    top = min(q.ceiling(), 1e6)
    v = np.minimum(q.value(u), 0.5 * top)
    answers = np.empty(7)
    _tabulate(q, u, v, 1.0, 0.1 * top, np.empty((5, u.size)), answers)
    names = ("slope_at_zero", "weak_convexity", "ceiling", "increasing", "concave", "subadditive", "bounded")
    for name, answer in zip(names, answers, strict=True):
        if not answer == float(getattr(q, name)()):
            raise AssertionError(f"{q} breaks: kernels and Python agree; {name} is {answer!r} in a kernel.")
    for t in _STEPS:
        rest = 0.1 * q.value(2.0)
        table = np.empty((5, u.size))
        _tabulate(q, u, v, t, rest, table, answers)
        floats = [float(x) for x in u]
        rows = {
            "value": (q.value(u), [q.value(x) for x in floats]),
            "slope": (q.slope(u), [q.slope(x) for x in floats]),
            "inverse": (q.inverse(v), [q.inverse(float(x)) for x in v]),
            "prox": (q.prox(u, t), [q.prox(x, t) for x in floats]),
            "lifted_prox": (table[4], [q.lifted_prox(x, t, rest) for x in floats]),
        }
        for (name, (array, scalars)), compiled in zip(rows.items(), table, strict=True):
            for other, numbers in (("a kernel", compiled), ("a float", np.array(scalars))):
                wrong = ~(np.abs(array - numbers) <= 1e-8 * np.abs(array) + 1e-11 * u)
                if wrong.any():
                    at = int(np.argmax(wrong))
                    raise AssertionError(
                        f"{q} breaks: {name} agrees between an array and {other}; u = {floats[at]}, t = {t}: "
                        f"{array[at]!r} and {numbers[at]!r}."
                    )


parity_laws: tuple[Callable[[Any], None], ...] = (nan_law, precision_law, range_law, kernel_law)
