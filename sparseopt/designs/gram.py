"""X'SX of a dense matrix, by SciPy's BLAS.

    G = sum_i s_i (x_i - m)(x_i - m)'          x_i the samples, m their mean or zero

Each thread adds up its own samples. BLAS by itself divides the triangle G, which leaves threads idle where features are
few: 50,000 samples of 500 in float32 take two threads 51 ms this way, and 71 to 105 that way. SciPy's wrappers keep the
interpreter's lock, so BLAS is called by its address, as compiled code calls it. It is SciPy's because that of NumPy 1
does not know recent processors, and takes 3 to 4 times as long on them.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt.threads import in_parts

__all__ = ["gram"]

Array = NDArray[np.float64]
THIN = 8  # times as many samples as features that a part has at least: its G is at most 1/4 of what it reads
CHUNK = 2**21  # numbers that are copied at once


def gram(columns: NDArray[Any], s: Array, mean: Array | None = None, single: bool = False) -> Array:
    """The upper half of sum_i s_i (x_i - mean)(x_i - mean)', (p, p) in Fortran order, float64.

    Parameters
    ----------
    columns : (p, n) ndarray, C-contiguous, float32 or float64
        X transposed.
    s : (n,) array
        Weights, > 0.
    mean : (p,) array, optional
        Default: zero.
    single : bool
        Multiply in float32, twice as fast, with errors of about 1e-6 of the products of norms.

    Notes
    -----
    X is not copied where all weights are equal, there is no mean, and it has the type that is multiplied in; otherwise
    some megabytes of it at a time. How many threads share the samples changes the rounding.

    Examples
    --------
    >>> gram(np.array([[1.0, 2.0], [3.0, 4.0]]), np.ones(2))
    array([[ 5., 11.],
           [ 0., 25.]])
    """
    p, n = columns.shape
    dtype = np.dtype(np.float32 if single else np.float64)
    even = mean is None and s.min() == s.max()
    as_it_is = even and columns.dtype == dtype
    root = np.sqrt(s).astype(dtype)
    centre = None if mean is None else mean[:, None].astype(dtype)
    step = n if as_it_is else max(256, CHUNK // p)
    units = max(1, n // (THIN * p))
    found: dict[int, NDArray[Any]] = {}

    def add(lo: int, hi: int) -> None:
        total = np.zeros((p, p), dtype, order="F")
        start, stop = n * lo // units, n * hi // units
        for at in range(start, stop, step):
            block = columns[:, at : min(at + step, stop)]
            if not as_it_is:
                block = block.astype(dtype, order="C")
                if centre is not None:
                    block -= centre
                if not even:
                    block *= root[at : at + block.shape[1]]
            _add_square(block, total)
        found[lo] = total

    in_parts(add, units, columns.nbytes, blas=True)
    G = found[0].astype(np.float64, order="F", copy=False)
    for lo in sorted(found)[1:]:
        G += found[lo]
    return G * s[0] if even else G


def _add_square(block: NDArray[Any], out: NDArray[Any]) -> None:
    """Add the upper half of block block' to `out`, in Fortran order, for rows that are contiguous each."""
    p, n = block.shape
    number = ctypes.c_float if block.itemsize == 4 else ctypes.c_double
    U, T, one = ctypes.c_char(b"U"), ctypes.c_char(b"T"), number(1.0)
    order, depth, lead = ctypes.c_int(p), ctypes.c_int(n), ctypes.c_int(block.strides[0] // block.itemsize)
    _syrk(block.itemsize)(
        *map(ctypes.byref, (U, T, order, depth, one)), block.ctypes.data,
        *map(ctypes.byref, (lead, one)), out.ctypes.data, ctypes.byref(order),
    )  # fmt: skip


@cache
def _syrk(size: int) -> Any:
    """BLAS's symmetric rank-k update for numbers of 4 or 8 bytes; all arguments are addresses."""
    from numba.extending import get_cython_function_address

    address = get_cython_function_address("scipy.linalg.cython_blas", "ssyrk" if size == 4 else "dsyrk")
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 10)(address)
