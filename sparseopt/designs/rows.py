"""The design that is never whole in memory: X as blocks of rows, read one after the other, or by a Dask cluster.

    X = [X_1; ...; X_B]       X' R = sum_b X_b' R_b       X W = [X_1 W; ...; X_B W]       X_S = [X_1,S; ...; X_B,S]

Whatever is asked is one pass: a function of one block and of the same rows of other arrays, whose results are added or
put one below the other. A pass costs what reading X costs, so `passes` counts them. Blocks come from

    a memory-mapped array     slices of rows, one after the other; the system's page cache is all that holds them
    a Dask array              its chunks, through the scheduler or cluster that is current; sums go by a tree

Blocks keep the number type of X (float32, int8, ...), arrays or SciPy matrices; all that is computed is float64. There
are no products with single columns: a kernel that wants them works on columns gathered by `gather`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numba.extending import typeof_impl
from numpy.typing import ArrayLike, NDArray

from sparseopt.designs.csc import Csc
from sparseopt.designs.dense import Dense

__all__ = ["RowBlocks", "by_columns", "is_dask", "is_sparse"]

Array = NDArray[np.float64]
PIECE = 2**22  # entries of a dense block that are worked on at a time: what is computed of them stays in 32 MB,
FEWEST = 32  # rows of a piece, though: a sum of (p, K) results of single rows would cost more than the products
FAN = 8  # partial sums that are added in one task


class RowBlocks:
    """A design as blocks of rows that are read whenever a product is asked for.

    `as_design` makes one from a memory-mapped array that does not lie by columns, and from a Dask array, and checks it;
    the constructor checks nothing.

    Parameters
    ----------
    source : (n, p) np.memmap, or Dask array with known chunks and one chunk of columns
        X. The file, or what Dask computes, must stay as it is as long as the design is in use. Chunks of a Dask array
        may be NumPy arrays or SciPy sparse matrices; persist it (`X.persist()`) where the cluster has the memory.

    Attributes
    ----------
    passes : int
        How often X has been read.

    Notes
    -----
    Whatever asks for whole products, or for columns by number, works as on any design: `bcd`, `path` and what builds on
    them, `fista` (two passes per iteration), greedy selectors, certificates. A TypeError names what needs all of X in
    memory: CVXPY, certificates in files, kernels that read single columns.

    Held are rows of length n (y, weights, predictions) and the columns in use, n |S| numbers, or p |S| for least
    squares with n > p. A pickle holds the name of the file, or the Dask graph, and so needs both where it is opened; an
    array mapped without a file cannot be pickled.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sparseopt.designs import as_design
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(Path(folder, "X.npy"), [[1.0, 2.0], [3.0, 4.0]])
    ...     design = as_design(np.load(Path(folder, "X.npy"), mmap_mode="r"))
    ...     design.shape, design.rmatvec(np.array([[1.0], [1.0]])).ravel(), design.passes
    ((2, 2), array([4., 6.]), 2)
    """

    def __init__(self, source: Any) -> None:
        self.source = source
        self.passes = 0

    @property
    def shape(self) -> tuple[int, int]:
        """(n_samples, n_features)."""
        n, p = self.source.shape
        return int(n), int(p)

    @property
    def dtype(self) -> Any:
        """float32 or float64: the type of gathered columns."""
        return np.dtype(np.float32 if self.source.dtype == np.float32 else np.float64)

    @property
    def nbytes(self) -> int:
        """Bytes of the matrix on disk, or as Dask counts them."""
        return int(self.source.nbytes)

    def matvec(self, W: ArrayLike) -> Array:
        """X W for W of shape (p, K); the result (n, K) is float64 and Fortran-ordered. No pass for W = 0."""
        W = np.asarray(W, np.float64)
        out = np.zeros((W.shape[1], self.shape[0]))
        used = np.flatnonzero(W.any(axis=1))
        if used.size:
            at = 0
            for part in self.pieces(_forward, features=None if len(used) == len(W) else used, W=W[used]):
                out[:, at : at + len(part)] = part.T
                at += len(part)
        return out.T

    def rmatvec(self, R: ArrayLike) -> Array:
        """X' R for R of shape (n, K); the result (p, K) is float64."""
        return self.total(_backward, np.asarray(R, np.float64))

    def gather(self, features: ArrayLike) -> Dense | Csc:
        """The columns `features`, in memory: `Dense`, or `Csc` if the blocks are sparse. One pass."""
        features = np.asarray(features, np.int64)
        pieces = self.pieces(_some_columns, features=features, dtype=self.dtype)
        first = next(pieces)
        if is_sparse(first):
            from scipy.sparse import vstack

            return _csc(vstack([first, *pieces], format="csc"))
        out = np.empty((len(features), self.shape[0]), self.dtype)
        out[:, : len(first)], at = first.T, len(first)
        for part in pieces:
            out[:, at : at + len(part)] = part.T
            at += len(part)
        return Dense(out)

    def total(self, work: Callable[..., Array], *rows: NDArray[Any], **shared: Any) -> Array:
        """The sum of work(X_b, *rows_b, **shared) over all blocks, in one pass.

        Parameters
        ----------
        work : function of a module, so that it can be sent to other processes
            Takes some rows of X, an array or a CSR matrix of any number type, and returns an array.
        *rows : arrays of n rows
            `work` gets those of its block.
        **shared
            Passed to `work` as they are.
        """
        self.passes += 1
        if not is_dask(self.source):
            return _summed(self.source, work, rows, shared)
        from dask.delayed import delayed

        parts = self._tasks(_summed, work, rows, shared)
        while len(parts) > 1:
            parts = [delayed(_sum)(parts[k : k + FAN]) for k in range(0, len(parts), FAN)]
        return _computed(parts)[0]

    def pieces(self, work: Callable[..., Any], *rows: NDArray[Any], **shared: Any) -> Iterator[Any]:
        """work(X_b, *rows_b, **shared) for blocks that cover all rows in their order, in one pass; see `total`."""
        self.passes += 1
        if not is_dask(self.source):
            yield from _each(self.source, work, rows, shared)
            return
        parts = _computed(self._tasks(_listed, work, rows, shared))[::-1]
        while parts:
            yield from parts.pop()  # freed as it is used

    def _tasks(self, how: Any, work: Any, rows: tuple[NDArray[Any], ...], shared: dict[str, Any]) -> list[Any]:
        """One task per chunk. The rows travel in them: data scattered beforehand would be lost with a worker."""
        from dask.delayed import delayed

        shared = delayed(shared, traverse=False)
        ends = np.cumsum(self.source.chunks[0])
        return [
            delayed(how)(block, work, [row[stop - size : stop] for row in rows], shared)
            for block, size, stop in zip(self.source.to_delayed().ravel(), self.source.chunks[0], ends, strict=True)
        ]

    def __getstate__(self) -> dict[str, Any]:
        if is_dask(self.source):
            return {"source": self.source}
        return {"map": _where(self.source)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["source"] if "source" in state else _mapped(*state["map"]))  # type: ignore[misc]


