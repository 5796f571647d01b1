"""The laws of a loss L(z) = sum_i s_i f(y_i, z_i + o_i), as checks that run.

    value         L >= 0, a float; for |z| up to 1e4 never NaN, and finite where the curvature is bounded
    derivative    the slope of value, entry by entry; a sample's derivative depends on that sample only
    curvature     c_i >= the largest eigenvalue of the Hessian block of sample i, and curvature_bound >= c; with the
                  bound, L(z') <= L(z) + <grad L(z), z' - z> + sum_i c_i ||z'_i - z_i||^2 / 2 for any two points
    conjugate     L(z) + L*(a) >= <a, z>, with equality at a = grad L(z); inf outside the domain; L*(0) <= 0
    dual_scale    c a is inside the domain for the c it returns, and outside beyond; 1 for a = grad L(z)
    weights       weight 2 counts a sample twice, weight 0 leaves it out
    offset        L with offset o at z is L without at z + o, and L*(a) gains -<a, o>
    take          rows, masks and repeats; the total weight stays
    mean          grad L = s (mean - y) for a canonical loss; otherwise of that sign and no larger
    memory        C and Fortran order in, the same order out, the same numbers, nothing written to z
    intercept     the derivative at null_intercept() sums to zero over the samples

A law is a function here; `check_loss` runs them in this order.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sparseopt.losses import Loss

__all__ = ["check_loss"]

Array = NDArray[np.float64]


def check_loss(loss: Loss, rng: np.random.Generator | None = None) -> None:
    """Check that `loss` obeys every law of a loss.

    The checks are made at random points z, on the samples the loss holds: ten to a hundred of varied y make a good
    examination. They cannot prove a loss right, but each law rejects a loss that breaks it.

    Parameters
    ----------
    loss : the loss, built on the data to examine it with. It may have weights, some of them 0, and an offset.
    rng : source of the random points. Default: `numpy.random.default_rng(0)`.

    Raises
    ------
    AssertionError
        At the first law broken, with the numbers.

    Examples
    --------
    >>> from sparseopt.laws.losses import check_loss
    >>> from sparseopt.losses import Huber
    >>> check_loss(Huber.of([0.0, 1.0, -3.0, 10.0], delta=2.0))
    """
    rng = np.random.default_rng(0) if rng is None else rng
    # At these points rates e^z neither vanish nor swamp the other samples, so that differences mean something.
    points = [scale * rng.standard_normal(loss.y.shape) for scale in (0.1, 1.0, 2.0)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for law in (
            _value_is_tame,
            _derivative_is_the_slope,
            _samples_are_separate,
            _curvature_majorises,
            _conjugate_is_tight,
            _domain_has_its_edge_where_dual_scale_says,
            _weights_count,
            _offset_shifts,
            _take_takes,
            _mean_fits_the_derivative,
            _memory_order_stays,
            _null_intercept_is_stationary,
        ):
            try:
                law(loss, points, rng)
            except Warning as warning:
                raise AssertionError(f"{law.__name__.strip('_').replace('_', ' ')}? It warns: {warning}") from warning


def _value_is_tame(loss: Loss, points: list[Array], rng: np.random.Generator) -> None:
    extreme = [1e4 * np.sign(z) for z in points] + [np.full(loss.y.shape, size) for size in (1e4, -1e4, 0.0)]
    best = np.tile(loss.null_intercept(), (loss.n_samples, 1))
    for z in [*points, *extreme, best]:
        value = loss.value(z)
        assert isinstance(value, float), f"value is a {type(value).__name__}, not a float"
        assert value >= 0.0, f"value is {value} at |z| <= {np.abs(z).max():g}, not >= 0"
        bounded = loss.curvature_bound() is not None
        assert np.isfinite(value) or not bounded, (
            f"value is {value} at |z| = {np.abs(z).max():g}, but curvature is bounded"
        )
        for name, array in (
            ("derivative", loss.derivative(z)),
            ("curvature", loss.curvature(z)),
            ("mean", loss.mean(z)),
        ):
            assert not np.isnan(array).any(), f"{name} is NaN at |z| <= {np.abs(z).max():g}"
        assert (loss.curvature(z) >= 0.0).all(), f"curvature is negative: {loss.curvature(z).min()}"
    expected = 2.0 * (loss.s > 0.0).sum() * loss.value(points[0]) / loss.s.sum()
    _same(loss.deviance(points[0]), expected, "deviance against 2 n_eff L / sum(s)")


def _derivative_is_the_slope(loss: Loss, points: list[Array], rng: np.random.Generator) -> None:
    entries = list(np.ndindex(*loss.y.shape))
    if len(entries) > 60:
        entries = [entries[j] for j in rng.choice(len(entries), 60, replace=False)]
    for z in points:
        derivative = loss.derivative(z)
        assert derivative.shape == z.shape, f"derivative has shape {derivative.shape} at z of shape {z.shape}"
        smooth = 0
        for entry in entries:
            coarse, fine = (_slope(loss, z, entry, h) for h in (2e-3, 1e-3))
            scale = abs(fine) + loss.s[entry[0]] + 1e-5 * loss.value(z)
            if abs(coarse - fine) > 1e-8 * scale:
                continue  # a kink of f' within reach of the differences
            smooth += 1
            assert abs(derivative[entry] - fine) <= 1e-7 * scale, (
                f"derivative is {derivative[entry]} in entry {entry}, but value has slope {fine}"
            )
        assert smooth >= 0.8 * len(entries), f"value has no slope in {len(entries) - smooth} of {len(entries)} entries"


def _slope(loss: Loss, z: Array, entry: tuple[int, ...], h: float) -> float:
    """Central differences of order h^4."""

    def at(step: float) -> float:
        moved = z.copy()
        moved[entry] += step
        return loss.value(moved)

    return (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h)


def _samples_are_separate(loss: Loss, points: list[Array], rng: np.random.Generator) -> None:
    row = int(rng.integers(loss.n_samples))
    moved = points[1].copy()
    moved[row] += 1.0
    others = np.arange(loss.n_samples) != row
    _same(loss.derivative(moved)[others], loss.derivative(points[1])[others], f"derivative of others if z[{row}] moves")


def _curvature_majorises(loss: Loss, points: list[Array], rng: np.random.Generator) -> None:
    bound = loss.curvature_bound()
    h = 1e-4
    for z in points:
        c = loss.curvature(z)
        assert c.shape == (loss.n_samples,), f"curvature has shape {c.shape}, not {(loss.n_samples,)}"
        blocks = np.empty((loss.n_samples, loss.n_outputs, loss.n_outputs))
        for k in range(loss.n_outputs):
            step = np.zeros_like(z)
            step[:, k] = h
            blocks[:, :, k] = (loss.derivative(z + step) - loss.derivative(z - step)) / (2.0 * h)
        top = np.linalg.eigvalsh((blocks + blocks.transpose(0, 2, 1)) / 2.0)[:, -1]
        i = int((top - c).argmax())
        assert (top <= c * (1.0 + 1e-6) + 1e-7 * loss.s).all(), (
            f"curvature of sample {i} is {c[i]}, its Hessian {top[i]}"
        )
        if bound is None:
            continue
        i = int((c - bound).argmax())
        assert (c <= bound * (1.0 + 1e-12)).all(), f"curvature of sample {i} is {c[i]}, above its bound {bound[i]}"
        there = z + 3.0 * rng.standard_normal(z.shape)
        model = (
            loss.value(z) + _dot(loss.derivative(z), there - z) + 0.5 * float(bound @ ((there - z) ** 2).sum(axis=1))
        )
        assert loss.value(there) <= model + 1e-10 * (1.0 + abs(model)), (
            f"value is {loss.value(there)}, above the quadratic with curvature_bound, {model}"
        )
    if loss.is_quadratic:
        z, there = points[1], points[2]
        _same(loss.curvature(z), loss.curvature(there), "curvature of a quadratic loss at two points")
        middle = 0.5 * (loss.derivative(z) + loss.derivative(there))
        _same(loss.derivative(0.5 * (z + there)), middle, "derivative of a quadratic loss half-way")


def _conjugate_is_tight(loss: Loss, points: list[Array], rng: np.random.Generator) -> None:
    at_zero = loss.conjugate(np.zeros(loss.y.shape))
    assert at_zero <= 1e-12, f"conjugate is {at_zero} at 0, but it is -inf L <= 0"
    for z in points:
        a = loss.derivative(z)
        _gap(loss, z, a, "at a = derivative(z)", equal=True)
        for there in points:
            _gap(loss, there, a, "at the derivative of another point")
            for c in (0.0, 0.3):
                mixed = c * a + (1.0 - c) * loss.derivative(there)
                _gap(loss, z, mixed, f"between two derivatives, c = {c}")
        _gap(loss, z, 0.5 * a, "at half the derivative")


def _gap(loss: Loss, z: Array, a: Array, where: str, equal: bool = False) -> None:
    value, conjugate, product = loss.value(z), loss.conjugate(a), _dot(a, z)
    tolerance = 1e-10 * (abs(value) + abs(conjugate) + float(np.abs(a * z).sum()) + float(loss.s.sum()))
    numbers = f"L(z) + L*(a) = {value + conjugate} and <a, z> = {product} {where}"
    assert np.isfinite(conjugate), f"conjugate is {conjugate} {where}, inside its domain"
    assert value + conjugate >= product - tolerance, f"Fenchel's inequality fails: {numbers}"
    assert not equal or value + conjugate <= product + tolerance, f"Fenchel's inequality is not tight: {numbers}"


def _domain_has_its_edge_where_dual_scale_says(loss: Loss, points: list[Array], rng: np.random.Generator) -> None:
    for z in points:
        a = loss.derivative(z)
        c = loss.dual_scale(a)
        assert c == 1.0, f"dual_scale is {c} at a derivative, which is inside the domain"
        raw = loss.s[:, None] * rng.standard_normal(z.shape)
        balanced = raw - raw.mean(axis=1, keepdims=True)
        # Directions that leave the domain early, late, at once (a sign that is not allowed), or never.
        for far in (3.0 * a, 1e3 * a, a + 1e-3 * raw, a + 1e-3 * balanced, 50.0 * balanced, 50.0 * raw):
            _edge(loss, far)
    stray = loss.derivative(points[1])
    stray[loss.s == 0.0] = 1e-3
    if (loss.s == 0.0).any():
        conjugate = loss.conjugate(stray)
        assert conjugate == np.inf, f"conjugate is {conjugate}, though a is not 0 at a sample of weight 0"
        _edge(loss, stray)


def _edge(loss: Loss, a: Array) -> None:
    c = loss.dual_scale(a)
    assert isinstance(c, float), f"dual_scale is a {type(c).__name__}, not a float"
    assert 0.0 <= c <= 1.0, f"dual_scale is {c}, not in [0, 1]"
    inside = loss.conjugate(c * a)
    assert np.isfinite(inside), f"conjugate is {inside} at c a with c = dual_scale(a) = {c}"
    if np.isfinite(loss.conjugate(a)):
        # A conjugate that is finite where the supremum is not fails Fenchel's inequality far out.
        for direction in (np.sign(a), np.ones_like(a) * np.sign(a.sum(axis=1, keepdims=True))):
            _gap(loss, 1e4 * direction, a, "far out")
    # c = 0 leaves any positive multiple outside; 1e-3 is beyond rounding.
    for beyond in (1.0, min(1.0, 1.001 * c + (1e-3 if c == 0.0 else 0.0))):
        outside = loss.conjugate(beyond * a)
        assert c == 1.0 or outside == np.inf, f"conjugate is {outside} at {beyond} a, but dual_scale(a) = {c}"


def _weights_count(loss: Loss, points: list[Array], rng: np.random.Generator) -> None:
    z = points[1]
    row = int(np.argmax(loss.s))
    rest = np.arange(loss.n_samples) != row
    doubled = replace(loss, s=np.where(rest, loss.s, 2.0 * loss.s))
    twice = _rows(loss, np.append(np.arange(loss.n_samples), row))
    _same(doubled.value(z), twice.value(np.vstack([z, z[row]])), "value of weight 2 against a row twice")
    _same(doubled.derivative(z)[row], 2.0 * loss.derivative(z)[row], "derivative of weight 2 against twice")
    _same(doubled.curvature(z)[row], 2.0 * loss.curvature(z)[row], "curvature of weight 2 against twice")
    _same(
        doubled.conjugate(doubled.derivative(z)),
        twice.conjugate(twice.derivative(np.vstack([z, z[row]]))),
        "conjugate of weight 2 against a row twice",
        1e-9,
    )
    if not loss.s[rest].any():
        return
    dropped, without = replace(loss, s=np.where(rest, loss.s, 0.0)), _rows(loss, np.flatnonzero(rest))
    wild = z.copy()
    wild[row] = 1e4
    _same(dropped.value(wild), without.value(z[rest]), "value of weight 0 against the row left out")
    _same(dropped.derivative(wild)[rest], without.derivative(z[rest]), "derivative of weight 0 against left out")
    _same(dropped.derivative(wild)[row], np.zeros(loss.n_outputs), "derivative at weight 0")
    _same(dropped.curvature(wild)[row], 0.0, "curvature at weight 0")
    _same(
        dropped.conjugate(dropped.derivative(z)),
        without.conjugate(without.derivative(z[rest])),
        "conjugate of weight 0 against left out",
        1e-9,
    )
    b = np.tile(dropped.null_intercept(), (loss.n_samples - 1, 1))
    pull = np.abs(without.derivative(b).sum(axis=0)).max()
    assert pull <= 1e-9 * without.s.sum() * (1.0 + np.abs(without.y).max()), (
        f"null_intercept at weight 0 leaves the slope {pull}"
    )


def _offset_shifts(loss: Loss, points: list[Array], rng: np.random.Generator) -> None:
    z, o = points[1], points[0] + 0.5
    plain, shifted = replace(loss, offset=None), replace(loss, offset=o)
    _same(shifted.value(z), plain.value(z + o), "value with offset against z + o")
    _same(shifted.derivative(z), plain.derivative(z + o), "derivative with offset against z + o")
    _same(shifted.curvature(z), plain.curvature(z + o), "curvature with offset against z + o")
    _same(shifted.mean(z), plain.mean(z + o), "mean with offset against z + o")
    a = shifted.derivative(z)
    _same(shifted.conjugate(a), plain.conjugate(a) - _dot(a, o), "conjugate with offset against -<a, o>", 1e-9)
    _same(shifted.dual_scale(2.0 * a), plain.dual_scale(2.0 * a), "dual_scale with offset")


def _take_takes(loss: Loss, points: list[Array], rng: np.random.Generator) -> None:
    z = points[1]
    rows = rng.integers(loss.n_samples, size=loss.n_samples // 2 + 1)
    rows[0] = np.argmax(loss.s)
    chosen, expected = loss.take(rows), _rows(loss, rows)
    assert type(chosen) is type(loss), f"take gives a {type(chosen).__name__} from a {type(loss).__name__}"
    ratio = loss.s.sum() / loss.s[rows].sum()
    _same(chosen.s, ratio * loss.s[rows], "weights of take(rows)")
    _same(chosen.value(z[rows]), ratio * expected.value(z[rows]), "value of take(rows)")
    _same(chosen.derivative(z[rows]), ratio * expected.derivative(z[rows]), "derivative of take(rows)")
    everything = loss.take(np.ones(loss.n_samples, dtype=bool))
    _same(everything.value(z), loss.value(z), "value of take(all)")


def _mean_fits_the_derivative(loss: Loss, points: list[Array], rng: np.random.Generator) -> None:
    for z in points:
        derivative, pull = loss.derivative(z), loss.s[:, None] * (loss.mean(z) - loss.y)
        shift = 0.0 if loss.offset is None else loss.offset
        _same(loss.mean(z), loss.response(z + shift), "mean against response of z + o")
        if loss.canonical:
            _same(derivative, pull, "derivative against s (mean - y)", 1e-10)
        else:
            scaled = derivative * pull
            assert (scaled >= 0.0).all(), f"derivative and mean - y differ in sign: product {scaled.min()}"
            assert ((derivative == 0.0) == (pull == 0.0)).all(), "derivative is zero, but mean is not y, or the reverse"


def _memory_order_stays(loss: Loss, points: list[Array], rng: np.random.Generator) -> None:
    for z in points:
        for order in ("C", "F"):
            same = np.array(z, order=order)
            same.flags.writeable = False
            for name in ("derivative", "mean"):
                out = getattr(loss, name)(same)
                _same(out, getattr(loss, name)(z), f"{name} of z in {order} order")
                flag = out.flags.c_contiguous if order == "C" else out.flags.f_contiguous
                assert flag, f"{name} of z in {order} order comes out in another"
                assert out.flags.writeable, f"{name} is a view of z, not an array of its own"
                assert out.dtype == np.float64, f"{name} is {out.dtype}, not float64"
            _same(loss.value(same), loss.value(z), f"value of z in {order} order")


def _null_intercept_is_stationary(loss: Loss, points: list[Array], rng: np.random.Generator) -> None:
    b = loss.null_intercept()
    assert b.shape == (loss.n_outputs,), f"null_intercept has shape {b.shape}, not {(loss.n_outputs,)}"
    assert np.isfinite(b).all(), f"null_intercept is {b}"
    z = np.tile(b, (loss.n_samples, 1))
    derivative = loss.derivative(z)
    total, scale = np.abs(derivative.sum(axis=0)), np.abs(derivative).sum(axis=0) + 1e-6 * loss.s.sum()
    assert (total <= 1e-9 * scale).all(), f"the derivative at null_intercept {b} sums to {total}"


def _rows(loss: Loss, rows: NDArray) -> Loss:
    """The samples `rows`, weights as they are."""
    offset = None if loss.offset is None else loss.offset[rows]
    return replace(loss, y=loss.y[rows], s=loss.s[rows], offset=offset)


def _dot(a: Array, b: Array) -> float:
    return float((a * b).sum())


def _same(got: Array | float, expected: Array | float, what: str, tolerance: float = 1e-11) -> None:
    difference = np.max(np.abs(np.asarray(got) - expected), initial=0.0)
    scale = np.max(np.abs(expected), initial=1e-300)
    assert difference <= tolerance * scale, f"{what}: differs by {difference:.3g} at size {scale:.3g}"
