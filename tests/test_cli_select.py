"""The commands `select`, `certify` and `verify`: tables that agree with the library, and certificates that hold."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run

from sparseopt import Problem, cross_validate_subsets, select, select_path
from sparseopt.cli import load_model
from sparseopt.cli.data import standardised
from sparseopt.selection import METHODS

COLUMNS = ("a_1", "a_2", "b_1", "b_2", "c_1", "c_2", "d_1", "d_2")
GROUPS = ("a", "a", "b", "b", "c", "c", "d", "d")


def numbers() -> tuple[np.ndarray, np.ndarray]:
    """X (60, 8) and a target that the groups a, c and, little, d decide."""
    rng = np.random.default_rng(0)
    X = np.round(rng.normal(size=(60, 8)), 3)
    X[:, 2] += np.round(0.5 * X[:, 0], 3)
    return X, np.round(X[:, [0, 1, 4, 6]] @ [2.0, -1.0, 1.5, 0.4] + 0.8 * rng.normal(size=60), 3)


def problem(y: Any = None, loss: str = "squares", **more: Any) -> Problem:
    X, reals = numbers()
    return Problem.build(X, reals if y is None else y, list(GROUPS), loss=loss, **more)


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    X, y = numbers()
    classes = np.where(y > 0.5, "yes", "no")
    counts = np.random.default_rng(1).poisson(np.exp(0.3 * y))
    np.savez(tmp_path / "arrays.npz", X=X, y=y, group=GROUPS, feature_names=COLUMNS, classes=classes, counts=counts)
    return tmp_path / "arrays.npz"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    X, y = numbers()
    rows = [",".join((*COLUMNS, "y")), *(",".join(map(str, (*x, t))) for x, t in zip(X, y, strict=True))]
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "table.csv"


def sizes_in(out: str) -> dict[int, tuple[float, float, str]]:
    """The table over k that was printed: loss, what the rule compares, and the groups that come and go."""
    found = re.findall(
        r"^  (\d+)(?: \*)? +(-?[\d.e+-]+) +(-?[\d.e+-]+|-)((?: +[\d.]+e[-+]\d+)?)(?: +(.*))?$", out, re.M
    )
    return {int(k): (float(loss), np.inf if c == "-" else float(c), moves.strip()) for k, loss, c, _, moves in found}


def chosen_in(out: str) -> tuple[int, set[str]]:
    """k and the groups of the solution that was printed."""
    (k,) = re.findall(r"^k (\d+): ", out, re.M)
    return int(k), set(re.findall(r"^  (\S+) +\d+ +\d+ +[\d.e+-]+$", out, re.M))


def agrees(out: str, path: Any, compared: np.ndarray, chosen: Any) -> None:
    """Assert that what was printed describes this path and this choice on it."""
    printed = sizes_in(out)
    assert list(printed) == path.sizes.tolist()
    inside: set[str] = set()
    for solution, value, (loss, shown, moves) in zip(path, compared, printed.values(), strict=True):
        assert loss == pytest.approx(solution.loss, rel=1e-5)
        assert shown == pytest.approx(value, rel=1e-5)
        for move in moves.split():
            inside = inside | {move[1:]} if move[0] == "+" else inside - {move[1:]}
        assert inside == set(solution.support_names)
    assert chosen_in(out) == (chosen.problem.penalty.k, set(chosen.support_names))
    assert re.findall(r"^  (\d+) \*", out, re.M) == [str(chosen.problem.penalty.k)]
    assert f"objective {chosen.objective:.8g}, " in out
    assert chosen.status.value in out


# -- tables ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["aic", "bic", "ebic", "bonferroni", "gap"])
def test_criteria(run: Run, arrays: Path, rule: str) -> None:
    status, out, err = run("select", arrays, "--rule", rule)
    assert (status, err) == (0, "")
    path = select_path(problem())
    agrees(out, path, path.criterion(rule), path.best(rule))


def test_a_wrong_table_is_rejected(run: Run, arrays: Path) -> None:
    _, out, _ = run("select", arrays)
    path = select_path(problem())
    agrees(out, path, path.criterion("bic"), path.best("bic"))
    for wrong in (
        out.replace("+c", "+d"),
        out.replace(" *", "  "),
        re.sub(r"^  0 ( +)\d", r"  0 \g<1>9", out, flags=re.M),
    ):
        with pytest.raises(AssertionError):
            agrees(wrong, path, path.criterion("bic"), path.best("bic"))


@pytest.mark.parametrize("rule", ["min", "1se"])
def test_folds(run: Run, arrays: Path, rule: str) -> None:
    status, out, err = run("select", arrays, "--k", "0..3", "--cv", 3, "--rule", rule)
    assert (status, err) == (0, "")
    found = cross_validate_subsets(problem(), range(4), cv=3)
    agrees(out, found.path, found.mean, found.choose(rule))
    assert "held-out loss" in out


def test_lists_of_sizes(run: Run, arrays: Path) -> None:
    _, out, _ = run("select", arrays, "--k", "3,1")
    assert list(sizes_in(out)) == [1, 3]
    _, out, _ = run("select", arrays, "--k", "2..2")
    assert list(sizes_in(out)) == [2]


def test_one_size(run: Run, arrays: Path) -> None:
    _, out, _ = run("select", arrays, "--k", 2)
    direct = select(problem(), 2)
    assert sizes_in(out) == {}
    assert chosen_in(out) == (2, set(direct.support_names))
    assert "k 2: as given" in out
    assert f"loss {direct.loss:.8g} (" in out


# -- options against the library ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_methods(run: Run, arrays: Path, method: str) -> None:
    status, out, err = run("select", arrays, "--k", "0..2", "--method", method)
    assert (status, err) == (0, "")
    path = select_path(problem(), range(3), method)
    assert sizes_in(out)[2][0] == pytest.approx(path[2].loss, rel=1e-5)
    assert ("gap" in out.splitlines()[next(i for i, s in enumerate(out.splitlines()) if s.startswith("  k "))]) == (
        method == "exact"
    )
    assert ("Proved optimal" in out) == (method == "exact")


def test_options_of_methods(run: Run, arrays: Path) -> None:
    args = ("select", arrays, "--k", 3, "--method", "sequential", "--method-option")
    status, out, err = run(*args, "by=softmax", "--method-option", "decay=1e4")
    assert (status, err) == (0, "")
    assert chosen_in(out)[1] == set(select(problem(), 3, "sequential", by="softmax", decay=1e4).support_names)
    status, out, _ = run("select", arrays, "--k", 2, "--method", "iht", "--method-option", "debias=no")
    assert status == 0


def test_a_limit_of_time_is_told(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 60))
    np.savez(tmp_path / "wide.npz", X=X, y=X @ rng.normal(size=60))
    status, out, err = run("select", "wide.npz", "--k", 10, "--method", "exact", "--time-limit", "0.001")
    assert status == 0
    assert "relative gap to the bound" in out
    assert err.startswith("sparseopt: warning: Time ran out first")
    assert err.count("\n") == 1


def test_groups_always_in(run: Run, arrays: Path) -> None:
    _, out, _ = run("select", arrays, "--k", 1, "--always-in", "b,d", "--ridge", 0.5)
    direct = select(problem(ridge=0.5, weights={"b": 0.0, "d": 0.0}), 1)
    assert chosen_in(out) == (1, set(direct.support_names))
    assert {"b", "d"} < set(direct.support_names)
    assert "3 of 4 groups (2 always in)" in out
    assert f"objective {direct.objective:.8g}, " in out
    _, out, _ = run("select", arrays, "--k", "0..2", "--always-in", "b", "--always-in", "d", "--ridge", 0.5)
    assert sizes_in(out)[1][2] == "+c"  # those always in neither come nor go


def test_names_with_commas(run: Run, tmp_path: Path) -> None:
    X, y = numbers()
    np.savez(tmp_path / "d.npz", X=X, y=y, group=["a", "a", "b, c", "b, c", "d", "d", "e", "e"])
    _, out, _ = run("select", "d.npz", "--k", 1, "--always-in", "b, c")
    assert "2 of 4 groups (1 always in)" in out


def test_classes_and_counts(run: Run, arrays: Path) -> None:
    X, y = numbers()
    _, out, _ = run("select", arrays, "--target", "classes", "--k", 1, "--save", "m.json")
    direct = select(problem((y > 0.5).astype(float), "logistic", ridge=1e-4), 1)
    model = load_model("m.json")
    np.testing.assert_allclose(model["coefficients"], direct.w, rtol=1e-9)
    assert model["ridge"] == 1e-4
    assert "A ridge of 0.0001" in out
    assert np.mean((X @ model["coefficients"] + model["intercept"] > 0.0) == (y > 0.5)) > 0.75
    _, out, _ = run("select", arrays, "--target", "classes", "--k", 1, "--ridge", 0, "--quiet")
    assert "ridge" not in out
    counts = np.load(arrays)["counts"]
    _, out, _ = run("select", arrays, "--target", "counts", "--loss", "poisson", "--k", "0..2")
    path = select_path(problem(counts, "poisson"), range(3))
    agrees(out, path, path.criterion("bic"), path.best("bic"))


def test_tables_are_standardised(run: Run, table: Path) -> None:
    status, out, err = run("select", table, "--groups", "prefix", "--k", 2, "--coefficients", "--save", "m.npz")
    assert (status, err) == (0, "")
    X, y = numbers()
    plain = select(problem(), 2)  # without a ridge the scale does not matter
    model = load_model("m.npz")
    np.testing.assert_allclose(model["coefficients"], plain.w, atol=1e-9)
    assert "norm (scaled columns)" in out
    assert f"{plain.w[0]:.6g}" in out
    scaled, _ = standardised(X, True)
    norms = select(Problem.build(scaled, y, list(GROUPS)), 2).group_norms
    assert f"{norms[0]:.5g}" in out


def test_svmlight(run: Run, tmp_path: Path) -> None:
    X, y = numbers()
    rows = [f"{t} " + " ".join(f"{j + 1}:{v:g}" for j, v in enumerate(x)) for x, t in zip(X, y, strict=True)]
    (tmp_path / "d.svm").write_text("\n".join(rows) + "\n")
    _, out, _ = run("select", "d.svm", "--groups", 2, "--k", 2)
    assert f"loss {select(problem(), 2).loss:.8g} (" in out
    assert chosen_in(out)[1] == {"0", "2"}


# -- files written -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["json", "npz"])
def test_models_come_back(run: Run, arrays: Path, ending: str) -> None:
    run("select", arrays, "--k", 2, "--save", f"m.{ending}", "--method", "exact")
    model, direct = load_model(f"m.{ending}"), select(problem(), 2, "exact")
    np.testing.assert_array_equal(model["coefficients"], direct.w)
    expected = {"k": 2, "penalty": "at most k groups", "lam": 0.0, "loss": "squares", "status": direct.status.value}
    assert {key: model[key] for key in expected} == expected
    assert model["relative_gap"] <= 1e-6


@pytest.mark.parametrize("args", [(), ("--rule", "gap"), ("--cv", 2)], ids=["bic", "gap", "folds"])
def test_plots(run: Run, arrays: Path, args: tuple[Any, ...]) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    status, out, err = run("select", arrays, *args, "--plot", "p.png")
    assert (status, err) == (0, "")
    assert Path("p.png").read_bytes()[:4] == b"\x89PNG"
    assert "Drew the choices in p.png." in out


def test_what_plots_show() -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    from sparseopt.plotting import plot_choices, plot_sizes

    path = select_path(problem())
    ax = plot_choices(path, top=2, mark=2)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a", "c"]
    assert [len(dots.get_offsets()) for dots in ax.collections] == [4, 3]
    assert "2 more groups" in ax.get_title(loc="left")
    (line, _) = plot_sizes(path, rule="bic", mark=2).get_lines()
    np.testing.assert_array_equal(line.get_ydata(), path.criterion("bic"))
    for wrong, sentence in (({"top": 0}, "top is 0"), ({"mark": 9}, "mark is 9: pass one of the sizes")):
        with pytest.raises(ValueError, match=sentence):
            plot_choices(path, **wrong)
    with pytest.raises(ValueError, match="rule 'min' shows held-out losses"):
        plot_sizes(path, rule="min")


# -- certificates ------------------------------------------------------------------------------------------------------


def test_certified_choices(run: Run, arrays: Path, tmp_path: Path) -> None:
    pytest.importorskip("flint", reason="the verifier needs python-flint")
    (tmp_path / "proofs").mkdir()
    status, out, err = run("select", arrays, "--k", "1..2", "--certify", "proofs", "--quiet")
    assert (status, err) == (0, "")
    names = {file.name for file in (tmp_path / "proofs").glob("*.json")}
    assert {"subset_1.json", "subset_2.json", "one_group.json"} <= names
    files = [f"proofs/{name}" for name in sorted(names)]
    status, said, err = run("verify", *files)
    assert (status, err) == (0, "")
    assert said.count("VERIFIED") == len(files)
    assert re.search(r"^  best_subset: verified: ", said, re.M)
    assert f"Saved {len(files)} files of certificates, proofs/*.json" in out


@pytest.mark.parametrize(("prefix", "name"), [("x", "x_subset_2"), ("x.json", "x_subset_2"), (".", "subset_2")])
def test_certified_choice_of_one_size(run: Run, arrays: Path, prefix: str, name: str) -> None:
    status, out, err = run("select", arrays, "--k", 2, "--method", "exact", "--certify", prefix)
    assert (status, err) == (0, "")
    assert "best_subset: The best choice of at most 2 groups lies between" in out
    claims = json.loads(Path(f"{name}.json").read_text())["claims"]
    assert "best_subset" in {claim["kind"] for claim in claims}


def test_certified_without_files(run: Run, arrays: Path, tmp_path: Path) -> None:
    _, out, _ = run("select", arrays, "--k", 1, "--certify")
    assert "best_subset" in out
    _, out, _ = run("certify", arrays, "--lam", "60%")
    assert "duality_gap: The optimum lies between" in out
    assert [file.name for file in tmp_path.iterdir()] == ["arrays.npz"]


def test_certify_and_verify(run: Run, table: Path) -> None:
    pytest.importorskip("flint", reason="the verifier needs python-flint")
    status, out, err = run("certify", table, "--groups", "prefix", "--lam", "60%", "--out", "c.json")
    assert (status, err) == (0, "")
    assert "What follows is about the scaled columns." in out
    assert "lam " in out
    status, out, err = run("verify", "c.json")
    assert (status, err) == (0, "")
    claims = json.loads(Path("c.json").read_text())["claims"]
    lines = out.splitlines()
    assert lines[0] == "VERIFIED c.json"
    assert [line.split(":")[0].strip() for line in lines[1:]] == [claim["kind"] for claim in claims]


def test_kinds_of_claims(run: Run, arrays: Path) -> None:
    args = ("certify", arrays, "--lam", "50%", "--penalty", "log", "--composite", "--out", "c.json")
    status, _, _ = run(*args, "--kind", "optimality_gap", "--kind", "stationarity")
    assert status == 0
    assert {claim["kind"] for claim in json.loads(Path("c.json").read_text())["claims"]} == {
        "optimality_gap",
        "stationarity",
    }


def process(*args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sparseopt", *map(str, args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def test_a_claim_that_is_false_is_refused(arrays: Path, tmp_path: Path) -> None:
    pytest.importorskip("flint", reason="the verifier needs python-flint")
    done = process("certify", arrays, "--lam", "60%", "--kind", "duality_gap", "--out", "c.json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    done = process("verify", "c.json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads((tmp_path / "c.json").read_text())
    document["claims"][0]["numbers"]["dual"] *= 1.001
    (tmp_path / "c.json").write_text(json.dumps(document))
    done = process("verify", "c.json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("REFUSED c.json\n  duality_gap: refused: ")
    (tmp_path / "c.npz").write_bytes(b"damaged")
    assert process("verify", "c.json", cwd=tmp_path).returncode == 1


def test_help(tmp_path: Path) -> None:
    done = process("select", "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for option in ("--k ", "--method-option", "--always-in", "--time-limit", "--certify", "--target", "--coefficients"):
        assert option in done.stdout


# -- errors ------------------------------------------------------------------------------------------------------------

A = "arrays.npz"
ERRORS: dict[str, tuple[tuple[Any, ...], str]] = {
    "missing file": (("select", "nope.csv"), "nope.csv does not exist"),
    "k of text": (("select", A, "--k", "few"), "'few' is no number of groups 5, range 1..8 or list 1,3,5"),
    "k of fraction": (("select", A, "--k", "1.5"), "'1.5' is no number of groups"),
    "range upside down": (("select", A, "--k", "3..1"), "'3..1' is no number of groups"),
    "half a range": (("select", A, "--k", "3.."), "'3..' is no number of groups"),
    "half a list": (("select", A, "--k", "3,"), "'3,' is no number of groups"),
    "too many": (("select", A, "--k", 5), "--k asks for 5 groups, but there are 4 to choose from"),
    "far too many": (("select", A, "--k", "0..99999999999"), "--k asks for 99999999999 groups"),
    "many with others": (("select", A, "--k", 4, "--always-in", "a"), "--k asks for 4 groups, but there are 3"),
    "method": (("select", A, "--method", "splice"), "invalid choice: 'splice'"),
    "option": (("select", A, "--method-option", "exchange"), "'exchange' is not of the form name=value"),
    "unknown option": (("select", A, "--method-option", "swap=3"), "option 'swap' is unknown to splicing: it takes"),
    "option of another kind": (
        ("select", A, "--k", 2, "--method-option", "exchange=big"),
        "--method-option exchange=big does not suit --method splicing",
    ),
    "option out of range": (("select", A, "--method-option", "exchange=0"), "exchange is 0: pass"),
    "no option": (("select", A, "--method-option", "k=3"), "--method-option k is no option of a method"),
    "time limit": (("select", A, "--time-limit", 3), "--time-limit is for --method exact, not for 'splicing'"),
    "no time": (("select", A, "--method", "exact", "--time-limit", 0), "'0' is no number > 0"),
    "rule without folds": (("select", A, "--rule", "1se"), "rule '1se' compares held-out losses: add --cv"),
    "rule and one k": (("select", A, "--k", 2, "--rule", "bic"), "--rule chooses k, but --k 2 is one"),
    "folds and one k": (("select", A, "--k", 2, "--cv"), "--cv chooses k, but --k 2 is one"),
    "plot and one k": (("select", A, "--k", 2, "--plot", "p.png"), "--plot draws several k, but --k 2 is one"),
    "gaps": (("select", A, "--k", "0,2,4", "--rule", "gap"), "the gap criterion needs three consecutive ones"),
    "folds": (("select", A, "--cv", 99), "cv is 99: pass a number of folds"),
    "always in": (("select", A, "--always-in", "e"), "always_in names the group 'e', which does not exist"),
    "ridge": (("select", A, "--ridge", -1), "ridge is -1.0: pass a number"),
    "lam": (("select", A, "--lam", 1), "unrecognized arguments: --lam 1"),
    "model": (("select", A, "--save", "m.pkl"), "not as 'm.pkl'"),
    "figure": (("select", A, "--plot", "p.doc"), "not as 'p.doc'"),
    "folder of certificates": (("select", A, "--certify", "no/x"), "does not exist: create it first"),
    "new folder of certificates": (("select", A, "--certify", "no/"), "The folder of 'no/x.json' does not exist"),
    "loss": (("select", A, "--target", "classes", "--loss", "squares"), "holds text such as 'no'"),
    "kind of claim": (("certify", A, "--kind", "gap"), "kind is 'gap', which is unknown: choose among stationarity"),
    "certificate": (("certify", A, "--out", "c.npz"), "Certificates are saved as .json"),
    "folder of the certificate": (("certify", A, "--out", "no/c.json"), "The folder of 'no/c.json' does not exist"),
    "seconds": (("certify", A, "--seconds", "0"), "'0' is no number > 0"),
    "options of solve": (("certify", A, "--lam", 1, "--cv"), "--cv chooses lam"),
    "nothing to verify": (("verify",), "the following arguments are required: FILE.json"),
    "no such certificate": (("verify", "c.json"), "c.json does not exist"),
    "a folder": (("verify", "."), ". cannot be used: Is a directory"),
}


@pytest.mark.usefixtures("arrays")
@pytest.mark.parametrize(("args", "words"), ERRORS.values(), ids=ERRORS)
def test_errors_are_one_sentence(run: Run, args: tuple[Any, ...], words: str) -> None:
    status, out, err = run(*args)
    assert status == 2
    assert words in err
    assert err.startswith("sparseopt: ")
    assert err.count("\n") == 1
    assert err.endswith((".\n", "?\n"))
    assert "Traceback" not in out + err
