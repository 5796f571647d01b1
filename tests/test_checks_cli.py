"""`sparseopt check` and `python -m sparseopt.proofs_checks`: what is printed, written, refused, and the exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparseopt import L0, MCP, LogSum, Power
from sparseopt.cli import main
from sparseopt.proofs_checks import STATEMENTS, Evidence, Finding, Verdict, statement
from sparseopt.proofs_checks.command import main as module_main
from sparseopt.proofs_checks.own_regularizer import Summary, jumps, summary

pytest.importorskip("flint")
pytest.importorskip("cvxpy")
pytest.importorskip("matplotlib")

QUICK = ("reverse_maps", "paper_tables", "sum_norm_bounds")
OWN = ("regularizer_hypotheses", "sum_norm_bounds")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run `sparseopt check` in an empty folder: exit status, what it printed, and what it complained about."""
    monkeypatch.chdir(tmp_path)

    def command(*args: object, by: Callable[[list[str]], int] = main) -> tuple[int, str, str]:
        status = by([*(["check"] if by is main else []), *map(str, args)])
        said = capsys.readouterr()
        return status, said.out, said.err

    return command


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lemma 2.4 does not hold any more."""

    def check(rng: np.random.Generator, size: str, **more: Any) -> Evidence:
        return Evidence(
            "sum_norm_bounds", (Finding("1 <= 0", Verdict.REFUTED, tried=7, violation=1.0, detail="At 1."),)
        )

    about = statement("sum_norm_bounds")
    monkeypatch.setattr(
        "sparseopt.proofs_checks.sum_norm_bounds.STATEMENT", type(about)(**vars(about) | {"check": check})
    )


# -- what is printed and written ---------------------------------------------------------------------------------------


def test_a_table_a_page_and_a_file(run: Run, tmp_path: Path) -> None:
    status, out, err = run("--only", *QUICK)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["statement", "verdicts", "instances", "largest", "violation", "as", "expected"]
    # In the order of the report, whatever the order of the names.
    assert [line.split()[0] for line in lines[1:4]] == [name for name in STATEMENTS if name in QUICK]
    assert all(line.endswith("yes") for line in lines[1:4])
    assert "3 statements, all as expected" in out
    told = json.loads((tmp_path / "checks" / "evidence.json").read_text())
    assert (told["size"], told["seed"], "regularizer" in told) == ("small", 0, False)
    assert [entry["statement"] for entry in told["statements"]] == [line.split()[0] for line in lines[1:4]]
    assert [str(entry["tried"]) in line.split() for entry, line in zip(told["statements"], lines[1:4], strict=True)]
    page = (tmp_path / "checks" / "report.html").read_text()
    assert all(f'<section id="{name}">' in page for name in QUICK)


def test_options_may_be_repeated_and_the_folder_is_made_once(run: Run, tmp_path: Path) -> None:
    for _ in range(2):
        status, out, _ = run("--only", "reverse_maps", "--only", "paper_tables", "--out", "there")
        assert status == 0
        assert f"Wrote {Path('there', 'report.html')}" in out
    assert sorted(file.name for file in (tmp_path / "there").iterdir()) == ["evidence.json", "report.html"]


def test_quiet(run: Run) -> None:
    assert run("--only", "paper_tables", "--quiet") == (0, "", "")


@pytest.mark.usefixtures("wrong")
@pytest.mark.parametrize("quiet", [(), ("--quiet",)])
def test_what_is_not_as_expected_is_told_and_is_the_exit_status(
    run: Run, tmp_path: Path, quiet: tuple[str, ...]
) -> None:
    status, out, err = run("--only", "sum_norm_bounds", *quiet)
    assert (status, err) == (1, "")
    assert "sum_norm_bounds: 1 <= 0\n  refuted, expected: holds to tolerance. At 1.\n" in out
    assert "1 statements, 1 not as expected" in out
    assert ("NO" in out) == (not quiet)
    told = json.loads((tmp_path / "checks" / "evidence.json").read_text())
    assert told["statements"][0]["as_expected"] is False
    assert "not as expected" in (tmp_path / "checks" / "report.html").read_text()


def test_the_list(run: Run, tmp_path: Path) -> None:
    status, out, err = run("--list")
    assert (status, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()[1 : len(STATEMENTS) + 1]] == list(STATEMENTS)
    starred = {line.split()[0] for line in out.splitlines() if " * " in line}
    assert starred == {name for name in STATEMENTS if statement(name).takes_regularizer}
    assert list(tmp_path.iterdir()) == []


def test_the_module_is_the_same_command(run: Run, tmp_path: Path) -> None:
    assert run("--only", "reverse_maps", "--out", "a")[0] == 0
    status, out, err = run("--only", "reverse_maps", "--out", "b", by=module_main)
    assert (status, err) == (0, "")
    assert "1 statements, all as expected" in out
    for name in ("evidence.json", "report.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


# -- the same seed -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        QUICK,
        pytest.param(("omp_rate", "unique_minimiser", "separable_bound", "machine_proofs"), marks=pytest.mark.slow),
    ],
    ids=["quick", "thorough"],
)
def test_the_same_seed_in_other_processes_gives_the_same_bytes(
    names: tuple[str, ...], run: Run, tmp_path: Path
) -> None:
    """With other jobs, another order of names, another hash of strings, other threads."""
    assert run("--only", *names, "--out", "one", "--seed", 3)[0] == 0
    command = [sys.executable, "-W", "error", "-m", "sparseopt.proofs_checks", "--only", *reversed(names)]
    environment = os.environ | {"PYTHONHASHSEED": "77", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--out", "two", "--seed", "3", "--jobs", "2"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "one" / "evidence.json").read_bytes() == (tmp_path / "two" / "evidence.json").read_bytes()
    assert (tmp_path / "one" / "report.html").read_bytes() == (tmp_path / "two" / "report.html").read_bytes()


def test_another_seed_and_another_choice(run: Run, tmp_path: Path) -> None:
    def entry(folder: str, *args: object) -> Any:
        assert run("--out", folder, *args)[0] == 0
        told = json.loads((tmp_path / folder / "evidence.json").read_text())
        return next(e for e in told["statements"] if e["statement"] == "reverse_maps")

    alone = entry("a", "--only", "reverse_maps")
    assert entry("b", "--only", "reverse_maps", "--seed", 1) != alone
    assert entry("c", "--only", "reverse_maps", "paper_tables") == alone


@pytest.mark.slow
def test_all_statements_twice(tmp_path: Path) -> None:
    for folder, jobs in (("a", "1"), ("b", "2")):
        command = [sys.executable, "-m", "sparseopt", "check", "--out", folder, "--jobs", jobs, "--quiet"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "a" / "evidence.json").read_bytes() == (tmp_path / "b" / "evidence.json").read_bytes()


# -- wrong input -------------------------------------------------------------------------------------------------------

ERRORS = {
    "unknown statement": (("--only", "omp_rat"), "statement 'omp_rat' is unknown: did you mean 'omp_rate'?"),
    "unknown size": (("--size", "huge"), "argument --size: invalid choice: 'huge'"),
    "seed": (("--seed", "-1"), "'-1' is no integer >= 0"),
    "jobs": (("--jobs", "0"), "'0' is no integer >= 1"),
    "folder": (("--out", "no/such"), "The folder of 'no/such' does not exist: create it first."),
    "file as a folder": (("--out", "file"), "file cannot be used"),
    "param alone": (("--param", "eps=1"), "--param sets a parameter of --regularizer"),
    "param": (("--regularizer", "log", "--param", "eps"), "'eps' is not of the form name=number"),
    "unknown param": (("--regularizer", "log", "--param", "gam=1"), "LogSum has no parameter 'gam'"),
    "param out of range": (("--regularizer", "log", "--param", "eps=-1"), "eps must be positive"),
    "unknown regularizer": (("--regularizer", "mpc"), "Unknown regularizer 'mpc': did you mean 'mcp'"),
    "no module": (("--regularizer", "no_such:Q"), "Module 'no_such' of the regularizer"),
    "no regularizer": (("--regularizer", "math:pi"), "is not a regularizer"),
    "takes none": (("--only", "omp_rate", "--regularizer", "log"), "'omp_rate' takes no regularizer"),
}  # fmt: skip


@pytest.mark.parametrize("by", [main, module_main], ids=["sparseopt", "module"])
@pytest.mark.parametrize(("args", "words"), ERRORS.values(), ids=ERRORS)
def test_errors_are_one_sentence(run: Run, tmp_path: Path, args: tuple[str, ...], words: str, by: Any) -> None:
    (tmp_path / "file").write_text("")
    status, out, err = run(*args, by=by)
    assert (status, out) == (2, "")
    assert words in err
    assert err.startswith("sparseopt: " if by is main else "proofs_checks: ")
    assert err.count("\n") == 1
    assert err.endswith((".\n", "?\n"))


def test_a_package_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparseopt.proofs_checks.command.find_spec", lambda name: None if name == "flint" else name)
    status, out, err = run("--only", "paper_tables")
    assert (status, out) == (2, "")
    assert err == "sparseopt: The checks need python-flint: pip install python-flint.\n"


# -- a regularizer of one's own ----------------------------------------------------------------------------------------

PLAIN = """
from typing import NamedTuple
from sparseopt import regularizer
from sparseopt.scalar import maximum

