"""Choices of 0, 1, 2, ... groups, and how many groups to take.

Each size starts from the choice before it, grown; with `both_ways` a second pass starts from the choice after it,
pruned, and the better of both is kept. So a good choice at one size helps its neighbours, and the objective falls with
the size. The size is then chosen by tests corrected for the search ("bonferroni", the default), by AIC, BIC or EBIC, by
cross-validation, or by the gap: where the last group that entered lowered the fit by the largest multiple of what the
next one does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.cardinality import group_count
from sparseopt.problem import Problem
from sparseopt.selection.fit import Fit, as_subset_problem
from sparseopt.solution import BoundProof, Path, Solution, Status

__all__ = ["SubsetPath", "check_sizes", "path_of", "path_of_fits"]

Array = NDArray[np.float64]

_LEVEL = 0.05  # of the test whether one more group matters


@dataclass(frozen=True, eq=False)
class SubsetPath(Path):
    """Solutions of one problem for a sequence of sizes, at most k groups each; see `Path`.

    `lams` holds the sizes as numbers, `sizes` as integers.

    Parameters
    ----------
    bounds : tuple of float or None
        Lower bounds of the optimum, where the method proves them.
    proofs : tuple of BoundProof or None
        What proves them.
    """

    bounds: tuple[float | None, ...] = ()
    proofs: tuple[BoundProof | None, ...] = ()

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        if isinstance(index, slice):
            return found
        at = range(len(self))[index]
        return replace(found, bound=self.bounds[at], proof=self.proofs[at])

    @property
    def sizes(self) -> NDArray[np.int64]:
        """The values of k, increasing, (m,)."""
        return self.lams.astype(np.int64)

    @property
    def n_active(self) -> NDArray[np.int64]:
        """Number of groups chosen for every k, (m,); always-in groups are not counted."""
        return np.count_nonzero(self.group_norms[:, self.problem.penalty.penalised], axis=1)

    @cached_property
    def deviance(self) -> Array:
        """As `Path.deviance`; without a ridge the objective says it."""
        if self.problem.penalty.ridge:
            return super().deviance
        s = self.problem.loss.s
        out: Array = 2.0 * np.count_nonzero(s) / float(s.sum()) * self.objective
        return out

    def criterion(self, name: str = "bonferroni", gamma: float = 1.0) -> Array:
        """As `Path.criterion`, and two that are made for choices: smaller is better.

        fit is the deviance, or n log deviance for squares and huber.

        "bonferroni": fit + sum_{j <= k} T_j. The best of the G - j + 1 groups that are left lowers the fit by more than
        T_j = n log(1 + d F / m) with probability 5 % at most, if none of them matters: F is the quantile of F(d, m) at
        the upper level 0.05 / (G - j + 1), d the average number of coefficients of the k groups, and m = n less the
        coefficients of j groups. Of classes n is the sum of curvatures over their bound, 4 p (1 - p) each for two: what
        samples that are told apart for sure no longer count; for losses other than squares the level is a rough one.
        So a group has to bring what the luckiest of many useless ones rarely would, however many samples there are: BIC
        asks for too little where G is large and n small, and for too much in the opposite case.

        "gap": log of (fall to the next size) / (fall to this one). It needs no noise level and no penalty per group,
        but neighbours on both sides: consecutive sizes, of which the first and the last get inf. It finds a break; it
        does not say whether there is one.

        References
        ----------
        Foster, George (1994), "The risk inflation criterion for multiple regression", Annals of Statistics 22, for
        prices that count the search: 2 log G is about T_j for groups of one feature.
        Ahn, Horenstein (2013), "Eigenvalue ratio test for the number of factors", Econometrica 81, for the ratio.
        """
        if name == "bonferroni":
            return self._fit() + self._prices()
        if name != "gap":
            return super().criterion(name, gamma)
        if len(self) < 3 or (np.diff(self.sizes) != 1).any():
            raise ValueError(
                f"sizes are {self.sizes.tolist()}: the gap criterion needs three consecutive ones or more."
            )
        fit = self._fit()
        falls = np.maximum(fit[:-1] - fit[1:], 0.0)
        least = 1e-12 * max(float(falls.sum()), 1e-300)
        out = np.full(len(self), np.inf)
        # Beyond a perfect fit all falls are rounding: their ratios mean nothing.
        ratio = np.log(np.maximum(falls[1:], least) / np.maximum(falls[:-1], least))
        out[1:-1] = np.where(falls[:-1] > least, ratio, np.inf)
        return out

    def best(self, criterion: str = "bonferroni", gamma: float = 1.0) -> Solution:
        """The solution with the smallest `criterion`."""
        return super().best(criterion, gamma)

    def _fit(self) -> Array:
        return super().criterion("aic") - 2.0 * self.degrees_of_freedom

    def _prices(self) -> Array:
        """sum_{j <= k} T_j of "bonferroni" for every solution; inf where no degree of freedom is left."""
        from scipy.special import fdtri

        problem, (counted, sizes) = self.problem, (self.problem.penalty.penalised, self.problem.groups.sizes)
        free = float(problem.n_outputs * (int(problem.intercept) + sizes[~counted].sum()))
        j = np.arange(1, int(self.n_active.max(initial=0)) + 1)
        level = _LEVEL / (np.count_nonzero(counted) - j + 1)

        @cache
        def prices(d: float, n: float) -> Array:
            left = n - free - j * d
            m = np.where(left > 0.0, left, 1.0)
            each = np.where(left > 0.0, n * np.log1p(d / m * fdtri(d, m, 1.0 - level)), np.inf)
            return np.concatenate([[0.0], np.cumsum(each)])

        out = np.zeros(len(self))
        for at, (k, n) in enumerate(zip(self.n_active.tolist(), self._effective_samples().tolist(), strict=True)):
            used = np.count_nonzero(counted[problem.groups.group_of[self.rows[at][0]]])
            out[at] = prices(problem.n_outputs * float(used) / k, n)[k] if k else 0.0
        return out

    def _effective_samples(self) -> Array:
        """n of "bonferroni" for every solution: where classes are told apart for sure, a sample says no more."""
        loss = self.problem.loss
        bound, counted = loss.curvature_bound(), loss.s > 0.0
        n = float(np.count_nonzero(counted))
        if loss.name in ("squares", "huber"):
            return np.full(len(self), n * loss.n_outputs)
        if bound is None:
            return np.full(len(self), n)
        problem = self._at_hand()
        curvatures = (loss.curvature(self._predictor(k, problem)) for k in range(len(self)))
        return np.array([float((c[counted] / bound[counted]).sum()) for c in curvatures])


def check_sizes(problem: Problem, sizes: ArrayLike | None) -> NDArray[np.int64]:
    """`sizes` sorted, without repeats; by default 0, 1, ... up to a size that the samples can support.

    The default ends at the largest k for which k groups of average size have at most half as many coefficients as there
    are samples, and at 30.

    Raises
    ------
    ValueError, TypeError
        If a size is no integer >= 0.
    """
    counted = problem.penalty.penalised
    total = int(np.count_nonzero(counted))
    if sizes is None:
        width = float(problem.groups.sizes[counted].mean()) if total else 1.0
        return np.arange(max(1, min(total, 30, int(problem.design.shape[0] / (2.0 * width)))) + 1)
    given = [group_count("sizes", size) for size in np.atleast_1d(np.asarray(sizes)).tolist()]
    if not given:
        raise ValueError("sizes is empty: pass at least one number of groups.")
    return np.unique(np.array(given, dtype=np.int64))


def path_of(problem: Problem, solutions: list[Solution]) -> SubsetPath:
    """Solutions of increasing size as a path."""
    rows = []
    for solution in solutions:
        W = problem.matrix(solution.w)
        used = np.flatnonzero(W.any(axis=1))
        rows.append((used, W[used]))
    return SubsetPath(
        solutions[0].problem,
        np.array([s.problem.penalty.k for s in solutions], dtype=np.float64),  # type: ignore[union-attr]
        tuple(rows),
        np.stack([np.asarray(s.intercept, dtype=np.float64) for s in solutions]),
        np.array([s.objective for s in solutions]),
        np.array([np.nan if s.gap is None else s.gap for s in solutions]),
        tuple(s.status for s in solutions),
        np.array([s.epochs for s in solutions]),
        np.array([s.seconds for s in solutions]),
        tuple(s.bound for s in solutions),
        tuple(s.proof for s in solutions),
    )


def path_of_fits(
    problem: Problem, sizes: NDArray[np.int64], fits: list[Fit], ends: list[tuple[Status, int, float]]
) -> SubsetPath:
    """Fits of increasing size as a path; of each how it ended: status, steps and seconds."""
    used = [np.flatnonzero(fit.W.any(axis=1)) for fit in fits]
    m = len(fits)
    return SubsetPath(
        as_subset_problem(problem, int(sizes[0])),
        sizes.astype(np.float64),
        tuple((rows, fit.W[rows]) for rows, fit in zip(used, fits, strict=True)),
        np.stack([fit.b if len(fit.b) > 1 else fit.b[0] for fit in fits]),
        np.array([fit.value for fit in fits]),
        np.full(m, np.nan),
        tuple(status for status, _, _ in ends),
        np.array([steps for _, steps, _ in ends]),
        np.array([seconds for _, _, seconds in ends]),
        (None,) * m,
        (None,) * m,
    )
