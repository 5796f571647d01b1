"""Any matrix as a design: stored by columns, real, finite, floating point.

What reaches a solver is one of a few types, because every kernel is compiled once per type:

    values    float32 or float64, native byte order       anything else that is a number becomes float64
    layout    columns contiguous, or canonical CSC        a copy only where the layout differs
    indices   int32 wherever they fit                     int64 otherwise
    flags     writeable                                   read-only arrays are aliased, see `writeable`

A matrix that does not fit in memory stays where it is: one that is mapped by columns as `Dense`, any other memory map
and every Dask array as `RowBlocks`.

A value that is not finite is found because zero times it is not zero; only then is its position looked for.
"""

from __future__ import annotations

from numbers import Real
from typing import Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sparseopt.designs.csc import Csc
from sparseopt.designs.dense import Dense
from sparseopt.designs.rows import RowBlocks, is_dask, is_sparse
from sparseopt.threads import in_parts
from sparseopt.vectors import vanishes

__all__ = ["Design", "as_design", "lay_out", "require_finite", "writeable", "writeable_design"]

Design: TypeAlias = Dense | Csc | RowBlocks

_MISSING = ("NoneType", "NAType", "NaTType")  # by name, because pandas may not be installed


def as_design(X: Any) -> Design:
    """A matrix as a design: stored by columns, real, finite, floating point.

    Parameters
    ----------
    X : (n_samples, n_features) array, sparse matrix, data frame, or a design
        Dense arrays become `Dense`, everything that SciPy calls sparse becomes `Csc`. float32 and float64 are kept,
        other numbers become float64. A Fortran-ordered array or a canonical CSC matrix is used as it is, without a
        copy; any other layout is converted once. X itself is never changed. A design is returned unchecked.
        A `np.memmap` is used in place if it is Fortran-ordered float32 or float64, and becomes `RowBlocks` otherwise,
        whatever its size; `np.asarray(X)` says that it fits in memory. A Dask array of row blocks, dense or sparse,
        becomes `RowBlocks`: X is read once, block by block, to check it.

    Returns
    -------
    Dense, Csc or RowBlocks. It may share memory with X: change X afterwards and the design changes, without a check.

    Raises
    ------
    ValueError
        If X is not two-dimensional, has no samples or no features, contains NaN, infinity or a missing value, is a
        sparse matrix whose indices leave the matrix, or a Dask array with chunks of columns or of unknown size.
    TypeError
        If X holds something else than real numbers, or is a Dask collection other than an array.

    Examples
    --------
    >>> as_design([[1, 2], [3, 4]]).columns
    array([[1., 3.],
           [2., 4.]])
    """
    design = lay_out(X)
    if design is not X and not isinstance(design, RowBlocks):
        require_finite(design)
    return design


def lay_out(X: Any) -> Design:
    """`as_design` without `require_finite`; row blocks are checked nonetheless."""
    if isinstance(X, (Dense, Csc, RowBlocks)):
        return X
    sparse, dask = is_sparse(X), is_dask(X)
    if dask and not hasattr(X, "chunks"):
        raise TypeError(f"X is a Dask {type(X).__name__}: pass an array, such as X.to_dask_array(lengths=True).")
    matrix = X if sparse or dask else _as_array(X)
    if len(matrix.shape) != 2:
        raise ValueError(
            f"X has {len(matrix.shape)} dimensions: pass a matrix, one row per sample and one column per feature."
        )
    if 0 in matrix.shape:
        raise ValueError(f"X has the shape {matrix.shape}: pass at least one sample and one feature.")
    if matrix.dtype.kind == "O" and not sparse:
        matrix = _from_objects(matrix)
    if matrix.dtype.kind not in "biuf":
        raise TypeError(f"X has dtype {matrix.dtype}: pass real numbers.")
    if dask or (isinstance(X, np.memmap) and not _lies_by_columns(X)):
        return _as_row_blocks(X)
    dtype = np.float32 if matrix.dtype == np.float32 else np.float64
    with np.errstate(over="ignore", invalid="ignore"):
        return _as_csc(matrix, dtype) if sparse else Dense(writeable(np.ascontiguousarray(matrix.T, dtype)))


def require_finite(design: Dense | Csc) -> None:
    """ValueError with the place and value of the first entry that is not finite, if there is one."""
    if _is_finite(design.data if isinstance(design, Csc) else design.columns.ravel()):
        return
    for j in range(design.shape[1]):
        if isinstance(design, Dense):
            column, rows = design.columns[j], None
        else:
            stretch = slice(design.indptr[j], design.indptr[j + 1])
            column, rows = design.data[stretch], design.indices[stretch]
        bad = np.flatnonzero(~np.isfinite(column))
        if bad.size:
            _refuse(str(column[bad[0]]), int(bad[0] if rows is None else rows[bad[0]]), j)


def writeable(array: NDArray[Any]) -> NDArray[Any]:
    """`array`, or an alias of it that does not say read-only (as memory-mapped arrays do).

    A kernel never writes into a design, but would be compiled again for read-only arrays. Nobody may write through the
    alias: memory that is mapped read-only ends the process then. The alias keeps `array` alive.

    Examples
    --------
    >>> array = np.arange(3.0)
    >>> array.flags.writeable = False
    >>> alias = writeable(array)
    >>> alias.flags.writeable, np.shares_memory(alias, array)
    (True, True)
    """
    return np.asarray(array if array.flags.writeable else _Alias(array))


