"""What a user passes to an estimator, checked: X and y by scikit-learn, the rest in one sentence each.

X is laid out once, by columns, as float32 or float64; a design made of the result shares its memory. Whether its values
are finite is left to `as_design`, which says where one is not.
"""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.designs import as_design
from sparseopt.groups import Groups
from sparseopt.groups.members import near

try:
    from sklearn.utils.validation import validate_data
except ImportError:  # scikit-learn < 1.6: a method, and another name for one option

    def validate_data(_estimator: Any, /, X: Any, y: Any = "no_validation", **options: Any) -> Any:
        return _estimator._validate_data(X, y, force_all_finite=options.pop("ensure_all_finite"), **options)


__all__ = [
    "sample_shares",
    "validated",
    "validated_to_predict",
    "check_integer",
    "check_number",
    "with_always_in",
    "with_offset",
]

Array = NDArray[np.float64]


def validated(estimator: Any, X: Any, y: Any, **options: Any) -> tuple[Any, NDArray[Any]]:
    """X by columns, an array or a CSC matrix, and y as an array; remembers the features and their names."""
    X, y = validate_data(
        estimator,
        X,
        y,
        accept_sparse="csc",
        dtype=[np.float64, np.float32],
        order="F",
        ensure_all_finite=False,
        **options,
    )
    return X, y


def validated_to_predict(estimator: Any, X: Any) -> Any:
    """X for predictions: any layout, with the features of the fit; ValueError if it is not finite."""
    X = validate_data(
        estimator,
        X,
        reset=False,
        accept_sparse=("csr", "csc"),
        dtype=[np.float64, np.float32],
        ensure_all_finite=False,
    )
    values = X.data if hasattr(X, "nnz") else X
    with np.errstate(over="ignore", invalid="ignore"):
        clean = np.isfinite(values.sum())
    if not clean:
        as_design(X)  # says where, unless only the sum overflowed
    return X


def sample_shares(sample_weight: ArrayLike | None, n: int) -> Array | None:
    """Weights divided by their sum, (n,); None if none were given.

    Raises
    ------
    ValueError, TypeError
        If they are not n finite numbers >= 0, one of them positive.
    """
    if sample_weight is None:
        return None
    given = np.asarray(sample_weight)
    if given.dtype.kind not in "biufO":
        raise TypeError(f"sample_weight has dtype {given.dtype}: pass real numbers.")
    weights = given.astype(np.float64)
    if weights.shape == ():
        weights = np.full(n, weights)
    if weights.shape != (n,):
        raise ValueError(f"sample_weight has the shape {weights.shape} but X has {n} rows: pass one weight per row.")
    bad = np.flatnonzero(~((weights >= 0.0) & (weights < np.inf)))
    if bad.size:
        raise ValueError(f"sample_weight[{bad[0]}] is {weights[bad[0]]}: pass finite weights >= 0.")
    if not weights.any():
        raise ValueError("sample_weight is zero for every sample: give at least one sample a positive weight.")
    weights /= weights.max()  # the sum of large weights may overflow
    return weights / weights.sum()


def with_offset(z: Array, offset: ArrayLike | None) -> Array:
    """z + offset for z (n, K) and an offset (n,), (n, 1) or (n, K); ValueError for other shapes."""
    if offset is None:
        return z
    known = np.asarray(offset, dtype=np.float64)
    if known.shape not in {(len(z),), (len(z), 1), z.shape}:
        raise ValueError(f"offset has the shape {known.shape} but X has {len(z)} rows: pass ({len(z)},) or {z.shape}.")
    return z + known.reshape(len(z), -1)


def with_always_in(groups: Groups, which: Any) -> Groups:
    """The groups, those in `which` with weight 0: one name or number, or several.

    Raises
    ------
    ValueError, TypeError
        If there is no such group.
    """
    weights = groups.weights.copy()
    if which is None or isinstance(which, (str, Integral)):
        which = () if which is None else (which,)
    if not isinstance(which, Iterable):
        raise TypeError(f"always_in is {which!r}: pass names or numbers of groups.")
    for g in which:
        if isinstance(g, str):
            if g not in groups.names:
                raise ValueError(f"always_in names the group {g!r}, which does not exist{near(g, groups.names)}")
            weights[groups.names.index(g)] = 0.0
        elif isinstance(g, bool) or not isinstance(g, Integral):
            raise TypeError(f"always_in has {g!r}: pass names or numbers of groups.")
        elif not 0 <= int(g) < len(groups):
            raise ValueError(f"always_in has the group {g}: pass numbers from 0 to {len(groups) - 1}, or names.")
        else:
            weights[int(g)] = 0.0
    return Groups(groups.indices, groups.indptr, weights, groups.names)


def check_number(name: str, value: Any, low: float = 0.0, high: float = np.inf) -> None:
    """Raise unless value is a number with low < value < high."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}: pass a float.")
    if not low < float(value) < high:
        bound = f"finite and > {low:g}" if high == np.inf else f"between {low:g} and {high:g}, both excluded"
        raise ValueError(f"{name} is {value}: pass a number that is {bound}.")


def check_integer(name: str, value: Any) -> None:
    """Raise unless value is an integer >= 1."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}: pass an int.")
    if int(value) < 1:
        raise ValueError(f"{name} is {value}: pass an integer >= 1.")
