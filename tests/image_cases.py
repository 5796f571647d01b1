"""Small images, and the laws of feeds: functions that raise an AssertionError for a feed that breaks them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

# make(rank, world) is one process's feed. Two feeds made alike must give the same batches.
Make = Callable[[int, int], Any]


def paint(file: Path, number: int, mode: str = "RGB") -> Path:
    """A picture of 12 x 10 pixels whose red is `number` everywhere."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((10, 12, 3), number, np.uint8)
    pixels[..., 1] = np.arange(12) * 20
    Image.fromarray(pixels).convert(mode).save(file)
    return file


def paint_folder(folder: Path, counts: dict[str, int]) -> Path:
    """Classes of so many images, painted 0, 1, 2, ... in the order of names."""
    number = 0
    for name in sorted(counts):
        for i in range(counts[name]):
            paint(folder / name / f"{i:03d}.png", number)
            number += 1
    return folder


def with_a_draw(image: Any) -> Tensor:
    """(3, 2, 2): the red of an image, a random number, zeros."""
    red = float(np.asarray(image)[0, 0, 0])
    return torch.stack([torch.full((2, 2), red), torch.rand(1).expand(2, 2), torch.zeros(2, 2)])


def batches(feed: Any, epoch: int, start: int = 0) -> list[tuple[Tensor, Tensor]]:
    found = list(feed.epoch(epoch, start))
    for x, y in found:
        assert x.dtype == torch.float32, x.dtype
        assert y.dtype == torch.int64, y.dtype
        assert len(x) == len(y)
    return found


def same(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(one, other, strict=True)
    )


def images_of(found: list[tuple[Tensor, Tensor]]) -> list[int]:
    """The numbers that were painted."""
    return [int(red) for x, _ in found for red in x[:, 0, 0, 0]]


def every_image_comes_once(make: Make, rows: int, batch: int, drop_last: bool) -> None:
    feed = make(0, 1)
    full, rest = divmod(rows, batch)
    assert feed.rows == rows
    assert len(feed) == full + (rest > 0 and not drop_last)
    for epoch in range(2):
        numbers = images_of(batches(feed, epoch))
        assert len(set(numbers)) == len(numbers) == (full * batch if drop_last else rows)
        assert set(numbers) <= set(range(rows))


def shares_join_to_the_global_batch(make: Make, world: int) -> None:
    whole = batches(make(0, 1), 1)
    shares = [batches(make(rank, world), 1) for rank in range(world)]
    assert all(len(each) == len(whole) for each in shares)
    joined = [
        (torch.cat([share[g][0] for share in shares]), torch.cat([share[g][1] for share in shares]))
        for g in range(len(whole))
    ]
    assert same(joined, whole)
    sizes = [len(share[0][1]) for share in shares]
    assert max(sizes) == min(sizes)


def a_resumed_epoch_goes_on_as_the_whole_one(make: Make) -> None:
    whole = batches(make(0, 1), 1)
    for start in range(len(whole) + 1):
        torch.manual_seed(start)  # whatever was drawn before
        assert same(batches(make(0, 1), 1, start), whole[start:])


def epochs_are_repeatable_and_differ(make: Make) -> None:
    feed = make(0, 1)
    first, second, again = (batches(feed, epoch) for epoch in (0, 1, 0))
    assert same(first, again)
    assert images_of(first) != images_of(second)
    # The images of the first batch come again in the second epoch, drawn anew.
    draws = [{int(x[0, 0, 0]): float(x[1, 0, 0]) for batch, _ in found for x in batch} for found in (first, second)]
    common = draws[0].keys() & draws[1].keys()
    assert common
    assert all(draws[0][number] != draws[1][number] for number in common)


def global_random_numbers_stay(make: Make) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    batches(make(0, 1), 0)
    assert torch.equal(torch.rand(4), expected)


class Wrong:
    """A feed that does something else with its epochs."""

    def __init__(self, feed: Any, read: Callable[[Any, int, int], Iterator[tuple[Tensor, Tensor]]]) -> None:
        self.feed, self.read, self.rows = feed, read, feed.rows

    def __len__(self) -> int:
        return len(self.feed)

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        return self.read(self.feed, number, start)