def writeable_design(design: Design) -> Design:
    """The same design, its read-only arrays replaced by aliases that do not say so.

    For a design that another process has mapped into memory, as joblib does for its workers. See `writeable`.

    Examples
    --------
    >>> columns = np.array([[1.0, 2.0]])
    >>> columns.flags.writeable = False
    >>> writeable_design(Dense(columns)).columns.flags.writeable
    True
    """
    if isinstance(design, RowBlocks):
        return design
    if isinstance(design, Dense):
        return Dense(writeable(design.columns))
    return Csc(writeable(design.data), writeable(design.indices), writeable(design.indptr), design.n_samples)


class _Alias:
    """A read-only array under the type of a writeable one."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.owner = array
        self.__array_interface__ = array.__array_interface__ | {"data": (array.__array_interface__["data"][0], False)}


def _as_array(X: Any) -> NDArray[Any]:
    if type(X) is not np.ndarray and isinstance(X, np.ma.MaskedArray) and np.ma.is_masked(X):
        _refuse("a masked value", *map(int, np.argwhere(X.mask)[0]))
    try:
        return np.asarray(X)
    except ValueError as error:
        raise ValueError(f"X is no matrix ({error}): pass rows of one length.") from error


def _from_objects(matrix: NDArray[Any]) -> NDArray[np.float64]:
    """An array of Python objects as float64; text is refused even where it spells a number."""
    from decimal import Decimal

    odd = {kind for kind in set(map(type, matrix.flat)) if not issubclass(kind, (Real, Decimal, np.bool_))}
    if odd:
        (row, column), value = next(entry for entry in np.ndenumerate(matrix) if type(entry[1]) in odd)
        if type(value).__name__ in _MISSING:
            _refuse(str(value), row, column)
        raise TypeError(
            f"X contains {value!r} in row {row}, column {column}, which is no real number: "
            "encode categories and dates first."
        )
    try:
        return matrix.astype(np.float64)
    except OverflowError as error:
        raise ValueError(f"X contains a number beyond the range of float64 ({error}): rescale its column.") from error


def _as_csc(X: Any, dtype: type) -> Csc:
    csc = X.tocsc()
    _check_structure(csc)
    if not csc.has_canonical_format:
        if csc is X or np.may_share_memory(csc.data, getattr(X, "data", np.empty(0))):
            csc = csc.copy()
        csc.sum_duplicates()
    index = np.int32 if max(csc.nnz, *csc.shape) < 2**31 else np.int64
    return Csc(
        writeable(np.ascontiguousarray(csc.data, dtype)),
        writeable(np.ascontiguousarray(csc.indices, index)),
        writeable(np.ascontiguousarray(csc.indptr, index)),
        int(csc.shape[0]),
    )


def _check_structure(csc: Any) -> None:
    """SciPy does not check indices when it is given them, and a kernel would read foreign memory."""
    n = csc.shape[0]
    falls = np.flatnonzero(np.diff(csc.indptr) < 0)
    if falls.size:
        raise ValueError(f"X has an indptr that decreases at column {falls[0]}: build the sparse matrix again.")
    for row in (csc.indices.min(initial=0), csc.indices.max(initial=0)):
        if not 0 <= row < n:
            raise ValueError(f"X has the row index {row} in a sparse matrix of {n} rows: build the matrix again.")


def _lies_by_columns(X: NDArray[Any]) -> bool:
    return bool(X.flags.f_contiguous) and X.dtype in (np.float32, np.float64)


def _as_row_blocks(X: Any) -> RowBlocks:
    if is_dask(X):
        if np.isnan(X.shape[0]):
            raise ValueError("X has chunks of unknown size: call X.compute_chunk_sizes() first.")
        if len(X.chunks[1]) > 1:
            raise ValueError(
                f"X has its columns in {len(X.chunks[1])} chunks: pass blocks of whole rows, "
                "X.rechunk({0: 'auto', 1: -1})."
            )
    design = RowBlocks(X)
    start = 0
    for rows, columns, row, column, value in design.pieces(_findings):
        if columns != X.shape[1]:
            raise ValueError(f"X has a block of {columns} columns at row {start}, not of {X.shape[1]}: correct it.")
        if column >= 0:
            _refuse(str(value), start + int(row), int(column))
        start += int(rows)
    if start != X.shape[0]:
        raise ValueError(f"X has blocks of {start} rows, but says it has {X.shape[0]}: call X.compute_chunk_sizes().")
    return design


def _findings(block: Any) -> tuple[int, int, int, int, Any]:
    """Rows and columns of a block, and the place and value of an entry that is not finite, or -1."""
    if block.dtype.kind not in "biuf":
        raise TypeError(f"X has a block of dtype {block.dtype}: pass real numbers.")
    if is_sparse(block) and block.nnz and not 0 <= block.indices.min() <= block.indices.max() < block.shape[1]:
        raise ValueError(f"X has a sparse block with indices beyond its {block.shape[1]} columns: build it again.")
    values = block.data if is_sparse(block) else block
    with np.errstate(over="ignore", invalid="ignore"):
        clean = np.isfinite(values.sum())
    bad = np.empty((0, 2), int) if clean else np.argwhere(~np.isfinite(values))
    if not len(bad):
        return *block.shape, -1, -1, 0.0
    if is_sparse(block):
        entries = block.tocoo()
        at = int(bad[0, 0])
        return *block.shape, int(entries.row[at]), int(entries.col[at]), entries.data[at]
    row, column = map(int, bad[0])
    return *block.shape, row, column, block[row, column]


def _is_finite(values: NDArray[Any]) -> bool:
    """Whether all values are."""
    found: list[bool] = []
    zero = values.dtype.type(0)
    in_parts(lambda lo, hi: found.append(vanishes(values[lo:hi], zero)), len(values), values.nbytes)
    return all(found)


def _refuse(value: str, row: int, column: int) -> NoReturn:
    raise ValueError(f"X contains {value} in row {row}, column {column}: impute or drop missing and infinite values.")
