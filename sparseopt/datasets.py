"""Problems to try things on: simulated ones with a known answer, and three tables with natural groups.

`simulated` draws z = Xw with w zero outside a few groups, and the response from z:

    columns       corr(x_j, x_k) = rho^|j - k|, mean 0, variance 1 (dense) or `density` (sparse)
    squares       y = z + noise,  Var z / Var noise = snr
    huber         the same with Student noise of 3 degrees of freedom, scaled to that variance
    logistic      y = [z + noise > 0],  logistic noise,  Var z = snr pi^2 / 3
    multinomial   y = argmax_k (z_k + noise_k),  Gumbel noise,  Var z_k = snr pi^2 / 6
    poisson       y ~ Poisson(e^z),  Var z = v with  Var(e^z) / E(e^z) = e^(v/2) (e^v - 1) = snr  for normal z

so that snr compares the part of the response that can be predicted with the part that cannot, for every loss.

The tables come with scikit-learn: nothing is downloaded.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Simulated", "Table", "breast_cancer", "diabetes_additive", "digits_rows", "simulated"]


class Simulated(NamedTuple):
    """A simulated problem.

    X is (n, p), float64 in Fortran order or a SciPy CSC matrix; y the response; groups (p,) the label of each column;
    w the truth, (p,) for one output and (p, K) for several.
    """

    X: Any
    y: NDArray
    groups: NDArray[np.int64]
    w: NDArray[np.float64]


class Table(NamedTuple):
    """A table with grouped columns.

    X is (n, p), float64 in Fortran order; y (n,); groups (p,) the position in group_names of each column's group;
    feature_names name the columns; loss is the name of the loss that suits y.
    """

    X: NDArray[np.float64]
    y: NDArray
    groups: NDArray[np.int64]
    group_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    loss: str


def simulated(
    n: int,
    n_groups: int,
    size: int | tuple[int, int] = 5,
    *,
    active: int = 10,
    rho: float = 0.5,
    snr: float = 3.0,
    loss: str = "squares",
    n_outputs: int = 1,
    density: float | None = None,
    equal_norms: bool = False,
    seed: int = 0,
) -> Simulated:
    """Correlated columns, a group-sparse truth, and a response for any loss.

    Parameters
    ----------
    n : samples.
    n_groups : groups of consecutive columns.
    size : columns per group, or (low, high): each size drawn from low, ..., high.
    active : groups with a nonzero block of w, drawn at random; its entries are normal.
    rho : correlation of neighbouring columns, within groups and across their borders; -1 < rho < 1, and rho >= 0
        with `density`.
    snr : signal-to-noise ratio > 0, defined per loss above.
    loss : "squares", "huber", "logistic", "poisson" or "multinomial".
    n_outputs : K, columns of w; for multinomial the number of classes, at least 2.
    density : share of nonzero entries of X in (0, 1]; X is then a SciPy CSC matrix. Default: X is dense.
    equal_norms : scale the active blocks of w to one norm, so that none is too weak to be found.
    seed : of `numpy.random.default_rng`; equal arguments give equal problems.

    Returns
    -------
    Simulated
        X, y, groups, w. y is (n,) for one output and for multinomial (labels 0, ..., K - 1), else (n, K). No intercept.

    Raises
    ------
    ValueError
        If an argument is outside its range.

    Notes
    -----
    A dense column is rho times the one before plus fresh normal noise. A sparse column keeps each entry of the one
    before with probability rho, zero or not, and draws it afresh otherwise: the same correlations, at any density.
    A class that few samples have can be missing from a small multinomial sample; `Multinomial.of` refuses that.

    Examples
    --------
    >>> from sparseopt.datasets import simulated
    >>> X, y, groups, w = simulated(100, 20, 3, active=2, seed=1)
    >>> X.shape, y.shape, len(set(groups[w != 0]))
    ((100, 60), (100,), 2)
    >>> simulated(100, 20, (1, 4), active=2, density=0.1, loss="poisson").X.format
    'csc'
    """
    low, high = (size, size) if isinstance(size, (int, np.integer)) else size
    _check(n >= 1, "n", n, "an integer >= 1")
    _check(n_groups >= 1, "n_groups", n_groups, "an integer >= 1")
    _check(1 <= low <= high, "size", size, "an integer >= 1 or (low, high) with 1 <= low <= high")
    _check(0 <= active <= n_groups, "active", active, f"an integer from 0 to n_groups={n_groups}")
    _check(-1.0 < rho < 1.0, "rho", rho, "a correlation in (-1, 1)")
    _check(0.0 < snr < np.inf, "snr", snr, "a positive number")
    _check(loss in _RESPONSES, "loss", loss, "one of " + ", ".join(_RESPONSES))
    least = 2 if loss == "multinomial" else 1
    _check(n_outputs >= least, "n_outputs", n_outputs, f"an integer >= {least} for {loss}")
    if density is not None:
        _check(0.0 < density <= 1.0, "density", density, "a share in (0, 1], or None for a dense X")
        _check(rho >= 0.0, "rho", rho, "a correlation in [0, 1) for sparse columns")

    rng = np.random.default_rng(seed)
    sizes = rng.integers(low, high, n_groups, endpoint=True)
    groups = np.repeat(np.arange(n_groups), sizes)
    X = _dense(rng, n, len(groups), rho) if density is None else _sparse(rng, n, len(groups), rho, density)
    chosen = rng.choice(n_groups, active, replace=False)
    w = rng.standard_normal((len(groups), n_outputs)) * np.isin(groups, chosen)[:, None]
    if equal_norms:
        norms = np.sqrt(np.bincount(groups, (w**2).sum(axis=1), n_groups))
        w /= np.where(norms > 0.0, norms, 1.0)[groups][:, None]
    spread = (X @ w).std(axis=0)
    variance = _signal_variance(loss, snr)
    if variance is not None:
        w *= np.sqrt(variance) / np.where(spread > 0.0, spread, 1.0)
    noise = np.where(spread > 0.0, spread, 1.0) / np.sqrt(snr)
    y = _RESPONSES[loss](rng, X @ w, noise)
    return Simulated(X, y[:, 0] if y.ndim == 2 and n_outputs == 1 else y, groups, w[:, 0] if n_outputs == 1 else w)


def breast_cancer() -> Table:
    """Wisconsin breast cancer: 569 tumours, benign (1) or not, 10 measurements of cell nuclei with 3 statistics each.

    A group is a measurement (radius, texture, ...): its mean, standard error and worst value. Columns are standardised.

    Examples
    --------
    >>> from sparseopt.datasets import breast_cancer
    >>> table = breast_cancer()
    >>> table.X.shape, len(table.group_names), table.loss
    ((569, 30), 10, 'logistic')
    >>> [name for name, g in zip(table.feature_names, table.groups) if g == 0]
    ['mean radius', 'radius error', 'worst radius']
    """
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    names = tuple(str(name) for name in data.feature_names)
    measured = [name.removeprefix("mean ").removeprefix("worst ").removesuffix(" error") for name in names]
    kinds = tuple(dict.fromkeys(measured))
    groups = np.array([kinds.index(kind) for kind in measured])
    return Table(_standardised(data.data), data.target, groups, kinds, names, "logistic")


def diabetes_additive(n_knots: int = 5) -> Table:
    """Diabetes progression of 442 patients as an additive model: a group is the spline basis of one of 10 variables.

    Cubic B-splines with knots at quantiles, n_knots + 1 columns per variable (one fewer than the basis has, since
    the basis sums to one); sex has two values and stays one column. Columns are standardised, y is as recorded.

    Parameters
    ----------
    n_knots : knots per variable, >= 2.

    Examples
    --------
    >>> from sparseopt.datasets import diabetes_additive
    >>> table = diabetes_additive()
    >>> table.X.shape, table.group_names[:3]
    ((442, 55), ('age', 'sex', 'bmi'))
    """
    _check(n_knots >= 2, "n_knots", n_knots, "an integer >= 2")
    from sklearn.datasets import load_diabetes
    from sklearn.preprocessing import SplineTransformer

    data = load_diabetes()
    names = tuple(str(name) for name in data.feature_names)
    blocks, features = [], []
    for name, column in zip(names, data.data.T, strict=True):
        block = column[:, None]
        if len(np.unique(column)) > 2:
            block = SplineTransformer(n_knots=n_knots, knots="quantile", include_bias=False).fit_transform(block)
        blocks.append(block)
        features += [name] if block.shape[1] == 1 else [f"{name} spline {j + 1}" for j in range(block.shape[1])]
    groups = np.repeat(np.arange(len(names)), [block.shape[1] for block in blocks])
    return Table(_standardised(np.hstack(blocks)), data.target, groups, names, tuple(features), "squares")


def digits_rows() -> Table:
    """Handwritten digits, 1797 images of 8 x 8 pixels in [0, 1], ten classes: a group is a row of pixels.

    Which rows tell the digits apart? Three pixels are 0 in every image: constant columns are part of the data.

    Examples
    --------
    >>> from sparseopt.datasets import digits_rows
    >>> table = digits_rows()
    >>> table.X.shape, table.group_names[-1], table.loss
    ((1797, 64), 'row 7', 'multinomial')
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    groups = np.repeat(np.arange(8), 8)
    features = tuple(f"pixel {row},{column}" for row in range(8) for column in range(8))
    X = np.asfortranarray(data.data / 16.0)
    return Table(X, data.target, groups, tuple(f"row {row}" for row in range(8)), features, "multinomial")


