"""The features of each group, looked up by number or by name, and the sentences that say why they are no partition.

Lists g_1, ..., g_G are a partition of {0, ..., p-1} iff none is empty and every feature occurs exactly once in all.
"""

from __future__ import annotations

import difflib
import operator
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

__all__ = ["check_distinct", "members", "near"]


def members(
    lists: Iterable[Iterable[Any]], groups: Sequence[str], n_features: int, names: Sequence[str] | None
) -> list[list[int]]:
    """The numbers of the features in each of `lists`, whose groups are called `groups`.

    Raises
    ------
    ValueError
        If a feature does not exist, or if the lists are not a partition.
    """
    find = _Finder(n_features, names)
    found = [[find(feature) for feature in features] for features in lists]
    owner: dict[int, str] = {}
    for group, features in zip(groups, found, strict=True):
        if not features:
            raise ValueError(f"groups[{group!r}] is empty: leave the group out, or give it at least one feature.")
        for j in features:
            other = owner.setdefault(j, group)
            if other != group:
                raise ValueError(
                    f"groups overlap, since {find.describe(j)} lies in {other!r} and in {group!r}: give each group its "
                    f"own copy of the shared columns of X (the latent group lasso) and list the copies."
                )
        if len(set(features)) < len(features):
            twice = next(j for j in features if features.count(j) > 1)
            raise ValueError(f"groups[{group!r}] lists {find.describe(twice)} twice: list every feature once.")
    if len(owner) < n_features:
        gaps = [j for j in range(n_features) if j not in owner]
        raise ValueError(
            f"groups leave out {find.describe(gaps[0])} ({len(gaps)} of {n_features} features are in no group): add "
            f"what is missing, for example as groups of one."
        )
    return found


def check_distinct(argument: str, names: Sequence[str]) -> None:
    """Raise ValueError if a name occurs twice."""
    if len(set(names)) < len(names):
        twice, _ = Counter(names).most_common(1)[0]
        raise ValueError(f"{argument} contains {twice!r} more than once: give every one a name of its own.")


def near(name: str, known: Sequence[str]) -> str:
    """The end of a sentence about an unknown name: what it may have meant."""
    close = difflib.get_close_matches(name, known, n=3)
    return f": did you mean {' or '.join(map(repr, close))}?" if close else f": it is none of the {len(known)} names."


class _Finder:
    """The number of a feature given by number or by name, or a sentence why there is none."""

    def __init__(self, n_features: int, names: Sequence[str] | None) -> None:
        self.n_features, self.names = n_features, names
        self._where = {name: j for j, name in enumerate(names or ())}

    def __call__(self, feature: Any) -> int:
        if isinstance(feature, str):
            if self.names is None:
                raise ValueError(f"groups name the column {feature!r} but X has no names: pass feature_names.")
            if feature not in self._where:
                raise ValueError(f"groups name the column {feature!r}, which X lacks{near(feature, self.names)}")
            return self._where[feature]
        try:
            j = operator.index(feature)
        except TypeError:
            j = -1
        if isinstance(feature, (bool, np.bool_)) or not 0 <= j < self.n_features:
            raise ValueError(f"groups list the feature {feature!r}: features are numbered 0 to {self.n_features - 1}.")
        return j

    def describe(self, j: int) -> str:
        return f"feature {j}" + (f" ({self.names[j]!r})" if self.names else "")
