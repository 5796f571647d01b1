"""Batches: every row once per epoch, in an order of (seed, epoch) alone, shared out and resumed without a seam.

A row of the part `Numbered` carries its own number in every column, so batches say which rows they hold. The laws are
functions over a class of batches, and reject classes that are wrong on purpose.
"""

from __future__ import annotations

import gc
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="batches are tensors")

from sparseopt.experiments.clicks.batches import Batch, Batches, ahead  # noqa: E402
from sparseopt.experiments.clicks.columns import Columns, ColumnsWriter, Field  # noqa: E402
from sparseopt.experiments.clicks.synthetic import make_columns  # noqa: E402


class Numbered:
    """Row i is ids (i, i % 7), value i / 2 if there are values, label i % 2. `reads` keeps what was asked for."""

    def __init__(self, rows: int, values: bool = True) -> None:
        self.rows, self.values = rows, values
        self.reads: list[tuple[int, int]] = []

    def read(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        assert 0 <= start <= stop <= self.rows
        self.reads.append((start, stop))
        i = np.arange(start, stop)
        ids = np.stack([i, i % 7], 1).astype(np.int32)
        values = (i[:, None] / 2).astype(np.float32) if self.values else None
        return ids, values, (i % 2).astype(np.float32)


def numbers(batch: Batch) -> list[int]:
    """Which rows a batch holds: the law that rows stay whole."""
    i = batch.ids[:, 0].long()
    assert batch.ids.dtype == torch.int32
    assert batch.labels.dtype == torch.float32
    assert batch.ids.is_contiguous()
    assert torch.equal(batch.ids[:, 1], (i % 7).int())
    assert torch.equal(batch.labels, (i % 2).float())
    if batch.values is not None:
        assert batch.values.dtype == torch.float32
        assert torch.equal(batch.values, (i[:, None] / 2).float())
    return i.tolist()


def rows_of(batches: Batches, epoch: int = 0, start: int = 0) -> list[list[int]]:
    # all are drawn before the first is looked at: they must stay as they are
    return [numbers(batch) for batch in list(batches.epoch(epoch, start))]


def flat(rows: list[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(rows))


Kind = type[Batches]
SETTINGS = {
    "rows": st.integers(1, 200),
    "batch": st.integers(1, 60),
    "window": st.integers(1, 250),
    "block": st.integers(1, 100),
    "seed": st.integers(0, 2**40),
    "epoch": st.integers(0, 5),
}


# -- the laws ----------------------------------------------------------------------------------------------------------


def every_row_once(kind: Kind, rows: int, batch: int, window: int, block: int, seed: int, epoch: int) -> None:
    whole = kind(Numbered(rows), batch, seed=seed, window=window, block=block, drop_last=False)
    parts = rows_of(whole, epoch)
    assert sorted(flat(parts)) == list(range(rows))
    assert [len(part) for part in parts] == [min(batch, rows - g * batch) for g in range(-(-rows // batch))]
    assert len(whole) == len(parts)
    if rows >= batch:  # without the last one: the same batches
        full = kind(Numbered(rows), batch, seed=seed, window=window, block=block)
        assert rows_of(full, epoch) == parts[: rows // batch]
        assert len(full) == rows // batch


def shares_join_to_the_batch(
    kind: Kind, rows: int, batch: int, window: int, block: int, seed: int, epoch: int, world: int = 3
) -> None:
    options: dict[str, Any] = {"seed": seed, "window": window, "block": block, "drop_last": False}
    alone = rows_of(kind(Numbered(rows), batch * world, **options), epoch)
    shares = [rows_of(kind(Numbered(rows), batch * world, rank=r, world=world, **options), epoch) for r in range(world)]
    assert [flat(list(parts)) for parts in zip(*shares, strict=True)] == alone
    for parts in zip(*shares, strict=True):
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1


def resumed_epochs_are_tails(kind: Kind, rows: int, batch: int, window: int, block: int, seed: int, epoch: int) -> None:
    batches = kind(Numbered(rows), batch, seed=seed, window=window, block=block, drop_last=False)
    whole = rows_of(batches, epoch)
    for start in {0, 1, len(whole) // 2, len(whole) - 1, len(whole)} & set(range(len(whole) + 1)):
        assert rows_of(batches, epoch, start) == whole[start:]


def the_order_is_of_seed_and_epoch(
    kind: Kind, rows: int, batch: int, window: int, block: int, seed: int, epoch: int
) -> None:
    options: dict[str, Any] = {"window": window, "block": block, "drop_last": False}
    order = flat(rows_of(kind(Numbered(rows), batch, seed=seed, **options), epoch))
    again = kind(Numbered(rows, values=False), batch, seed=seed, **options)
    for other in range(epoch):  # what was read before changes nothing
        rows_of(again, other)
    assert flat(rows_of(again, epoch)) == order
    for size in (1, batch + 1, rows):
        assert flat(rows_of(kind(Numbered(rows), size, seed=seed, **options), epoch)) == order


def epochs_and_seeds_differ(kind: Kind, rows: int, batch: int, window: int, block: int, seed: int, epoch: int) -> None:
    rows, window = rows + 50, window + 50  # so that equal orders are no accident
    options: dict[str, Any] = {"window": window, "block": block, "drop_last": False}
    batches = kind(Numbered(rows), batch, seed=seed, **options)
    orders = [flat(rows_of(batches, epoch + k)) for k in range(3)]
    orders += [flat(rows_of(kind(Numbered(rows), batch, seed=seed + 1, **options), epoch))]
    orders += [list(range(rows))]
    assert len({tuple(order) for order in orders}) == len(orders)


def without_shuffling_rows_are_in_file_order(
    kind: Kind, rows: int, batch: int, window: int, block: int, seed: int, epoch: int
) -> None:
    options: dict[str, Any] = {"seed": seed, "window": window, "block": block, "drop_last": False, "shuffle": False}
    assert flat(rows_of(kind(Numbered(rows), batch, **options), epoch)) == list(range(rows))


LAWS: dict[str, Callable[..., None]] = {
    law.__name__: law
    for law in (
        every_row_once,
        shares_join_to_the_batch,
        resumed_epochs_are_tails,
        the_order_is_of_seed_and_epoch,
        epochs_and_seeds_differ,
        without_shuffling_rows_are_in_file_order,
    )
}


@pytest.mark.parametrize("law", LAWS)
@settings(max_examples=30)
@given(**SETTINGS)
def test_laws(law: str, **case: int) -> None:
    LAWS[law](Batches, **case)


# rows, batch, window and block of every relation: divisible or not, window < block, window > rows, batch > rows
CORNERS = [
    (1, 1, 1, 1),
    (1, 7, 5, 3),
    (97, 10, 13, 5),
    (97, 10, 5, 13),
    (97, 200, 300, 40),
    (96, 8, 32, 16),
    (97, 97, 97, 97),
    (60, 1, 7, 200),
    (100, 64, 10, 1),
]


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("law", LAWS)
def test_laws_at_the_corners(law: str, corner: tuple[int, int, int, int]) -> None:
    rows, batch, window, block = corner
    LAWS[law](Batches, rows=rows, batch=batch, window=window, block=block, seed=3, epoch=1)


# -- wrong batches, which the laws reject ------------------------------------------------------------------------------


class ShuffledByRank(Batches):
    def _generator(self, epoch: int, key: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.rank, epoch, key])


class ShuffledByBatch(Batches):
    def _generator(self, epoch: int, key: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.batch, epoch, key])


class OneOrder(Batches):
    def _generator(self, epoch: int, key: int) -> np.random.Generator:
        return super()._generator(0, key)


class AnySeed(Batches):
    def _generator(self, epoch: int, key: int) -> np.random.Generator:
        return np.random.default_rng([epoch, key])


class OneStream(Batches):
    """Windows draw from one generator, one after the other: resumed, they get other numbers."""

    _stream: np.random.Generator

    def _generator(self, epoch: int, key: int) -> np.random.Generator:
        if key == 0:
            self._stream = super()._generator(epoch, 0)
        return self._stream


class DropsARow(Batches):
    def _share(self, g: int) -> tuple[int, int]:
        first, last = super()._share(g)
        return first, last - (g == 2)


class RepeatsAWindow(Batches):
    def _stage(self, blocks: list[tuple[int, int]], begin: int, staged: list[np.ndarray]) -> None:
        super()._stage(blocks, 0, staged)


class RepeatsARow(Batches):
    def _order(self, epoch: int, window: int) -> np.ndarray:
        order = super()._order(epoch, window).copy()
        order[-1] = order[0]
        return order


class SharesOverlap(Batches):
    def _share(self, g: int) -> tuple[int, int]:
        first, last = super()._share(g)
        return (first - 1 if self.rank == 1 else first), last


class SharesSwapped(Batches):
    def _share(self, g: int) -> tuple[int, int]:
        mine = self.rank
        self.rank = self.world - 1 - mine
        try:
            return super()._share(g)
        finally:
            self.rank = mine


class AlwaysShuffles(Batches):
    def __init__(self, part: Any, batch: int, **options: Any) -> None:
        super().__init__(part, batch, **options | {"shuffle": True})


class NeverShuffles(Batches):
    def __init__(self, part: Any, batch: int, **options: Any) -> None:
        super().__init__(part, batch, **options | {"shuffle": False})


class StartsOver(Batches):
    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        return itertools.islice(super().epoch(number), len(self) - start)


class ReusesMemory(Batches):
    """Every batch is written over the one before."""

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        kept: Batch | None = None
        for batch in super().epoch(number, start):
            if kept is None or len(kept.labels) != len(batch.labels):
                kept = batch
            else:
                for mine, new in zip(kept, batch, strict=True):
                    if mine is not None and new is not None:
                        mine.copy_(new)
            yield kept


class MixesColumns(Batches):
    """Labels stay in the order of the file."""

    def _read(self, epoch: int, start: int) -> Iterator[Batch]:
        plain = Batches(self.part, self.batch, shuffle=False, drop_last=self.drop_last)
        for batch, other in zip(super()._read(epoch, start), plain._read(epoch, start), strict=True):
            yield batch._replace(labels=other.labels)


REJECTED: list[tuple[Kind, str]] = [
    (ShuffledByRank, "shares_join_to_the_batch"),
    (SharesOverlap, "shares_join_to_the_batch"),
    (SharesSwapped, "shares_join_to_the_batch"),
    (ShuffledByBatch, "the_order_is_of_seed_and_epoch"),
    (OneOrder, "epochs_and_seeds_differ"),
    (AnySeed, "epochs_and_seeds_differ"),
    (NeverShuffles, "epochs_and_seeds_differ"),
    (AlwaysShuffles, "without_shuffling_rows_are_in_file_order"),
    (OneStream, "resumed_epochs_are_tails"),
    (StartsOver, "resumed_epochs_are_tails"),
    (DropsARow, "every_row_once"),
    (RepeatsAWindow, "every_row_once"),
    (RepeatsARow, "every_row_once"),
    (ReusesMemory, "every_row_once"),
    (MixesColumns, "every_row_once"),
]


@pytest.mark.parametrize(("kind", "law"), REJECTED)
def test_wrong_batches_are_rejected(kind: Kind, law: str) -> None:
    with pytest.raises(AssertionError):
        LAWS[law](kind, rows=97, batch=10, window=33, block=8, seed=3, epoch=1)


# -- how well rows are shuffled, and what is read ----------------------------------------------------------------------


def test_rows_of_a_window_come_from_many_blocks() -> None:
    order = np.array(flat(rows_of(Batches(Numbered(4096), 64, window=1024, block=32, drop_last=False))))
    for window in order.reshape(4, 1024):
        assert len(set((window // 32).tolist())) == 32
    assert abs(np.corrcoef(order, np.arange(4096))[0, 1]) < 0.1


def test_a_window_as_large_as_the_file_makes_every_order_likely() -> None:
    # 3 rows, 6 orders, 600 epochs: each order 100 times, give or take 5 standard deviations of 9.1
    batches = Batches(Numbered(3), 3, window=8, block=1)
    counts = np.unique([flat(rows_of(batches, epoch)) for epoch in range(600)], axis=0, return_counts=True)[1]
    assert len(counts) == 6
    assert np.abs(counts - 100).max() < 46


def test_every_row_is_read_once_and_in_stretches() -> None:
    part = Numbered(1000)
    list(Batches(part, 10, window=300, block=50).epoch(0))
    assert sum(stop - start for start, stop in part.reads) == 1000
    assert len(part.reads) < 30


def test_a_resumed_epoch_reads_what_it_needs() -> None:
    part = Numbered(1000)
    list(Batches(part, 10, window=100, block=50).epoch(0, start=95))
    assert sum(stop - start for start, stop in part.reads) == 100


def test_the_thread_is_not_far_ahead() -> None:
    part = Numbered(100_000)
    epoch = Batches(part, 10, window=1000, block=50).epoch(0)
    next(epoch)
    time.sleep(0.2)
    # 64 batches wait, one was taken and one is held by the thread: the first window, and no more
    assert sum(stop - start for start, stop in part.reads) <= 2000
    epoch.close()  # type: ignore[attr-defined]


def test_real_columns(tmp_path: Path) -> None:
    rows, fields = 20_011, [Field("C1", 30_000), Field("I1"), Field("C2", 7)]
    writer = ColumnsWriter(tmp_path, {"train": rows}, fields)
    i = np.arange(rows)
    writer.write("train", 0, {"C1": i, "C2": i % 7, "I1": i / 2, "label": i % 2})
    part = writer.finish().part("train")
    batches = Batches(part, 1000, drop_last=False, window=7000, block=512)
    assert sorted(flat(rows_of(batches))) == list(range(rows))


def test_without_values_there_are_none(tmp_path: Path) -> None:
    columns = make_columns(tmp_path, 100, [5, 6])
    assert all(batch.values is None for batch in Batches(columns.part("train"), 30).epoch(0))


def test_an_empty_share_has_its_columns() -> None:
    shares = [list(Batches(Numbered(9), 4, rank=r, world=4, drop_last=False).epoch(0))[-1] for r in range(4)]
    assert sorted(len(share.labels) for share in shares) == [0, 0, 0, 1]
    assert all(share.ids.shape[1] == 2 and share.values is not None and share.values.shape[1] == 1 for share in shares)


# -- the thread --------------------------------------------------------------------------------------------------------


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "batches"]


def test_no_thread_before_the_first_batch_and_none_after_the_last() -> None:
    epoch = Batches(Numbered(100), 10).epoch(0)
    assert threads() == []
    next(epoch)
    assert len(list(epoch)) == 9
    assert threads() == []


def test_a_consumer_that_stops_ends_the_thread() -> None:
    for _ in Batches(Numbered(100_000), 10, window=100).epoch(0):
        break
    gc.collect()
    assert threads() == []
    epoch = Batches(Numbered(100_000), 10, window=100).epoch(0)
    next(epoch)
    epoch.close()  # type: ignore[attr-defined]
    assert threads() == []


def test_a_consumer_that_fails_ends_the_thread() -> None:
    def consume() -> None:
        for _ in Batches(Numbered(100_000), 10, window=100).epoch(0):
            raise KeyError("consumer")

    with pytest.raises(KeyError, match="consumer"):
        consume()
    gc.collect()
    assert threads() == []


def test_many_epochs_side_by_side() -> None:
    batches = Batches(Numbered(500), 10, window=64)
    for together in zip(*(batches.epoch(0) for _ in range(5)), strict=True):
        assert all(numbers(batch) == numbers(together[0]) for batch in together)
    assert threads() == []


def test_what_fails_in_the_thread_is_raised_after_what_came_before() -> None:
    class Breaks(Numbered):
        def read(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
            if start >= 200:
                raise OSError("the disk is gone")
            return super().read(start, stop)

    seen: list[Batch] = []
    with pytest.raises(OSError, match="the disk is gone"):
        seen.extend(Batches(Breaks(400), 10, window=100, block=10, shuffle=False).epoch(0))
    assert [numbers(batch)[0] for batch in seen] == list(range(0, 200, 10))
    assert threads() == []


def test_an_id_out_of_range_is_told_by_its_column(tmp_path: Path) -> None:
    make_columns(tmp_path, 1000, [5, 300])
    file = tmp_path / "train" / "C2.npy"
    data = bytearray(file.read_bytes())
    data[128 + 2 * 700 + 1] = 255
    file.write_bytes(data)
    with pytest.raises(ValueError, match=r"column C2 of .* in row 700, where 0 to 299 are right: .*\.$"):
        list(Batches(Columns.open(tmp_path).part("train"), 10).epoch(0))


def test_ahead_is_bounded_and_in_order() -> None:
    drawn = []

    def items() -> Iterator[int]:
        for i in range(100):
            drawn.append(i)
            yield i

    for i, item in enumerate(ahead(items, 3)):
        assert item == i
        if i == 10:
            time.sleep(0.1)
        assert len(drawn) <= i + 1 + 3 + 1  # taken, waiting, held by the thread


def test_ahead_of_nothing() -> None:
    assert list(ahead(lambda: iter(()), 1)) == []


def test_ahead_keeps_no_item() -> None:
    class Item:
        alive = 0

        def __init__(self) -> None:
            Item.alive += 1

        def __del__(self) -> None:
            Item.alive -= 1

    for item in ahead(lambda: (Item() for _ in range(50)), 2):
        del item
        assert Item.alive <= 4


# -- wrong arguments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"batch": 0}, "batch is 0: give at least 1."),
        ({"seed": -1}, "seed is -1: give at least 0."),
        ({"window": 0}, "window is 0: give at least 1."),
        ({"block": 0}, "block is 0: give at least 1."),
        ({"world": 0}, "world is 0: give at least 1."),
        ({"rank": 2, "world": 2}, "rank is 2 of 2 processes: give 0 to 1."),
        ({"rank": -1}, "rank is -1 of 1 processes: give 0 to 0."),
        ({"batch": 10, "world": 4}, "batch is 10 for 4 processes: give a multiple of 4."),
        (
            {"batch": 101},
            "batch is 101, there are 100 rows, and drop_last leaves none of them: "
            "give a smaller batch, or drop_last=False.",
        ),
    ],
)
def test_wrong_arguments(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the whole message is compared
        Batches(Numbered(100), **{"batch": 10} | options)
    assert str(caught.value) == told


def test_wrong_epochs() -> None:
    batches = Batches(Numbered(100), 10)
    with pytest.raises(ValueError, match=r"^epoch is -1: give at least 0\.$"):
        batches.epoch(-1)
    for start in (-1, 11):
        with pytest.raises(ValueError, match=rf"^start is {start}, and an epoch has 10 batches: give 0 to 10\.$"):
            batches.epoch(0, start)
    with pytest.raises(ValueError, match=r"^room is 0: give at least 1\.$"):
        ahead(lambda: iter(()), 0)


# -- speed -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1024, 32768])
def test_a_million_rows_a_second(tmp_path: Path, batch: int) -> None:
    part = make_columns(tmp_path, 1_000_000).part("train")
    best = 0.0
    for epoch in range(3):  # processor time: other programs may be running
        begun = time.process_time()
        rows = sum(len(each.labels) for each in Batches(part, batch).epoch(epoch))
        best = max(best, rows / (time.process_time() - begun))
    assert best > 1e6
