"""A partition of the features into groups, with one weight per group.

    {0, ..., p-1} = g_1 u ... u g_G   disjoint, none empty;      omega_g >= 0 weighs the norm of w_g,

stored like a CSR matrix: `indices` lists the features group after group, and group g owns
`indices[indptr[g]:indptr[g + 1]]`. The usual weight sqrt(|g|) makes groups of different sizes equally hard to enter
when their columns are noise: E ||X_g' e||^2 grows like |g| (Yuan & Lin 2006, section 2). Weight 0: never penalised.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.groups.columns import origins, prefixes
from sparseopt.groups.members import check_distinct, members, near

__all__ = ["Groups"]


@dataclass(frozen=True, eq=False, repr=False)
class Groups:
    """A partition of `n_features` features into groups with weights omega_g.

    Usually built by `as_groups` or by one of the class methods. Arrays given are copied; do not write into the fields.

    Parameters
    ----------
    indices : (n_features,) int64
        The features, group after group: each of 0, ..., n_features - 1 once.
    indptr : (n_groups + 1,) int64
        Group g owns `indices[indptr[g]:indptr[g + 1]]`. Starts at 0, ends at n_features, increases strictly.
    weights : (n_groups,) float64, "sqrt", "ones", None, or dict from group name to weight
        omega_g >= 0, finite; 0 means never penalised. "sqrt" is sqrt(|g|); "ones" and None are 1. A dict may leave
        groups out, which then get sqrt(|g|).
    names : sequence of str
        One distinct name per group; "0", "1", ... if empty.

    Raises
    ------
    ValueError
        If the groups overlap, leave out a feature or are empty, if weights are negative or not finite, or names repeat.

    Examples
    --------
    >>> groups = Groups.from_labels(["size", "colour", "size", "colour", "colour"], weights={"size": 0})
    >>> groups
    Groups(5 features in 2 groups: size, colour)
    >>> groups.indices, groups.indptr, groups.weights.round(2)
    (array([0, 2, 1, 3, 4]), array([0, 2, 5]), array([0.  , 1.73]))
    >>> groups.norms([3.0, 1.0, 4.0, 2.0, 2.0])
    array([5., 3.])
    """

    indices: NDArray[np.int64]
    indptr: NDArray[np.int64]
    weights: NDArray[np.float64] = "sqrt"  # type: ignore[assignment]  # converted below, like every field
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # Arrays stay writeable: a kernel compiled for them would be compiled again for read-only ones.
        indices, indptr = _integers("indices", self.indices), _integers("indptr", self.indptr)
        p = indices.size
        if p == 0:
            raise ValueError("indices is empty: a partition needs at least one feature.")
        if indptr.size < 2 or indptr[0] != 0 or indptr[-1] != p or (np.diff(indptr) < 1).any():
            raise ValueError(f"indptr must increase strictly from 0 to {p}, the number of features, but is {indptr}.")
        if not np.array_equal(np.sort(indices), np.arange(p)):
            raise ValueError(f"indices must hold each of 0, ..., {p - 1} once: groups neither overlap nor leave gaps.")
        names = tuple(map(str, self.names)) or tuple(map(str, range(indptr.size - 1)))
        if len(names) != indptr.size - 1:
            raise ValueError(f"names has {len(names)} entries for {indptr.size - 1} groups: give one name per group.")
        check_distinct("names", names)
        for field, value in zip(("indices", "indptr", "names"), (indices, indptr, names), strict=True):
            object.__setattr__(self, field, value)
        object.__setattr__(self, "weights", _as_weights(self.weights, np.diff(indptr), names))

    # -- what a partition is asked -------------------------------------------------------------------------------------

    @property
    def n_features(self) -> int:
        """p, the number of features."""
        return int(self.indices.size)

    @property
    def n_groups(self) -> int:
        """G, the number of groups; also `len(groups)`."""
        return int(self.indptr.size - 1)

    def __len__(self) -> int:
        return self.n_groups

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """|g| for every group, (n_groups,) int64."""
        return np.diff(self.indptr)

    @cached_property
    def group_of(self) -> NDArray[np.int64]:
        """The number of the group that owns each feature, (n_features,) int64."""
        owner = np.empty(self.n_features, dtype=np.int64)
        owner[self.indices] = np.repeat(np.arange(self.n_groups), self.sizes)
        return owner

    def __getitem__(self, group: int | str) -> NDArray[np.int64]:
        """The features of a group, given by number or by name."""
        g = self.names.index(group) if isinstance(group, str) else range(self.n_groups)[group]
        return self.indices[self.indptr[g] : self.indptr[g + 1]]

    def features(self, groups: NDArray[np.int64]) -> NDArray[np.int64]:
        """The features of several groups, given by number, group after group.

        >>> Groups.from_sizes([1, 3, 2]).features(np.array([2, 0]))
        array([4, 5, 0])
        """
        sizes = self.sizes[groups]
        ends = np.cumsum(sizes)
        within = np.arange(ends[-1] if ends.size else 0) - np.repeat(ends - sizes, sizes)
        return self.indices[np.repeat(self.indptr[groups], sizes) + within]

    def __eq__(self, other: object) -> bool:
        """Same features in the same order in the same groups, with the same weights and names."""
        if not isinstance(other, Groups):
            return NotImplemented
        same = (np.array_equal(getattr(self, f), getattr(other, f)) for f in ("indices", "indptr", "weights"))
        return self.names == other.names and all(same)

    def __hash__(self) -> int:
        return hash((self.indices.tobytes(), self.indptr.tobytes(), self.weights.tobytes(), self.names))

    def __repr__(self) -> str:
        shown = ", ".join(self.names[:5]) + (", ..." if self.n_groups > 5 else "")
        return f"Groups({self.n_features} features in {self.n_groups} groups: {shown})"

    def norms(self, w: ArrayLike) -> NDArray[np.float64]:
        """u_g = ||w_g||, the Euclidean (Frobenius) norm of every block.

        Parameters
        ----------
        w : (n_features,) or (n_features, n_outputs)
            Coefficients in the order of the features; a group is a set of rows.

        Returns
        -------
        (n_groups,) float64. Neither overflows nor underflows where the norm itself does not; NaN gives NaN.
        """
        w = np.asarray(w, dtype=np.float64)
        if w.ndim not in (1, 2) or w.shape[0] != self.n_features:
            raise ValueError(f"w has the shape {w.shape}: give ({self.n_features},) or ({self.n_features}, n_outputs).")
        rows = np.abs(w[self.indices]).reshape(self.n_features, -1)
        starts = self.indptr[:-1]  # no group is empty, so reduceat sums exactly the groups
        peak = np.maximum.reduceat(rows.max(axis=1, initial=0.0), starts)
        scale = np.where((peak > 0) & (peak < np.inf), peak, 1.0)
        squares = ((rows / np.repeat(scale, self.sizes)[:, None]) ** 2).sum(axis=1)
        norms: NDArray[np.float64] = scale * np.sqrt(np.add.reduceat(squares, starts))
        return norms

    def expand(self, values: ArrayLike) -> NDArray[Any]:
        """One value per group, (n_groups, ...), repeated to one value per feature, (n_features, ...)."""
        values = np.asarray(values)
        if values.ndim == 0 or values.shape[0] != self.n_groups:
            raise ValueError(f"values has the shape {values.shape}: give one entry for each of {self.n_groups} groups.")
        return values[self.group_of]

    # -- how a partition is made ---------------------------------------------------------------------------------------

    @classmethod
    def equal(cls, n_features: int, size: int = 1, *, weights: Any = "sqrt", names: Sequence[str] = ()) -> Groups:
        """Groups of `size` consecutive features; `size` must divide `n_features`.

        >>> Groups.equal(6, 3).indptr
        array([0, 3, 6])
        """
        if size < 1 or n_features % size:
            raise ValueError(
                f"groups={size} does not divide the {n_features} features: give a divisor or a list of sizes."
            )
        return cls.from_sizes([size] * (n_features // size), weights=weights, names=names)

    @classmethod
    def from_sizes(cls, sizes: ArrayLike, *, weights: Any = "sqrt", names: Sequence[str] = ()) -> Groups:
        """Consecutive features: the first `sizes[0]` of them are group 0, and so on.

        >>> Groups.from_sizes([1, 3, 2]).group_of
        array([0, 1, 1, 1, 2, 2])
        """
        sizes = _integers("sizes", sizes)
        if (sizes < 1).any():
            raise ValueError(f"sizes contains {sizes.min()}: every group needs at least one feature.")
        return cls(np.arange(sizes.sum()), np.concatenate([[0], np.cumsum(sizes)]), weights, tuple(names))

    @classmethod
    def from_labels(cls, labels: Iterable[Hashable], *, weights: Any = "sqrt") -> Groups:
        """Features with equal labels form a group; groups are named after their labels, in order of first appearance.

        >>> Groups.from_labels("aabca").group_of
        array([0, 0, 1, 2, 0])
        """
        number: dict[Hashable, int] = {}
        owner = []
        for j, label in enumerate(labels):
            if _is_missing(label):
                raise ValueError(f"labels[{j}] is {label}: give every feature a label, an own one for a group of one.")
            owner.append(number.setdefault(label, len(number)))
        order = np.argsort(np.array(owner, dtype=np.int64), kind="stable")  # stable: features ascend in a group
        counts = np.bincount(owner, minlength=1) if owner else np.zeros(1, dtype=np.int64)
        return cls(order, np.concatenate([[0], np.cumsum(counts)]), weights, tuple(map(str, number)))

    @classmethod
    def from_lists(
        cls,
        lists: Iterable[Iterable[int | str]],
        n_features: int,
        *,
        feature_names: Sequence[str] | None = None,
        weights: Any = "sqrt",
        names: Sequence[str] = (),
    ) -> Groups:
        """One list of features per group, each feature a number from 0 or, with `feature_names`, a column name.

        >>> Groups.from_lists([["b"], [0, 2]], 3, feature_names=["a", "b", "c"]).indices
        array([1, 0, 2])
        """
        lists = list(lists)
        names = tuple(map(str, names)) or tuple(map(str, range(len(lists))))
        found = members(lists, names, n_features, feature_names)
        return cls(np.concatenate(found), np.cumsum([0, *map(len, found)]), weights, names)

    @classmethod
    def from_prefixes(
        cls, feature_names: Iterable[str], separator: str | None = None, *, weights: Any = "sqrt"
    ) -> Groups:
        """Columns whose names agree up to the first `separator` form a group, named after that prefix.

        A name without separator is a prefix as a whole, and so is a name that only starts with it. `separator=None`
        takes the first of "=", "[", "_" that occurs in any name.

        >>> Groups.from_prefixes(["age", "city_Rome", "city_Oslo", "age_squared"])
        Groups(4 features in 2 groups: age, city)
        """
        return cls.from_labels(prefixes(feature_names, separator), weights=weights)

    @classmethod
    def from_column_transformer(cls, transformer: Any, *, weights: Any = "sqrt") -> Groups:
        """Output columns of a fitted `ColumnTransformer` that come from the same input column form a group.

        The one-hot columns of a factor, or the spline basis of a number, also when several steps share the column. An
        output made from several columns (an interaction) is grouped by that set; outputs that mix all columns of a
        step (PCA) form one group named after the step. See `sparseopt.groups.columns`.
        """
        return cls.from_labels(origins(transformer), weights=weights)


def _as_weights(weights: Any, sizes: NDArray[np.int64], names: tuple[str, ...]) -> NDArray[np.float64]:
    if weights is None or (isinstance(weights, str) and weights == "ones"):
        return np.ones(sizes.size)
    if isinstance(weights, str) and weights != "sqrt":
        raise ValueError(f"weights={weights!r} is unknown: the words are 'sqrt' and 'ones'.")
    omega = np.sqrt(sizes.astype(np.float64))
    if isinstance(weights, Mapping):
        where = {name: g for g, name in enumerate(names)}
        for name, weight in weights.items():
            if str(name) not in where:
                raise ValueError(f"weights name the group {name!r}, which does not exist{near(str(name), names)}")
            omega[where[str(name)]] = weight
    elif not isinstance(weights, str):
        omega = np.array(weights, dtype=np.float64)
        if omega.shape != sizes.shape:
            raise ValueError(f"weights has the shape {omega.shape}: give one weight for each of {sizes.size} groups.")
    bad = np.flatnonzero(~((omega >= 0) & (omega < np.inf)))
    if bad.size:
        raise ValueError(
            f"weights of group {names[bad[0]]!r} is {omega[bad[0]]}: give finite weights >= 0, where 0 leaves a group "
            f"unpenalised."
        )
    return omega


def _integers(name: str, values: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise TypeError(f"{name} must be one-dimensional and hold integers, not {array.dtype} of shape {array.shape}.")
    return np.array(array, dtype=np.int64)


def _is_missing(label: Any) -> bool:
    if label is None:
        return True
    try:
        return bool(label != label)
    except TypeError:  # pandas.NA: its comparisons are NA again, which is neither true nor false
        return True
