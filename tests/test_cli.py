"""The command line: every option, targets, and files written, with tables that agree with the solution."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_cases import FAST, agrees, groups_in, number_after, numbers, rows_of, write, write_arrays
from conftest import Run

from sparseopt import MCP, Problem, Scaled, __version__, lam_max, path, solve
from sparseopt.cli import load_model
from sparseopt.validation import cross_validate


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write(tmp_path / "table.csv", rows_of(*numbers()))


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    return write_arrays(tmp_path / "arrays.npz")


def test_a_wrong_table_is_rejected(run: Run, arrays: Path) -> None:
    _, out, _ = run("solve", arrays, "--tol", "1e-4", "--lam", "0.1")
    X, y = numbers()
    solution = solve(Problem.build(X, y, ["first"] * 3 + ["second"] * 3, lam=0.1), tol=1e-4)
    agrees(out, solution)
    for wrong in (
        out.replace("first", "second"),
        out.replace("objective 0.", "objective 1."),
        out.replace(" 3 ", " 2 "),
    ):
        with pytest.raises(AssertionError):
            agrees(wrong, solution)


# -- options against the library ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["aic", "bic", "ebic"])
def test_criteria(run: Run, arrays: Path, rule: str) -> None:
    X, y = numbers()
    _, out, _ = run("solve", arrays, *FAST, "--rule", rule)
    agrees(out, path(Problem.build(X, y, ["first"] * 3 + ["second"] * 3), n_lams=8, tol=1e-4).best(rule))
    assert f"the smallest {rule.upper()}" in out


@pytest.mark.parametrize("rule", ["min", "1se"])
def test_cross_validation(run: Run, arrays: Path, rule: str) -> None:
    X, y = numbers()
    problem = Problem.build(X, y, ["first"] * 3 + ["second"] * 3)
    _, out, _ = run("solve", arrays, *FAST, "--cv", 3, "--rule", rule)
    agrees(out, cross_validate(problem, n_lams=8, tol=1e-4, cv=3).choose(rule))
    assert "3 folds" in out


def test_jobs_change_nothing(run: Run, arrays: Path) -> None:
    _, one, _ = run("solve", arrays, *FAST, "--cv", 2)
    _, two, _ = run("solve", arrays, *FAST, "--cv", 2, "--jobs", 2)
    assert re.sub(r"[\d.]+ s in all", "", one) == re.sub(r"[\d.]+ s in all", "", two)


OPTIONS = {
    "l1-ratio": (("--l1-ratio", 0.5), {"l1_ratio": 0.5}),
    "ridge": (("--ridge", 0.3), {"ridge": 0.3}),
    "weights": (("--weights", "ones"), {"weights": "ones"}),
    "no intercept": (("--no-intercept",), {"intercept": False}),
    "loss": (("--loss", "huber", "--loss-param", "delta=0.2"), {"loss": "huber", "delta": 0.2}),
    "penalty": (("--penalty", "mcp", "--param", "gamma=2.5"), {"penalty": Scaled(MCP(2.5), 0.2)}),
}


@pytest.mark.parametrize(("args", "keywords"), OPTIONS.values(), ids=OPTIONS)
def test_options(run: Run, arrays: Path, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    X, y = numbers()
    _, out, _ = run("solve", arrays, "--lam", 0.2, "--tol", "1e-5", *args)
    agrees(out, solve(Problem.build(X, y, ["first"] * 3 + ["second"] * 3, lam=0.2, **keywords), tol=1e-5))
    plain = solve(Problem.build(X, y, ["first"] * 3 + ["second"] * 3, lam=0.2), tol=1e-5)
    with pytest.raises(AssertionError):  # the option did something
        agrees(out, plain)


def test_composite(run: Run, arrays: Path) -> None:
    X, y = numbers()
    _, out, _ = run("solve", arrays, "--lam", 0.2, "--composite", "--penalty", "log", "--param", "eps=0.5")
    from sparseopt import LogSum

    problem = Problem.build(X, y, ["first"] * 3 + ["second"] * 3, lam=0.2, penalty=LogSum(0.5), composite=True)
    agrees(out, solve(problem))
    assert "stationarity" in out


def test_lam_in_percent(run: Run, arrays: Path) -> None:
    X, y = numbers()
    top = lam_max(Problem.build(X, y, ["first"] * 3 + ["second"] * 3))
    _, out, _ = run("solve", arrays, "--lam", "25%")
    assert number_after("lam", out) == pytest.approx(0.25 * top, rel=1e-5)
    _, out, _ = run("solve", arrays, "--lam", "100%")
    assert groups_in(out) == {}
    assert "0 of 2 groups" in out


def test_standardising_reports_original_units(run: Run, tmp_path: Path) -> None:
    X, y = numbers()
    units = np.array([1.0, 100.0, 0.01, 1.0, 5.0, 2.0])
    write(tmp_path / "d.csv", rows_of(X * units + 7.0, y))
    _, out, _ = run(
        "solve", "d.csv", "--groups", 3, "--lam", 0.05, "--tol", "1e-9", "--save", "m.json", "--coefficients"
    )
    model = load_model("m.json")
    read = np.array([[float(entry) for entry in row[:-1]] for row in rows_of(X * units + 7.0, y)[1:]])
    scale = read.std(axis=0)
    reference = solve(Problem.build(read / scale, y, 3, lam=0.05), tol=1e-9)
    assert np.allclose(model["coefficients"], reference.w / scale, rtol=1e-4, atol=1e-7)
    agrees(out, reference)
    # A prediction needs nothing but the file that was saved.
    assert np.allclose(read @ model["coefficients"] + model["intercept"], reference.predict(read / scale), atol=1e-3)
    assert f"{model['coefficients'][1]:.6g}" in out
    _, out, _ = run("solve", "d.csv", "--no-standardize", "--lam", 0.05)
    assert "scaled" not in out


def test_a_limit_of_epochs_is_told_and_is_no_error(run: Run, arrays: Path) -> None:
    status, out, err = run("solve", arrays, "--groups", 1, "--max-epochs", 1, "--tol", "1e-15", "--lam", "1%")
    assert status == 0
    assert err.startswith("sparseopt: warning: ")
    assert err.count("\n") == 1
    assert "was reached first" in out


def test_quiet(run: Run, table: Path) -> None:
    _, loud, _ = run("solve", table, *FAST)
    _, quiet, _ = run("solve", table, *FAST, "--quiet")
    assert "guessed" in loud
    assert "guessed" not in quiet
    assert groups_in(loud) == groups_in(quiet)


# -- targets -----------------------------------------------------------------------------------------------------------

TARGETS = {
    "two texts": (lambda y: np.where(y > 0, "yes", "no"), "logistic", "speaks for 'yes', against 'no'"),
    "two numbers": (lambda y: np.where(y > 0, 2, 1), "logistic", "speaks for '2', against '1'"),
    "three texts": (lambda y: np.digitize(y, [-1, 1]).astype(str).astype(object) + "x", "multinomial", "3 values"),
    "few integers": (lambda y: np.digitize(y, [-1, 1]), "multinomial", "3 values"),
    "many integers": (lambda y: np.round(100 * y).astype(int), "squares", "guessed"),
    "reals": (lambda y: y, "squares", "guessed"),
}


@pytest.mark.parametrize(("change", "loss", "words"), TARGETS.values(), ids=TARGETS)
def test_guessed_losses(run: Run, tmp_path: Path, change: Any, loss: str, words: str) -> None:
    X, y = numbers()
    write(tmp_path / "d.csv", rows_of(X, change(y)))
    status, out, err = run("solve", "d.csv", "--lam", "30%", "--groups", 3, "--tol", "1e-3")
    assert (status, err) == (0, "")
    assert f"{loss} loss" in out
    assert words in out


def test_logistic_agrees_with_the_library(run: Run, arrays: Path, tmp_path: Path) -> None:
    X, y = numbers()
    np.savez(tmp_path / "d.npz", X=X, y=np.where(y > 0, "yes", "no"), group=[0, 0, 0, 1, 1, 1])
    _, out, _ = run("solve", "d.npz", "--lam", 0.05, "--save", "m.json")
    agrees(out, solve(Problem.build(X, (y > 0).astype(float), 3, loss="logistic", lam=0.05)))
    model = load_model("m.json")
    assert list(model["classes"]) == ["no", "yes"]
    probability = 1.0 / (1.0 + np.exp(-X @ model["coefficients"] - model["intercept"]))
    assert np.mean((probability > 0.5) == (y > 0)) > 0.9  # classes[1] is the positive one


def test_named_target_and_dropped_columns(run: Run, table: Path) -> None:
    _, out, _ = run("solve", table, "--target", "a_1", "--drop", "y", "--drop", "b_1", *FAST)
    assert "target 'a_1'" in out
    assert "60 samples, 4 features" in out


def test_codes_as_categories(run: Run, tmp_path: Path) -> None:
    X, y = numbers()
    X[:, 5] = np.arange(60) % 4
    write(tmp_path / "d.csv", rows_of(X, y))
    _, out, _ = run("solve", "d.csv", "--categorical", "b_3", *FAST)
    assert "b_3 (4)" in out
    assert "9 features in 6 groups" in out


# -- files written -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["json", "npz"])
def test_models_come_back_as_they_were(run: Run, arrays: Path, ending: str) -> None:
    X, y = numbers()
    run("solve", arrays, "--lam", 0.1, "--save", f"m.{ending}")
    model = load_model(f"m.{ending}")
    solution = solve(Problem.build(X, y, ["first"] * 3 + ["second"] * 3, lam=0.1))
    assert np.array_equal(model["coefficients"], solution.w)
    assert model["intercept"] == solution.intercept
    assert model["intercept"].shape == ()
    assert list(model["groups"]) == ["first"] * 3 + ["second"] * 3
    expected = {
        "sparseopt": __version__,
        "target": "y",
        "loss": "squares",
        "penalty": "L2()",
        "lam": 0.1,
        "composite": False,
        "objective": solution.objective,
        "relative_gap": solution.gap,
        "status": solution.status.value,
    }
    assert {key: model[key] for key in expected} == expected


def test_models_are_plain(run: Run, arrays: Path) -> None:
    run("solve", arrays, "--lam", 0.1, "--penalty", "log", "--save", "m.json")
    run("solve", arrays, "--lam", 0.1, "--penalty", "log", "--save", "m.npz")
    content = json.loads(Path("m.json").read_text())
    assert content["relative_gap"] is None  # no dual is known
    assert np.isnan(load_model("m.json")["relative_gap"])
    with np.load("m.npz", allow_pickle=False) as archive:
        assert {*archive.files} == content.keys()
        assert np.array_equal(archive["coefficients"], content["coefficients"])


@pytest.mark.parametrize("args", [(), ("--cv", 2)], ids=["path", "cross-validation"])
def test_plots(run: Run, arrays: Path, args: tuple[Any, ...]) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    status, out, err = run("solve", arrays, *FAST, *args, "--plot", "p.png")
    assert (status, err) == (0, "")
    assert Path("p.png").read_bytes()[:4] == b"\x89PNG"
    assert "Drew the path in p.png." in out


# -- real data ---------------------------------------------------------------------------------------------------------


def test_real_tables(run: Run, shared_data: Path) -> None:
    status, out, err = run("solve", shared_data / "regression" / "birthwt.npz", *FAST)
    assert (status, err) == (0, "")
    assert "189 samples, 16 features in 8 groups" in out
    assert "smoke" in groups_in(out)
    status, out, _ = run("solve", shared_data / "regression" / "birthwt.npz", "--target", "y_low", *FAST)
    assert "logistic loss" in out


def test_real_svmlight(run: Run, shared_data: Path) -> None:
    folder = shared_data / "svmlight"
    status, out, err = run("solve", folder / "a9a.gz", "--groups", f"{folder / 'groups.json'}#a9a", "--lam", "5%")
    assert (status, err) == (0, "")
    assert "32561 samples, 123 features in 14 groups" in out
    by_names = sorted(groups_in(out).values())
    _, out, _ = run("solve", folder / "a9a.gz", "--groups", "5,8,5,16,5,7,14,6,5,2,2,2,5,41", "--lam", "5%")
    assert sorted(groups_in(out).values()) == by_names