@typeof_impl.register(RowBlocks)
def _no_kernels(value: RowBlocks, context: Any) -> Any:
    raise TypeError(
        "X is a design of row blocks, and this method reads single columns of it: use bcd, path or fista, "
        "or pass the columns it needs in memory, take_columns(design, features)."
    )


def is_dask(X: Any) -> bool:
    """Whether X belongs to Dask; asked by name, because Dask need not be installed."""
    return type(X).__module__.partition(".")[0] in ("dask", "dask_expr")


def is_sparse(X: Any) -> bool:
    """Whether X is what SciPy calls sparse; asked by what it can, because most users need no scipy.sparse."""
    return callable(getattr(X, "tocsc", None)) and hasattr(X, "nnz")


def by_columns(block: Any) -> Dense | Csc:
    """Some rows of X as a design in memory, for kernels."""
    if is_sparse(block):
        return _csc(block.tocsc())
    dtype = np.float32 if block.dtype == np.float32 else np.float64
    return Dense(np.ascontiguousarray(block.T, dtype))


def _csc(matrix: Any) -> Csc:
    dtype = np.float32 if matrix.dtype == np.float32 else np.float64
    matrix.sum_duplicates()
    return Csc(matrix.data.astype(dtype, copy=False), matrix.indices, matrix.indptr, int(matrix.shape[0]))


# -- the work on a block -----------------------------------------------------------------------------------------------


def _each(block: Any, work: Any, rows: Any, shared: dict[str, Any]) -> Iterator[Any]:
    """`work` on some rows of a block after the other."""
    block = block.tocsr() if is_sparse(block) else np.asarray(block)
    n, p = block.shape
    step = max(n, 1) if is_sparse(block) else max(FEWEST, PIECE // p)
    for at in range(0, max(n, 1), step):  # once for a block without rows, whose result has the shape of all
        yield work(block[at : at + step], *(row[at : at + step] for row in rows), **shared)


def _listed(block: Any, work: Any, rows: Any, shared: dict[str, Any]) -> list[Any]:
    return list(_each(block, work, rows, shared))


def _summed(block: Any, work: Any, rows: Any, shared: dict[str, Any]) -> Array:
    parts = _each(block, work, rows, shared)
    out: Array = next(parts)
    for part in parts:
        out += part
    return out


def _sum(parts: list[Array]) -> Array:
    return sum(parts[1:], start=parts[0])


def _computed(tasks: list[Any]) -> list[Any]:
    from dask import config
    from dask.base import compute

    if "distributed" not in sys.modules:  # then no cluster is current
        return list(compute(*tasks))
    # A cluster warns of graphs that carry arrays. These have to, see `_tasks`.
    with config.set({"distributed.admin.large-graph-warning-threshold": "1 PB"}):
        return list(compute(*tasks))


def _forward(block: Any, *, features: NDArray[np.int64] | None, W: Array) -> Array:
    return np.asarray(_double(block if features is None else block[:, features]) @ W)


def _backward(block: Any, R: Array) -> Array:
    return np.asarray(_double(block).T @ R)


def _some_columns(block: Any, *, features: NDArray[np.int64], dtype: Any) -> Any:
    return block[:, features].astype(dtype, copy=False)


def _double(block: Any) -> Any:
    return block.astype(np.float64, copy=False)


# -- memory maps by name -----------------------------------------------------------------------------------------------


def _where(X: Any) -> tuple[str, str, int, tuple[int, ...], tuple[int, ...]]:
    """File, number type, first byte, shape and strides of a memory-mapped array, which may be part of another."""
    whole = X
    while isinstance(whole.base, np.memmap):
        whole = whole.base
    if not isinstance(X, np.memmap) or whole.filename is None:
        raise TypeError("X is mapped without the name of a file, so it cannot be pickled: open it with np.load(path).")
    first = whole.offset + X.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
    return str(whole.filename), X.dtype.str, first, X.shape, X.strides


def _mapped(path: str, dtype: str, first: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Any:
    """The array that `_where` described."""
    return np.ndarray.__new__(np.memmap, shape, dtype, np.memmap(path, np.uint8, "r"), first, strides)
