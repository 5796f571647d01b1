"""From a file to X and y.

A column of text becomes one 0/1 column per value, none left out, and these belong together: `owner` says which column
of the file each feature came from.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt.cli.formats import MISSING, listed, read_file

__all__ = ["Data", "read_data", "standardised"]

_MANY = 256  # more 0/1 columns than this, and X is stored by its nonzeros


@dataclass(frozen=True, eq=False)
class Data:
    """What a file holds.

    Parameters
    ----------
    X : (n, p) float64 array in Fortran order, or SciPy CSC matrix
    y : (n,) or (n, K) array of numbers, or (n,) of text
    target : str
        What y is called.
    columns : tuple of str
        Names of the columns of the file, without the target.
    owner : (p,) int64
        The column each feature came from.
    features : tuple of p str
        Names of the features; those of a text column are `column=value`.
    labels : tuple of str, one per column, or None
        Group labels that came with the file.
    is_table : bool
        Whether the columns are measurements with units of their own (text and Parquet).
    remarks : tuple of str
        Sentences about what was assumed.
    """

    X: Any
    y: NDArray[Any]
    target: str
    columns: tuple[str, ...]
    owner: NDArray[np.int64]
    features: tuple[str, ...]
    labels: tuple[str, ...] | None = None
    is_table: bool = False
    remarks: tuple[str, ...] = ()


def read_data(
    file: str | Path, target: str | None = None, drop: Collection[str] = (), categorical: Collection[str] = ()
) -> Data:
    """Read a data file.

    Parameters
    ----------
    file : path
        See `sparseopt.cli.formats`. An NPZ file holds X (n, p) and y, and may hold group (p,), group_names,
        feature_names.
    target : str, optional
        Column or array to predict; default "y" if there is one, else the last column.
    drop : names of columns to leave out.
    categorical : names of columns of numbers that are codes, to be treated like text.

    Raises
    ------
    ValueError
        If the file holds no such data, lacks values, or has no such column; the sentence says where.
    OSError
        If the file cannot be opened.
    """
    kind, content = read_file(file, drop)
    if kind not in ("npz", "svmlight"):
        bare = f"The first row holds numbers, so the columns are called x1, ..., x{len(content)}."
        remarks = (bare,) if kind == "text without header" else ()
        return _from_columns(content, str(file), target, drop, categorical, remarks)
    if drop or categorical:
        raise ValueError(f"{file} holds a matrix, whose columns cannot be dropped or encoded: prepare X instead.")
    if kind == "npz":
        return _from_arrays(content, str(file), target or "y")
    if target:
        raise ValueError(f"{file} is an svmlight file, whose target is the label: leave out --target {target}.")
    X, y = content
    features = tuple(f"x{j + 1}" for j in range(X.shape[1]))
    return Data(X, y, "the label", features, np.arange(X.shape[1]), features)


def standardised(X: Any, centred: bool) -> tuple[Any, NDArray[np.float64]]:
    """X / scale and scale: root mean square of every column, about its mean if `centred`; 1 for constant columns."""
    mean = np.asarray(X.mean(axis=0)).ravel() if centred else np.zeros(X.shape[1])
    if isinstance(X, np.ndarray):
        scale = np.array([np.sqrt(np.mean((x - m) ** 2)) for x, m in zip(X.T, mean, strict=True)])
    else:
        scale = np.sqrt(np.maximum(np.asarray(X.multiply(X).mean(axis=0)).ravel() - mean**2, 0.0))
    scale[scale <= 1e-12 * np.maximum(np.abs(mean), 1e-300)] = 1.0
    if isinstance(X, np.ndarray):
        return np.asfortranarray(X / scale), scale
    out = X.copy()
    out.data = out.data / np.repeat(scale, np.diff(out.indptr))
    return out, scale


def _from_columns(
    columns: Mapping[str, NDArray[Any]],
    name: str,
    target: str | None,
    drop: Collection[str],
    categorical: Collection[str],
    assumed: tuple[str, ...],
) -> Data:
    remarks = [*assumed]
    if target is None:
        target = "y" if "y" in columns else list(columns)[-1]
        remarks.append(f"The target is the column {target!r}; --target names another.")
    for wanted in (target, *drop, *categorical):
        if wanted not in columns:
            near = difflib.get_close_matches(wanted, columns, n=3)
            hint = f"did you mean {' or '.join(map(repr, near))}" if near else f"it has {listed(list(columns))}"
            raise ValueError(f"{name} has no column {wanted!r}: {hint}{'?' if near else '.'}")
    kept = [column for column in columns if column != target and column not in drop]
    if target in drop or not kept:
        raise ValueError(f"{name} has nothing left to predict {target!r} from: drop fewer columns.")
    blocks: list[Any] = []
    features: list[str] = []
    owner: list[int] = []
    encoded = []
    for j, column in enumerate(kept):
        values = columns[column]
        if values.dtype == object or column in categorical:
            block, levels = _one_hot(column, values, name)
            features += [f"{column}={level}" for level in levels]
            encoded.append(f"{column} ({len(levels)})")
        else:
            block = _complete(column, values, name)[:, None]
            features.append(column)
        blocks.append(block)
        owner += [j] * block.shape[1]
    if encoded:
        remarks.append(f"Text became one group of 0/1 columns each: {listed(encoded)}.")
    y = columns[target]
    if y.dtype == object:
        gone = np.flatnonzero([entry.lower() in MISSING for entry in y])
        if gone.size:
            raise ValueError(f"Column {target!r} of {name} has no value in data row {gone[0] + 1}: leave out that row.")
        y = y.astype(str)
    else:
        _complete(target, y, name)
    X = _joined(blocks, len(y))
    return Data(X, y, target, tuple(kept), np.array(owner), tuple(features), None, True, tuple(remarks))


def _complete(column: str, values: NDArray[Any], name: str) -> NDArray[Any]:
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        what = "no value" if np.isnan(values[bad[0]]) else f"the value {values[bad[0]]}"
        raise ValueError(
            f"Column {column!r} of {name} has {what} in data row {bad[0] + 1} ({bad.size} in all): impute them, leave "
            "out the rows, or --drop the column."
        )
    return values


def _one_hot(column: str, values: NDArray[Any], name: str) -> tuple[Any, list[str]]:
    from scipy.sparse import csc_matrix

    text = [str(v) or "(none)" if isinstance(v, str) else f"{v:g}" for v in values]
    levels, codes = np.unique(np.array(text), return_inverse=True)
    n = len(values)
    if len(levels) > max(n // 2, 2):
        raise ValueError(
            f"Column {column!r} of {name} holds {len(levels)} different texts in {n} rows, such as {str(levels[0])!r}: "
            "--drop it, or make it numeric."
        )
    return csc_matrix((np.ones(n), (np.arange(n), codes)), shape=(n, len(levels))), [str(level) for level in levels]


def _joined(blocks: list[Any], n: int) -> Any:
    if sum(block.shape[1] for block in blocks if not isinstance(block, np.ndarray)) > _MANY:
        from scipy.sparse import csc_matrix, hstack

        return hstack([csc_matrix(block) for block in blocks], format="csc")
    X = np.empty((n, sum(block.shape[1] for block in blocks)), order="F")
    start = 0
    for block in blocks:
        stop = start + block.shape[1]
        X[:, start:stop] = block if isinstance(block, np.ndarray) else block.toarray()
        start = stop
    return X


def _from_arrays(arrays: dict[str, NDArray[Any]], name: str, target: str) -> Data:
    for wanted in ("X", target):
        if wanted not in arrays:
            raise ValueError(f"{name} has no array {wanted!r}: it holds {listed(list(arrays))}.")
    X, y = arrays["X"], arrays[target]
    if X.ndim != 2 or X.dtype.kind not in "biuf":
        raise ValueError(f"X in {name} has the shape {X.shape} and dtype {X.dtype}: pass a matrix of numbers.")
    p = X.shape[1]
    features = arrays.get("feature_names", np.array([f"x{j + 1}" for j in range(p)]))
    labels = arrays.get("group")
    for key, array in (("group", labels), ("feature_names", features)):
        if array is not None and array.shape != (p,):
            raise ValueError(f"{key} in {name} has the shape {array.shape} but X has {p} columns: pass ({p},).")
    if labels is not None and "group_names" in arrays and labels.dtype.kind in "iu":
        names = arrays["group_names"]
        if labels.min() < 0 or labels.max() >= len(names):
            raise ValueError(f"group in {name} must hold positions in group_names, 0, ..., {len(names) - 1}.")
        labels = names[labels]
    unused = sorted(set(arrays) - {"X", target, "group", "group_names", "feature_names"})
    remarks = (f"Arrays not used: {listed(unused)}.",) if unused else ()
    columns = tuple(map(str, features))
    grouped = None if labels is None else tuple(map(str, labels))
    return Data(
        np.asfortranarray(X, dtype=np.float64), y, target, columns, np.arange(p), columns, grouped, False, remarks
    )
