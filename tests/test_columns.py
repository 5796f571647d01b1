"""Groups read off a fitted ColumnTransformer: every output column goes to the input column that it is a function of.

The oracle is numerical: an output belongs to the inputs whose values change it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    SplineTransformer,
    StandardScaler,
)

from sparseopt.groups import Groups, as_groups
from sparseopt.groups.columns import origins

N = 60


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """Factors whose one-hot names mislead (`a` with the value `b_c`, `a_b` with the value `c`), and numbers."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "a": rng.choice(["b_c", "d", "e"], N),
            "a_b": rng.choice(["c", "f"], N),
            "x": np.where(rng.random(N) < 0.2, np.nan, rng.normal(size=N)),
            "y": rng.normal(size=N),
            "x y": rng.normal(size=N),
        }
    )


def hot(**options: Any) -> OneHotEncoder:
    return OneHotEncoder(sparse_output=False, **options)


union = FeatureUnion([("scale", StandardScaler()), ("spline", SplineTransformer(n_knots=3))])
nested = ColumnTransformer([("hot", hot(), ["a"]), ("scale", StandardScaler(), ["y", "x y"])])
pandas_pipe = make_pipeline(StandardScaler(), SplineTransformer(n_knots=2, degree=1)).set_output(transform="pandas")

TRANSFORMERS = {
    "one-hot": [("t", hot(), ["a", "a_b"])],
    "one-hot, first dropped": [("t", hot(drop="first"), ["a_b", "a"])],
    "one-hot, rare values together": [("t", hot(max_categories=2, handle_unknown="infrequent_if_exist"), ["a", "a_b"])],
    "ordinal": [("t", OrdinalEncoder(), ["a", "a_b"])],
    "splines": [("t", SplineTransformer(n_knots=4), ["y", "x y"])],
    "bins": [("t", KBinsDiscretizer(3, encode="onehot-dense", strategy="uniform"), ["x y", "y"])],
    "imputer with indicator": [("t", SimpleImputer(add_indicator=True), ["y", "x"])],
    "pipeline": [("t", make_pipeline(SimpleImputer(), SplineTransformer(n_knots=3)), ["x y", "x"])],
    "pipeline of data frames": [("t", pandas_pipe, ["y", "x y"])],
    "union": [("t", union, ["y", "x y"])],
    "nested": [("t", nested, ["x y", "a", "y"])],
    "named function": [("t", FunctionTransformer(np.abs, feature_names_out="one-to-one"), ["y", "x y"])],
    "nameless function of one column": [("t", FunctionTransformer(lambda v: np.c_[v, v**2]), ["y"])],
    "one column twice": [("h", hot(), ["a"]), ("s", StandardScaler(), ["y"]), ("t", SplineTransformer(), ["y", "x y"])],
    "text, whose column is named alone": [("t", CountVectorizer(), "a"), ("s", StandardScaler(), ["y"])],
    "drop": [("d", "drop", ["a", "a_b", "x"]), ("t", "passthrough", ["x y", "y"])],
    "nothing": [("n", StandardScaler(), []), ("t", hot(), ["a_b"])],
}
SELECTIONS = {
    "names": ["y", "x y"],
    "numbers": [3, 4],
    "numbers from the end": [-2, -1],
    "slice": slice(3, 5),
    "slice of names": slice("y", "x y"),
    "slice from the end": slice(-2, None),
    "mask": np.array([False, False, False, True, True]),
    "selector": make_column_selector("y"),
}


def check_origins(found: list[str], transformer: ColumnTransformer, frame: pd.DataFrame) -> None:
    """An output column changes under a shuffle of input column j iff it belongs to j."""
    rng = np.random.default_rng(1)
    before = np.asarray(transformer.transform(frame), dtype=float)
    assert len(found) == before.shape[1]
    for column in frame:
        shuffled = frame.assign(**{column: rng.permutation(frame[column])})
        after = np.asarray(transformer.transform(shuffled), dtype=float)
        changed = ~np.isclose(before, after, rtol=0, atol=1e-12, equal_nan=True).all(axis=0)
        assert [name == column for name in found] == changed.tolist()


