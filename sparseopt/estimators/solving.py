"""What the estimators minimise, and how: mixins that make a problem of parameters and solve it.

    OneStrength      L + lam penalty, one lam                      by `bcd`, from the last solution if `warm_start`
    ManyStrengths    the same along a path of lam                  `rule` picks one, solved again more accurately
    OneSize          L with at most k groups                       by `select`, from the last choice if `warm_start`
    ManySizes        the same for a sequence of k                  `rule` picks one

Rules: "min" and "1se" compare losses on the samples that each fold leaves out, the others criteria on all samples.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from sparseopt.estimators.inputs import check_integer, check_number, with_always_in
from sparseopt.groups import Groups
from sparseopt.paths import path
from sparseopt.problem import Problem
from sparseopt.selection import METHODS, select, select_path
from sparseopt.solution import ConvergenceWarning, Path, Solution
from sparseopt.solvers import bcd
from sparseopt.validation import CrossValidation, cross_validate, cross_validate_subsets

__all__ = ["ManySizes", "ManyStrengths", "OneSize", "OneStrength"]

HELD_OUT = ("min", "1se")
CRITERIA = ("aic", "bic", "ebic")
POLISH = 1e-3  # tolerance of the chosen solution, relative to that of the path
EXCHANGING = ("splicing", "ompr", "iht", "exact")  # methods that can leave the choice they start from


class Penalised:
    """A problem with a penalty that promotes group sparsity."""

    def _problem(self: Any, X: Any, y: Any, groups: Groups, **what: Any) -> Problem:
        check_number("tol", self.tol)
        check_integer("max_epochs", self.max_epochs)
        return Problem.build(
            X,
            y,
            groups,
            penalty=self.penalty,
            lam=self._strength(),
            composite=self.composite,
            l1_ratio=self.l1_ratio,
            **what,
        )

    def _solve(self: Any, problem: Problem) -> Solution:
        solution: Solution = self._chosen(problem)
        self.lam_ = solution.problem.lam
        return solution


class OneStrength(Penalised):
    """Solve for the parameter `lam`."""

    def _strength(self: Any) -> float:
        return self.lam

    def _chosen(self: Any, problem: Problem) -> Solution:
        start = None
        if self.warm_start and hasattr(self, "solution_"):
            last = self.solution_
            if last.w.shape[0] == problem.design.shape[1] and last.problem.n_outputs == problem.n_outputs:
                start = last.w, last.intercept
        return bcd(problem, start, tol=self.tol, max_epochs=self.max_epochs)


class ManyStrengths(Penalised):
    """Solve for a sequence of lam and choose one by the parameter `rule`.

    The chosen solution is solved again to a thousandth of the tolerance: along a path solutions are as accurate as a
    choice among them needs, and what is reported should not depend on the path that led there.
    """

    _min_samples = 2  # one to fit and one to leave out

    def _strength(self: Any) -> float:
        return 1.0  # replaced by every lam of the path

    def _chosen(self: Any, problem: Problem) -> Solution:
        _check_rule(self.rule, (*HELD_OUT, *CRITERIA))
        check_integer("n_lams", self.n_lams)
        if self.ratio is not None:
            check_number("ratio", self.ratio, 0.0, 1.0)
        lams = self.lams
        if lams is not None and np.asarray(lams).dtype.kind not in "iuf":
            raise TypeError(
                f"lams is {lams!r}: pass a sequence of positive numbers, or None for a grid from lam_max down."
            )
        options: dict[str, Any] = dict(
            n_lams=self.n_lams, ratio=self.ratio, tol=self.tol, max_epochs=self.max_epochs, progress=False
        )
        if self.rule in HELD_OUT:
            return self._polished(_keep(self, cross_validate(problem, lams, cv=self.cv, n_jobs=self.n_jobs, **options)))
        return self._polished(_keep(self, path(problem, lams, **options)))

    def _polished(self: Any, chosen: Solution) -> Solution:
        """The chosen solution with more digits, where there are more."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            better = bcd(chosen.problem, chosen, tol=POLISH * self.tol, max_epochs=self.max_epochs)
        return better if better.status.ok else chosen


class Chosen:
    """A problem with at most k groups."""

    def _problem(self: Any, X: Any, y: Any, groups: Groups, **what: Any) -> Problem:
        return Problem.build(X, y, with_always_in(groups, self.always_in), lam=0.0, **what)

    def _solve(self: Any, problem: Problem) -> Solution:
        if self.method not in METHODS:
            raise ValueError(
                f"method is {self.method!r}, which is unknown: choose one of {', '.join(map(repr, METHODS))}."
            )
        solution: Solution = self._chosen(problem, _method_options(self.method_options))
        self.k_ = solution.problem.penalty.k  # type: ignore[union-attr]
        if not solution.status.ok:
            warnings.warn(f"method {self.method!r}: {solution.status.value}", ConvergenceWarning, stacklevel=4)
        return solution


class OneSize(Chosen):
    """Choose at most the parameter `k` groups."""

    def _chosen(self: Any, problem: Problem, options: dict[str, Any]) -> Solution:
        start = None
        if self.warm_start and hasattr(self, "solution_") and self.method in EXCHANGING:
            last = self.solution_
            if last.problem.groups == problem.groups:
                members = np.count_nonzero(problem.penalty.penalised[last.support])
                start = last if members <= self.k or self.method == "splicing" else None
        return select(problem, self.k, self.method, start, **options)


class ManySizes(Chosen):
    """Choose for a sequence of k, and choose k by the parameter `rule`."""

    _min_samples = 2

    def _chosen(self: Any, problem: Problem, options: dict[str, Any]) -> Solution:
        _check_rule(self.rule, (*HELD_OUT, *CRITERIA, "bonferroni", "gap"))
        sizes = self.sizes
        if sizes is not None and (np.asarray(sizes).dtype.kind not in "iu" or np.asarray(sizes).ndim > 1):
            raise TypeError(f"sizes is {sizes!r}: pass a sequence of numbers of groups, integers >= 0, or None.")
        options = {"method": self.method, **options}
        if self.rule in HELD_OUT:
            found = cross_validate_subsets(problem, sizes, cv=self.cv, n_jobs=self.n_jobs, progress=False, **options)
            return _keep(self, found)
        return _keep(self, select_path(problem, sizes, progress=False, **options))


def _keep(estimator: Any, found: Path | CrossValidation) -> Solution:
    """Set `path_` and `cv_`; the solution that the rule chooses."""
    validated = isinstance(found, CrossValidation)
    estimator.cv_ = found if validated else None
    estimator.path_ = found.path if isinstance(found, CrossValidation) else found
    chosen: Solution = estimator.cv_.choose(estimator.rule) if validated else estimator.path_.best(estimator.rule)
    return chosen


def _check_rule(rule: Any, rules: tuple[str, ...]) -> None:
    if rule not in rules:
        raise ValueError(f"rule is {rule!r}, which is unknown: choose one of {', '.join(map(repr, rules))}.")


def _method_options(options: Any) -> dict[str, Any]:
    if options is None:
        return {}
    if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
        raise TypeError(f"method_options is {options!r}: pass a dict from option to value, such as {{'exchange': 3}}.")
    for name in ("cv", "k", "method", "n_jobs", "problem", "progress", "sizes", "start"):
        if name in options:
            raise TypeError(f"method_options has {name!r}, which is no option of a method: leave it out.")
    return dict(options)
