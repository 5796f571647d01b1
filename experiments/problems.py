"""Group-lasso problems to race solvers on, and the judge of their answers.

    P(W) = L(XW) + lam [(1 - a) sum_g omega_g ||W_g|| + a ||W||_1],   omega_g = sqrt(columns of g),   no intercept

    squares     L(Z) = ||Z - Y||^2 / (2n)
    logistic    L(z) = (1/n) sum_i log(1 + e^z_i) - y_i z_i,   y in {0, 1}

The judge knows only these definitions and NumPy. For every A with ||soft(X_g'A, lam a)|| <= lam (1 - a) omega_g in all
groups, D = -L*(A) is a lower bound of the optimum. It takes A = c grad L(Z) with the best c that satisfies this: for
squares D = -(c^2 ||R||^2 / 2 + c <R, Y>) / n with R = Z - Y; for logistic D is the mean entropy of the probabilities
y + c (sigma(z) - y). An answer is accurate to (P - D*) / D* with D* the best bound that any answer gave.

Source: Ndiaye, Fercoq, Gramfort, Salmon (2017), "Gap safe screening rules for sparsity enforcing penalties", JMLR 18.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.datasets import simulated

__all__ = ["Instance", "PROBLEMS", "evaluate", "lam_max", "make"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Instance:
    """One problem up to lam.

    Parameters
    ----------
    name : str
        A key of `PROBLEMS`.
    X : (n, p) array or CSC matrix
        float64; dense arrays in Fortran order.
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
    """

    name: str
    X: Any
    Y: Array
    sizes: NDArray[np.int64]
    loss: str = "squares"
    l1_ratio: float = 0.0
    ratio: float = 0.05

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
        rest = {name: getattr(self, name) for name in ("name", "loss", "l1_ratio", "ratio")}
        (folder / "rest.json").write_text(json.dumps({"fields": rest, "shape": self.X.shape}), encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> Instance:
        """What `save` wrote, copied into memory: a competitor neither waits for the disk nor meets a read-only X."""
        rest = json.loads((folder / "rest.json").read_text(encoding="utf-8"))

        def read(name: str) -> NDArray:
            return np.array(np.load(folder / f"{name}.npy", mmap_mode="r"), order="F")

        if (folder / "X.npy").exists():
            X = read("X")
        else:
            from scipy.sparse import csc_matrix

            X = csc_matrix(tuple(read(part) for part in _CSC), shape=tuple(rest["shape"]))
        return Instance(X=X, Y=read("Y"), sizes=read("sizes"), **rest["fields"])


def make(name: str, tenths: int = 10, seed: int = 0) -> Instance:
    """A problem of the table, its samples and groups scaled to `tenths` / 10.

    Raises
    ------
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> make("unequal", tenths=1).X.shape[0]
    100
    """
    if name not in PROBLEMS:
        raise ValueError(f"name is {name!r}, which is no problem: choose one of {', '.join(PROBLEMS)}.")
    return PROBLEMS[name](name, tenths, seed)


def lam_max(instance: Instance) -> float:
    """The smallest lam at which W = 0 is optimal: max_g of the lam with ||soft(V_g, lam a)|| = lam (1 - a) omega_g."""
    V = (instance.X.T @ _derivative(instance, np.zeros_like(instance.Y)[None])[0])[None]
    a, starts = instance.l1_ratio, instance.starts
    low, high = 0.0, float((_norms(V, starts) / instance.weights).max()) / (1.0 - a)
    for _ in range(100 if a > 0.0 else 0):
        middle = 0.5 * (low + high)
        leaves = (_excess(V, np.array([middle]), instance) > 0.0).any()
        low, high = (middle, high) if leaves else (low, middle)
    return high


def evaluate(instance: Instance, lams: ArrayLike, W: ArrayLike) -> tuple[Array, Array]:
    """P and the best dual bound at each answer.

    Parameters
    ----------
    instance : Instance
        The problem.
    lams : (m,) array
        Its strengths, > 0.
    W : (m, p, K) array
        An answer for each lam.

    Returns
    -------
    primal, dual : (m,) arrays. Where an answer is not finite they are inf and 0, which bound the optimum as well.

    Examples
    --------
    >>> instance = Instance("two", np.eye(2), np.array([[4.0], [0.0]]), np.array([1, 1]))
    >>> evaluate(instance, [1.0], [[[2.0], [0.0]]])
    (array([3.]), array([3.]))
    """
    lams, W = np.asarray(lams, dtype=np.float64), np.asarray(W, dtype=np.float64)
    finite = np.isfinite(W).all(axis=(1, 2))
    W = np.where(finite[:, None, None], W, 0.0)
    (m, p, K), n, a = W.shape, len(instance.Y), instance.l1_ratio
    Z = (instance.X @ W.transpose(1, 0, 2).reshape(p, m * K)).reshape(n, m, K).transpose(1, 0, 2)
    A = _derivative(instance, Z)
    V = (instance.X.T @ A.transpose(1, 0, 2).reshape(n, m * K)).reshape(p, m, K).transpose(1, 0, 2)
    blocks = _norms(W, instance.starts) @ instance.weights
    primal = _loss(instance, Z) + lams * ((1.0 - a) * blocks + a * np.abs(W).sum(axis=(1, 2)))
    c = _scale(V, lams, _best_scale(instance, A), instance)
    dual = -_conjugate(instance, c[:, None, None] * A)
    return np.where(finite, primal, np.inf), np.where(finite, np.maximum(dual, 0.0), 0.0)


# -- the loss ----------------------------------------------------------------------------------------------------------


def _loss(instance: Instance, Z: Array) -> Array:
    if instance.loss == "squares":
        values = 0.5 * (Z - instance.Y) ** 2
    else:
        values = np.logaddexp(0.0, Z) - instance.Y * Z
    return values.sum(axis=(1, 2)) / len(instance.Y)


def _derivative(instance: Instance, Z: Array) -> Array:
    mean = Z if instance.loss == "squares" else 0.5 * (1.0 + np.tanh(0.5 * Z))
    return (mean - instance.Y) / len(instance.Y)


def _conjugate(instance: Instance, A: Array) -> Array:
    n = len(instance.Y)
    if instance.loss == "squares":
        return (0.5 * n * A**2 + A * instance.Y).sum(axis=(1, 2))
    v = np.clip(instance.Y + n * A, 0.0, 1.0)
    log = np.log(np.maximum(v, 1e-300)), np.log(np.maximum(1.0 - v, 1e-300))  # 0 log 0 = 0
    return (v * log[0] + (1.0 - v) * log[1]).sum(axis=(1, 2)) / n


def _best_scale(instance: Instance, A: Array) -> Array:
    """The c that maximises -L*(cA) without the inequalities, (m,); for logistic the end of its domain that is safe."""
    if instance.loss == "logistic":
        return np.ones(len(A))
    squared = len(instance.Y) * (A**2).sum(axis=(1, 2))
    return np.maximum(-(A * instance.Y).sum(axis=(1, 2)), 0.0) / np.maximum(squared, 1e-300)


# -- the penalty -------------------------------------------------------------------------------------------------------


def _scale(V: Array, lams: Array, best: Array, instance: Instance) -> Array:
    """The largest c <= best with ||soft(c V_g, lam a)|| <= lam (1 - a) omega_g for all g, (m,)."""
    if instance.l1_ratio == 0.0:
        norms = np.maximum(_norms(V, instance.starts), 1e-300)
        return np.minimum(best, (lams[:, None] * instance.weights / norms).min(axis=1))
    low, high = np.zeros_like(best), best
    for halving in range(60):
        c = high if halving == 0 else 0.5 * (low + high)
        fits = (_excess(c[:, None, None] * V, lams, instance) <= 0.0).all(axis=1)
        low, high = np.where(fits, c, low), np.where(fits, high, c)
    return low


def _excess(V: Array, lams: Array, instance: Instance) -> Array:
    """||soft(V_g, lam a)|| - lam (1 - a) omega_g, (m, G)."""
    a = instance.l1_ratio
    thresholded = np.maximum(np.abs(V) - (a * lams)[:, None, None], 0.0)
    return _norms(thresholded, instance.starts) - (1.0 - a) * lams[:, None] * instance.weights


def _norms(V: Array, starts: NDArray[np.int64]) -> Array:
    """||V_g||, (m, G), for V of shape (m, p, K)."""
    return np.sqrt(np.add.reduceat((V**2).sum(axis=2), starts, axis=1))


# -- the table ---------------------------------------------------------------------------------------------------------


def _simulated(n: int, n_groups: int, size: int | tuple[int, int], **how: Any) -> Callable[[str, int, int], Instance]:
    """A maker of instances with autocorrelated columns."""
    extra = {key: how.pop(key) for key in ("l1_ratio", "ratio") if key in how}

    def maker(name: str, tenths: int, seed: int) -> Instance:
        active = max(how["active"] * tenths // 10, 1)
        made = simulated(n * tenths // 10, n_groups * tenths // 10, size, seed=seed, **(how | {"active": active}))
        Y = np.asfortranarray(made.y.reshape(len(made.y), -1), dtype=np.float64)
        return Instance(name, made.X, Y, np.bincount(made.groups), how.get("loss", "squares"), **extra)

    return maker


def _equicorrelated(name: str, tenths: int, seed: int) -> Instance:
    """Columns with correlation 0.9 inside groups of 5 and none across; 30 of 1000 groups active, SNR 3."""
    rng = np.random.default_rng(seed)
    n, n_groups, size, active = 100 * tenths, 100 * tenths, 5, 3 * tenths
    shared = np.repeat(rng.standard_normal((n_groups, n)), size, axis=0)
    X = (np.sqrt(0.9) * shared + np.sqrt(0.1) * rng.standard_normal((n_groups * size, n))).T
    w = np.zeros((n_groups, size))
    w[rng.choice(n_groups, active, replace=False)] = rng.standard_normal((active, size))
    z = X @ w.ravel()
    y = z + z.std() / np.sqrt(3.0) * rng.standard_normal(n)
    return Instance(name, X, np.asfortranarray(y[:, None]), np.full(n_groups, size))


_CSC = ("data", "indices", "indptr")

PROBLEMS: dict[str, Callable[[str, int, int], Instance]] = {
    "dense": _simulated(1000, 1000, 5, active=30, rho=0.5, snr=3.0),
    "wide": _simulated(200, 2000, 10, active=10, rho=0.8, snr=3.0),
    "corr": _equicorrelated,
    "unequal": _simulated(1000, 320, (1, 30), active=20, rho=0.5, snr=3.0),
    "tall": _simulated(50_000, 100, 5, active=20, rho=0.5, snr=1.0, ratio=0.01),
    "sparse": _simulated(5000, 5000, 10, active=30, rho=0.5, snr=3.0, density=0.005),
    "logistic": _simulated(1000, 1000, 5, active=30, rho=0.5, snr=3.0, loss="logistic"),
    "multitask": _simulated(500, 2000, 1, active=50, rho=0.5, snr=3.0, n_outputs=20),
    "sgl": _simulated(1000, 1000, 5, active=30, rho=0.5, snr=3.0, l1_ratio=0.5),
}