def _dense(rng: np.random.Generator, n: int, p: int, rho: float) -> NDArray[np.float64]:
    columns = rng.standard_normal((p, n))
    fresh = np.sqrt(1.0 - rho * rho)
    for j in range(1, p):
        columns[j] *= fresh
        columns[j] += rho * columns[j - 1]
    return columns.T


def _sparse(rng: np.random.Generator, n: int, p: int, rho: float, density: float) -> Any:
    from scipy.sparse import csc_matrix

    rows = np.flatnonzero(rng.random(n) < density)
    values = rng.standard_normal(len(rows))
    all_rows, all_values = [rows], [values]
    for _ in range(1, p):
        # A zero stays zero unless it is drawn afresh (1 - rho) and nonzero (density): a binomial number of rows.
        drawn = rng.choice(n, rng.binomial(n, (1.0 - rho) * density), replace=False)
        drawn = drawn[~np.isin(drawn, rows)]
        chance = rng.random(len(rows))
        kept, again = chance < rho, (chance >= rho) & (chance < rho + (1.0 - rho) * density)
        values = np.concatenate([values[kept], rng.standard_normal(again.sum() + len(drawn))])
        rows = np.concatenate([rows[kept], rows[again], drawn])
        order = np.argsort(rows)
        rows, values = rows[order], values[order]
        all_rows.append(rows)
        all_values.append(values)
    indptr = np.concatenate([[0], np.cumsum([len(column) for column in all_rows])])
    return csc_matrix((np.concatenate(all_values), np.concatenate(all_rows), indptr), shape=(n, p))


