"""The judge of answers: it knows the definitions of the problems and NumPy, and no solver's word.

Convex problems, see `problems` for P. For every A with ||soft(X_g'A, lam a)|| <= lam (1 - a) omega_g in all groups,
D = -L*(A) is a lower bound of the optimum. It takes A = c grad L(Z) with the best c that satisfies this: for squares
D = -(c^2 ||R||^2 / 2 + c <R, Y>) / n with R = Z - Y; for logistic D is the mean entropy of the probabilities
y + c (sigma(z) - y). An answer is accurate to (P - D*) / D* with D* the best bound that any answer gave: `Gaps`.

Group MCP and SCAD have no such bound. There an answer is accurate to the largest distance of -grad_g from the
subdifferential of the penalty, in units of lam omega_g: `Moves`. It says how stationary a point is, not how good, so
objectives are compared as well.

    W_g = 0     max(||V_g|| / (lam omega_g) - 1, 0)                           V = X' grad L(Z)
    else        ||V_g + lam omega_g q'(||W_g||) W_g / ||W_g|| || / (lam omega_g)

Source: Ndiaye, Fercoq, Gramfort, Salmon (2017), "Gap safe screening rules for sparsity enforcing penalties", JMLR 18.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.experiments.problems import Instance

__all__ = ["GAMMA", "THETA", "Gaps", "Judge", "Judged", "Moves", "evaluate", "judge_of", "lam_max", "stationarity"]

Array = NDArray[np.float64]
GAMMA, THETA = 3.0, 3.7  # knots of MCP at 3 lam, of SCAD at lam and 3.7 lam


class Judged(NamedTuple):
    """What is kept of an answer: its objective at every lam, and how far from stationary it is where that is judged."""

    primal: Array
    moves: Array


class Gaps:
    """Judge of a convex problem. Its bound gets better with every answer it sees, so accuracies are asked for late."""

    target = 1e-6

    def __init__(self, instance: Instance, lams: Array) -> None:
        self.instance, self.lams = instance, lams
        self.bound, self.known = np.zeros(len(lams)), np.full(len(lams), np.inf)

    def see(self, W: Array) -> Judged:
        """Look at the coefficients for all lams, (m, p, K)."""
        primal, dual = evaluate(self.instance, self.lams, W)
        np.maximum(self.bound, dual, out=self.bound)
        np.minimum(self.known, primal, out=self.known)
        return Judged(primal, np.zeros(len(primal)))

    def accuracy(self, judged: Judged) -> float:
        """max over lam of (P - D*) / D*; inf where no bound is known."""
        bound = self.bound
        return float(np.max(np.where(bound > 0.0, (judged.primal - bound) / np.where(bound > 0.0, bound, 1.0), np.inf)))

    def remark(self) -> str:
        """How well the race knows what it judges by."""
        return f"the optimum is known to {self.accuracy(Judged(self.known, self.known)):.0e}"


class Moves:
    """Judge of group MCP and SCAD."""

    target = 5e-3  # what group-lasso answers have that pass `Gaps`: 3e-3 to 5e-3 where it is largest

    def __init__(self, instance: Instance, lams: Array) -> None:
        self.instance, self.lams = instance, lams
        self.known = np.full(len(lams), np.inf)

    def see(self, W: Array) -> Judged:
        """Look at the coefficients for all lams, (m, p, K)."""
        judged = Judged(*stationarity(self.instance, self.lams, W))
        np.minimum(self.known, judged.primal, out=self.known)
        return judged

    def accuracy(self, judged: Judged) -> float:
        """The largest violation over lams and groups."""
        return float(judged.moves.max())

    def remark(self) -> str:
        """The smallest objectives seen."""
        return f"the smallest objectives sum to {self.known.sum():.6g}"


Judge = Gaps | Moves


def judge_of(instance: Instance, lams: Array) -> Judge:
    """The judge for the penalty of the problem."""
    return Gaps(instance, lams) if instance.penalty == "l2" else Moves(instance, lams)


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
    lams, W, finite, Z, V = _products(instance, lams, W)
    A, a = _derivative(instance, Z), instance.l1_ratio
    blocks = _norms(W, instance.starts) @ instance.weights
    primal = _loss(instance, Z) + lams * ((1.0 - a) * blocks + a * np.abs(W).sum(axis=(1, 2)))
    c = _scale(V, lams, _best_scale(instance, A), instance)
    dual = -_conjugate(instance, c[:, None, None] * A)
    return np.where(finite, primal, np.inf), np.where(finite, np.maximum(dual, 0.0), 0.0)


def stationarity(instance: Instance, lams: ArrayLike, W: ArrayLike) -> tuple[Array, Array]:
    """Objective and violation of stationarity at each answer, for "mcp", "scad" and "l2" without an l1 share.

    Parameters
    ----------
    instance, lams, W
        As in `evaluate`.

    Returns
    -------
    primal, violation : (m,) arrays. Where an answer is not finite both are inf.

    Examples
    --------
    >>> instance = Instance("two", np.eye(2), np.array([[8.0], [0.0]]), np.array([1, 1]), penalty="mcp")
    >>> stationarity(instance, [1.0], [[[8.0], [0.0]]])  # beyond 3 lam nothing is shrunk
    (array([1.5]), array([0.]))
    """
    lams, W, finite, Z, V = _products(instance, lams, W)
    norms, strength = _norms(W, instance.starts), lams[:, None] * instance.weights
    value, slope = _shape(instance.penalty, norms, lams[:, None])
    pull = np.where(norms > 0.0, strength * slope / np.where(norms > 0.0, norms, 1.0), 0.0)
    rest = _norms(V + np.repeat(pull, instance.sizes, axis=1)[:, :, None] * W, instance.starts) / strength
    violation = np.where(norms > 0.0, rest, np.maximum(rest - 1.0, 0.0)).max(axis=1)
    primal = _loss(instance, Z) + value @ instance.weights
    return np.where(finite, primal, np.inf), np.where(finite, violation, np.inf)


def _products(
    instance: Instance, lams: ArrayLike, W: ArrayLike
) -> tuple[Array, Array, NDArray[np.bool_], Array, Array]:
    """lams and W as arrays, W zero where it is not finite, which answers are finite, Z = XW and V = X' grad L(Z)."""
    lams, W = np.asarray(lams, dtype=np.float64), np.asarray(W, dtype=np.float64)
    finite = np.isfinite(W).all(axis=(1, 2))
    W = np.where(finite[:, None, None], W, 0.0)
    (m, p, K), n = W.shape, len(instance.Y)
    Z = (instance.X @ W.transpose(1, 0, 2).reshape(p, m * K)).reshape(n, m, K).transpose(1, 0, 2)
    A = _derivative(instance, Z)
    V = (instance.X.T @ A.transpose(1, 0, 2).reshape(n, m * K)).reshape(p, m, K).transpose(1, 0, 2)
    return lams, W, finite, Z, V


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


def _shape(penalty: str, u: Array, lam: Array) -> tuple[Array, Array]:
    """lam q(u) and q'(u) of norms u, for knots at multiples of lam."""
    if penalty == "l2":
        return lam * u, np.ones_like(u)
    if penalty == "mcp":
        below = np.minimum(u, GAMMA * lam)
        return lam * below - below**2 / (2.0 * GAMMA), 1.0 - below / (GAMMA * lam)
    below = np.minimum(u, THETA * lam)
    bent = np.maximum(below - lam, 0.0)
    return lam * below - bent**2 / (2.0 * (THETA - 1.0)), 1.0 - bent / ((THETA - 1.0) * lam)
