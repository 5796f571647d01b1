"""What is right is verified, for every kind of claim, loss and penalty, quickly, and by code that shares no formula."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csc_array
from verified_cases import ORTHO, REPORTS, RNG, X, Z, lasso, report, saved_in

from sparseopt import Problem, solve
from sparseopt.certificates import (
    Report,
    duality_gap,
    one_group_kkt,
    one_group_window,
    optimality_gap,
    separable_bound,
    stationarity,
    zero_groups,
)
from sparseopt.certificates.files import save_report

pytest.importorskip("flint")
from sparseopt.certificates.verify import verify


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return saved_in(tmp_path_factory.mktemp("reports"))


@pytest.mark.parametrize("kind", REPORTS)
def test_every_kind_is_verified(saved: Callable[[str], Path], kind: str) -> None:
    found = verify(saved(kind))
    assert found.ok, str(found)
    assert str(found).startswith("VERIFIED")
    assert [claim.outcome for claim in found.claims] == ["verified"]


VARIANTS = {
    "huber": {},
    "logistic": {"lam": 0.05},
    "poisson": {"lam": 0.2},
    "multinomial": {"lam": 0.05},
}


@pytest.mark.parametrize("loss", VARIANTS)
@pytest.mark.parametrize("intercept", [True, False])
def test_losses(tmp_path: Path, loss: str, intercept: bool) -> None:
    problem = lasso(loss, intercept=intercept, **VARIANTS[loss])
    makers = [duality_gap, stationarity, *([zero_groups] if loss != "poisson" else [])]
    if loss != "multinomial":
        makers += [one_group_window, one_group_kkt]
    check(report(problem, *makers), tmp_path)


@pytest.mark.parametrize(
    "options",
    {
        "l1": {"l1_ratio": 0.4},
        "ridge": {"ridge": 0.2},
        "both": {"l1_ratio": 0.3, "ridge": 0.1},
        "weights and offset": {"sample_weight": np.r_[0.0, RNG.random(39)], "offset": RNG.standard_normal(40)},
        "free groups": {"weights": [1.0, 1.0, 2.0, 0.0, 0.5, 1.0]},
        "sparse": {"X": csc_array(np.where(np.abs(X) > 0.7, X, 0.0))},
        "single": {"X": X.astype(np.float32)},
        "no penalty": {"lam": 0.0},
    }.items(),
    ids=lambda item: item[0],
)
@pytest.mark.parametrize("loss", ["squares", "logistic"])
def test_options(tmp_path: Path, options: tuple[str, dict[str, Any]], loss: str) -> None:
    given = dict(options[1])
    if loss == "logistic" and "lam" not in given:
        given["lam"] = 0.05
    if given.get("lam") == 0.0 and loss == "logistic":
        given["ridge"] = 0.1
    window = [one_group_window] if given.get("lam") != 0.0 else []
    check(report(lasso(loss, **given), duality_gap, stationarity, zero_groups, *window), tmp_path)


@pytest.mark.parametrize("name", ["power", "log", "expm1", "tl1", "laplace", "arctan"])
def test_problem_1_of_every_admissible_q(tmp_path: Path, name: str) -> None:
    check(
        report(lasso(penalty=name, composite=True, lam=0.2), optimality_gap, stationarity), tmp_path, stationary=False
    )


@pytest.mark.parametrize("name", ["power", "log", "expm1", "mcp", "scad", "capped", "tl1", "laplace", "arctan", "l0"])
def test_separable_penalties(tmp_path: Path, name: str) -> None:
    problem = lasso(penalty=name, lam=0.2, X=ORTHO, intercept=False)
    w = problem.penalty.prox(ORTHO.T @ Z / 40, 1.0)  # the minimiser: X'X / n = 1
    check(Report(problem, w, 0.0, (stationarity(problem, w), separable_bound(problem, w))), tmp_path)


def check(given: Report, tmp_path: Path, stationary: bool = True) -> None:
    save_report(given, tmp_path / "report.json")
    found = verify(tmp_path / "report.json")
    assert found.ok, str(found)
    for made, checked in zip(given, found.claims, strict=True):
        if made.verdict.ok:
            assert checked.outcome == "verified"
    assert not stationary or any(c.verdict.ok for c in given)


def test_claims_that_claim_nothing_are_no_refusal_and_no_proof(tmp_path: Path) -> None:
    problem = lasso(penalty="lambertw", composite=True)
    save_report(report(problem, optimality_gap), tmp_path / "none.json")
    found = verify(tmp_path / "none.json")
    assert not found.ok
    assert [claim.outcome for claim in found.claims] == ["nothing claimed"]


def test_a_large_group_lasso_is_verified_quickly(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    big = rng.standard_normal((200, 1000))
    problem = Problem.build(big, big[:, :10].sum(axis=1) + rng.standard_normal(200), 5, lam=0.3)
    at = solve(problem, tol=1e-12)
    given = [maker(problem, at.w, at.intercept) for maker in (duality_gap, zero_groups, one_group_window)]
    save_report(Report(problem, at.w, at.intercept, tuple(given)), tmp_path / "big.json")
    start = time.perf_counter()
    found = verify(tmp_path / "big.json")
    assert found.ok, str(found)
    assert time.perf_counter() - start < 20.0  # about 0.5 s on an idle machine
    assert found.claims[0].gap is not None
    assert found.claims[0].gap < 1e-10


def test_the_verifier_imports_no_maker(root: Path) -> None:
    """It shares no formula with what it checks."""
    import ast

    allowed = {"balance", "balls", "choices", "exact", "files", "hypotheses", "tolerance", "windows"}
    for name in allowed - {"files"} | {"verify"}:
        tree = ast.parse((root / "sparseopt" / "certificates" / f"{name}.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sparseopt"):
                assert node.module in {f"sparseopt.certificates.{x}" for x in allowed}, node.module
