"""From whatever describes a partition of the features to `Groups`.

One rule decides between readings: a flat sequence with one entry per feature holds labels, any other flat sequence of
integers holds sizes, a nested one holds the features of each group. The class methods of `Groups` leave no choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from sparseopt.groups.columns import is_column_transformer
from sparseopt.groups.members import check_distinct
from sparseopt.groups.partition import Groups

__all__ = ["as_groups"]


def as_groups(
    groups: Any, n_features: int, feature_names: Iterable[str] | None = None, weights: Any = "sqrt"
) -> Groups:
    """Convert any description of a partition into `Groups`.

    Parameters
    ----------
    groups : one of
        None                        every feature is a group of its own, named after it;
        an integer                  consecutive groups of that size, which must divide `n_features`;
        `n_features` labels         equal labels form a group (strings, integers, ... but not lists or tuples);
        other integers              sizes of consecutive groups, adding up to `n_features`;
        a list of lists             numbers or names of the features of each group;
        a dict                      group name -> list of numbers or names;
        "prefix", "prefix:SEP" or {"prefix": "SEP"}     column names that agree up to the first SEP;
        a fitted `ColumnTransformer`                    one group per input column;
        a `Groups`                  itself, with other weights only if `weights` is not "sqrt".
        A sequence of length `n_features` always holds labels; `Groups.from_sizes` takes sizes in any case.
    n_features : int
        p, the number of columns of X.
    feature_names : p distinct str, optional
        Needed where columns are given by name or by prefix.
    weights : "sqrt", "ones", None, (n_groups,) array or dict from group name to weight
        See `Groups`.

    Raises
    ------
    ValueError, TypeError
        If the groups overlap, leave out a feature, are empty or do not fit `n_features`; the message says where.

    Examples
    --------
    >>> as_groups("prefix", 3, ["city_Rome", "city_Oslo", "age"])
    Groups(3 features in 2 groups: city, age)
    >>> as_groups({"colour": ["red", "blue"], "rest": [1]}, 3, ["red", "age", "blue"], weights={"rest": 0}).weights
    array([1.41421356, 0.        ])
    """
    columns = None if feature_names is None else [str(name) for name in feature_names]
    if columns is not None:
        if len(columns) != n_features:
            raise ValueError(f"feature_names has {len(columns)} entries for {n_features} features: give one for each.")
        check_distinct("feature_names", columns)
    made = _convert(groups, n_features, columns, weights)
    if made.n_features != n_features:
        raise ValueError(f"groups cover {made.n_features} features but X has {n_features}: describe the columns of X.")
    return made


def _convert(groups: Any, n_features: int, columns: list[str] | None, weights: Any) -> Groups:
    if isinstance(groups, Groups):
        keep = isinstance(weights, str) and weights == "sqrt"
        return groups if keep else Groups(groups.indices, groups.indptr, weights, groups.names)
    if groups is None:
        return Groups.equal(n_features, weights=weights, names=columns or ())
    if is_column_transformer(groups):
        return Groups.from_column_transformer(groups, weights=weights)
    if isinstance(groups, str):
        word, _, separator = groups.partition(":")
        if word != "prefix" or groups == "prefix:":
            raise ValueError(f"groups={groups!r} is unknown: the words are 'prefix' and 'prefix:' with a separator.")
        groups = {"prefix": separator or None}
    if isinstance(groups, Mapping):
        if set(groups) == {"prefix"} and (groups["prefix"] is None or isinstance(groups["prefix"], str)):
            if columns is None:
                raise ValueError("groups by prefix need feature_names: pass them, or give X as a DataFrame.")
            return Groups.from_prefixes(columns, groups["prefix"], weights=weights)
        for name, features in groups.items():
            if isinstance(features, str) or not isinstance(features, Iterable):
                raise TypeError(f"groups[{name!r}] is {features!r}: give the list of its features.")
        lists, names = groups.values(), [str(name) for name in groups]
        return Groups.from_lists(lists, n_features, feature_names=columns, weights=weights, names=names)
    if isinstance(groups, np.ndarray):  # its elements as Python objects, which hash and compare as users expect
        groups = groups.tolist()
    if isinstance(groups, (int, np.integer)) and not isinstance(groups, bool):
        return Groups.equal(n_features, int(groups), weights=weights)
    if not isinstance(groups, Iterable):
        raise TypeError(
            f"groups={groups!r} is a {type(groups).__name__}: give labels, sizes, lists of features or a size."
        )
    entries = list(groups)
    if entries and all(isinstance(e, (list, tuple, set, frozenset, range, np.ndarray)) for e in entries):
        return Groups.from_lists(entries, n_features, feature_names=columns, weights=weights)
    if len(entries) == n_features:
        return Groups.from_labels(entries, weights=weights)
    if entries and all(isinstance(e, (int, np.integer)) for e in entries) and sum(entries) == n_features:
        return Groups.from_sizes(entries, weights=weights)
    total = f", adding up to {sum(entries)}," if all(isinstance(e, (int, np.integer)) for e in entries) else ""
    raise ValueError(
        f"groups has {len(entries)} entries{total} for {n_features} features: give one label per feature, or "
        f"sizes that add up to {n_features}."
    )
