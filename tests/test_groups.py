"""Groups are partitions, whatever they were described by; blocks norms are norms of blocks."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sparseopt.groups import Groups, as_groups

labels = st.lists(st.one_of(st.integers(0, 5), st.sampled_from("abc")), min_size=1, max_size=30)


@st.composite
def partitions(draw: st.DrawFn) -> Groups:
    """Groups of any sizes whose features are scattered over all columns."""
    order = draw(st.permutations(range(draw(st.integers(1, 20)))))
    cuts = draw(st.sets(st.integers(1, max(1, len(order) - 1)), max_size=6)) if len(order) > 1 else set()
    return Groups(np.array(order), np.array([0, *sorted(cuts), len(order)]))


# -- laws ------------------------------------------------------------------------------------------------------------


def check_first_appearance(build: Callable[[list[Any]], Groups], given_labels: list[Any]) -> None:
    """Two features share a group iff their labels are equal, and groups come in the order of their first feature."""
    owner = build(given_labels).group_of
    for i, a in enumerate(given_labels):
        for j, b in enumerate(given_labels):
            assert (owner[i] == owner[j]) == (a == b)
    first = [np.flatnonzero(owner == g)[0] for g in range(owner.max() + 1)]
    assert first == sorted(first)


def check_norms(norms: Callable[[Groups, np.ndarray], np.ndarray], groups: Groups, w: np.ndarray) -> None:
    """u_g is the norm of w restricted to the features of g, to rounding."""
    naive = [np.linalg.norm(w[groups[g]]) for g in range(len(groups))]
    np.testing.assert_allclose(norms(groups, w), naive, rtol=1e-13, atol=0)


@given(labels)
def test_labels_order(some_labels: list[Any]) -> None:
    check_first_appearance(lambda x: Groups.from_labels(x), some_labels)


def test_labels_law_rejects_sorted_groups() -> None:
    def in_order_of_labels(x: list[Any]) -> Groups:
        return Groups.from_lists([np.flatnonzero(np.array(x) == label) for label in np.unique(x)], len(x))

    with pytest.raises(AssertionError):
        check_first_appearance(in_order_of_labels, ["b", "a", "b"])


finite = st.floats(-1e3, 1e3).filter(lambda v: v == 0 or abs(v) > 1e-100)


@given(partitions(), st.data())
def test_norms(groups: Groups, data: st.DataObject) -> None:
    shape = (groups.n_features, *data.draw(st.sampled_from([(), (1,), (3,)])))
    check_norms(Groups.norms, groups, data.draw(hnp.arrays(np.float64, shape, elements=finite)))


def test_norms_law_rejects_norms_that_forget_the_order() -> None:
    def without_indices(groups: Groups, w: np.ndarray) -> np.ndarray:
        return np.sqrt(np.add.reduceat(w**2, groups.indptr[:-1]))

    with pytest.raises(AssertionError):
        check_norms(without_indices, Groups.from_labels("abab"), np.array([1.0, 2.0, 3.0, 4.0]))


@pytest.mark.parametrize("scale", [1e-300, 1e-170, 1e170, 1e300])
def test_norms_neither_overflow_nor_underflow(scale: float) -> None:
    # 1 in the other group: a common scale for all groups would lose the small one.
    norms = Groups.from_sizes([2, 1]).norms([3 * scale, 4 * scale, 1.0])
    np.testing.assert_allclose(norms, [5 * scale, 1.0], rtol=1e-15)


def test_norms_of_zero_infinity_and_nan() -> None:
    groups = Groups.equal(8, 2)
    np.testing.assert_array_equal(groups.norms([0, 0, 0, np.inf, np.nan, 1, 2, 0]), [0, np.inf, np.nan, 2])


@given(partitions())
def test_group_of_inverts_indices(groups: Groups) -> None:
    assert np.array_equal(groups.group_of[groups.indices], np.repeat(np.arange(len(groups)), groups.sizes))
    assert groups.sizes.sum() == groups.n_features == groups.indices.size
    np.testing.assert_array_equal(groups.expand(groups.weights), groups.weights[groups.group_of])
    assert groups.indices.dtype == groups.indptr.dtype == groups.group_of.dtype == np.int64
    assert groups.weights.dtype == np.float64


@given(partitions())
def test_copies_are_equal(groups: Groups) -> None:
    for twin in (pickle.loads(pickle.dumps(groups)), copy.deepcopy(groups)):
        assert twin == groups
        assert hash(twin) == hash(groups)
    assert groups != Groups(groups.indices, groups.indptr, 2 * groups.weights)
    assert groups != "groups"


# -- descriptions: every row says which partition it must give -------------------------------------------------------

COLUMNS = ["a_1", "b", "a_2", "c"]
DESCRIPTIONS = {
    "none": (None, [0, 1, 2, 3], COLUMNS),
    "size": (2, [0, 0, 1, 1], "01"),
    "numpy size": (np.int64(2), [0, 0, 1, 1], "01"),
    "array size": (np.array(4), [0, 0, 0, 0], "0"),
    "labels": ([7, 3, 7, 3], [0, 1, 0, 1], "73"),
    "string labels": (["x", "y", "y", "x"], [0, 1, 1, 0], "xy"),
    "array labels": (np.array([2, 2, 1, 1]), [0, 0, 1, 1], "21"),
    "pandas labels": (pd.Series(["u", "u", "v", "u"], index=list("abcd")), [0, 0, 1, 0], "uv"),
    "categorical labels": (pd.Categorical(["u", "u", "v", "u"]), [0, 0, 1, 0], "uv"),
    "polars labels": (pl.Series(["u", "v", "v", "u"]), [0, 1, 1, 0], "uv"),
    "labels that look like sizes": ([1, 1, 1, 1], [0, 0, 0, 0], "1"),
    "sizes": ([1, 3], [0, 1, 1, 1], "01"),
    "array sizes": (np.array([3, 1]), [0, 0, 0, 1], "01"),
    "lists": ([[3, 0], [2, 1]], [0, 1, 1, 0], "01"),
    "ranges and sets": ([range(2), {2, 3}], [0, 0, 1, 1], "01"),
    "matrix": (np.array([[3, 0], [2, 1]]), [0, 1, 1, 0], "01"),
    "lists of names": ([["b"], ["a_2", "a_1", "c"]], [1, 0, 1, 1], "01"),
    "dict": ({"p": [1], "q": ["a_1", 2, "c"]}, [1, 0, 1, 1], "pq"),
    "dict of arrays": ({"p": np.array([0, 1]), "q": pd.Index(["a_2", "c"])}, [0, 0, 1, 1], "pq"),
    "a group called prefix": ({"prefix": [0, 1, 2, 3]}, [0, 0, 0, 0], ["prefix"]),
    "prefix": ("prefix", [0, 1, 0, 2], "abc"),
    "prefix with separator": ("prefix:_", [0, 1, 0, 2], "abc"),
    "prefix by dict": ({"prefix": "_1"}, [0, 1, 2, 3], ["a", "b", "a_2", "c"]),
    "groups": (Groups.from_labels("abba"), [0, 1, 1, 0], "ab"),
}


@pytest.mark.parametrize(("description", "owner", "names"), DESCRIPTIONS.values(), ids=DESCRIPTIONS)
def test_descriptions(description: Any, owner: list[int], names: Any) -> None:
    groups = as_groups(description, 4, COLUMNS)
    assert groups.group_of.tolist() == owner
    assert groups.names == tuple(names)
    np.testing.assert_array_equal(groups.weights, np.sqrt(groups.sizes))


def test_lists_keep_their_order() -> None:
    assert as_groups([[3, 0], [2, 1]], 4).indices.tolist() == [3, 0, 2, 1]


def test_names_without_columns() -> None:
    assert as_groups(None, 3).names == ("0", "1", "2")


@given(partitions())
def test_lists_labels_and_groups_agree(groups: Groups) -> None:
    p = groups.n_features
    assert as_groups([groups[g] for g in range(len(groups))], p) == groups
    assert as_groups({name: groups[name] for name in groups.names}, p) == groups
    assert as_groups(groups, p) is groups
    relabelled = as_groups(groups.group_of, p)
    for g in range(len(relabelled)):
        assert set(relabelled[g]) == set(groups[relabelled.names[g]])


@pytest.mark.parametrize(
    ("names", "separator", "expected"),
    [
        (["x=1", "x=a_b", "y_1"], None, ["x", "x", "y_1"]),
        (["x[T.1]", "x[T.b]", "y_1"], None, ["x", "x", "y_1"]),
        (["x_1", "x", "y"], None, ["x", "x", "y"]),
        (["cat__x_1", "cat__y_1"], "__", ["cat", "cat"]),
        (["_x", "_y", "_y_1"], "_", ["_x", "_y", "_y"]),
        (["xy", "yz"], None, ["xy", "yz"]),
    ],
)
def test_prefixes(names: list[str], separator: str | None, expected: list[str]) -> None:
    groups = Groups.from_prefixes(names, separator)
    assert [groups.names[g] for g in groups.group_of] == expected


# -- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("sqrt", [1, np.sqrt(3)]),
        ("ones", [1, 1]),
        (None, [1, 1]),
        ([0, 5], [0, 5]),
        (np.array([2, 3], dtype=np.float32), [2, 3]),
        ({"y": 0.5}, [1, 0.5]),
        ({"y": 0, "x": 7}, [7, 0]),
    ],
)
def test_weights(weights: Any, expected: list[float]) -> None:
    np.testing.assert_array_equal(as_groups(["x", "y", "y", "y"], 4, weights=weights).weights, expected)
    again = as_groups(Groups.from_labels("xyyy", weights="sqrt"), 4, weights=weights)
    np.testing.assert_array_equal(again.weights, expected)


def test_groups_keep_their_weights_unless_told() -> None:
    groups = Groups.from_labels("xyyy", weights=[3, 4])
    assert as_groups(groups, 4).weights.tolist() == [3, 4]
    assert as_groups(groups, 4, weights="ones").weights.tolist() == [1, 1]


def test_given_arrays_are_copied() -> None:
    indices, indptr, weights = np.arange(3), np.array([0, 3]), np.ones(1)
    groups = Groups(indices, indptr, weights)
    indices[0], indptr[0], weights[0] = 9, 9, 9
    assert groups == Groups.from_sizes([3], weights="ones")


# -- errors: one sentence with the argument, the value and the remedy --------------------------------------------------

WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "overlap": (
        {"x": [0, 1], "y": [1, 2, 3]},
        ValueError,
        r"feature 1 \('b'\) lies in 'x' and in 'y': .* copy .* latent",
    ),
    "gaps": ([[0], ["b"]], ValueError, r"leave out feature 2 \('a_2'\) \(2 of 4 features are in no group\): add"),
    "empty group": ({"x": [0, 1, 2, 3], "y": []}, ValueError, r"groups\['y'\] is empty: leave"),
    "twice": ([[0, 0], [1, 2, 3]], ValueError, r"groups\['0'\] lists feature 0 \('a_1'\) twice"),
    "out of range": ([[0, 1, 2, 4]], ValueError, "list the feature 4: features are numbered 0 to 3"),
    "negative": ([[0, 1, 2, -1]], ValueError, "list the feature -1"),
    "boolean mask": ([[True, False, True, True]], ValueError, "list the feature True"),
    "fraction": ([[0.5, 1, 2, 3]], ValueError, "list the feature 0.5"),
    "unknown column": ([["a_1", "a_3"]], ValueError, "'a_3', which X lacks: did you mean 'a_"),
    "very unknown column": ([["zebra"]], ValueError, "'zebra', which X lacks: it is none of the 4 names"),
    "size": (3, ValueError, "groups=3 does not divide the 4 features: give a divisor"),
    "size zero": (0, ValueError, "groups=0 does not divide"),
    "sizes": ([1, 2], ValueError, "2 entries, adding up to 3, for 4 features: give one label per feature, or sizes"),
    "size zero among sizes": ([4, 0], ValueError, "sizes contains 0: every group"),
    "too few labels": (["x", "y"], ValueError, "2 entries for 4 features: give one label"),
    "too many labels": (list("abcde"), ValueError, "5 entries for 4 features"),
    "nothing": ([], ValueError, "0 entries, adding up to 0, for 4 features"),
    "nan": ([1.0, float("nan"), 1.0, 2.0], ValueError, r"labels\[1\] is nan: give every feature a label"),
    "missing": (pd.Series(["x", pd.NA, "y", "z"], dtype="string"), ValueError, r"labels\[1\] is <NA>"),
    "none among labels": (["x", "x", "x", None], ValueError, r"labels\[3\] is None"),
    "names that look alike": ([1, "1", 2, 3], ValueError, "names contains '1' more than once"),
    "word": ("sizes", ValueError, "groups='sizes' is unknown"),
    "no separator": ("prefix:", ValueError, "groups='prefix:' is unknown"),
    "empty separator": ({"prefix": ""}, ValueError, "separator is '': give"),
    "name for a list": ({"x": "a_1"}, TypeError, r"groups\['x'\] is 'a_1': give the list"),
    "number for a list": ({"x": 3}, TypeError, r"groups\['x'\] is 3: give the list"),
    "fraction as size": (2.0, TypeError, "groups=2.0 is a float: give labels"),
    "truth": (True, TypeError, "groups=True is a bool"),
    "other groups": (Groups.equal(6, 2), ValueError, "cover 6 features but X has 4"),
}


@pytest.mark.parametrize(("description", "error", "sentence"), WRONG.values(), ids=WRONG)
def test_wrong_descriptions(description: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence) as caught:
        as_groups(description, 4, COLUMNS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ([1, -1], "weights of group 'y' is -1.0: give finite weights >= 0"),
        ([np.nan, 1], "weights of group 'x' is nan"),
        ([1, np.inf], "weights of group 'y' is inf"),
        ([1, 1, 1], r"weights has the shape \(3,\): give one weight for each of 2 groups"),
        (2.0, r"weights has the shape \(\)"),
        ({"z": 1}, "weights name the group 'z', which does not exist: it is none of the 2 names"),
        ({"y": -1}, "weights of group 'y' is -1.0"),
        ("size", "weights='size' is unknown: the words are 'sqrt' and 'ones'"),
    ],
)
def test_wrong_weights(weights: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        as_groups(["x", "y", "y", "y"], 4, weights=weights)


@pytest.mark.parametrize(
    ("fields", "error", "sentence"),
    [
        (([0, 0], [0, 2]), ValueError, "indices must hold each of 0, ..., 1 once"),
        (([0, 1], [0, 1]), ValueError, "indptr must increase strictly from 0 to 2"),
        (([0, 1], [0, 1, 1, 2]), ValueError, "indptr must increase strictly"),
        (([0, 1], [2]), ValueError, "indptr must increase strictly"),
        (([], [0]), ValueError, "indices is empty"),
        (([0.0, 1.0], [0, 2]), TypeError, "indices must be one-dimensional and hold integers, not float64"),
        (([[0, 1]], [0, 2]), TypeError, r"of shape \(1, 2\)"),
        (([0, 1], [0, 2], None, ["a", "b"]), ValueError, "names has 2 entries for 1 groups"),
    ],
)
def test_wrong_fields(fields: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        Groups(*fields)


def test_wrong_arguments_of_methods() -> None:
    groups = Groups.equal(4, 2)
    with pytest.raises(ValueError, match=r"w has the shape \(2,\): give \(4,\) or \(4, n_outputs\)"):
        groups.norms(np.ones(2))
    with pytest.raises(ValueError, match=r"values has the shape \(4,\): give one entry for each of 2 groups"):
        groups.expand(np.ones(4))
    with pytest.raises(ValueError, match="feature_names has 1 entries for 4 features"):
        as_groups(None, 4, ["a"])
    with pytest.raises(ValueError, match="feature_names contains 'a' more than once"):
        as_groups(None, 2, ["a", "a"])
    with pytest.raises(ValueError, match="by prefix need feature_names"):
        as_groups("prefix", 4)
    with pytest.raises(ValueError, match="name the column 'a' but X has no names"):
        as_groups([["a"]], 1)
