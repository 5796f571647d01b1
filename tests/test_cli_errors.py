"""The command line: errors in one sentence."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_cases import MODULE, numbers, rows_of, write, write_arrays
from conftest import Run


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write(tmp_path / "table.csv", rows_of(*numbers()))


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    return write_arrays(tmp_path / "arrays.npz")


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
