"""The benchmark judges right: its evaluator bounds the optimum, and only accurate answers in time pass.

Oracles: closed forms for orthonormal designs, CVXPY, and weak duality between arbitrary points.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseopt.experiments import bench_solvers, problems, race
from sparseopt.experiments.problems import PROBLEMS, Instance, evaluate, lam_max, make
from sparseopt.experiments.race import TARGET, Answer, Entrant, Failure, OverBudget, Process, Row, accuracy

KINDS = ("squares", "responses", "logistic", "sgl")


def small(kind: str, seed: int = 0) -> Instance:
    """12 samples of 8 columns in groups of 3, 1, 2, 2."""
    rng = np.random.default_rng(seed)
    X = np.asfortranarray(rng.standard_normal((12, 8)))
    Y = rng.standard_normal((12, 3 if kind == "responses" else 1))
    loss = "logistic" if kind == "logistic" else "squares"
    Y = np.asfortranarray((Y > 0.0).astype(float) if kind == "logistic" else Y)
    return Instance(kind, X, Y, np.array([3, 1, 2, 2]), loss, 0.4 if kind == "sgl" else 0.0)


# -- the evaluator -----------------------------------------------------------------------------------------------------


def test_values_computed_by_hand() -> None:
    # ||(3, 4) - w||^2 / 4 + lam sqrt(2) ||w||: w shrinks (3, 4) by 2 sqrt(2) lam = 1, to 4/5 of itself.
    one = Instance("one", np.eye(2), np.array([[3.0], [4.0]]), np.array([2]))
    lam = 1.0 / (2.0 * np.sqrt(2.0))
    primal, dual = evaluate(one, [lam, lam], [[[2.4], [3.2]], [[0.0], [0.0]]])
    np.testing.assert_allclose(primal, [1 / 4 + 4 / 2, 25 / 4])
    # At 0 the residual (3, 4) of norm 5 must shrink to norm 1: D = <r, y> / 2 - ||r||^2 / 4 = 5/2 - 1/4.
    np.testing.assert_allclose(dual, [2.25, 2.25])

    # log(1 + e^z) - z at z = 1 with lam = 1/10; the derivative -1 / (1 + e) must shrink to -1/10.
    one = Instance("one", np.eye(1), np.ones((1, 1)), np.array([1]), "logistic")
    primal, dual = evaluate(one, [0.1], [[[1.0]]])
    np.testing.assert_allclose(primal, [np.log(1.0 + np.exp(-1.0)) + 0.1])
    np.testing.assert_allclose(dual, [-(0.9 * np.log(0.9) + 0.1 * np.log(0.1))])

    # (4 - w)^2 / 2 + lam |w| whatever the share of the l1 norm; w = 2 is optimal for lam = 2.
    one = Instance("one", np.eye(1), np.array([[4.0]]), np.array([1]), "squares", 0.3)
    np.testing.assert_allclose(evaluate(one, [2.0], [[[2.0]]]), [[6.0], [6.0]], rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_meet_at_the_optimum_of_cvxpy(kind: str) -> None:
    cp = pytest.importorskip("cvxpy")
    problem = small(kind)
    lam, (n, K) = 0.3 * lam_max(problem), problem.Y.shape
    W = cp.Variable((8, K))
    if kind == "logistic":
        loss = cp.sum(cp.logistic(problem.X @ W) - cp.multiply(problem.Y, problem.X @ W)) / n
    else:
        loss = cp.sum_squares(problem.X @ W - problem.Y) / (2 * n)
    blocks = [cp.norm(W[a : a + d], "fro") * d**0.5 for a, d in zip(problem.starts, problem.sizes, strict=True)]
    a = problem.l1_ratio
    penalty = (1 - a) * sum(blocks) + a * cp.sum(cp.abs(W))
    optimum = cp.Problem(cp.Minimize(loss + lam * penalty)).solve(solver="CLARABEL")
    primal, dual = evaluate(problem, [lam], W.value[None])
    assert primal[0] == pytest.approx(optimum, rel=1e-7)
    assert dual[0] == pytest.approx(optimum, rel=1e-4)  # the dual point is as good as the square root of the gap


def crossed(judge: Callable[..., Any], kind: str, seed: int) -> bool:
    """Whether a lower bound from one point lies above the objective at another."""
    problem = small(kind, seed)
    rng = np.random.default_rng(seed)
    top = lam_max(problem)
    lams = top * rng.choice([0.01, 0.1, 0.5, 1.0], 6)
    start = rng.standard_normal((6, 8, problem.Y.shape[1])) * rng.choice([0.0, 0.01, 1.0], (6, 8, 1))
    bound = judge(problem, lams, start)[1]
    low = np.full(6, np.inf)
    for scale in (0.0, 0.03, 0.1, 0.3, 1.0):
        low = np.minimum(low, judge(problem, lams, scale * start)[0])
    ridge = np.linalg.lstsq(problem.X, problem.Y, rcond=None)[0]
    for scale in (0.03, 0.1, 0.3, 1.0):
        low = np.minimum(low, judge(problem, lams, np.broadcast_to(scale * ridge, start.shape))[0])
    return bool((bound > low * (1.0 + 1e-12)).any())


@settings(max_examples=50)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 10_000))
def test_no_bound_exceeds_any_objective(kind: str, seed: int) -> None:
    assert not crossed(evaluate, kind, seed)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bound_that_ignores_the_constraints_is_rejected(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problems, "_scale", lambda V, lams, best, instance: best)
    assert any(crossed(evaluate, kind, seed) for seed in range(20))


@pytest.mark.parametrize("kind", KINDS)
def test_lam_max_is_where_zero_stops_being_optimal(kind: str) -> None:
    problem = small(kind)
    top = lam_max(problem)
    primal, dual = evaluate(problem, top * np.array([1.0 + 1e-9, 0.99]), np.zeros((2, 8, problem.Y.shape[1])))
    gap = (primal - dual) / dual
    assert gap[0] < 1e-12
    assert gap[1] > 1e-6


def test_an_answer_that_is_not_finite_never_passes() -> None:
    problem = small("squares")
    primal, dual = evaluate(problem, [0.1, 0.1], np.stack([np.full((8, 1), np.nan), np.zeros((8, 1))]))
    assert primal[0] == np.inf
    assert dual[0] == 0.0
    assert np.isfinite(primal[1])
    assert accuracy(primal, np.maximum(dual, dual[1])) == np.inf


@pytest.mark.parametrize("name", ["dense", "sparse", "multitask", "logistic"])
def test_a_saved_problem_is_the_same(name: str, tmp_path: Path) -> None:
    made, again = make(name, 1), make(name, 1)
    made.save(tmp_path / "here")
    read = Instance.load(tmp_path / "here")
    for other in (again, read):
        assert abs(made.X - other.X).max() == 0.0
        np.testing.assert_array_equal(made.Y, other.Y)
        np.testing.assert_array_equal(made.sizes, other.sizes)
        assert (made.loss, made.l1_ratio, made.ratio) == (other.loss, other.l1_ratio, other.ratio)
    if not read.is_sparse:
        assert read.X.flags.f_contiguous
        assert read.X.flags.writeable


def test_every_problem_is_what_its_name_says() -> None:
    made = {name: make(name, 1) for name in PROBLEMS}
    assert all(problem.X.shape[1] == problem.sizes.sum() for problem in made.values())
    assert made["tall"].X.shape[0] > made["tall"].X.shape[1]
    assert len(set(made["unequal"].sizes)) > 10
    assert made["sparse"].is_sparse
    assert made["sparse"].X.nnz / np.prod(made["sparse"].X.shape) == pytest.approx(0.005, rel=0.2)
    assert set(np.unique(made["logistic"].Y)) == {0.0, 1.0}
    assert made["multitask"].Y.shape[1] == 20
    inside = np.corrcoef(made["corr"].X[:, :6].T)
    assert inside[0, 4] == pytest.approx(0.9, abs=0.1)
    assert abs(inside[0, 5]) < 0.4
    with pytest.raises(ValueError, match=r"'dence'.*choose one of dense"):
        make("dence")


# -- the race ----------------------------------------------------------------------------------------------------------


class Fake:
    """Answers w* (1 + e) for identity designs, e = error(k), in one second; `refuse` says where it gives up."""

    cold = 0.1

    def __init__(
        self, error: Callable[[int], float], refuse: Callable[[int], Exception | None] = lambda k: None
    ) -> None:
        self.error, self.refuse, self.asked = error, refuse, list[int]()

    def ask(self, lams: Any, tol: float, limit: float) -> Answer:
        k = round(-np.log10(tol))
        self.asked.append(k)
        reason = self.refuse(k)
        if reason is not None or limit < 1.0:
            raise reason or OverBudget
        return Answer(1.0, 10 * k, np.stack([optimum(lam) * (1.0 + self.error(k)) for lam in lams]))


ORTHONORMAL = Instance("one", np.eye(6), np.arange(1.0, 7.0)[:, None], np.array([2, 2, 2]))
LAMS = np.array([0.6, 0.3])


def optimum(lam: float) -> Any:
    blocks = ORTHONORMAL.Y.reshape(3, 2)
    norms = np.linalg.norm(blocks, axis=1, keepdims=True)
    return (blocks * np.maximum(1.0 - 6 * lam * np.sqrt(2.0) / norms, 0.0)).reshape(6, 1)


def run(budget: float = 100.0, repeats: int = 2, **fakes: Fake) -> dict[str, Row]:
    entrants = [Entrant(name, fake, budget) for name, fake in fakes.items()]
    return {row.name: row for row in race.race(ORTHONORMAL, "path", LAMS, entrants, repeats)}


def expected(error: float) -> float:
    """F(w* (1 + e)) - F(w*) = e^2 ||X w*||^2 / (2n), because the derivative along w* vanishes."""
    values = []
    for lam in LAMS:
        w = optimum(lam)
        best = ((w - ORTHONORMAL.Y) ** 2).sum() / 12
        best += lam * np.sqrt(2.0) * np.linalg.norm(w.reshape(3, 2), axis=1).sum()
        values.append(error**2 * (w**2).sum() / 12 / best)
    return float(max(values))


def test_the_loosest_tolerance_that_passes_is_timed() -> None:
    rows = run(sparseopt=Fake(lambda k: 10.0**-k), celer=Fake(lambda k: 0.1 * 10.0**-k))
    assert expected(1e-2) > TARGET > expected(1e-3)
    assert rows["sparseopt"] == Row(
        "one", "path", "sparseopt", "passed", 1.0, 2, pytest.approx(rows["sparseopt"].accuracy), 1e-3, 30, 0.1
    )
    assert rows["celer"].tol == 1e-2
    assert rows["celer"].status == "passed"
    for row in rows.values():
        assert row.accuracy == pytest.approx(expected(1e-3), abs=1e-7)


def test_a_wrong_answer_does_not_pass_at_any_tolerance() -> None:
    rows = run(sparseopt=Fake(lambda k: 10.0**-k), celer=Fake(lambda k: 3e-3))
    assert expected(3e-3) > TARGET
    assert rows["celer"].status == "not accurate"
    assert rows["celer"].accuracy == pytest.approx(expected(3e-3), rel=0.1)
    assert rows["sparseopt"].status == "passed"


def test_runs_alternate() -> None:
    order: list[str] = []
    fakes = {name: Fake(lambda k: 10.0**-k) for name in ("sparseopt", "celer")}
    for name, fake in fakes.items():
        fake.refuse = lambda k, name=name: order.append(name)  # type: ignore[misc, func-returns-value]
    run(repeats=3, **fakes)
    assert order[-6:] == ["sparseopt", "celer"] * 3


def test_a_competitor_over_budget_is_reported_with_what_it_reached() -> None:
    slow = Fake(lambda k: 10.0 ** (1 - k), lambda k: OverBudget() if k > 3 else None)
    rows = run(sparseopt=Fake(lambda k: 10.0**-k), celer=slow)
    assert rows["celer"].status == "over budget"
    assert rows["celer"].accuracy == pytest.approx(expected(1e-2), rel=0.1)
    assert rows["celer"].tol == 1e-3
    assert slow.asked == [3, 4]


def test_without_time_for_repeats_the_search_counts() -> None:
    fake = Fake(lambda k: 10.0**-k)
    row = run(budget=2.5, sparseopt=fake)["sparseopt"]
    assert (row.status, row.seconds, row.repeats) == ("passed", 1.0, 1)
    assert fake.asked == [8, 3, 2]  # the free sharp run, the first tolerance, one that is looser


def test_a_failure_is_a_result() -> None:
    rows = run(sparseopt=Fake(lambda k: 10.0**-k), celer=Fake(lambda k: 0.0, lambda k: Failure("ValueError: no")))
    assert rows["celer"].status == "failed: ValueError: no"
    assert rows["sparseopt"].status == "passed"


# -- whole runs --------------------------------------------------------------------------------------------------------


def bench(tmp_path: Path, *arguments: str) -> dict[tuple[str, str], dict[str, Any]]:
    file = tmp_path / "rows.json"
    assert bench_solvers.main([*arguments, "--quick", "--repeats", "1", "--json", str(file)]) == 0
    return {(row["task"], row["name"]): row for row in json.loads(file.read_text(encoding="utf-8"))["rows"]}


def test_a_quick_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bench_solvers, "find_spec", lambda package: None if package == "celer" else package)
    rows = bench(tmp_path, "--problems", "multitask", "--peers", "sparseopt", "sklearn", "celer")
    for name in ("sparseopt", "sklearn"):
        row = rows["path", name]
        assert row["status"] == "passed"
        assert row["accuracy"] <= TARGET
        assert row["seconds"] > 0.0
        assert row["epochs"] > 0
        assert row["cold"] > 0.0
    assert rows["path", "celer"]["status"] == "not installed"
    printed = capsys.readouterr().out
    assert "multitask path: X 50 x 200, 200 groups" in printed
    assert "x sklearn (float64" in printed


def test_single_lams_and_a_real_process_over_budget(tmp_path: Path) -> None:
    rows = bench(tmp_path, "--problems", "multitask", "--peers", "sklearn", "--task", "single", "--budget", "0")
    assert {status["status"] for status in rows.values()} == {"over budget"}
    assert {task for task, _ in rows} == {"lambda_max/10", "lambda_max/20"}


def test_a_process_that_cannot_start_is_a_failure(tmp_path: Path) -> None:
    process = Process("sklearn", tmp_path)
    with pytest.raises(Failure, match="FileNotFoundError"):
        process.ask(np.ones(1), 1e-3, 10.0)


def test_tables_put_the_fastest_first() -> None:
    rows = [
        Row("dense", "path", "celer", "passed", 2.0, 3, 1e-8, 1e-5, None, 1.0),
        Row("dense", "path", "sparseopt", "passed", 0.5, 3, 1e-7, 1e-3, 200, 0.6),
        Row("dense", "path", "sparseopt_f32", "over budget"),
        Row("dense", "path", "skglm", "not installed"),
    ]
    lines = [line.split() for line in bench_solvers.table(rows).splitlines()]
    assert lines[1] == ["sparseopt", "0.5", "1.00", "1e-07", "1e-03", "200", "0.6", "3"]
    assert lines[2][:3] == ["celer", "2", "4.00"]
    assert lines[3][-2:] == ["over", "budget"]
    assert lines[4][-2:] == ["not", "installed"]
    assert bench_solvers.summary(rows) == "dense path: sparseopt 0.25 x celer (float64 0.25, float32 -)"
    assert bench_solvers.summary(rows[1:]) == "dense path: no peer passed"
    assert bench_solvers.summary(rows[:1]) == "dense path: sparseopt did not pass"