def _signal_variance(loss: str, snr: float) -> float | None:
    if loss == "logistic":
        return snr * np.pi**2 / 3.0
    if loss == "multinomial":
        return snr * np.pi**2 / 6.0
    if loss == "poisson":
        return 2.0 * float(np.log(np.roots([1.0, 0.0, -1.0, -snr]).real.max()))  # x = e^(v/2): x^3 - x = snr
    return None


def _squares(rng: np.random.Generator, z: NDArray, noise: NDArray) -> NDArray:
    return z + noise * rng.standard_normal(z.shape)


def _huber(rng: np.random.Generator, z: NDArray, noise: NDArray) -> NDArray:
    return z + noise * rng.standard_t(3, z.shape) / np.sqrt(3.0)


def _logistic(rng: np.random.Generator, z: NDArray, noise: NDArray) -> NDArray:
    return (z + rng.logistic(size=z.shape) > 0.0).astype(np.int64)


def _poisson(rng: np.random.Generator, z: NDArray, noise: NDArray) -> NDArray:
    return rng.poisson(np.exp(z))


def _multinomial(rng: np.random.Generator, z: NDArray, noise: NDArray) -> NDArray:
    return (z + rng.gumbel(size=z.shape)).argmax(axis=1)


_RESPONSES = {
    "squares": _squares,
    "huber": _huber,
    "logistic": _logistic,
    "poisson": _poisson,
    "multinomial": _multinomial,
}


def _standardised(X: NDArray) -> NDArray[np.float64]:
    return np.asfortranarray((X - X.mean(axis=0)) / X.std(axis=0))


def _check(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value!r}: pass {allowed}.")
