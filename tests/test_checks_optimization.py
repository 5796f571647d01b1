"""The checks about optimization: what they find is as predicted and repeats, and wrong software turns them red."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from sparseopt import L0, MCP, Capped, LambertW, TransformedL1, solve
from sparseopt.certificates.secants import Secants
from sparseopt.proofs_checks.evidence import Evidence, Verdict
from sparseopt.proofs_checks.figures import svg
from sparseopt.proofs_checks.instances import (
    INSTANCE_H,
    broken,
    composite,
    failing_hypothesis,
    lowest,
    one_group,
    squares,
)
from sparseopt.proofs_checks.running import as_json, run, statement
from sparseopt.solution import ConvergenceWarning

NAMES = (
    "unique_minimiser",
    "dropped_hypotheses",
    "one_group_window",
    "argmax_outside_window",
    "sequential_selection",
    "omp_rate",
    "ompr_rate",
    "block_coherence",
    "stationarity_identity",
    "optimality_gap",
    "separable_bound",
    "sparse_stationary_points",
)
pytest.importorskip("cvxpy")
pytest.importorskip("flint")
pytest.importorskip("matplotlib")


@lru_cache
def found(name: str) -> Evidence:
    (evidence,) = run([name])
    return evidence


def reds(name: str) -> list[str]:
    """The claims of a fresh run that did not come out as predicted."""
    (evidence,) = run([name])
    return [finding.claim for finding in evidence.findings if not finding.as_expected]


@pytest.mark.parametrize("name", NAMES)
def test_the_theory_is_confirmed(name: str) -> None:
    evidence = found(name)
    wrong = [(f.claim, f.verdict, f.violation, f.detail) for f in evidence.findings if not f.as_expected]
    assert not wrong
    assert all(finding.tried > 0 for finding in evidence.findings)


# The slower ones are left to `make test-slow`; test_checks_cli.py repeats some in processes of their own each time.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("unique_minimiser", "stationarity_identity") else [pytest.mark.slow])
        for name in NAMES
    ],
)
def test_the_same_seed_gives_the_same_evidence(name: str) -> None:
    assert as_json([found(name)], "small", 0) == as_json(run([name]), "small", 0)


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_is_drawn(name: str) -> None:
    about = statement(name)
    assert about.caption.endswith(".")
    assert svg(about.figure(found(name)), name).startswith("<svg")


@pytest.mark.parametrize("name", NAMES)
def test_every_statement_has_a_control(name: str) -> None:
    controls = [f for f in found(name).findings if f.expected is Verdict.REFUTED]
    assert controls
    assert all(f.detail for f in controls)


def test_what_is_refuted_as_printed_says_what_holds() -> None:
    said = {name: [f for f in found(name).findings if f.printed] for name in NAMES}
    assert {name for name, findings in said.items() if findings} == {
        "dropped_hypotheses",
        "one_group_window",
        "argmax_outside_window",
        "ompr_rate",
    }
    assert all(f.corrected and f.verdict is Verdict.REFUTED for findings in said.values() for f in findings)


# -- regularizers of one's own -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["unique_minimiser", "optimality_gap", "separable_bound"])
def test_a_regularizer_that_is_not_subadditive_is_refuted_by_an_instance(name: str) -> None:
    (evidence,) = run([name], regularizer=LambertW())
    (finding,) = [f for f in evidence.findings if "LambertW" in f.claim]
    assert finding.verdict is Verdict.REFUTED
    assert evidence.as_expected
    assert "Counterexample" in finding.detail


@pytest.mark.parametrize("name", ["unique_minimiser", "optimality_gap"])
@pytest.mark.parametrize("q", [MCP(2.0), L0()], ids=repr)
def test_a_regularizer_that_is_not_increasing_is_refuted_too(name: str, q: Any) -> None:
    (evidence,) = run([name], regularizer=q)
    (finding,) = [f for f in evidence.findings if repr(q) in f.claim]
    assert finding.verdict is Verdict.REFUTED
    assert "not strictly increasing" in finding.detail


def test_an_admissible_regularizer_passes() -> None:
    for name in ("optimality_gap", "separable_bound"):
        (evidence,) = run([name], regularizer=TransformedL1(0.5))
        assert evidence.as_expected
        assert any("TransformedL1(c=0.5)" in f.claim for f in evidence.findings)


def test_which_checks_take_a_regularizer() -> None:
    assert {name for name in NAMES if statement(name).takes_regularizer} == {
        "unique_minimiser",
        "optimality_gap",
        "separable_bound",
    }


# -- wrong software ----------------------------------------------------------------------------------------------------


class _Numpy:
    """NumPy with one function exchanged."""

    def __init__(self, **exchanged: Any) -> None:
        self.__dict__.update(exchanged)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def _early(accuracy: float) -> Callable[..., Any]:
    def stops_early(problem: Any, start: Any = None, tol: float = 0.0) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return solve(problem, start, tol=accuracy, max_epochs=1)

    return stops_early


def _module(name: str) -> Any:
    return import_module(f"sparseopt.proofs_checks.{name}")


def _claims_too_many_zeros(patch: pytest.MonkeyPatch) -> None:
    def reckless(problem: Any, point: Any, gap: float) -> Any:
        zero = np.ones(len(problem.groups), dtype=bool)
        zero[int(np.argmax(point.norms))] = False
        return zero, 0.0

    patch.setattr("sparseopt.certificates.onegroup.gap_safe", reckless)


def _groups_solved_loosely(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_module("unique_minimiser"), "solved", _early(0.3))


def _penalty_is_concave(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LambertW, "value", lambda self, u: np.sqrt(u))
    patch.setattr(LambertW, "inverse", lambda self, v: np.square(v))


def _window_too_wide(patch: pytest.MonkeyPatch) -> None:
    right = Secants.moduli
    patch.setattr(Secants, "moduli", lambda self, i, r: (right(self, i, r)[0], 0.1 * right(self, i, r)[1]))


def _path_stops_early(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_module("argmax_outside_window"), "solved", _early(0.5))


def _second_choice(patch: pytest.MonkeyPatch) -> None:
    # The package's attribute of that name is the function.
    module = import_module("sparseopt.selection.sequential")
    second = lambda fit, q, lam_share: int(fit.outside[np.argsort(fit.scores[fit.outside])[-2]])  # noqa: E731
    patch.setattr(module, "next_by_penalty", second)


def _greedy_takes_the_least(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("sparseopt.selection.greedy.np", _Numpy(argmax=np.argmin))


def _replaces_the_wrong_member(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("sparseopt.selection.replacement.np", _Numpy(argmin=np.argmax))


def _descent_stops_early(name: str) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(_module(name), "solved", _early(0.1))


def _bound_too_high(patch: pytest.MonkeyPatch) -> None:
    from sparseopt.certificates.duals import lower_bound

    for user in ("optimal", "bounds"):
        patch.setattr(f"sparseopt.certificates.{user}.lower_bound", lambda p, at: 1.02 * lower_bound(p, at) + 1e-3)


def _prox_of_something_else(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Capped, "prox", lambda self, u, t: np.maximum(u - 0.5 * t, 0.0))


WRONG: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], None], str]] = {
    "a certificate that claims too many zeros": ("unique_minimiser", _claims_too_many_zeros, "certifies"),
    "a group lasso that is not solved": ("unique_minimiser", _groups_solved_loosely, "CVXPY"),
    "a regularizer that is another one": ("dropped_hypotheses", _penalty_is_concave, "Lambert-W"),
    "a certificate with a wrong constant": ("one_group_window", _window_too_wide, "verified in ball arithmetic"),
    "a path that stops early": ("argmax_outside_window", _path_stops_early, "all four ranges"),
    "sequential selection takes the second": ("sequential_selection", _second_choice, "group lasso takes the groups"),
    "OMP takes the least": ("omp_rate", _greedy_takes_the_least, "every step"),
    "OMPR replaces the wrong member": ("ompr_rate", _replaces_the_wrong_member, "every replacement"),
    "OMP takes the least of planted groups": ("block_coherence", _greedy_takes_the_least, "planted"),
    "descent stops early": ("stationarity_identity", _descent_stops_early("stationarity_identity"), "||grad_g L||"),
    "a bound that is too high": ("optimality_gap", _bound_too_high, "D <= OPT(1)"),
    "a bound that is too high, separable": ("separable_bound", _bound_too_high, "below the optimum"),
    "a prox that is wrong": ("separable_bound", _prox_of_something_else, "the prox"),
    "descent stops before it is stationary": (
        "sparse_stationary_points",
        _descent_stops_early("sparse_stationary_points"),
        "|A| <=",
    ),
}


@pytest.mark.parametrize(("name", "spoil", "claim"), WRONG.values(), ids=WRONG)
def test_wrong_software_is_seen(
    name: str, spoil: Callable[[pytest.MonkeyPatch], None], claim: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch)
    wrong = reds(name)
    assert any(claim in red for red in wrong), wrong


# -- the instances -----------------------------------------------------------------------------------------------------


def test_the_plane_minimum_is_found_on_an_axis_and_inside() -> None:
    assert lowest(lambda a, b: (a - 1.0) ** 2 + b, 3.0) == pytest.approx((0.0, 1.0, 0.0), abs=1e-9)
    assert lowest(lambda a, b: (a - 1.0) ** 2 + (b - np.pi / 2.0) ** 2, 3.0)[2] == pytest.approx(np.pi / 2.0, abs=1e-8)


def test_one_group_is_what_the_solver_finds() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 3)), rng.normal(size=20)
    b = one_group(X.T @ X, X.T @ y, 0.7)
    assert b == pytest.approx(solve(squares(X, y, 3, 0.7), tol=1e-13).w, abs=1e-7)
    assert not one_group(X.T @ X, X.T @ y, 1e3).any()


def test_instance_h_has_the_numbers_of_the_theory() -> None:
    X, y = INSTANCE_H
    assert X.T @ X == pytest.approx(np.array([[1.0, 0.45], [0.45, 0.25]]))
    assert X.T @ y == pytest.approx(np.array([1.0, 0.95]))


def test_hypotheses_and_counterexamples_agree() -> None:
    assert broken(TransformedL1(1.0)) is None
    assert failing_hypothesis(TransformedL1(1.0)) == ""
    assert "not subadditive" in failing_hypothesis(LambertW())
    below, where = broken(LambertW()) or (0.0, "")
    assert below > 0.05
    assert "below" in where
    assert composite(LambertW(), 1.0, 1.0) < 2.0
