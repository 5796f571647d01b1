"""The law of solvers accepts the package's own and rejects wrong ones, each for its own reason."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from sparseopt import L2, Groups, Penalty, Problem, Solution, Status, bcd, fista
from sparseopt.laws import check_solver
from sparseopt.laws.problems import CHANCES, solver_problems

PROBLEMS = solver_problems()


def precise(problem: Problem) -> Solution:
    return fista(problem, tol=1e-9)


def only(*words: str) -> dict[str, Problem]:
    """The problems whose names contain all the words, in this order."""
    found = {name: problem for name, problem in PROBLEMS.items() if re.search(".*".join(words), name)}
    assert found, words
    return found


@pytest.mark.parametrize("solver", [bcd, fista], ids=lambda solver: solver.__name__)
@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_the_package_obeys(solver: Callable, layout: str) -> None:
    check_solver(lambda problem: solver(problem, tol=1e-9), only(layout))


def test_the_table_has_everything() -> None:
    assert len(PROBLEMS) == 60
    for loss in ("squares", "huber", "logistic", "poisson", "multinomial"):
        names = list(only(loss))
        for chance in CHANCES[:5]:
            count = sum(chance in name for name in names)
            assert 0 < count < len(names), f"{chance} in {count} of {len(names)} problems of {loss}"
    assert any("several" in name for name in PROBLEMS)
    for problem in PROBLEMS.values():
        assert len(set(problem.groups.sizes)) > 1
        assert (np.diff(problem.groups.indices) < 0).any(), "groups are scattered"


# -- wrong solvers -----------------------------------------------------------------------------------------------------


def saying(problem: Problem, solution: Solution, status: Status = Status.CONVERGED) -> Solution:
    """The coefficients of one problem sold as those of another."""
    return replace(solution, problem=problem, status=status)


def stops_early(problem: Problem) -> Solution:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return saying(problem, fista(problem, tol=1e-9, max_iter=3))


def is_nearly_there(problem: Problem) -> Solution:
    return saying(problem, fista(problem, tol=1e-4))


def admits_that_it_failed(problem: Problem) -> Solution:
    return saying(problem, precise(problem), Status.STALLED)


def ignores_group_weights(problem: Problem) -> Solution:
    groups = problem.groups
    ones = Groups(groups.indices, groups.indptr, (groups.weights > 0.0).astype(float))
    return saying(problem, precise(replace(problem, penalty=replace(problem.penalty, groups=ones))))


def penalises_the_free_group(problem: Problem) -> Solution:
    groups = problem.groups
    weights = np.where(groups.weights > 0.0, groups.weights, 1.0)
    penalty = replace(problem.penalty, groups=Groups(groups.indices, groups.indptr, weights))
    return saying(problem, precise(replace(problem, penalty=penalty)))


def penalises_the_intercept(problem: Problem) -> Solution:
    """The intercept as one more column, with a group of its own."""
    p = problem.groups.n_features
    X = np.column_stack([problem.design.matvec(np.eye(p)), np.ones(problem.loss.n_samples)])
    lists = [problem.groups[g] for g in range(len(problem.groups))] + [[p]]
    groups = Groups.from_lists(lists, p + 1, weights=np.append(problem.groups.weights, 1.0))
    design = Problem.build(X, np.zeros(len(X))).design
    other = Problem(design, problem.loss, replace(problem.penalty, groups=groups))
    found = precise(other).w
    b = float(found[p]) if found.ndim == 1 else found[p]
    return Solution(found[:p], b, problem, Status.CONVERGED)


def forgets_the_intercept(problem: Problem) -> Solution:
    return saying(problem, precise(replace(problem, intercept=False)))


def adds_an_intercept(problem: Problem) -> Solution:
    return saying(problem, precise(replace(problem, intercept=True)))


def forgets_the_offset(problem: Problem) -> Solution:
    return saying(problem, precise(replace(problem, loss=replace(problem.loss, offset=None))))


def forgets_sample_weights(problem: Problem) -> Solution:
    s = np.full(problem.loss.n_samples, 1.0 / problem.loss.n_samples)
    return saying(problem, precise(replace(problem, loss=replace(problem.loss, s=s))))


def drops_a_group(problem: Problem) -> Solution:
    """Unsafe screening: a group of the support is thrown away, the others are solved for."""
    norms = precise(problem).group_norms
    active = np.flatnonzero((norms > 0.0) & (problem.groups.weights > 0.0))
    if not active.size:
        return precise(problem)
    weights = problem.groups.weights.copy()
    weights[active[np.argmin(norms[active])]] = 1e6
    groups = Groups(problem.groups.indices, problem.groups.indptr, weights)
    return saying(problem, precise(replace(problem, penalty=replace(problem.penalty, groups=groups))))


def leaves_blocks_unshrunk(problem: Problem) -> Solution:
    """The support is right, its coefficients are those of no penalty."""
    solution = precise(problem)
    weights = np.where(solution.group_norms > 0.0, 0.0, 1e6)
    groups = Groups(problem.groups.indices, problem.groups.indptr, weights)
    return saying(problem, precise(replace(problem, penalty=Penalty(L2(), groups, 1.0))))


def forgets_ridge(problem: Problem) -> Solution:
    return saying(problem, precise(replace(problem, penalty=replace(problem.penalty, ridge=0.0))))


def forgets_l1(problem: Problem) -> Solution:
    return saying(problem, precise(replace(problem, penalty=replace(problem.penalty, l1_ratio=0.0))))


def solves_the_convex_problem(problem: Problem) -> Solution:
    return saying(problem, precise(replace(problem, penalty=replace(problem.penalty, q=L2()))))


def climbs(problem: Problem) -> Solution:
    """A stationary point, but a poor one: reached from afar."""
    rng = np.random.default_rng(0)
    solution = precise(problem)
    return replace(solution, w=solution.w + rng.standard_normal(solution.w.shape))


def writes_into_the_weights(problem: Problem) -> Solution:
    solution = precise(problem)
    problem.loss.s[0] *= 2.0
    return solution


def returns_a_column(problem: Problem) -> Solution:
    solution = precise(problem)
    return replace(solution, w=solution.w.reshape(len(solution.w), -1))


def returns_nan(problem: Problem) -> Solution:
    solution = precise(problem)
    return replace(solution, w=np.full_like(solution.w, np.nan))


def answers_another_problem(problem: Problem) -> Solution:
    return precise(problem.at(1.5 * problem.lam))


def depends_on_the_order(problem: Problem) -> Solution:
    """Right unless feature 0 belongs to another group than the one of feature 1."""
    if np.diff(problem.groups.indices[:2])[0] < 0:
        return answers_another_problem(problem)
    return precise(problem)


def relies_on_units(problem: Problem) -> Solution:
    """Gives up early when the weights are large."""
    return stops_early(problem) if problem.loss.s.sum() > 2.0 else precise(problem)


REJECTED: list[tuple[Callable, tuple[str, ...], str]] = [
    (stops_early, ("squares", "dense", "l2"), "relative gap"),
    (stops_early, ("poisson", "log"), "stationarity"),
    (is_nearly_there, ("logistic", "dense", "l2"), "relative gap"),
    (admits_that_it_failed, ("squares", "dense", "l2"), "status is STALLED"),
    (ignores_group_weights, ("huber", "dense", "l2"), "relative gap"),
    (ignores_group_weights, ("squares", "mcp"), "stationarity"),
    (penalises_the_free_group, ("l2", "unpenalised"), "relative gap"),
    (penalises_the_intercept, ("poisson", "l2", "intercept"), "relative gap"),
    (penalises_the_intercept, ("squares", "log", "intercept"), "stationarity"),
    (forgets_the_intercept, ("multinomial", "l2", "intercept"), "relative gap"),
    (adds_an_intercept, ("squares", "dense", "l2, unpenalised"), r"intercept is .*, not 0"),
    (forgets_the_offset, ("logistic", "l2", "offset"), "relative gap"),
    (forgets_the_offset, ("poisson", "log", "offset"), "stationarity"),
    (forgets_sample_weights, ("squares", "l2", "weights"), "relative gap"),
    (drops_a_group, ("logistic", "dense", "l2"), "relative gap"),
    (drops_a_group, ("squares", "sparse", "l2"), "relative gap"),
    (leaves_blocks_unshrunk, ("squares", "dense", "l2"), "relative gap"),
    (forgets_ridge, ("huber", r"l2\+ridge"), "relative gap"),
    (forgets_l1, ("logistic", r"l2\+l1,"), "relative gap"),
    (solves_the_convex_problem, ("squares", "mcp"), "stationarity"),
    (climbs, ("huber", "log"), "stationarity"),
    (writes_into_the_weights, ("squares", "dense", "l2"), "the solver changed the problem"),
    (returns_a_column, ("logistic", "dense", "l2"), r"w has shape \(\d+, 1\)"),
    (returns_nan, ("logistic", "dense", "l2"), "w is not finite"),
    (answers_another_problem, ("poisson", "dense", "l2"), "the objective it reports"),
    (depends_on_the_order, ("huber", "dense", "l2,"), "the optimum after features and groups are reordered|reports"),
    (relies_on_units, ("squares", "dense", "l2,"), "the optimum with all weights times 5"),
]


@pytest.mark.parametrize(
    ("solver", "words", "reason"), REJECTED, ids=[f"{solver.__name__}-{words[0]}" for solver, words, _ in REJECTED]
)
def test_a_wrong_solver_is_rejected(solver: Callable, words: tuple[str, ...], reason: str) -> None:
    problems = {name: replace(p, loss=replace(p.loss, s=p.loss.s.copy())) for name, p in only(*words).items()}
    with pytest.raises(AssertionError, match=reason) as rejected:
        check_solver(solver, problems)
    assert str(rejected.value).split(": ")[0] in problems, "the message names the problem"
