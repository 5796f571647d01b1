"""Which rows of one file train, validate and test.

time    As in DLRM's scripts: the first six of seven equal parts, in file order, train; of the last, the first half
        tests and the second validates. With shares, the first rows train, the next validate, the last test.
x1      Sizes of Criteo_x1 in BARS (7 : 2 : 1), at random. The split itself is AFN's and is known by its files only:
        rows here are drawn anew, so results compare with published ones in distribution, not row by row.
x4      Criteo_x4 in BARS, row by row: ten stratified folds by scikit-learn 0.19.1 with seed 2018; fold 0 tests, fold 1
        validates, the others train. Later versions of scikit-learn deal the folds in another way.

Folds of scikit-learn 0.19.1: for every class by itself, a fresh generator with the given seed shuffles 0, ..., m - 1,
where m is the number of its rows; the first m // 10 (+ 1 in the first m mod 10 folds) of the shuffled places are those
of fold 0, the next those of fold 1, and so on. `numpy.random.RandomState` is frozen, so the folds are the same today.

Sources: facebookresearch/dlrm, dlrm_data_pytorch.py; reczoo/BARS and reczoo/Datasets, Criteo_x1 and Criteo_x4;
scikit-learn 0.19.1, model_selection/_split.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["CRITEO_ROWS", "PARTS", "PROTOCOLS", "by_shares", "by_time", "stratified_folds", "x1", "x4"]

PARTS = ("train", "valid", "test")
PROTOCOLS = ("files", "time", "x1", "x4")
CRITEO_ROWS = 45_840_617
X1_SIZES = (33_003_326, 8_250_124, 4_587_167)
SEED = 2018
_TRAIN, _VALID, _TEST = range(3)


def by_time(rows: int) -> NDArray[np.uint8]:
    """The part of each row, as a place in `PARTS`, by DLRM's days.

    >>> by_time(14).tolist()
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1]
    """
    last = rows // 7  # what does not divide goes to the first days
    part = np.zeros(rows, np.uint8)
    part[rows - last :] = _TEST
    part[rows - last // 2 :] = _VALID
    return _checked(part, "time", present=(_TRAIN, _VALID, _TEST))


def by_shares(rows: int, shares: Sequence[float]) -> NDArray[np.uint8]:
    """The part of each row: shares of training, validation and, if there are three, test rows, in this order.

    >>> by_shares(10, (0.7, 0.2, 0.1)).tolist()
    [0, 0, 0, 0, 0, 0, 0, 1, 1, 2]
    """
    if len(shares) not in (2, 3) or not all(0.0 < s < 1.0 for s in shares) or abs(sum(shares) - 1.0) > 1e-9:
        raise ValueError(f"shares are {tuple(shares)}: give two or three numbers above 0 with sum 1.")
    cuts = np.round(np.cumsum(shares)[:-1] * rows).astype(np.int64)
    part = np.searchsorted(cuts, np.arange(rows), side="right").astype(np.uint8)
    return _checked(part, "time", present=tuple(range(len(shares))))


def x1(rows: int, seed: int = SEED) -> NDArray[np.uint8]:
    """The part of each row: the sizes of Criteo_x1, or as near in proportion as `rows` allows, at random.

    >>> np.bincount(x1(1000)).tolist()
    [720, 180, 100]
    """
    valid, test = (round(rows * size / CRITEO_ROWS) for size in X1_SIZES[1:])
    part = np.repeat(np.arange(3, dtype=np.uint8), (rows - valid - test, valid, test))
    np.random.RandomState(seed).shuffle(part)
    return _checked(part, "x1", present=(_TRAIN, _VALID, _TEST))


def x4(labels: ArrayLike) -> NDArray[np.uint8]:
    """The part of each row of Criteo_x4, from the labels of all rows in file order."""
    folds = stratified_folds(labels, 10, SEED)
    return np.array([_TEST, _VALID, *[_TRAIN] * 8], np.uint8)[folds]


def stratified_folds(labels: ArrayLike, n_splits: int, seed: int) -> NDArray[np.uint8]:
    """The fold of each row, as `StratifiedKFold(n_splits, shuffle=True, random_state=seed)` of scikit-learn 0.19.1.

    >>> stratified_folds([0, 0, 1, 0, 1, 0], 2, seed=0).tolist()
    [1, 1, 1, 0, 0, 0]
    """
    labels = np.asarray(labels)
    folds = np.empty(len(labels), np.uint8)
    for value in np.unique(labels):
        mine = labels == value
        m = int(np.count_nonzero(mine))
        if m < n_splits:
            raise ValueError(f"{m} rows have label {value}, and {n_splits} folds need one each: give more rows.")
        places = np.arange(m, dtype=np.int32)  # half the memory of int64; which type is shuffled makes no difference
        np.random.RandomState(seed).shuffle(places)
        dealt = np.empty(m, np.uint8)
        dealt[places] = np.repeat(
            np.arange(n_splits, dtype=np.uint8), [len(a) for a in np.array_split(places, n_splits)]
        )
        folds[mine] = dealt
    return folds


def _checked(part: NDArray[np.uint8], protocol: str, present: Sequence[int]) -> NDArray[np.uint8]:
    counts = np.bincount(part, minlength=3)
    for each in present:
        if not counts[each]:
            raise ValueError(
                f"{len(part)} rows leave none for the part {PARTS[each]!r} of protocol {protocol!r}: give more rows."
            )
    return part