@pytest.mark.parametrize("steps", TRANSFORMERS.values(), ids=TRANSFORMERS)
def test_origins(steps: list[Any], frame: pd.DataFrame) -> None:
    transformer = ColumnTransformer(steps, sparse_threshold=0).fit(frame)
    check_origins(origins(transformer), transformer, frame)


def test_asking_leaves_the_transformer_as_it_was(frame: pd.DataFrame) -> None:
    transformer = ColumnTransformer([("t", nested, ["x y", "a", "y"]), ("u", union, ["y"])]).fit(frame)
    names = transformer.get_feature_names_out()
    origins(transformer)
    np.testing.assert_array_equal(transformer.get_feature_names_out(), names)
    np.testing.assert_array_equal(transformer.named_transformers_["t"].feature_names_in_, ["x y", "a", "y"])


def test_law_rejects_prefixes_of_names(frame: pd.DataFrame) -> None:
    transformer = ColumnTransformer([("t", hot(), ["a", "a_b"])]).fit(frame)
    by_prefix = [name.removeprefix("t__").split("_")[0] for name in transformer.get_feature_names_out()]
    with pytest.raises(AssertionError):
        check_origins(by_prefix, transformer, frame)


@pytest.mark.parametrize("columns", SELECTIONS.values(), ids=SELECTIONS)
@pytest.mark.parametrize("remainder", ["drop", "passthrough"])
def test_selections(columns: Any, remainder: str, frame: pd.DataFrame) -> None:
    numbers = frame.assign(a=frame["a"].str.len(), a_b=frame["a_b"].eq("c").astype(float))
    transformer = ColumnTransformer([("t", SplineTransformer(n_knots=2), columns)], remainder=remainder).fit(numbers)
    check_origins(origins(transformer), transformer, numbers)


def test_arrays_have_numbered_columns(frame: pd.DataFrame) -> None:
    transformer = ColumnTransformer([("t", hot(), [1, 0])]).fit(frame.to_numpy())
    assert origins(transformer) == ["x1"] * 2 + ["x0"] * 3


def test_mixtures(frame: pd.DataFrame) -> None:
    steps = [("poly", PolynomialFeatures(2, include_bias=False), ["y", "x y"]), ("pca", PCA(2), ["y", "x y"])]
    assert origins(ColumnTransformer(steps).fit(frame)) == ["y", "x y", "y", "y:x y", "x y", "pca", "pca"]


def test_groups_in_order_of_first_output(frame: pd.DataFrame) -> None:
    steps = [("s", StandardScaler(), ["y"]), ("h", hot(), ["a_b"]), ("t", SplineTransformer(n_knots=2), ["y"])]
    transformer = ColumnTransformer(steps).fit(frame)
    groups = as_groups(transformer, 1 + 2 + 4, weights={"a_b": 0})
    assert groups.names == ("y", "a_b")
    assert groups["a_b"].tolist() == [1, 2]
    assert groups.weights.tolist() == [np.sqrt(5), 0]
    assert groups == Groups.from_column_transformer(transformer, weights={"a_b": 0})


def test_errors(frame: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="not fitted: call its fit method first"):
        as_groups(ColumnTransformer([("t", hot(), ["a"])]), 3)
    nameless = ColumnTransformer([("f", FunctionTransformer(np.abs), ["y", "x y"])]).fit(frame)
    with pytest.raises(
        ValueError, match="the step 'f', because FunctionTransformer does not name its outputs: give it"
    ):
        as_groups(nameless, 2)
    with pytest.raises(ValueError, match="cover 3 features but X has 4"):
        as_groups(ColumnTransformer([("t", hot(), ["a"])]).fit(frame), 4)
