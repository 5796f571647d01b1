"""Splits: sizes of the published protocols, and the folds of scikit-learn 0.19.1, which deals them in its own way."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from sparseopt.experiments.clicks.splitting import CRITEO_ROWS, by_shares, by_time, stratified_folds, x1, x4

POSITIVES = 11_745_438  # of Criteo's rows


def brute_force(labels: list[int], n_splits: int, seed: int) -> list[int]:
    """The folds of scikit-learn 0.19.1, written down from its source in plain loops, for classes of any size.

    One `KFold(n_splits, shuffle=True, random_state=seed).split(np.zeros(max(count, n_splits)))` per class: each makes
    a generator of its own from the integer seed. Test places come back sorted; those past the class are dropped.
    """
    folds = [-1] * len(labels)
    for value in sorted(set(labels)):
        rows = [i for i, label in enumerate(labels) if label == value]
        n = max(len(rows), n_splits)
        indices = np.arange(n)
        np.random.RandomState(seed).shuffle(indices)
        current = 0
        for fold in range(n_splits):
            size = n // n_splits + (1 if fold < n % n_splits else 0)
            for place in sorted(indices[current : current + size]):
                if place < len(rows):
                    folds[rows[place]] = fold
            current += size
    return folds


@given(
    st.lists(st.integers(0, 1), min_size=20, max_size=300).filter(lambda y: 5 <= sum(y) <= len(y) - 5),
    st.integers(2, 5),
    st.integers(0, 3000),
)
def test_folds_are_those_of_the_old_version(labels: list[int], n_splits: int, seed: int) -> None:
    assert stratified_folds(labels, n_splits, seed).tolist() == brute_force(labels, n_splits, seed)


def drawn(rows: int) -> NDArray[np.uint8]:
    return (np.random.RandomState(1).rand(rows) < 0.27).astype(np.uint8)


def test_folds_are_those_that_its_source_gives() -> None:
    # From running sklearn/model_selection/_split.py of the wheel scikit_learn-0.19.1-cp36-cp36m-manylinux1_x86_64.
    recorded = {1000: "3f9c717b101a248b", 12345: "0dfb83c8bcbab2bd", 100_000: "911527777dddac58"}
    for rows, digest in recorded.items():
        folds = stratified_folds(drawn(rows), 10, 2018)
        assert hashlib.sha256(folds.astype(np.uint8).tobytes()).hexdigest()[:16] == digest


def test_the_present_version_deals_others() -> None:
    labels = drawn(1000)
    new = np.empty(1000, int)
    for fold, (_, test) in enumerate(StratifiedKFold(10, shuffle=True, random_state=2018).split(labels, labels)):
        new[test] = fold
    assert not np.array_equal(new, stratified_folds(labels, 10, 2018))


def test_a_shared_generator_would_be_noticed() -> None:
    # Versions from 0.22 on draw all classes from one generator.
    labels = drawn(200)
    generator = np.random.RandomState(2018)
    wrong = np.empty(200, np.uint8)
    for value in (0, 1):
        rows = np.flatnonzero(labels == value)
        for fold, places in enumerate(np.array_split(generator.permutation(len(rows)), 10)):
            wrong[rows[places]] = fold
    right = brute_force(labels.tolist(), 10, 2018)
    assert wrong[labels == 0].tolist() == [f for f, y in zip(right, labels, strict=True) if y == 0]
    assert wrong.tolist() != right


def test_x4_tests_on_the_first_fold_and_validates_on_the_second() -> None:
    labels = drawn(500)
    folds = np.array(brute_force(labels.tolist(), 10, 2018))
    assert x4(labels).tolist() == np.select([folds == 0, folds == 1], [2, 1], 0).tolist()


@pytest.mark.slow
def test_sizes_on_the_whole_data() -> None:
    labels = np.zeros(CRITEO_ROWS, np.uint8)
    labels[:POSITIVES] = 1
    assert np.bincount(x4(labels)).tolist() == [36_672_493, 4_584_062, 4_584_062]
    assert np.bincount(x1(CRITEO_ROWS)).tolist() == [33_003_326, 8_250_124, 4_587_167]


def test_x1_is_drawn_alike_everywhere() -> None:
    part = x1(10_000)
    assert np.bincount(part).tolist() == [7199, 1800, 1001]
    assert hashlib.sha256(part.tobytes()).hexdigest()[:16] == "656f9e4baa3ce701"


@pytest.mark.parametrize("rows", [14, 15, 20, 97, 700, 12_345])
def test_time_is_split_by_the_days_of_dlrm(rows: int) -> None:
    days, extras = divmod(rows, 7)
    per_day = [days + (day < extras) for day in range(7)]
    cut = np.array_split(np.arange(rows), np.cumsum(per_day)[:-1])
    test, valid = np.array_split(cut[-1], 2)
    part = by_time(rows)
    assert np.flatnonzero(part == 2).tolist() == test.tolist()
    assert np.flatnonzero(part == 1).tolist() == valid.tolist()


def test_shares_follow_each_other_in_time() -> None:
    part = by_shares(1000, (0.8, 0.15, 0.05))
    assert np.bincount(part).tolist() == [800, 150, 50]
    assert (np.diff(part.astype(int)) >= 0).all()
    assert np.bincount(by_shares(10, (0.9, 0.1))).tolist() == [9, 1]


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="8 rows leave none for the part 'valid' of protocol 'time': give more rows"):
        by_time(8)
    with pytest.raises(ValueError, match="protocol 'x1'"):
        x1(3)
    with pytest.raises(ValueError, match="2 rows have label 1, and 10 folds need one each"):
        x4([0] * 50 + [1] * 2)
    with pytest.raises(ValueError, match=r"shares are \(0.5, 0.6\): give two or three numbers above 0 with sum 1"):
        by_shares(10, (0.5, 0.6))
