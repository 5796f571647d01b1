"""From values to ids: the values that training rows have often enough, or a hash.

    0   another value: not among the training rows, or in fewer than `min_count` of them
    1   missing
    2.. the values by falling number of training rows, and equally many by value

A value is a word (C1 ... C26, its 32 bits) or the bucket of a number (I1 ... I13),

    bucket(v) = floor((ln v)^2)  if v > 2,  else v,

as in the winning solution of the competition and in FuxiCTR; below -2^31 all numbers share a bucket. Logarithms are
not taken here: bucket k begins at ceil(e^sqrt(k)), in decimals, so that ids do not depend on a machine's `log`.

With `hash_bins` there is no list of values and no pass that counts: the id is 2 + mix(2^32 j + v) mod hash_bins, where
j is the place of the field among I1 ... C26, v the value as 32 bits, and mix the finalizer of SplitMix64 (Steele, Lea
and Flood 2014). Values may then share an id, and nothing has the id 0.

Counting takes memory for one run and for one range of values, and time in proportion to the rows. A run is what one
part of the training rows holds: sorted numbers (field: 6 bits, value: 32 bits, count: 26 bits), on disk. The runs are
merged by ranges of values, cut by samples of the runs so that each holds about `RANGE` entries.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, localcontext
from functools import cache
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparseopt.experiments.clicks.lines import CATEGORIES, FIELDS
from sparseopt.jit import kernel
from sparseopt.nn.wholefile import replacing

__all__ = [
    "MISSING",
    "OTHER",
    "FieldIds",
    "HashIds",
    "bucket",
    "codes",
    "count_run",
    "field_ids",
    "merged",
    "missing",
    "write_array",
]

OTHER, MISSING, FIRST = 0, 1, 2
RANGE = 1 << 22
_SAMPLE = 1 << 12  # of a run, every so many entries
_COUNT = np.uint64(26)
_FIELD = np.uint64(58)
_ONES = np.uint64((1 << 26) - 1)
_ZERO = 1 << 31  # the code of bucket 0: codes keep the order of buckets


@cache
def thresholds() -> NDArray[np.int64]:
    """The least whole number of bucket k, for k = 2, 3, ..., as far as numbers of 18 digits go."""
    with localcontext() as context:
        context.prec = 40
        last = math.floor(math.log(10.0**18) ** 2)
        least = [int(Decimal(k).sqrt().exp().to_integral_value("ROUND_CEILING")) for k in range(2, last + 1)]
    return np.array(least, np.int64)


def bucket(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """floor((ln v)^2) above 2; others stay.

    >>> bucket(np.array([-3, 0, 1, 2, 3, 4, 5, 100, 10**18 - 1])).tolist()
    [-3, 0, 1, 2, 1, 1, 2, 21, 1717]
    """
    out = np.empty(len(numbers), np.int64)
    _bucket(numbers, thresholds(), _small(), out)
    return out


@cache
def _small() -> NDArray[np.int64]:
    """The buckets of 0, 1, 2, ...: most numbers are small."""
    numbers = np.arange(1 << 12)
    return np.where(numbers > 2, 1 + np.searchsorted(thresholds(), numbers, side="right"), numbers)


@kernel
def _bucket(numbers, thresholds, small, out):
    for i in range(len(numbers)):
        v = numbers[i]
        if 0 <= v < len(small):
            out[i] = small[v]
        elif v < 0:
            out[i] = max(v, -(1 << 31))
        else:
            out[i] = 1 + np.searchsorted(thresholds, v, side="right")


def codes(field: str, values: NDArray[Any]) -> NDArray[np.uint32]:
    """Values of a field as 32 bits: words as they are, numbers by their buckets."""
    if field in CATEGORIES:
        return values
    return (bucket(values) + _ZERO).astype(np.uint32)


def missing(field: str, bits: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which rows lack the field."""
    return (bits >> np.uint64(FIELDS.index(field))) & np.uint64(1) != 0


# -- counting ----------------------------------------------------------------------------------------------------------


def count_run(columns: Mapping[str, NDArray[Any]], fields: Iterable[str], path: Path) -> None:
    """Write what some training rows hold, as a run. `columns` has values by field and the bits of `missing`."""
    pieces = []
    for field in fields:
        code = codes(field, columns[field])[~missing(field, columns["missing"])]
        values, counts = np.unique(code, return_counts=True)
        head = np.uint64(FIELDS.index(field)) << _FIELD
        pieces.append(head | values.astype(np.uint64) << _COUNT | counts.astype(np.uint64))
    with replacing(path) as file:
        write_array(file, np.concatenate(pieces))


def merged(runs: Sequence[Path], field: str, min_count: int, size: int = RANGE) -> tuple[NDArray, NDArray]:
    """The values of a field that occur at least `min_count` times, ascending, and how often each does.

    `size` is about how many entries are in memory at a time.
    """
    opened = [np.load(run, mmap_mode="r") for run in runs]
    head = FIELDS.index(field)
    slices = [run[_place(run, head, 0) : _place(run, head + 1, 0)] for run in opened]
    values, counts = [np.empty(0, np.uint32)], [np.empty(0, np.int64)]
    for entries in _ranges(slices, size):
        if not len(entries):
            continue
        entries.sort()
        value = (entries >> _COUNT).astype(np.uint32)
        first = np.flatnonzero(np.concatenate([[True], value[1:] != value[:-1]]))
        count = np.add.reduceat((entries & _ONES).astype(np.int64), first)
        often = count >= min_count
        values.append(value[first[often]])
        counts.append(count[often])
    return np.concatenate(values), np.concatenate(counts)


