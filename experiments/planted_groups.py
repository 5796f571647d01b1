"""Linear regressions with planted groups, the methods that look for them, and the judge of what they found.

y = Xw + noise, X Gaussian with variance 1; `active` of n_groups groups have ||w_g|| = 1 in a random direction, all
others 0; Var(Xw) / Var(noise) = snr. Columns i of group g and j of group h have the correlation

    between^|g - h| (within + (1 - within) [i = j])

Every method gives a path of solutions, from sparse to dense. The judge takes one of them by each of four rules, which
see the same of every method:

    first       k known: the first solution with exactly k groups; if none has k, the k largest of the first with more
    best        k known: the k largest groups of every solution with at least k; those with the least refitted loss
    ebic        k unknown: least n log(loss) + log(n) df + 2 log C(n_groups, groups) after an unpenalised refit, among
                solutions with at most n / (2 size) groups; the least shrunk solution with these groups
    validation  k unknown: least squared error on n fresh samples, by the coefficients as they are
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import lgamma, log
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt import REGULARIZERS, Problem, path, select_path
from sparseopt.selection import METHODS as SELECTORS
from sparseopt.selection import refit
from sparseopt.solution import ConvergenceWarning, Path

__all__ = ["METHODS", "RULES", "Method", "Planted", "Refits", "Score", "Setting", "judge", "largest_size", "measure"]
__all__ += ["STEPS", "planted"]

STEPS, TOL, EPOCHS = 39, 1e-4, 1000
EXACT_SECONDS = 10.0
RULES = ("first", "best", "ebic", "validation")

Array = NDArray[np.float64]
Groups = NDArray[np.int64]


# -- problems ----------------------------------------------------------------------------------------------------------


class Setting(NamedTuple):
    """A distribution of problems: see the top of this file."""

    n: int = 60
    n_groups: int = 50
    size: int = 4
    active: int = 5
    snr: float = 5.0
    within: float = 0.0
    between: float = 0.0


class Planted(NamedTuple):
    """A problem with its answer: the numbers of the true groups and w; X_fresh and y_fresh are n further samples."""

    problem: Problem
    X_fresh: Array
    y_fresh: Array
    truth: Groups
    w: Array


def planted(setting: Setting, seed: int) -> Planted:
    """A problem of this setting; equal seeds give equal problems.

    >>> made = planted(Setting(n=30, n_groups=8, active=2), seed=0)
    >>> made.problem.design.shape, made.truth
    ((30, 32), array([5, 7]))
    """
    n, n_groups, size, active, snr, within, between = setting
    rng = np.random.default_rng(seed)
    truth = np.sort(rng.choice(n_groups, active, replace=False))
    w = np.zeros((n_groups, size))
    w[truth] = rng.standard_normal((active, size))
    w[truth] /= np.linalg.norm(w[truth], axis=1)[:, None]
    shared, own = rng.standard_normal((n_groups, 2 * n, 1)), rng.standard_normal((n_groups, 2 * n, size))
    X = np.sqrt(within) * shared + np.sqrt(1.0 - within) * own
    for g in range(1, n_groups):
        X[g] = between * X[g - 1] + np.sqrt(1.0 - between**2) * X[g]
    X = X.transpose(1, 0, 2).reshape(2 * n, -1)
    z = X @ w.ravel()
    y = z + z.std() / np.sqrt(snr) * rng.standard_normal(2 * n)
    problem = Problem.build(X[:n], y[:n], size, intercept=False, weights="ones")
    return Planted(problem, X[n:], y[n:], truth, w.ravel())


# -- methods -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Method:
    """A way to a path.

    Regularizers have their default parameters and the same steps from one lam to the next, STEPS for two decades below
    their own lam_max. "composite" is problem (1) of the paper, and has four decades: with k active groups it weighs on
    each like the separable penalty with q'(0) / q'(R) times its lam, R = q^-1(sum of q). Two decades would end some
    paths at k groups or below, and so tell ebic the answer. Selectors give one choice for each number of groups.

    family : "penalty", "composite" or "selector"
    name, options : of the regularizer, or of the selector
    """

    family: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def trace(self, problem: Problem, sizes: Sequence[int]) -> Path:
        """Its path: over lam for a regularizer, over `sizes` for a selector."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # counted in `Row.inaccurate`
            if self.family == "selector":
                return select_path(problem, sizes, self.name, progress=False, **self.options)
            penalised = Problem.build(
                problem.design,
                problem.loss.y[:, 0],
                problem.groups,
                penalty=self.name,
                composite=self.family == "composite",
                intercept=False,
            )
            twice = 2 if self.family == "composite" else 1
            return path(
                penalised,
                n_lams=twice * STEPS + 1,
                ratio=0.01**twice,
                tol=TOL,
                max_epochs=EPOCHS,
                progress=False,
            )


