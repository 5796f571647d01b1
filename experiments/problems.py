"""Group-lasso problems to race solvers on, in three sizes.

    P(W) = L(XW) + lam [(1 - a) sum_g omega_g q(||W_g||) + a ||W||_1],   omega_g = sqrt(columns of g),   no intercept

    squares     L(Z) = ||Z - Y||^2 / (2n)
    logistic    L(z) = (1/n) sum_i log(1 + e^z_i) - y_i z_i,   y in {0, 1}

    l2          q(u) = u
    mcp         q'(u) = max(1 - u / (3 lam), 0)
    scad        q'(u) = 1 up to lam, from there straight to 0 at 3.7 lam

"full" are the sizes that papers use, "quick" has a tenth of their samples and groups, and "large" about four times the
work where that hurts: more groups (wide, corr, multitask), larger groups (unequal), more features to take the Gram
matrix of (tall), or samples and groups together. Columns have a mean square near 1, for which knots at multiples of lam
are meant: on shorter columns MCP and SCAD only choose, and shrink nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparseopt.datasets import Simulated, simulated

__all__ = ["CLASSES", "Instance", "PROBLEMS", "SIZES", "make"]

Array = NDArray[np.float64]
SIZES = ("quick", "full", "large")
CLASSES = ("dense", "wide", "corr", "unequal", "tall", "sparse", "logistic", "multitask")  # those of geometric means


@dataclass(frozen=True, eq=False)
class Instance:
    """One problem up to lam.

    Parameters
    ----------
    name : str
        A key of `PROBLEMS`.
    X : (n, p) array or CSC matrix
        float64 or float32; dense arrays in Fortran order.
    Y : (n, K) array
        float64 in Fortran order; 0 or 1 for logistic.
    sizes : (G,) int64 array
        Columns per group; groups are consecutive.
    loss : "squares" or "logistic"
        L.
    l1_ratio : float
        a, the share of the l1 norm.
    ratio : float
        The smallest lam of the path over the largest.
    penalty : "l2", "mcp" or "scad"
        q.
    size : str
        One of `SIZES`.
    """

    name: str
    X: Any
    Y: Array
    sizes: NDArray[np.int64]
    loss: str = "squares"
    l1_ratio: float = 0.0
    ratio: float = 0.05
    penalty: str = "l2"
    size: str = "full"

    @property
    def is_sparse(self) -> bool:
        """Whether X is a CSC matrix."""
        return not isinstance(self.X, np.ndarray)

    @property
    def starts(self) -> NDArray[np.int64]:
        """First column of each group, (G,)."""
        return np.cumsum(self.sizes) - self.sizes

    @property
    def weights(self) -> Array:
        """omega, (G,)."""
        return np.sqrt(self.sizes.astype(np.float64))

    @property
    def y(self) -> Array:
        """Y without its second axis where K = 1."""
        return self.Y[:, 0] if self.Y.shape[1] == 1 else self.Y

    def save(self, folder: Path) -> None:
        """Write the problem as .npy files."""
        folder.mkdir(parents=True)
        arrays = {"Y": self.Y, "sizes": self.sizes}
        arrays |= {part: getattr(self.X, part) for part in _CSC} if self.is_sparse else {"X": self.X}
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
        rest = {name: getattr(self, name) for name in ("name", "loss", "l1_ratio", "ratio", "penalty", "size")}
        (folder / "rest.json").write_text(json.dumps({"fields": rest, "shape": self.X.shape}), encoding="utf-8")

    @staticmethod
    def load(folder: Path, dtype: type = np.float64) -> Instance:
        """What `save` wrote, copied into memory: a competitor neither waits for the disk nor meets a read-only X.

        The values of X are of type `dtype`, and are never held in another.
        """
        rest = json.loads((folder / "rest.json").read_text(encoding="utf-8"))

        def read(name: str) -> NDArray:
            stored = np.load(folder / f"{name}.npy", mmap_mode="r")
            return np.array(stored, dtype=dtype if name in ("X", "data") else stored.dtype, order="F")

        if (folder / "X.npy").exists():
            X = read("X")
        else:
            from scipy.sparse import csc_matrix

            X = csc_matrix(tuple(read(part) for part in _CSC), shape=tuple(rest["shape"]))
        return Instance(X=X, Y=read("Y"), sizes=read("sizes"), **rest["fields"])


def make(name: str, size: str = "full", seed: int = 0) -> Instance:
    """A problem of the table.

    Raises
    ------
    ValueError
        If the name or the size is unknown.

    Examples
    --------
    >>> make("unequal", "quick").X.shape[0]
    100
    """
    for what, value, known in (("name", name, PROBLEMS), ("size", size, SIZES)):
        if value not in known:
            raise ValueError(f"{what} is {value!r}, which is no {what} of a problem: choose one of {', '.join(known)}.")
    kind = PROBLEMS[name]
    how = kind.how | (kind.large if size == "large" else {})
    if size == "quick":
        how |= {key: max(how[key] // 10, 1) for key in ("n", "n_groups", "active")}
    made = kind.draw(**how, seed=seed)
    Y = np.asfortranarray(made.y.reshape(len(made.y), -1), dtype=np.float64)
    loss, sizes = how.get("loss", "squares"), np.bincount(made.groups)
    X = made.X / np.sqrt(how["density"]) if "density" in how else made.X
    return Instance(name, X, Y, sizes, loss, kind.l1_ratio, kind.ratio, size=size)


# -- the table ---------------------------------------------------------------------------------------------------------


def _equicorrelated(n: int, n_groups: int, size: int, active: int, within: float, snr: float, seed: int) -> Simulated:
    """Columns correlated inside groups and not across."""
    rng = np.random.default_rng(seed)
    shared = np.repeat(rng.standard_normal((n_groups, n)), size, axis=0)
    shared *= np.sqrt(within)
    shared += np.sqrt(1.0 - within) * rng.standard_normal(shared.shape)
    X = shared.T
    w = np.zeros((n_groups, size))
    w[rng.choice(n_groups, active, replace=False)] = rng.standard_normal((active, size))
    z = X @ w.ravel()
    y = z + z.std() / np.sqrt(snr) * rng.standard_normal(n)
    return Simulated(X, y, np.repeat(np.arange(n_groups), size), w.ravel())


class Kind(NamedTuple):
    """A problem of the table: arguments of `draw`, those that differ in the large size, and what stays the same.

    concave is the `ratio` of paths of MCP and SCAD, by default the same. For logistic they end earlier: beyond, so many
    groups are not shrunk at all that they separate the classes, and there is no minimiser.
    """

    how: dict[str, Any]
    large: dict[str, Any]
    l1_ratio: float = 0.0
    ratio: float = 0.05
    draw: Callable[..., Simulated] = simulated
    concave: float | None = None


_CSC = ("data", "indices", "indptr")
_DENSE = {"n": 1000, "n_groups": 1000, "size": 5, "active": 30, "rho": 0.5, "snr": 3.0}
_TWICE = {"n": 2000, "n_groups": 2000, "active": 60}

PROBLEMS: dict[str, Kind] = {
    "dense": Kind(_DENSE, _TWICE),
    "wide": Kind(_DENSE | {"n": 200, "n_groups": 2000, "size": 10, "active": 10, "rho": 0.8}, {"n_groups": 8000}),
    "corr": Kind(
        {"n": 1000, "n_groups": 1000, "size": 5, "active": 30, "within": 0.9, "snr": 3.0},
        {"n_groups": 4000},
        draw=_equicorrelated,
    ),
    "unequal": Kind(_DENSE | {"n_groups": 320, "size": (1, 30), "active": 20}, {"n": 2000, "size": (1, 60)}),
    "tall": Kind(_DENSE | {"n": 50_000, "n_groups": 100, "active": 20, "snr": 1.0}, {"n_groups": 200}, ratio=0.01),
    "sparse": Kind(
        _DENSE | {"n": 5000, "n_groups": 5000, "size": 10, "density": 0.005},
        {"n": 20_000, "n_groups": 10_000, "density": 0.0025},
    ),
    "logistic": Kind(_DENSE | {"loss": "logistic"}, _TWICE, concave=0.5),
    "multitask": Kind(
        _DENSE | {"n": 500, "n_groups": 2000, "size": 1, "active": 50, "n_outputs": 20}, {"n_groups": 8000}
    ),
    "sgl": Kind(_DENSE, _TWICE, l1_ratio=0.5),
}