def write_array(file: IO[bytes], array: NDArray[Any]) -> None:
    """`np.save`, with the error of the disk if it is full: that of `tofile` does not say so."""
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
    file.write(array.tobytes() if array.size == 0 else array.data)


def _place(run: NDArray[np.uint64], field: int, value: int) -> int:
    return int(np.searchsorted(run, np.uint64(field << 58 | value << 26)))


def _ranges(slices: Sequence[NDArray[np.uint64]], size: int) -> Iterable[NDArray[np.uint64]]:
    """The entries of all slices, by ranges of values with about `size` entries each."""
    total = sum(map(len, slices))
    pieces = -(-total // size)
    if pieces <= 1:
        yield np.concatenate([*slices, np.empty(0, np.uint64)])
        return
    step = max(1, min(_SAMPLE, size // (4 * len(slices))))
    sample = np.sort(np.concatenate([each[::step] for each in slices]))
    # All entries of a value lie in one range: a cut has the count 0.
    cuts = np.unique(sample[np.arange(1, pieces) * len(sample) // pieces] & ~_ONES)
    places = [np.concatenate([[0], np.searchsorted(each, cuts), [len(each)]]) for each in slices]
    for i in range(len(cuts) + 1):
        yield np.concatenate([each[p[i] : p[i + 1]] for each, p in zip(slices, places, strict=True)])


# -- ids ---------------------------------------------------------------------------------------------------------------


class FieldIds(NamedTuple):
    """The ids of one field: `values` ascending, the id of each, and where those of equal leading bits begin."""

    values: NDArray[np.uint32]
    ids: NDArray[np.int32]
    starts: NDArray[np.int64]
    shift: int

    @property
    def size(self) -> int:
        """How many ids there are, with those of other and missing values."""
        return FIRST + len(self.values)

    def by_id(self) -> NDArray[np.uint32]:
        """The values in the order of their ids, from 2 on."""
        ordered = np.empty_like(self.values)
        ordered[self.ids - FIRST] = self.values
        return ordered

    def of(self, code: NDArray[np.uint32], absent: NDArray[np.bool_]) -> NDArray[np.int32]:
        out = np.empty(len(code), np.int32)
        _look_up(code, absent, self.values, self.ids, self.starts, self.shift, out)
        return out


def field_ids(values: NDArray[np.uint32], counts: NDArray[np.int64] | None = None) -> FieldIds:
    """Ids of ascending values with their counts, or of values in the order of their ids.

    >>> ids = field_ids(np.array([7, 8, 9], np.uint32), np.array([5, 6, 5]))
    >>> ids.of(np.array([7, 8, 9, 10, 0], np.uint32), np.array([False] * 4 + [True])).tolist()
    [3, 2, 4, 0, 1]
    """
    order = np.argsort(values) if counts is None else np.lexsort((values, -counts))
    ids = np.empty(len(values), np.int32)
    if counts is None:
        ids, values = (FIRST + order).astype(np.int32), values[order]
    else:
        ids[order] = np.arange(FIRST, FIRST + len(values), dtype=np.int32)
    bits = max(1, len(values)).bit_length()
    starts = np.searchsorted(values, np.arange(1 << bits, dtype=np.uint64) << np.uint64(32 - bits))
    return FieldIds(values, ids, np.append(starts, len(values)).astype(np.int64), 32 - bits)


@kernel
def _look_up(code, absent, values, ids, starts, shift, out):
    for i in range(len(code)):
        if absent[i]:
            out[i] = 1
            continue
        value = code[i]
        leading = value >> np.uint32(shift)
        low, high = starts[leading], starts[leading + 1]
        while low < high:
            middle = (low + high) >> 1
            if values[middle] < value:
                low = middle + 1
            else:
                high = middle
        out[i] = ids[low] if low < starts[leading + 1] and values[low] == value else 0


class HashIds(NamedTuple):
    """The ids of one field by a hash: `field` is its place in `FIELDS`."""

    field: int
    bins: int

    @property
    def size(self) -> int:
        return FIRST + self.bins

    def of(self, code: NDArray[np.uint32], absent: NDArray[np.bool_]) -> NDArray[np.int32]:
        """The id of each value.

        >>> HashIds(13, 1000).of(np.array([1, 2, 1], np.uint32), np.array([False, False, True])).tolist()
        [878, 445, 1]
        """
        out = np.empty(len(code), np.int32)
        _hash(code, absent, self.field, self.bins, out)
        return out


@kernel
def _hash(code, absent, field, bins, out):
    for i in range(len(code)):
        x = (np.uint64(field) << np.uint64(32)) | np.uint64(code[i])
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
        out[i] = 1 if absent[i] else 2 + np.int64(x % np.uint64(bins))


def values_of(numbers: NDArray[np.int64]) -> NDArray[np.float32]:
    """Numbers as a network may use them: log(1 + max(v, 0)), as in DLRM; a missing one is 0.

    >>> [f"{value:.3f}" for value in values_of(np.array([-1, 0, 9]))]
    ['0.000', '0.000', '2.303']
    """
    return np.log1p(np.maximum(numbers, 0).astype(np.float64)).astype(np.float32)
