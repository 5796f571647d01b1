"""CIFAR-10 as batches: which files are read, and the laws that feeds obey."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import image_cases as laws  # noqa: E402

from sparseopt.experiments.cifar import Images, augmented, normalised  # noqa: E402
from sparseopt.experiments.images.cifar_feed import CifarImages, CifarSet, has_official, read_cifar  # noqa: E402
from sparseopt.experiments.images.order import Order  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS = 23


def numbered(rows: int = ROWS) -> CifarSet:
    """Images with nothing in them but their number, in the red of every pixel."""
    pixels = np.zeros((rows, 32, 32, 3), np.uint8)
    pixels[..., 0] = np.arange(rows)[:, None, None]
    pixels[..., 1] = np.random.default_rng(0).integers(0, 256, (rows, 32, 32))
    return CifarSet(Images(pixels, np.arange(rows, dtype=np.int64) % 10))


class Numbers:
    """A feed whose images show what the laws look at: (n, 3, 1, 1) of number, a digest of what was drawn, 0."""

    def __init__(
        self,
        rank: int = 0,
        world: int = 1,
        kind: type[CifarImages] = CifarImages,
        augment: bool = True,
        drop_last: bool = True,
    ) -> None:
        order = Order(ROWS, batch=6, seed=5, drop_last=drop_last, rank=rank, world=world)
        self.feed = kind(numbered(), order, augment=augment)
        self.rows = self.feed.rows

    def __len__(self) -> int:
        return len(self.feed)

    def epoch(self, number: int, start: int = 0) -> Iterator[Any]:
        reds = normalised(numbered().images.pixels)[:, 0, 16, 16]
        for x, y in self.feed.epoch(number, start):
            found = (x[:, 0, 16, 16, None] - reds).abs().argmin(1)
            weights = torch.linspace(1.0, 2.0, 32 * 32).view(32, 32)
            digest = (x[:, 1] * weights).sum((1, 2))
            yield torch.stack([found.float(), digest, torch.zeros(len(x))], 1)[:, :, None, None], y


@pytest.mark.parametrize("drop_last", [True, False])
def test_every_image_comes_once_in_an_epoch(drop_last: bool) -> None:
    laws.every_image_comes_once(partial(Numbers, drop_last=drop_last), ROWS, 6, drop_last)


@pytest.mark.parametrize("world", [2, 3, 6])
def test_shares_join_to_the_global_batch(world: int) -> None:
    laws.shares_join_to_the_global_batch(partial(Numbers, drop_last=False), world)


@pytest.mark.parametrize("augment", [True, False])
def test_a_resumed_epoch_goes_on_as_the_whole_one(augment: bool) -> None:
    laws.a_resumed_epoch_goes_on_as_the_whole_one(partial(Numbers, drop_last=False, augment=augment))


def test_epochs_are_repeatable_and_differ() -> None:
    laws.epochs_are_repeatable_and_differ(Numbers)
    with pytest.raises(AssertionError):
        laws.epochs_are_repeatable_and_differ(partial(Numbers, augment=False))


def test_global_random_numbers_stay() -> None:
    laws.global_random_numbers_stay(Numbers)


class Alone(CifarImages):
    """Every process draws for its own images, so what is drawn depends on the number of processes."""

    def _read(self, number: int, start: int) -> Iterator[Any]:
        for g, rows in self.order.batches(number, start):
            mine = self.order.share(rows)
            x = augmented(normalised(self.images.pixels[mine]), torch.Generator().manual_seed(g))
            yield x, torch.from_numpy(self.images.labels[mine])


def test_draws_for_shares_alone_are_rejected() -> None:
    with pytest.raises(AssertionError):
        laws.shares_join_to_the_global_batch(partial(Numbers, kind=Alone), 2)


def test_images_are_normalised_and_moved() -> None:
    plain = laws.batches(CifarImages(numbered(), Order(ROWS, 6, shuffle=False)), 0)
    assert torch.equal(plain[0][0], normalised(numbered().images.pixels[:6]))
    moved = laws.batches(CifarImages(numbered(), Order(ROWS, 6, shuffle=False), augment=True), 0)
    assert moved[0][0].shape == plain[0][0].shape
    assert moved[0][0].is_contiguous()
    assert not torch.equal(moved[0][0], plain[0][0])
    assert torch.equal(moved[0][1], plain[0][1])


def test_some_of_the_images() -> None:
    some = numbered().take(np.array([7, 3]))
    assert (len(some), some.classes, some.labels.tolist()) == (2, 10, [7, 3])
    assert some.names[3] == "cat"


def test_an_order_of_other_images_is_rejected() -> None:
    for rows in (ROWS - 1, ROWS + 1):
        with pytest.raises(ValueError, match=f"there are {ROWS} images, and their order has {rows}: give Order"):
            CifarImages(numbered(), Order(rows, 6))


# -- files -------------------------------------------------------------------------------------------------------------


def write_official(home: Path, rows: int = 3) -> None:
    home.mkdir(parents=True)
    for number, name in enumerate([*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]):
        records = np.full((rows, 3073), number, np.uint8)
        records[:, 0] = np.arange(rows)
        records[:, 1 + 1024] = 200  # the first pixel's green
        records[:, 2] = 100  # the second one's red
        records.tofile(home / name)


def test_the_official_files_are_read(tmp_path: Path) -> None:
    assert not has_official(tmp_path)
    write_official(tmp_path / "cifar-10-batches-bin")
    assert has_official(tmp_path)
    train, test = read_cifar(tmp_path, "train"), read_cifar(tmp_path, "test")
    assert (len(train), len(test)) == (15, 3)
    assert train.labels.tolist() == [0, 1, 2] * 5
    assert train.images.pixels[:, 5, 5, 0].tolist() == [i for i in range(5) for _ in range(3)]
    assert test.images.pixels[0, 0, :2].tolist() == [[5, 200, 5], [100, 5, 5]]
    x, y = next(CifarImages(train, Order(15, 5)).epoch(0))
    assert (x.shape, y.shape) == ((5, 3, 32, 32), (5,))


def test_what_is_wrong_with_files_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="part is 'valid': choose one of train, test, lossless, jpeg"):
        read_cifar(tmp_path, "valid")
    for part in ("train", "lossless"):
        with pytest.raises(FileNotFoundError, match="has no CIFAR-10: expected cifar-10-batches-bin"):
            read_cifar(tmp_path, part)
    with pytest.raises(FileNotFoundError, match="has no official files of CIFAR-10: expected"):
        read_cifar(tmp_path, "test")
    write_official(tmp_path / "cifar-10-batches-bin")
    with (tmp_path / "cifar-10-batches-bin" / "test_batch.bin").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ValueError, match=r"test_batch\.bin is missing or cut short: unpack the archive again"):
        read_cifar(tmp_path, "test")


def test_an_archive_of_pickles_that_was_changed_is_rejected(tmp_path: Path) -> None:
    from sparseopt.experiments.images.vision import prepare_torchvision

    if not prepare_torchvision():
        pytest.skip("torchvision is not installed")
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(ValueError, match="cifar-10-batches-py is incomplete or changed: unpack the archive again"):
        read_cifar(tmp_path, "train")


@pytest.mark.parametrize(("part", "rows"), [("lossless", 1000), pytest.param("jpeg", 10_000, marks=pytest.mark.slow)])
def test_the_test_images_beside_the_repository(shared_data: Path, part: str, rows: int) -> None:
    images = read_cifar(shared_data, part)
    assert len(images) == rows
    found = laws.batches(CifarImages(images, Order(rows, 300, shuffle=False, drop_last=False)), 0)
    assert torch.cat([y for _, y in found]).tolist() == images.labels.tolist()
