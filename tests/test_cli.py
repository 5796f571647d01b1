"""The command line: every format, every option, tables that agree with the solution, errors in one sentence."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run

from sparseopt import MCP, REGULARIZERS, Problem, Scaled, __version__, lam_max, path, solve
from sparseopt.cli import load_model
from sparseopt.validation import cross_validate

FAST = ("--path", "8", "--tol", "1e-4")


def numbers(seed: int = 0, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """X (n, 6) and a target that columns 0 to 2 decide."""
    rng = np.random.default_rng(seed)
    X = np.round(rng.normal(size=(n, 6)), 3)
    return X, np.round(X[:, :3] @ [2.0, -1.0, 1.5] + 0.3 * rng.normal(size=n), 3)


COLUMNS = ("a_1", "a_2", "a_3", "b_1", "b_2", "b_3")


def rows_of(X: np.ndarray, y: Any, header: bool = True) -> list[list[str]]:
    rows = [[f"{v:g}" for v in x] + [str(t)] for x, t in zip(X, y, strict=True)]
    return [[*COLUMNS, "y"], *rows] if header else rows


def write(file: Path, rows: list[list[str]], mark: str = ",") -> Path:
    text = "".join(mark.join(row) + "\n" for row in rows)
    if file.suffix == ".gz":
        file.write_bytes(gzip.compress(text.encode()))
    else:
        file.write_text(text)
    return file


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write(tmp_path / "table.csv", rows_of(*numbers()))


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    X, y = numbers()
    np.savez(tmp_path / "arrays.npz", X=X, y=y, group=[0, 0, 0, 1, 1, 1], group_names=["first", "second"])
    return tmp_path / "arrays.npz"


def groups_in(out: str) -> dict[str, tuple[int, int, float]]:
    """The table that was printed: size, nonzero coefficients and norm of each group."""
    found = re.findall(r"^  (\S.*?) +(\d+) +(\d+) +(\S+)$", out, flags=re.MULTILINE)
    return {name: (int(size), int(nonzero), float(norm)) for name, size, nonzero, norm in found}


def number_after(word: str, out: str) -> float:
    (found,) = re.findall(rf"\b{word} (-?[\d.]+(?:e[-+]\d+)?)", out)
    return float(found)


def agrees(out: str, solution: Any) -> None:
    """Assert that what was printed describes this solution."""
    groups = solution.problem.groups
    expected = {
        groups.names[g]: (groups.sizes[g], np.count_nonzero(solution.w[groups[int(g)]]), solution.group_norms[g])
        for g in solution.support
    }
    printed = groups_in(out)
    assert printed.keys() == expected.keys()
    for name, (size, nonzero, norm) in expected.items():
        assert printed[name][:2] == (int(size), int(nonzero))
        assert printed[name][2] == pytest.approx(norm, rel=1e-4)
    norms = [norm for _, _, norm in printed.values()]
    assert norms == sorted(norms, reverse=True)
    assert number_after("lam", out) == pytest.approx(solution.problem.lam, rel=1e-5)
    assert number_after("objective", out) == pytest.approx(solution.objective, rel=1e-6)
    assert number_after("loss", out) == pytest.approx(solution.loss, rel=1e-6)
    assert f"{len(expected)} of {len(groups)} groups" in out
    assert solution.status.value in out


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


# -- formats -----------------------------------------------------------------------------------------------------------


def csv_plain(folder: Path, X: np.ndarray, y: np.ndarray) -> Path:
    return write(folder / "d.csv", rows_of(X, y))


def csv_gz(folder: Path, X: np.ndarray, y: np.ndarray) -> Path:
    return write(folder / "d.csv.gz", rows_of(X, y))


def tsv(folder: Path, X: np.ndarray, y: np.ndarray) -> Path:
    return write(folder / "d.tsv", rows_of(X, y), "\t")


def semicolons(folder: Path, X: np.ndarray, y: np.ndarray) -> Path:
    return write(folder / "d.data", rows_of(X, y), ";")


def quoted_with_bom(folder: Path, X: np.ndarray, y: np.ndarray) -> Path:
    rows = [[f'"{entry}"' for entry in row] for row in rows_of(X, y)]
    file = write(folder / "d.csv", rows)
    file.write_text("\ufeff" + file.read_text() + "\n\n")
    return file


def parquet(folder: Path, X: np.ndarray, y: np.ndarray) -> Path:
    pa = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    from pyarrow import parquet as files

    files.write_table(pa.table({**dict(zip(COLUMNS, X.T, strict=True)), "y": y}), folder / "d.parquet")
    return folder / "d.parquet"


def npz(folder: Path, X: np.ndarray, y: np.ndarray) -> Path:
    np.savez(folder / "d.npz", X=X, y=y, feature_names=COLUMNS)
    return folder / "d.npz"


def svmlight(folder: Path, X: np.ndarray, y: np.ndarray) -> Path:
    lines = [f"{t} " + " ".join(f"{j + 1}:{v:g}" for j, v in enumerate(x)) for x, t in zip(X, y, strict=True)]
    (folder / "d.svm").write_text("\n".join(lines) + "\n")
    return folder / "d.svm"


def svmlight_gz_by_content(folder: Path, X: np.ndarray, y: np.ndarray) -> Path:
    text = svmlight(folder, X, y).read_bytes()
    (folder / "d9a.gz").write_bytes(gzip.compress(text))
    return folder / "d9a.gz"


FORMATS = (csv_plain, csv_gz, tsv, semicolons, quoted_with_bom, parquet, npz, svmlight, svmlight_gz_by_content)


@pytest.mark.parametrize("make", FORMATS, ids=lambda make: make.__name__)
def test_every_format_gives_the_same_solution(run: Run, tmp_path: Path, make: Any) -> None:
    X, y = numbers()
    status, out, err = run("solve", make(tmp_path, X, y), "--groups", 3, *FAST, "--no-standardize", "--save", "m.json")
    assert (status, err) == (0, "")
    reference = path(Problem.build(X, y, 3), n_lams=8, tol=1e-4).best("bic")
    model = load_model("m.json")
    assert np.allclose(model["coefficients"], reference.w, atol=1e-3)
    assert "60 samples, 6 features in 2 groups" in out


def test_a_table_without_header(run: Run, tmp_path: Path) -> None:
    _, out, _ = run("solve", write(tmp_path / "d.csv", rows_of(*numbers(), header=False)), *FAST)
    assert "The first row holds numbers" in out
    assert "target 'x7'" in out
    assert {"x1", "x2", "x3"} <= groups_in(out).keys()


def test_text_columns_become_groups(run: Run, tmp_path: Path) -> None:
    X, y = numbers(n=90)
    city = np.array(["Rome", "Oslo", "Bonn"])[np.arange(90) % 3]
    rows = [[*row, c] for row, c in zip(rows_of(X, y + 5.0 * (city == "Oslo")), ["city", *city], strict=True)]
    file = write(tmp_path / "d.csv", rows)
    _, out, _ = run("solve", file, "--target", "y", *FAST, "--save", "m.json")
    assert "Text became one group of 0/1 columns each: city (3)." in out
    assert groups_in(out)["city"][0] == 3
    model = load_model("m.json")
    assert list(model["features"][-3:]) == ["city=Bonn", "city=Oslo", "city=Rome"]
    assert list(model["groups"][-3:]) == ["city"] * 3
    # The groups are those of the columns of the file: the 0/1 columns of a text stay together in any of them.
    _, out, _ = run("solve", file, "--target", "y", *FAST, "--groups", "3,3,1", "--save", "m.json")
    assert list(load_model("m.json")["groups"]) == ["0"] * 3 + ["1"] * 3 + ["2"] * 3


def test_many_texts_are_stored_sparse_and_mean_the_same() -> None:
    from scipy.sparse import csc_matrix

    from sparseopt.cli.data import standardised

    X = numbers()[0] * (numbers(1)[0] > 0)
    for centred in (True, False):
        dense, scale = standardised(X, centred)
        sparse, same = standardised(csc_matrix(X), centred)
        assert np.allclose(scale, same)
        assert np.allclose(dense, sparse.toarray())
        assert np.allclose(
            (dense - centred * dense.mean(axis=0)).std(axis=0) if centred else (dense**2).mean(axis=0), 1.0
        )


def test_parquet_types(run: Run, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    from pyarrow import parquet as files

    X, y = numbers(n=80)
    kinds = pa.array(["x", "y", "z", "x"] * 20).dictionary_encode()
    columns = {"flag": X[:, 0] > 0, "count": (10 * X[:, 1]).astype(int), "kind": kinds, "single": X[:, 2].astype("f4")}
    when = pa.array([0] * 80, pa.timestamp("s"))
    files.write_table(pa.table({**columns, "when": when, "y": y}), tmp_path / "d.parquet")
    status, _, err = run("solve", "d.parquet", *FAST)
    assert status == 2
    assert "'when' of d.parquet holds timestamp[" in err
    status, out, _ = run("solve", "d.parquet", "--drop", "when", *FAST)
    assert status == 0
    assert "6 features in 4 groups" in out


def test_targets_with_several_outputs(run: Run, tmp_path: Path) -> None:
    X, y = numbers()
    np.savez(tmp_path / "d.npz", X=X, y=np.column_stack([y, -2.0 * y]), group=[0, 0, 0, 1, 1, 1])
    _, out, _ = run("solve", "d.npz", "--lam", 0.1, "--tol", "1e-4", "--save", "m.npz")
    agrees(out, solve(Problem.build(X, np.column_stack([y, -2.0 * y]), 3, lam=0.1), tol=1e-4))
    assert load_model("m.npz")["coefficients"].shape == (6, 2)


# -- groups ------------------------------------------------------------------------------------------------------------

SPECS = {
    "prefix": ("prefix", None, ["a", "a", "a", "b", "b", "b"]),
    "prefix with a mark": ("prefix:_", None, ["a", "a", "a", "b", "b", "b"]),
    "size": ("3", None, ["0", "0", "0", "1", "1", "1"]),
    "sizes": ("1,2,3", None, ["0", "1", "1", "2", "2", "2"]),
    "labels in JSON": ("g.json", '["u", "u", "v", "v", "w", "w"]', ["u", "u", "v", "v", "w", "w"]),
    "a dict in JSON": ("g.json", '{"u": ["a_1", "b_3"], "v": [1, 2, 3, 4]}', ["u", "v", "v", "v", "v", "u"]),
    "positions in JSON": (
        "g.json",
        '{"group": [0, 0, 0, 1, 1, 1], "group_names": ["u", "v"]}',
        ["u", "u", "u", "v", "v", "v"],
    ),
    "an entry of JSON": ("g.json#k", '{"k": {"group": [4, 4, 4, 5, 5, 5]}, "j": 1}', ["4", "4", "4", "5", "5", "5"]),
    "CSV": ("g.csv", "feature,group\nb_1,v\nb_2,v\nb_3,v\na_1,u\na_2,u\na_3,u\n", ["u", "u", "u", "v", "v", "v"]),
    "CSV without header": ("g.csv", "a_1,u\na_2,u\na_3,u\nb_1,v\nb_2,v\nb_3,v\n", ["u", "u", "u", "v", "v", "v"]),
    "lines": ("g.txt", "u\nu\nu\nv\nv\nv\n", ["u", "u", "u", "v", "v", "v"]),
}


@pytest.mark.parametrize(("spec", "content", "labels"), SPECS.values(), ids=SPECS)
def test_groups(run: Run, table: Path, spec: str, content: str | None, labels: list[str]) -> None:
    if content:
        Path(spec.partition("#")[0]).write_text(content)
    status, _, err = run("solve", table, "--groups", spec, "--lam", "20%", "--save", "m.json")
    assert (status, err) == (0, "")
    assert list(load_model("m.json")["groups"]) == labels


def test_groups_of_the_file_and_of_the_option(run: Run, arrays: Path) -> None:
    _, out, _ = run("solve", arrays, "--lam", "1%")
    assert groups_in(out).keys() == {"first", "second"}
    _, out, _ = run("solve", arrays, "--lam", "1%", "--groups", 2)
    assert groups_in(out).keys() == {"0", "1", "2"}


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


# -- regularizers ------------------------------------------------------------------------------------------------------

MODULE = """
from typing import NamedTuple
from sparseopt import regularizer
from sparseopt.scalar import maximum

