"""Selectors: starts of any kind, wrong arguments in a sentence, and nothing to choose from."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from selection_cases import HEURISTICS, value

from sparseopt import Problem, Solution, Status, select
from sparseopt.selection import refit


def named_problem() -> Problem:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 12))
    groups = {name: [2 * g, 2 * g + 1] for g, name in enumerate(("age", "city", "dose", "site", "time", "unit"))}
    y = X[:, 0] + X[:, 5] - X[:, 6] + rng.normal(size=40)
    return Problem.build(X, y, groups, weights={"unit": 0.0})


@pytest.mark.parametrize("method", HEURISTICS)
def test_starts(method: str) -> None:
    """By solution, numbers or names, an always-in group among them or not."""
    problem = named_problem()
    k = 3
    starts: list[Any] = [["time", "city"], [4, 1], np.array([1, 4]), {4, 1}, [4, 1, 5], ("unit", "time", 1), [1, 1, 4]]
    starts.append(Solution(refit(problem, [1, 4]).W[:, 0], 0.0, problem, Status.LOCAL))
    found = [select(problem, k, method, start=start) for start in starts]
    for solution in found:
        assert solution.objective == found[0].objective
        assert solution.objective <= value(problem, [1, 4]) * (1.0 + 1e-12)
        assert np.count_nonzero(solution.support != 5) <= k


@pytest.mark.parametrize("method", ["omp", "sequential"])
def test_growing_methods_keep_their_start(method: str) -> None:
    assert {1, 4} <= set(select(named_problem(), 3, method, start=[1, 4]).support.tolist())


@pytest.mark.parametrize("method", HEURISTICS)
def test_a_start_of_too_many_groups_is_pruned(method: str) -> None:
    problem = named_problem()
    for k in (0, 1, 2):
        solution = select(problem, k, method, start=[1, 3, 4])
        assert np.count_nonzero(solution.support != 5) == k
        assert solution.objective <= min(value(problem, c) for c in combinations((1, 3, 4), k)) * (1.0 + 1e-12)


ERRORS: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("k", {"k": -1}, ValueError, "k is -1: pass .* >= 0."),
    ("k", {"k": 1.5}, TypeError, "k must be .*, got 1.5.*"),
    ("k", {"k": True}, TypeError, "k must be .*, got True.*"),
    ("method", {"method": "opm"}, ValueError, "method is 'opm', which is unknown: did you mean 'omp'?"),
    ("method", {"method": "???"}, ValueError, "method is '???', which is unknown: choose one of 'splicing', .*"),
    ("method", {"method": None}, ValueError, "method is None, which is unknown: .*"),
    ("option", {"depth": 3}, TypeError, "option 'depth' is unknown to splicing: it takes exchange, max_steps.*"),
    ("option", {"method": "omp", "share": 0.5}, TypeError, "option 'share' is unknown to omp: it takes by."),
    ("exchange", {"exchange": 0}, ValueError, "exchange is 0: pass the number of groups .*, at least 1."),
    ("by", {"method": "omp", "by": "loss"}, ValueError, "by is 'loss', which is unknown: choose 'score' or 'gain'."),
    ("by", {"method": "ompr", "by": "loss"}, ValueError, "by is 'loss', which is unknown: choose 'score' or 'q'."),
    (
        "by",
        {"method": "sequential", "by": 1},
        ValueError,
        "by is 1, which is unknown: choose 'lasso', 'q' or 'softmax'.",
    ),
    ("share", {"method": "forward-backward", "share": 1.0}, ValueError, "share is 1.0: pass a number between 0 and 1."),
    ("lam_share", {"method": "ompr", "lam_share": 1.0}, ValueError, "lam_share is 1.0: pass a share .*"),
    ("lam_share", {"method": "sequential", "lam_share": 0.0}, ValueError, "lam_share is 0.0: pass a share .*"),
    ("decay", {"method": "sequential", "by": "softmax", "decay": 0.0}, ValueError, "decay is 0.0: pass a number > 0."),
    ("penalty", {"method": "ompr", "by": "q", "penalty": "lgo"}, ValueError, ".*lgo.*"),
    ("start", {"start": [6]}, ValueError, "start contains the group 6: pass numbers from 0 to 5, or names."),
    ("start", {"start": [-1]}, ValueError, "start contains the group -1: pass numbers from 0 to 5, or names."),
    ("start", {"start": [1.5]}, (ValueError, TypeError), "start .*"),
    ("start", {"start": [None]}, (ValueError, TypeError), "start .*"),
    ("start", {"start": 2}, (ValueError, TypeError), "start .*"),
    ("start", {"start": "city"}, (ValueError, TypeError), "start .*"),
    (
        "start",
        {"start": ["cty"]},
        ValueError,
        "start names the group 'cty', .*: did you mean 'city'?",
    ),
    ("start", {"start": ["xyz"]}, ValueError, "start names the group 'xyz', .*: see problem.groups.names."),
]


@pytest.mark.parametrize(
    ("argument", "settings", "error", "sentence"), ERRORS, ids=[f"{row[0]}-{at}" for at, row in enumerate(ERRORS)]
)
def test_errors(argument: str, settings: dict[str, Any], error: Any, sentence: str) -> None:
    with pytest.raises(error) as raised:
        select(named_problem(), **({"k": 2} | settings))
    said = str(raised.value)
    pattern = sentence.replace("?", r"\?").replace("(", r"\(")
    assert re.fullmatch(pattern, said), said
    assert said.startswith((argument, "option", "penalty")) or argument == "penalty", said
    assert said.endswith((".", "?"))
    assert "\n" not in said


def test_nothing_to_choose_from() -> None:
    rng = np.random.default_rng(0)
    problem = Problem.build(rng.normal(size=(20, 4)), rng.normal(size=20), groups=2, weights=[0.0, 0.0])
    for method in HEURISTICS:
        solution = select(problem, 2, method)
        assert solution.objective == pytest.approx(value(problem, []), rel=1e-12)
        assert solution.status.ok
