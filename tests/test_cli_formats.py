"""The command line: every format gives the same solution, and groups come from files, options and names."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_cases import COLUMNS, FAST, agrees, groups_in, numbers, rows_of, write, write_arrays
from conftest import Run

from sparseopt import Problem, path, solve
from sparseopt.cli import load_model


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write(tmp_path / "table.csv", rows_of(*numbers()))


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    return write_arrays(tmp_path / "arrays.npz")


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
