"""The benchmark of selectors judges right: refits, counts of groups, who wins, and what it says of those that fail.

Oracles: closed forms for orthonormal designs, scikit-learn, choices made by hand.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from sparseopt.experiments import bench_selection, contenders
from sparseopt.experiments.bench_selection import Row, refitted_loss, rows_of, table
from sparseopt.experiments.contenders import CASES, SELECTORS, Case, Contender
from sparseopt.experiments.problems import Instance

TINY = Case(40, n_groups=8, active=2, rho=0.0, snr=10.0)


# -- the judge ---------------------------------------------------------------------------------------------------------


def test_refits_of_an_orthonormal_design() -> None:
    Q = np.linalg.qr(np.random.default_rng(0).standard_normal((12, 6)))[0]
    y = Q @ np.arange(1.0, 7.0)
    instance = Instance("one", Q, y[:, None], np.array([2, 1, 3]))
    for chosen, left in (([], 91), ([0], 86), ([1, 2], 5), ([0, 1, 2], 0)):
        assert refitted_loss(instance, np.array(chosen, np.int64)) == pytest.approx(left / 24, abs=1e-14)


def test_refits_of_a_logistic_model() -> None:
    from sklearn.linear_model import LogisticRegression

    instance, _ = Case(80, n_groups=4, active=2, loss="logistic").make(seed=0)
    X, y = instance.X[:, 5:15], instance.y
    w = LogisticRegression(C=1e8, fit_intercept=False, tol=1e-10, max_iter=10_000).fit(X, y).coef_[0]
    best = np.mean(np.logaddexp(0.0, X @ w) - y * (X @ w))
    assert refitted_loss(instance, np.array([1, 2])) == pytest.approx(best, rel=1e-6)
    assert refitted_loss(instance, np.array([1, 2])) <= best * (1.0 + 1e-12)
    assert refitted_loss(instance, np.zeros(0, np.int64)) == pytest.approx(np.log(2.0))


def test_refits_of_separable_classes_and_repeated_columns_end() -> None:
    x = np.linspace(-1.0, 1.0, 10)
    X, y = np.column_stack([x, x, np.ones(10)]), (x > 0.0).astype(float)
    assert refitted_loss(Instance("one", X, y[:, None], np.array([2, 1]), "logistic"), np.array([0, 1])) < 1e-6
    assert refitted_loss(Instance("one", X, x[:, None], np.array([2, 1])), np.array([0])) < 1e-25


# -- counts ------------------------------------------------------------------------------------------------------------


def contender(name: str, seconds: float, *choices: list[int], trouble: str = "") -> Contender:
    made = Contender(name, TINY, "given", 1.0, first=9.0, trouble=trouble)
    made.choices = {seed: np.array(chosen) for seed, chosen in enumerate(choices)}
    made.times = {seed: [seconds, seconds, 100.0] for seed in range(len(choices))}
    return made


# y = e_1 + 2 e_2 + 3 e_3: the loss of a choice is the sum of the squares left, over six.
THREE = Instance("three", np.eye(3), np.array([[1.0], [2.0], [3.0]]), np.array([1, 1, 1]))
PROBLEMS = {seed: (THREE, np.array([1, 2])) for seed in (0, 1)}


def test_groups_losses_and_times_are_counted() -> None:
    entrants = [contender("splicing", 2.0, [1, 2], [0, 1]), contender("abess", 4.0, [0, 2], [0, 2])]
    own, peer = rows_of("mid", "given", entrants, PROBLEMS)
    assert own == Row("mid", "given", "splicing", "passed", 2, 0.5, 1.5, 0.5, 1, 0, 0, 2.0, 0.5, 9.0)
    assert peer == Row("mid", "given", "abess", "passed", 2, 0.0, 1.0, 1.0, 1, 1, 1, 4.0, 1.0, 9.0)


def test_losses_of_different_sizes_are_not_compared() -> None:
    entrants = [contender("splicing-bic", 2.0, [1, 2], [2]), contender("abess", 4.0, [], [0, 1, 2])]
    for row in rows_of("mid", "chosen", entrants, PROBLEMS):
        assert (row.best, row.smaller, row.larger) == (None, None, None)
    assert [row.exact for row in rows_of("mid", "chosen", entrants, PROBLEMS)] == [0.5, 0.0]


def test_the_ratio_is_to_the_fastest_peer_that_answered() -> None:
    entrants = [contender("splicing", 2.0, [1, 2]), contender("abess", 1.0, trouble="failed: ValueError: no")]
    rows = rows_of("mid", "given", [*entrants, contender("skscope-omp", 8.0, [1, 2])], PROBLEMS)
    assert [row.ratio for row in rows] == [0.25, None, 1.0]
    lines = [line.split() for line in table(rows).splitlines()]
    assert lines[1] == "splicing 1 1.00 2.00 0.00 1 0 0 2 0.25 9".split()
    assert lines[2][-4:] == ["9", "failed:", "ValueError:", "no"]
    assert [row.ratio for row in rows_of("mid", "given", entrants, PROBLEMS)] == [None, None]


# -- processes and whole runs ------------------------------------------------------------------------------------------


def test_failures_and_slow_calls_are_results(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Contender("nobody", TINY, "given", 5.0)
    failing.ask(0)
    failing.ask(0)
    failing.stop()
    assert failing.trouble == "failed: KeyError: 'nobody'"
    assert failing.choices == {}
    monkeypatch.setattr(contenders, "_answer", time.sleep)  # a wrong number of arguments: raises in the process
    broken = Contender("splicing", TINY, "given", 5.0)
    broken.ask(0)
    broken.stop()
    assert broken.trouble.startswith("failed: TypeError")
    slow = Contender("omp", TINY, "given", 0.0)
    monkeypatch.undo()
    slow.ask(0)
    slow.stop()
    assert slow.trouble == "over budget"
    assert slow.first is not None


def test_cases_are_what_the_table_says() -> None:
    for case in (*CASES.values(), TINY):
        small = case.quick() if case is not TINY else case
        instance, truth = small.make(seed=3)
        assert instance.X.shape == (small.n, 5 * small.n_groups)
        assert len(truth) == case.active
        again, _ = small.make(seed=3)
        np.testing.assert_array_equal(instance.X, again.X)
        np.testing.assert_array_equal(instance.Y, again.Y)
    assert TINY.sizes("given") == [2]
    assert TINY.sizes("chosen") == [0, 1, 2, 3, 4]
    assert TINY.sizes("range") == [1, 2, 3, 4, 5, 6, 7]
    assert {task for selector in SELECTORS.values() for task in selector.tasks} == set(bench_selection.TASKS)


def test_a_quick_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bench_selection, "find_spec", lambda package: None if package == "abess" else package)
    monkeypatch.setattr(bench_selection, "CASES", {"mid": TINY._replace(n=80, n_groups=32)})
    file = tmp_path / "rows.json"
    names = ["splicing", "splicing-bic", "omp", "abess"]
    arguments = ["--cases", "mid", "--selectors", *names, "--seeds", "2", "--repeat", "2", "--quick"]
    assert bench_selection.main([*arguments, "--json", str(file)]) == 0
    result = json.loads(file.read_text(encoding="utf-8"))
    rows = {(row["task"], row["name"]): row for row in result["rows"]}
    own = {("given", "splicing"), ("given", "omp"), ("chosen", "splicing-bic"), ("range", "splicing-bic")}
    assert set(rows) == own
    for row in rows.values():
        assert row["status"] == "passed"
        assert row["seeds"] == 2
        assert row["first"] >= row["seconds"] > 0.0
        assert row["true"] > 1.0
        assert row["ratio"] is None
    assert rows["given", "splicing"]["larger"] == 0
    assert result["environment"]["threads"] == 1
    printed = capsys.readouterr().out
    assert "abess is not installed: left out" in printed
    assert "mid, size chosen: 2 of 8 groups of 5, 40 samples, squares" in printed