@regularizer
class Plain(NamedTuple):
    slant: float = 1.0
    def value(self, u):
        return self.slant * u
    def slope(self, u):
        return self.slant + 0.0 * u
    def prox(self, u, t):
        return maximum(u - self.slant * t, 0.0)
    def slope_at_zero(self):
        return self.slant
"""


def told(q: Any) -> dict[str, str]:
    return {answer.question: f"{answer.answer}. {answer.detail}" for answer in summary(q).answers}


def test_the_summary_comes_first_and_is_in_both_files(run: Run, tmp_path: Path) -> None:
    status, out, err = run("--regularizer", "log", "--param", "eps=0.1", "--only", *OWN)
    assert (status, err) == (0, "")
    assert out.startswith("LogSum(eps=0.1)\n  q(0) = 0     yes.\n  Increasing   proved.")
    assert "Theorem 1.1  applies." in out
    assert "The checks   as expected." in out
    evidence = json.loads((tmp_path / "checks" / "evidence.json").read_text())
    assert evidence["regularizer"]["name"] == "LogSum(eps=0.1)"
    page = (tmp_path / "checks" / "report.html").read_text()
    assert page.index("<dt>Theorem 1.1</dt>") < page.index("<nav")


def test_quiet_still_answers(run: Run) -> None:
    status, out, _ = run("--regularizer", "log", "--only", *OWN, "--quiet")
    assert status == 0
    assert "Theorem 1.1" in out
    assert "instances  largest" not in out


def test_without_names_every_check_that_takes_a_regularizer_is_run(run: Run, tmp_path: Path) -> None:
    assert run("--regularizer", "power", "--jobs", 1)[0] == 0
    told = json.loads((tmp_path / "checks" / "evidence.json").read_text())
    assert [e["statement"] for e in told["statements"]] == [n for n in STATEMENTS if statement(n).takes_regularizer]


def test_a_class_in_this_folder_and_more_than_one_process(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(PLAIN)
    command = [
        sys.executable,
        "-m",
        "sparseopt",
        "check",
        "--regularizer",
        "plain:Plain",
        "--param",
        "slant=2",
        "--only",
        *OWN,
    ]
    texts = set()
    for jobs in ("1", "2"):
        done = subprocess.run([*command, "--jobs", jobs], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        texts.add((tmp_path / "checks" / "evidence.json").read_text())
    assert len(texts) == 1


def test_a_figure_that_cannot_be_drawn_does_not_lose_the_page(run: Run, tmp_path: Path) -> None:
    """The composite of q(u) = u is the group lasso: the interval that the figure shows is nowhere open."""
    assert run("--regularizer", "l2", "--only", "optimality_gap")[0] == 0
    assert (tmp_path / "checks" / "report.html").read_text().count("<section") == 2


def test_a_check_that_does_not_survive_the_regularizer_is_not_as_expected() -> None:
    from sparseopt.proofs_checks.running import run as checked
    from sparseopt.regularizers import L2

    class Odd(L2):
        def value(self, u: Any) -> Any:
            raise ValueError("q is not known there")

    (evidence,) = checked(["sum_norm_bounds"], regularizer=Odd())
    (finding,) = evidence.findings
    assert (finding.claim, finding.as_expected) == ("The check runs to its end", False)
    assert finding.detail == "ValueError: q is not known there"


def test_where_a_prox_jumps() -> None:
    assert jumps(Power(1.0 - 1e-9), 1.0) == []
    for t in (0.1, 1.0, 10.0):  # hard thresholding at sqrt(2t); the root at 3/2 (t)^(2/3)
        ((u, low, high),) = jumps(L0(), t)
        assert (u, low, high) == pytest.approx((np.sqrt(2.0 * t), 0.0, np.sqrt(2.0 * t)), abs=1e-9)
        ((u, low, high),) = jumps(Power(0.5), t)
        assert (u, low, high) == pytest.approx((1.5 * t ** (2.0 / 3.0), 0.0, t ** (2.0 / 3.0)), abs=1e-9)
    assert jumps(MCP(3.0), 1.0) == []
    assert len(jumps(MCP(3.0), 4.0)) == 1


def test_the_summary_of_regularizers_of_the_package() -> None:
    log, flat = told(LogSum(1.0)), told(MCP(3.0))
    assert log["Increasing"].startswith("proved.")
    assert log["Bounded"].startswith("no bound seen.")
    assert log["Theorem 1.1"].startswith("applies. Every hypothesis is proved on [0.001, 1000].")
    assert flat["Increasing"].startswith("refuted. q(3.98107) = 1.5, and q(5.62341) = 1.5.")
    assert flat["Bounded"].startswith("proved. q <= 1.5")
    assert flat["Theorem 1.1"].startswith("does not apply. Because q is not increasing. It breaks on an instance: F = ")
    assert "None up to t = 1. t = 3: from 0 to 3 at u = 3;" in flat["Its prox"]


def test_lines_fit_the_terminal_and_lose_nothing() -> None:
    made: Summary = summary(MCP(3.0))
    for width in (60, 110):
        lines = made.lines(width)
        assert max(map(len, lines)) <= width
        words = " ".join(lines).split()
        assert words == " ".join([made.name, *(f"{a.question} {a.answer}. {a.detail}" for a in made.answers)]).split()
