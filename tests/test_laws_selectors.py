"""The law of selectors accepts the package's own and rejects wrong ones, each for its own reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import pytest

from sparseopt import AtMost, Groups, Problem, Solution, Status, solve
from sparseopt.designs import Csc
from sparseopt.laws import check_selector
from sparseopt.laws.problems import DEFECTS, selector_problems
from sparseopt.selection import refit, select
from sparseopt.selection.fit import Fit, solution_of

PROBLEMS = selector_problems()
LOSSES = ("squares", "huber", "logistic", "poisson", "multinomial")


def only(*words: str) -> dict[str, Problem]:
    """The problems whose names contain all the words, in this order."""
    found = {name: problem for name, problem in PROBLEMS.items() if re.search(".*".join(words), name)}
    assert found, words
    return found


QUICK: list[tuple[str, dict[str, Any]]] = [
    ("omp", {}),
    ("omp", {"by": "gain"}),
    ("splicing", {}),
    ("forward-backward", {}),
    ("ompr", {}),
    ("iht", {}),
]
SOLVING: list[tuple[str, dict[str, Any]]] = [  # these solve a penalised problem, or train a mask, for every choice
    ("ompr", {"by": "q"}),
    ("sequential", {}),
    ("sequential", {"by": "q"}),
]


def named(rows: list[tuple[str, dict[str, Any]]]) -> list[str]:
    return ["-".join([method, *map(str, options.values())]) for method, options in rows]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("method", "options"), QUICK, ids=named(QUICK))
def test_the_package_obeys(method: str, options: dict[str, Any], loss: str) -> None:
    # IHT steps along gradients whatever their weights, so it cannot claim the law of group units.
    check_selector(lambda problem, k: select(problem, k, method, **options), only(loss), group_units=method != "iht")


@pytest.mark.parametrize("words", [("squares, sparse, ridge",), ("logistic", "dense, ridge")])
@pytest.mark.parametrize(("method", "options"), SOLVING, ids=named(SOLVING))
def test_what_solves_penalised_problems_obeys(method: str, options: dict[str, Any], words: tuple[str, ...]) -> None:
    check_selector(lambda problem, k: select(problem, k, method, **options), only(*words), group_units=True)


def test_masks_obey() -> None:
    check_selector(
        lambda p, k: select(p, k, "sequential", by="softmax"), only("squares, dense, always"), group_units=True
    )


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("method", "options"),
    [*SOLVING, ("sequential", {"by": "softmax"})],
    ids=named([*SOLVING, ("sequential", {"by": "softmax"})]),
)
def test_everything_obeys_everywhere(method: str, options: dict[str, Any], loss: str) -> None:
    check_selector(lambda problem, k: select(problem, k, method, **options), only(loss), group_units=True)


@pytest.mark.parametrize("loss", LOSSES)
def test_thresholding_without_refits_obeys(loss: str) -> None:
    # The intercept takes the step of the coefficients, so that units of X matter where there is one.
    name, problem = next((name, problem) for name, problem in only(loss).items() if not problem.intercept)
    check_selector(lambda problem, k: select(problem, k, "iht", debias=False), {name: problem})


def test_the_table_has_everything() -> None:
    assert len(PROBLEMS) == 20
    for word in ("dense", "sparse", "ridge", "intercept", "always-in", "weights", "offset", "several", *DEFECTS):
        found = sum(word in name for name in PROBLEMS)
        assert 0 < found < len(PROBLEMS), f"{word} in {found} problems"
    for name, problem in PROBLEMS.items():
        X, groups = problem.design.matvec(np.eye(15)), problem.groups
        ranks = [np.linalg.matrix_rank(X[:, groups[g]]) for g in range(8)]
        assert ("dependent" in name) == (ranks[2] == 2)
        assert ("zeros" in name) == (ranks[5] == 0)
        assert ("twins" in name) == np.array_equal(X[:, groups[3]], X[:, groups[4]])
        joint = np.linalg.matrix_rank(X[:, groups.features([0, 6])])
        assert ("overlap" in name) == (joint == 3)
        assert ("always-in" in name) == (groups.weights[7] == 0.0)
        assert (np.diff(groups.indices) < 0).any(), "groups are scattered"
        every = np.flatnonzero(problem.penalty.penalised)
        assert refit(problem, every).value > 1e-3 * refit(problem, []).value, "no perfect fit, no separable classes"


# -- wrong selectors ---------------------------------------------------------------------------------------------------


def right(problem: Problem, k: int) -> Solution:
    return select(problem, k, "omp")


def chosen(problem: Problem, solution: Solution) -> np.ndarray:
    return solution.support[problem.penalty.penalised[solution.support]]


def fitted(problem: Problem, groups: Any, k: int) -> Solution:
    return solution_of(refit(problem, groups), k, Status.LOCAL, 1, 0.0)


def sold(solution: Solution, problem: Problem, k: int) -> Solution:
    """The coefficients of one problem sold as those of another."""
    penalty = AtMost(problem.groups, k, problem.penalty.ridge)
    return replace(solution, problem=replace(problem, penalty=penalty))


def weighted(problem: Problem, weights: Any) -> Problem:
    groups = Groups(problem.groups.indices, problem.groups.indptr, weights)
    return replace(problem, penalty=replace(problem.penalty, groups=groups))


def takes_one_more(problem: Problem, k: int) -> Solution:
    return sold(right(problem, k + 1), problem, k)


def takes_one_more_of_few(problem: Problem, k: int) -> Solution:
    return takes_one_more(problem, k) if k == 3 else right(problem, k)


def stops_at_two(problem: Problem, k: int) -> Solution:
    return sold(right(problem, min(k, 2)), problem, k)


def counts_always_in_groups(problem: Problem, k: int) -> Solution:
    return sold(right(problem, max(k - int((~problem.penalty.penalised).sum()), 0)), problem, k)


def shrinks(problem: Problem, k: int) -> Solution:
    """The coefficients are those of hard thresholding, not of the fit."""
    solution = right(problem, k)
    return replace(solution, w=0.99 * solution.w)


def is_nearly_fitted(problem: Problem, k: int) -> Solution:
    solution = right(problem, k)
    return replace(solution, w=solution.w * (1.0 + 1e-6))


def overshoots(problem: Problem, k: int) -> Solution:
    solution = right(problem, k)
    return replace(solution, w=30.0 * solution.w) if k else solution


def fits_one_group_after_another(problem: Problem, k: int) -> Solution:
    """Matching pursuit: what has been fitted is not fitted again."""
    solution = right(problem, k)
    w = solution.w.copy()
    for g in chosen(problem, solution):
        w[problem.groups[int(g)]] = (
            refit(problem, [g]).W[problem.groups[int(g)]].reshape(w[problem.groups[int(g)]].shape)
        )
    return replace(solution, w=w)


def drops_the_always_in_group(problem: Problem, k: int) -> Solution:
    out = np.flatnonzero(~problem.penalty.penalised)
    other = weighted(problem, np.where(problem.groups.weights > 0.0, problem.groups.weights, 1e9))
    groups = chosen(problem, right(problem, k))
    assert not np.isin(out, groups).any()
    return sold(fitted(other, groups, k), problem, k)


def shrinks_the_always_in_group(problem: Problem, k: int) -> Solution:
    groups = chosen(problem, right(problem, k))
    free = np.flatnonzero(~problem.penalty.penalised)
    other = weighted(problem, np.where(problem.groups.weights > 0.0, problem.groups.weights, 1.0))
    return sold(fitted(other, np.append(groups, free), k + len(free)), problem, k)


def forgets_the_intercept(problem: Problem, k: int) -> Solution:
    return sold(right(replace(problem, intercept=False), k), problem, k)


def adds_an_intercept(problem: Problem, k: int) -> Solution:
    return sold(right(replace(problem, intercept=True), k), problem, k)


def forgets_the_offset(problem: Problem, k: int) -> Solution:
    return sold(right(replace(problem, loss=replace(problem.loss, offset=None)), k), problem, k)


def forgets_the_ridge(problem: Problem, k: int) -> Solution:
    return sold(right(replace(problem, penalty=replace(problem.penalty, ridge=0.0)), k), problem, k)


def fits_without_sample_weights(problem: Problem, k: int) -> Solution:
    s = np.full(problem.loss.n_samples, 1.0 / problem.loss.n_samples)
    return sold(right(replace(problem, loss=replace(problem.loss, s=s)), k), problem, k)


def scores_without_sample_weights(problem: Problem, k: int) -> Solution:
    """The fit is right, but the gradients that are compared count every sample alike."""
    return fitted(problem, chosen(problem, fits_without_sample_weights(problem, k)), k)


def scores_without_group_weights(problem: Problem, k: int) -> Solution:
    ones = weighted(problem, (problem.groups.weights > 0.0).astype(float))
    return fitted(problem, chosen(problem, right(ones, k)), k)


def takes_the_first(problem: Problem, k: int) -> Solution:
    return fitted(problem, np.flatnonzero(problem.penalty.penalised)[:k], k)


def stops_at_an_absolute_size(problem: Problem, k: int) -> Solution:
    """Groups enter while their gradient is above a number, which has units."""
    least = 0.1 if k < int(problem.penalty.penalised.sum()) else 0.0
    fit: Fit = refit(problem, [])
    while len(fit.chosen) < k and fit.scores[fit.outside].max(initial=0.0) > least:
        fit = refit(problem, np.append(fit.chosen, fit.outside[np.argmax(fit.scores[fit.outside])]))
    return solution_of(fit, k, Status.LOCAL, 1, 0.0)


def reads_sparse_wrong(problem: Problem, k: int) -> Solution:
    return takes_the_first(problem, k) if isinstance(problem.design, Csc) else right(problem, k)


calls = count()


def throws_dice(problem: Problem, k: int) -> Solution:
    counted = np.flatnonzero(problem.penalty.penalised)
    return fitted(problem, np.random.default_rng(next(calls)).permutation(counted)[:k], k)


def differs_in_the_last_bit(problem: Problem, k: int) -> Solution:
    solution = right(problem, k)
    return replace(solution, w=np.nextafter(solution.w, np.inf)) if next(calls) % 2 else solution


def says(status: Any, **more: Any) -> Callable[[Problem, int], Solution]:
    def selector(problem: Problem, k: int) -> Solution:
        solution = right(problem, k)
        return replace(solution, status=status, **{name: claim(solution) for name, claim in more.items()})

    selector.__name__ = f"says_{getattr(status, 'name', status)}{''.join(f'_and_{name}' for name in more)}"
    return selector


def claims_a_poor_choice(problem: Problem, k: int) -> Solution:
    solution = takes_the_first(problem, k)
    return replace(solution, status=Status.OPTIMAL, bound=solution.objective)


def bounds_too_high(problem: Problem, k: int) -> Solution:
    solution = right(problem, k)
    return replace(solution, bound=1.01 * solution.objective)


def answers_for_another_k(problem: Problem, k: int) -> Solution:
    return sold(right(problem, k), problem, k + 1)


def answers_for_other_groups(problem: Problem, k: int) -> Solution:
    return sold(right(problem, k), weighted(problem, problem.groups.weights * 2.0), k)


def answers_without_ridge(problem: Problem, k: int) -> Solution:
    solution = right(problem, k)
    return sold(solution, replace(problem, penalty=replace(problem.penalty, ridge=0.0)), k)


def answers_other_samples(problem: Problem, k: int) -> Solution:
    loss = replace(problem.loss, y=problem.loss.y[::-1].copy())
    return right(replace(problem, loss=loss), k)


def solves_a_penalised_problem(problem: Problem, k: int) -> Solution:
    return solve(problem)


class Flattering(Solution):
    @property
    def objective(self) -> float:  # type: ignore[override]
        return 0.999 * self.problem.value(self.w, self.intercept)


def flatters_itself(problem: Problem, k: int) -> Solution:
    solution = right(problem, k)
    return Flattering(solution.w, solution.intercept, solution.problem, solution.status)


def returns_nan(problem: Problem, k: int) -> Solution:
    solution = right(problem, k)
    return replace(solution, w=np.full_like(solution.w, np.nan))


def returns_a_column(problem: Problem, k: int) -> Solution:
    solution = right(problem, k)
    return replace(solution, w=solution.w.reshape(len(solution.w), -1))


def writes_into_the_weights(problem: Problem, k: int) -> Solution:
    solution = right(problem, k)
    problem.loss.s[0] *= 2.0
    return solution


REJECTED: list[tuple[Callable, tuple[str, ...], str]] = [
    (takes_one_more, ("squares, dense",), r"k = 0: 1 groups are in"),
    (takes_one_more_of_few, ("logistic",), r"k = 3: 4 groups are in"),
    (stops_at_two, ("squares",), "k allows all groups"),
    (stops_at_two, ("multinomial, sparse, ridge",), "k allows all groups"),
    (counts_always_in_groups, ("huber, sparse, always",), "k allows all groups"),
    (shrinks, ("squares",), "no fit: the gradient in"),
    (is_nearly_fitted, ("poisson",), "no fit: the gradient in"),
    (overshoots, ("huber",), "of the null model"),
    (fits_one_group_after_another, ("squares",), "no fit: the gradient in|of the null model"),
    (drops_the_always_in_group, ("squares, dense, always",), "no fit: the gradient in always-in group 7"),
    (drops_the_always_in_group, ("multinomial, dense, always",), "no fit: the gradient in always-in group 7"),
    (shrinks_the_always_in_group, ("logistic, dense, ridge, always",), "no fit: the gradient in always-in group 7"),
    (forgets_the_intercept, ("squares", "intercept"), "no fit: the gradient in the intercept"),
    (adds_an_intercept, ("huber, dense, offset",), r"intercept is .*, not 0"),
    (forgets_the_offset, ("poisson", "intercept", "offset"), "no fit: the gradient in"),
    (forgets_the_ridge, ("multinomial", "ridge"), "no fit: the gradient in"),
    (fits_without_sample_weights, ("squares", "weights"), "no fit: the gradient in"),
    (scores_without_sample_weights, ("squares|logistic", "weights"), "F with samples reordered, split"),
    (scores_without_group_weights, ("huber, dense, offset",), "F with groups and their weights in other units"),
    (takes_the_first, ("squares",), "F with features and groups reordered"),
    (stops_at_an_absolute_size, ("squares|huber",), "F with (30 X|all weights over 50)"),
    (reads_sparse_wrong, ("poisson, sparse",), "F with X in the other layout"),
    (throws_dice, ("squares",), "the same question has two answers"),
    (differs_in_the_last_bit, ("squares",), "the same question has two answers"),
    (says("CONVERGED"), ("squares",), "status is 'CONVERGED'"),
    (says(Status.CONVERGED), ("squares",), "it says CONVERGED, but group"),
    (says(Status.MAX_EPOCHS), ("squares",), "status is MAX_EPOCHS"),
    (says(Status.STALLED), ("squares",), "status is STALLED"),
    (says(Status.OPTIMAL), ("squares",), "it says OPTIMAL, but gives no bound"),
    (says(Status.OPTIMAL, bound=lambda s: 0.9 * s.objective), ("huber",), "it says OPTIMAL, but F = .* and its bound"),
    (claims_a_poor_choice, ("squares",), r"it says OPTIMAL with F = .*, but groups \(.*\) give"),
    (bounds_too_high, ("logistic",), "the bound .* is above F"),
    (answers_for_another_k, ("squares",), "the solution's problem has k = 1"),
    (answers_for_other_groups, ("squares",), "the solution's problem has other groups"),
    (answers_without_ridge, ("squares, dense, ridge",), "the solution's problem has ridge 0.0"),
    (answers_other_samples, ("squares",), "the solution's problem is another one"),
    (solves_a_penalised_problem, ("squares",), "the solution's penalty is Penalty, not AtMost"),
    (flatters_itself, ("squares",), "the objective it reports"),
    (returns_nan, ("squares",), "w is not finite"),
    (returns_a_column, ("logistic",), r"w has shape \(15, 1\)"),
    (writes_into_the_weights, ("squares",), "the selector changed the problem"),
]


@pytest.mark.parametrize(
    ("selector", "words", "reason"),
    REJECTED,
    ids=[f"{selector.__name__}-{re.sub('[^a-z]+', '-', words[0])}" for selector, words, _ in REJECTED],
)
def test_a_wrong_selector_is_rejected(selector: Callable, words: tuple[str, ...], reason: str) -> None:
    problems = {name: replace(p, loss=replace(p.loss, s=p.loss.s.copy())) for name, p in only(*words).items()}
    with pytest.raises(AssertionError, match=reason) as rejected:
        check_selector(selector, problems, group_units=True)
    assert str(rejected.value).split(": ")[0] in problems, "the message names the problem"
