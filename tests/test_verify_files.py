"""Reports survive a round trip through files, and malformed files are refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csc_array
from verified_cases import REPORTS, RNG, TARGETS, Change, X, forge, lasso, saved_in, set_problem

from sparseopt.certificates import Certificate, Report, Verdict
from sparseopt.certificates.files import digest, load_report, read, save_report

pytest.importorskip("flint")
from sparseopt.certificates.verify import verify


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return saved_in(tmp_path_factory.mktemp("reports"))


@pytest.mark.parametrize("kind", REPORTS)
def test_round_trip(saved: Callable[[str], Path], tmp_path: Path, kind: str) -> None:
    first = load_report(saved(kind))
    save_report(first, tmp_path / "again.json")
    again = load_report(tmp_path / "again.json")
    for one, other in zip(first, again, strict=True):
        assert (one.kind, one.statement, one.verdict, one.numbers) == (
            other.kind,
            other.statement,
            other.verdict,
            other.numbers,
        )
        assert (one.tolerance, one.not_proved) == (other.tolerance, other.not_proved)
        assert {n: digest(x) for n, x in one.evidence.items()} == {n: digest(x) for n, x in other.evidence.items()}
    assert first.problem.value(first.w, first.b) == again.problem.value(again.w, again.b)
    assert first.problem.groups == again.problem.groups
    assert verify(tmp_path / "again.json").ok


@pytest.mark.parametrize("loss", TARGETS)
def test_problems_come_back(tmp_path: Path, loss: str) -> None:
    problem = lasso(loss, X=csc_array(np.where(X > 0.5, X, 0.0)), penalty="mcp", ridge=0.1, l1_ratio=0.2)
    w = RNG.standard_normal((24, problem.n_outputs)).squeeze()
    save_report(Report(problem, w, np.zeros(problem.n_outputs), ()), tmp_path / "p.json")
    back = load_report(tmp_path / "p.json")
    assert back.problem.value(back.w, back.b) == problem.value(w, 0.0)
    assert back.problem.penalty.q == problem.penalty.q


def test_numbers_come_back_exactly(tmp_path: Path) -> None:
    given = {"a": 0.1 + 0.2, "inf": np.inf, "low": -np.inf, "n": np.int64(3), "list": [1.0, np.inf], "word": "none"}
    claim = Certificate("x", "", Verdict.FAILED, given, 1e-300)
    save_report(Report(lasso(), np.zeros(24), 0.0, (claim,)), tmp_path / "n.json")
    document, _ = read(tmp_path / "n.json")
    assert document["claims"][0]["numbers"] == given
    assert document["claims"][0]["tolerance"] == 1e-300


MALFORMED: dict[str, Callable[[Path], Any]] = {
    "no file": lambda path: path.unlink(),
    "empty": lambda path: path.write_text(""),
    "truncated": lambda path: path.write_text(path.read_text()[:-50]),
    "binary": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "a list": lambda path: path.write_text("[]"),
    "another format": lambda path: path.write_text('{"format": "x"}'),
    "NaN": lambda path: path.write_text(path.read_text().replace('"lam": ', '"lam": NaN, "x": ', 1)),
    "deep": lambda path: path.write_text("[" * 100000),
    "version": lambda path: path.write_text(path.read_text().replace('"version": 1', '"version": 2')),
    "no arrays": lambda path: path.with_suffix(".npz").unlink(),
    "arrays cut": lambda path: path.with_suffix(".npz").write_bytes(path.with_suffix(".npz").read_bytes()[:300]),
    "arrays empty": lambda path: path.with_suffix(".npz").write_bytes(b""),
    "not a zip": lambda path: path.with_suffix(".npz").write_bytes(b"PK\x03\x04 nonsense"),
    "other place": lambda path: path.write_text(path.read_text().replace('"file": "', '"file": "../')),
    "pickle": lambda path: np.savez(path.with_suffix(".npz"), w=np.array([{}], dtype=object)),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_files_are_refused_in_one_sentence(saved: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    path = forge(saved("duality_gap"), tmp_path, lambda d, a: None)
    MALFORMED[name](path)
    with pytest.raises(ValueError, match=r"^forged\.(json|npz) .*\.$"):
        read(path)
    found = verify(path)
    assert not found.ok
    assert found.claims[0].kind == "file"


BENT: dict[str, Change] = {
    "no problem": lambda d, a: d.pop("problem"),
    "claims": lambda d, a: d.update(claims={}),
    "a claim": lambda d, a: d["claims"].append(3),
    "no lam": lambda d, a: d["problem"].pop("lam"),
    "lam": set_problem("lam", -1.0),
    "lam is true": set_problem("lam", True),
    "l1_ratio": set_problem("l1_ratio", 2.0),
    "loss": set_problem("loss", {"name": "hinge", "params": {}}),
    "labels": set_problem("loss", {"name": "logistic", "params": {}}),
    "lost evidence": lambda d, a: a.pop("claim0_A"),
    "lost X": lambda d, a: a.pop("X"),
    "shape of y": lambda d, a: a.update(y=a["y"][1:]),
    "w": lambda d, a: a.update(w=a["w"][1:]),
    "nan": lambda d, a: a.update(w=a["w"] * np.nan),
    "weights": lambda d, a: a.update(s=-a["s"]),
    "groups overlap": lambda d, a: a.update(group_indices=np.zeros_like(a["group_indices"])),
    "group cuts": lambda d, a: a.update(group_indptr=a["group_indptr"][::-1].copy()),
    "names": lambda d, a: d["problem"]["names"].pop(),
    "text": lambda d, a: a.update(w=np.array(["x"] * 24)),
}


@pytest.mark.parametrize("name", BENT)
def test_bent_contents_are_refused_in_one_sentence(saved: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    path = forge(saved("duality_gap"), tmp_path, BENT[name])
    with pytest.raises(ValueError, match=r"^forged\.json .*\.$"):
        read(path)
    assert not verify(path).ok


def test_the_name_must_end_in_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"saved as \.json"):
        save_report(Report(lasso(), np.zeros(24), 0.0, ()), tmp_path / "x.pkl")