@regularizer
class Half(NamedTuple):
    strength: float = 0.5
    def value(self, u): return self.strength * u
    def slope(self, u): return self.strength + 0.0 * u
    def prox(self, u, t): return maximum(u - self.strength * t, 0.0)
    def slope_at_zero(self): return self.strength
"""


def test_a_regularizer_from_this_folder(tmp_path: Path) -> None:
    """Without the compiler: that such a class works in kernels as well is tested on the one in the README."""
    (tmp_path / "half_of_l2.py").write_text(MODULE)
    X, y = numbers()
    np.savez(tmp_path / "d.npz", X=X, y=y, group=[0, 0, 0, 1, 1, 1])
    command = [str(Path(sys.executable).parent / "sparseopt"), "solve", "d.npz", "--lam", "0.2", "--tol", "1e-5"]
    penalty = ["--penalty", "half_of_l2:Half", "--param", "strength=0.25"]
    plain = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([*command, *penalty], cwd=tmp_path, env=plain, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    reference = solve(Problem.build(X, y, 3, lam=0.05), tol=1e-7)
    for name, (_, _, norm) in groups_in(done.stdout).items():
        assert norm == pytest.approx(reference.group_norms[int(name)], rel=1e-3)


def test_list_of_regularizers(run: Run) -> None:
    status, out, err = run("regularizers")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(REGULARIZERS)
    assert re.fullmatch(
        r"mcp +MCP\(gamma=3.0\) +1 +0.3333 +1.5 +no +yes +yes", lines[1 + list(REGULARIZERS).index("mcp")]
    )


# -- errors ------------------------------------------------------------------------------------------------------------

T = "table.csv"
ERRORS: dict[str, tuple[tuple[Any, ...], str]] = {
    "no command": ((), "the following arguments are required: COMMAND"),
    "unknown command": (("sovle", T), "invalid choice: 'sovle'"),
    "missing file": (("solve", "nope.csv"), "nope.csv does not exist"),
    "a folder": (("solve", "."), ". cannot be used: Is a directory"),
    "empty file": (("solve", "empty.csv"), "empty.csv is empty"),
    "header only": (("solve", "header.csv"), "has a header and no rows"),
    "ragged": (("solve", "ragged.csv"), "has 1 entries in data row 2 but 2 columns"),
    "repeated column": (("solve", "twice.csv"), "several columns called 'a'"),
    "not text": (("solve", "binary.csv"), "neither Parquet, NPZ nor UTF-8"),
    "half a gzip": (("solve", "half.gz"), "damaged gzip"),
    "half a Parquet": (("solve", "half.parquet"), "damaged Parquet"),
    "half an NPZ": (("solve", "half.npz"), "cannot be read as NPZ"),
    "pickles": (("solve", "pickled.npz"), "without pickles"),
    "no X": (("solve", "noX.npz"), "has no array 'X': it holds Z"),
    "unknown column": (("solve", T, "--target", "b1"), "has no column 'b1': did you mean 'b_1'"),
    "unknown dropped column": (("solve", T, "--drop", "zzz"), "has no column 'zzz': it has a_1"),
    "nothing left": (("solve", "two.csv", "--drop", "a"), "nothing left to predict 'b' from"),
    "missing value": (("solve", "gap.csv"), "Column 'a' of gap.csv has no value in data row 2 (1 in all)"),
    "missing target": (("solve", "gap.csv", "--target", "a"), "Column 'a' of gap.csv has no value in data row 2"),
    "infinity": (("solve", "infinite.csv"), "has the value inf in data row 1"),
    "identifiers": (("solve", "ids.csv"), "holds 6 different texts in 6 rows"),
    "constant target": (("solve", "constant.csv"), "is 1 in every sample"),
    "NaN in an NPZ": (("solve", "nan.npz", "--lam", 1), "X contains nan in row 0, column 1"),
    "NaN as target": (("solve", "nan.npz", "--target", "bad"), "values that are not finite"),
    "lam": (("solve", T, "--lam", "-1"), "argument --lam: '-1' is no number >= 0"),
    "lam as a word": (("solve", T, "--lam", "big"), "'big' is no number >= 0"),
    "lam and path": (("solve", T, "--lam", 1, "--path", 3), "not allowed with argument"),
    "lam and cv": (("solve", T, "--lam", 1, "--cv"), "--cv chooses lam"),
    "lam and rule": (("solve", T, "--lam", 1, "--rule", "bic"), "rule 'bic' chooses lam"),
    "lam and plot": (("solve", T, "--lam", 1, "--plot", "x.png"), "--plot draws a path"),
    "rule without cv": (("solve", T, "--rule", "1se"), "rule '1se' compares held-out losses: add --cv"),
    "path": (("solve", T, "--path", 0), "'0' is no integer >= 1"),
    "folds": (("solve", T, "--cv", 1), "cv is 1: pass a number of folds"),
    "tol": (("solve", T, "--tol", 0), "'0' is no number > 0"),
    "l1_ratio": (("solve", T, "--l1-ratio", 2), "l1_ratio"),
    "ridge": (("solve", T, "--ridge", -1), "ridge"),
    "penalty": (("solve", T, "--penalty", "mpc"), "Unknown regularizer 'mpc': did you mean 'mcp'"),
    "no module": (("solve", T, "--penalty", "no_such:Q"), "Module 'no_such' of the regularizer"),
    "no class": (("solve", T, "--penalty", "math:Q"), "Module 'math' has no 'Q'"),
    "broken module": (("solve", T, "--penalty", "broken:Q"), "'broken:Q' cannot be imported (SyntaxError"),
    "param": (("solve", T, "--param", "gamma"), "'gamma' is not of the form name=number"),
    "unknown param": (("solve", T, "--penalty", "mcp", "--param", "gam=2"), "MCP has no parameter 'gam'"),
    "param out of range": (("solve", T, "--penalty", "mcp", "--param", "gamma=-2"), "gamma"),
    "unknown loss param": (("solve", T, "--loss", "huber", "--loss-param", "eps=1"), "no parameter 'eps'"),
    "unknown loss": (("solve", T, "--loss", "square"), "invalid choice: 'square'"),
    "loss for text": (("solve", "text.csv", "--loss", "squares"), "holds text such as 'n'"),
    "logistic for reals": (("solve", T, "--loss", "logistic"), "different values, which --loss logistic cannot model"),
    "multinomial for reals": (("solve", T, "--loss", "multinomial"), "use --loss squares"),
    "poisson below zero": (("solve", T, "--loss", "poisson"), "y"),
    "groups of no kind": (("solve", T, "--groups", "pairs"), "is neither a size"),
    "size": (("solve", T, "--groups", 4), "groups=4 does not divide the 6 features"),
    "sizes": (("solve", T, "--groups", "2,2"), "sizes that add up to 4 but there are 6 columns"),
    "labels": (("solve", T, "--groups", "short.txt"), "groups has 2 entries"),
    "unknown feature": (("solve", T, "--groups", "other.csv"), "'q', which is no column of the data"),
    "two groups": (("solve", T, "--groups", "torn.csv"), "puts 'a_1' into two groups"),
    "left out": (("solve", T, "--groups", "part.csv"), "leaves out a_2, a_3, b_1, b_2, b_3"),
    "no JSON": (("solve", T, "--groups", "broken.json"), "is no JSON file"),
    "no key": (("solve", T, "--groups", "groups.json#k"), "has no entry 'k': it holds u"),
    "svmlight with names": (("solve", "s.svm", "--target", "y"), "whose target is the label"),
    "no svmlight": (("solve", "bad.svm"), "is no svmlight file"),
    "model": (("solve", T, "--save", "m.pkl"), "not as 'm.pkl'"),
    "folder of the model": (("solve", T, "--save", "no/m.json"), "The folder of 'no/m.json' does not exist"),
    "figure": (("solve", T, "--plot", "p.doc"), "not as 'p.doc'"),
    "folder of the demo": (("demo", "breast", "--plot", "no"), "'no' is no folder"),
    "data of the demo": (("demo", "iris"), "invalid choice: 'iris'"),
}


@pytest.fixture
def odd_files(tmp_path: Path, table: Path) -> None:
    texts = {
        "empty.csv": "",
        "header.csv": "a,b\n",
        "ragged.csv": "a,b\n1,2\n3\n",
        "twice.csv": "a,a\n1,2\n",
        "two.csv": "a,b\n1,2\n2,5\n",
        "gap.csv": "a,b\n1,2.5\n,3\n2,7\n",
        "infinite.csv": "a,b\ninf,2\n1,3\n",
        "ids.csv": "id,y\n" + "".join(f"k{i},{i}.5\n" for i in range(6)),
        "constant.csv": "a,y\n1,1\n2,1\n",
        "text.csv": "a,y\n" + "".join(f"{i},{'yn'[i % 2]}\n" for i in range(8)),
        "short.txt": "u\nv\n",
        "other.csv": "a_1,u\nq,v\n",
        "torn.csv": "a_1,u\na_1,v\n",
        "part.csv": "a_1,u\n",
        "broken.json": "[1,",
        "groups.json": '{"u": 1}',
        "s.svm": "1 1:2\n2 1:3\n",
        "bad.svm": "1 1:2\nx y z\n",
        "broken.py": "def",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "binary.csv").write_bytes(bytes(range(128, 256)))
    (tmp_path / "half.gz").write_bytes(gzip.compress(b"a,b\n1,2\n" * 50)[:-12])
    (tmp_path / "half.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "half.npz").write_bytes(b"PK\x03\x04 and no more")
    np.savez(tmp_path / "noX.npz", Z=[1.0])
    np.savez(tmp_path / "pickled.npz", X=np.array([[1, "a"]], dtype=object), y=[1.0])
    np.savez(tmp_path / "nan.npz", X=[[1.0, np.nan]] * 3, y=[1.0, 2.0, 4.0], bad=[1.0, np.nan, 2.0])


@pytest.mark.usefixtures("odd_files")
@pytest.mark.parametrize(("args", "words"), ERRORS.values(), ids=ERRORS)
def test_errors_are_one_sentence(run: Run, args: tuple[Any, ...], words: str) -> None:
    status, out, err = run(*args)
    assert status == 2
    assert words in err
    assert err.startswith("sparseopt: ")
    assert err.count("\n") == 1
    assert err.endswith((".\n", "?\n"))
    assert "Traceback" not in out + err


def test_a_regularizer_that_does_not_compile(run: Run, arrays: Path, tmp_path: Path) -> None:
    (tmp_path / "uncompilable.py").write_text(MODULE.replace("maximum(u - self.strength * t, 0.0)", "str(u).upper().x"))
    status, _, err = run("solve", arrays, "--penalty", "uncompilable:Half", "--lam", 1)
    assert status == 2
    assert err.startswith("sparseopt: the penalty cannot be compiled (")
    assert err.count("\n") == 1


# -- the process -------------------------------------------------------------------------------------------------------


def process(*args: object, cwd: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sparseopt", *map(str, args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, **more)


def test_version_and_help(tmp_path: Path) -> None:
    assert process("--version", cwd=tmp_path).stdout == f"sparseopt {__version__}\n"
    assert "examples:" in process("--help", cwd=tmp_path).stdout
    text = process("solve", "--help", cwd=tmp_path).stdout
    assert "--lam 5% " in text
    for option in ("--target", "--groups", "--penalty", "--rule", "--standardize", "--save"):
        assert option in text


def test_nobody_reads_the_output(tmp_path: Path) -> None:
    read, write_end = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "sparseopt", "regularizers"]
    done = subprocess.run(command, cwd=tmp_path, stdout=write_end, stderr=subprocess.PIPE, text=True)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, "")


def test_control_c(run: Run, arrays: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*args: object, **keywords: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sparseopt.cli.solve.path", stopped)
    status, _, err = run("solve", arrays)
    assert (status, err) == (130, "sparseopt: stopped by Ctrl-C.\n")


def test_demo(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    done = process("demo", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert {file.name for file in tmp_path.iterdir()} == {
        f"sparseopt_{n}.png" for n in ("breast", "diabetes", "digits")
    }
    assert done.stdout.count("The requested accuracy was reached.") == 3
    printed = groups_in(done.stdout)
    assert {"radius", "bmi"} <= printed.keys()
    assert printed["radius"][0] == 3


def test_demo_without_matplotlib(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sparseopt.cli.demo.can_draw", lambda: False)
    monkeypatch.setattr("sparseopt.cli.figures.can_draw", lambda: False)
    status, out, err = run("demo", "diabetes")
    assert (status, err) == (0, "")
    assert "matplotlib is not installed" in out
    assert "bmi" in out
    assert list(tmp_path.iterdir()) == []
    np.savez("d.npz", X=numbers()[0], y=numbers()[1])
    status, _, err = run("solve", "d.npz", "--plot", "p.png")
    assert status == 2
    assert "pip install matplotlib" in err


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