_VARIANTS: dict[str, Mapping[str, Any]] = {
    "omp-gain": {"by": "gain"},
    "ompr-q": {"by": "q"},
    "sequential-q": {"by": "q"},
    "sequential-softmax": {"by": "softmax"},
    "exact": {"time_limit": EXACT_SECONDS},
}
METHODS: dict[str, Method] = {
    **{name: Method("penalty", name) for name in REGULARIZERS},
    **{
        f"composite-{name}": Method("composite", name)
        for name, q in REGULARIZERS.items()
        if q.increasing() and name != "l2"  # q^-1 exists, and problem (1) is not the group lasso itself
    },
    **{name: Method("selector", name, _VARIANTS.get(name, {})) for name in SELECTORS},
    **{name: Method("selector", name.split("-")[0], _VARIANTS[name]) for name in _VARIANTS if name not in SELECTORS},
}


# -- the judge ---------------------------------------------------------------------------------------------------------


def measure(chosen: ArrayLike, truth: ArrayLike, n_groups: int) -> tuple[bool, float, float]:
    """Whether the groups are the true ones; the share of the true groups chosen; the share of the others chosen.

    >>> measure([1, 2, 5], [1, 2], n_groups=8)
    (False, 1.0, 0.16666666666666666)
    """
    hits = len(np.intersect1d(chosen, truth))
    missed, wrong = len(np.setdiff1d(truth, chosen)), len(np.setdiff1d(chosen, truth))
    others = n_groups - hits - missed
    return missed == wrong == 0, hits / max(hits + missed, 1), wrong / max(others, 1)


class Score(NamedTuple):
    """What a rule took from a path.

    support : the groups chosen; exact, true, false : see `measure`
    better : whether these are k groups, not the true ones, whose refitted loss is no larger than that of the true ones
    error, refitted : ||v - w|| / ||w|| for the coefficients v of the method, and of the least squares fit on its groups
    """

    support: Groups
    exact: bool
    true: float
    false: float
    better: bool
    error: float
    refitted: float


class Refits:
    """Least squares fits on groups of one problem, each computed once."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._known: dict[bytes, tuple[float, Array]] = {}

    def __call__(self, chosen: Groups) -> tuple[float, Array]:
        """Half the mean squared residual, and the coefficients, (p,)."""
        key = np.sort(chosen).tobytes()
        if key not in self._known:
            fit = refit(self.problem, np.sort(chosen))
            self._known[key] = fit.value, fit.W[:, 0]
        return self._known[key]

    def ebic(self, chosen: Groups) -> float:
        """The extended criterion of Chen and Chen with gamma = 1, as `Path.criterion` has it."""
        groups, size = self.problem.groups, len(chosen)
        n, n_groups = self.problem.design.shape[0], len(groups)
        df = int(groups.sizes[chosen].sum())
        subsets = lgamma(n_groups + 1) - lgamma(size + 1) - lgamma(n_groups - size + 1)
        return n * log(max(2.0 * self(chosen)[0], 1e-300)) + log(n) * df + 2.0 * subsets


def judge(made: Planted, coefs: Array, refits: Refits) -> dict[str, Score]:
    """By every rule the score of a path with coefficients (m, p), from sparse to dense."""
    groups, k = made.problem.groups, len(made.truth)
    norms = np.stack([groups.norms(w) for w in coefs])
    counts = np.count_nonzero(norms, axis=1)

    def largest(i: int, number: int) -> Groups:
        order = np.argsort(-norms[i], kind="stable")
        return np.sort(order[: min(number, int(counts[i]))])

    every = len(groups)
    exactly, enough = np.flatnonzero(counts == k), np.flatnonzero(counts >= k)
    if enough.size:
        first = int((exactly if exactly.size else enough)[0])
        best = min(enough.tolist(), key=lambda i: refits(largest(i, k))[0])
    else:
        first = best = int(np.argmax(counts))
    cap = largest_size(made.problem)
    criteria = [refits.ebic(largest(i, every)) if counts[i] <= cap else np.inf for i in range(len(coefs))]
    squares = ((made.y_fresh[:, None] - made.X_fresh @ coefs.T) ** 2).sum(axis=0)
    taken = {
        "first": (first, k),
        "best": (best, k),
        "ebic": (int(np.flatnonzero(criteria == np.min(criteria))[-1]), every),
        "validation": (int(np.argmin(squares)), every),
    }
    return {rule: _score(made, coefs[i], largest(i, number), refits) for rule, (i, number) in taken.items()}


def largest_size(problem: Problem) -> int:
    """n / (2 size): the most groups that ebic looks at."""
    n, p = problem.design.shape
    return max(1, int(n * len(problem.groups) / (2.0 * p)))


def _score(made: Planted, w: Array, chosen: Groups, refits: Refits) -> Score:
    groups, size = made.problem.groups, float(np.linalg.norm(made.w))
    exact, true, false = measure(chosen, made.truth, len(groups))
    value, refitted = refits(chosen)
    kept = w * groups.expand(np.isin(np.arange(len(groups)), chosen))
    better = not exact and len(chosen) == len(made.truth) and value <= refits(made.truth)[0]
    errors = (float(np.linalg.norm(v - made.w)) / size for v in (kept, refitted))
    return Score(chosen, exact, true, false, better, *errors)
