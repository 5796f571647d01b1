"""CIFAR-10 as batches.

    DIR/cifar-10-batches-bin/ or -py/     the official files, as downloaded and unpacked: parts "train" and "test"
    DIR/cifar10/                          what `sparseopt.experiments.cifar` reads: "train", "lossless" and "jpeg"

All images are kept in memory. Training images are moved and reflected by `cifar.augmented` with numbers that (seed,
epoch, global batch) fix: whole global batches draw, so a share is the same wherever an epoch is taken up and whatever
the number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparseopt.experiments.cifar import (
    SIDE,
    Images,
    augmented,
    load_test_jpeg,
    load_test_lossless,
    load_train,
    normalised,
)
from sparseopt.experiments.images.order import Order
from sparseopt.experiments.images.vision import import_torchvision

__all__ = ["NAMES", "PARTS", "CifarImages", "CifarSet", "has_official", "read_cifar"]

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PARTS = ("train", "test", "lossless", "jpeg")
_BINARY = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}


@dataclass(frozen=True, eq=False)
class CifarSet:
    """Images in memory and what their labels mean."""

    images: Images
    names: tuple[str, ...] = NAMES

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.images.labels)

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.names)

    @property
    def labels(self) -> NDArray[np.int64]:
        """(n,), indices into `names`."""
        return self.images.labels

    def take(self, rows: NDArray[np.int64]) -> CifarSet:
        """Some of the images; the classes stay as they are."""
        return CifarSet(self.images.take(rows), self.names)


def has_official(folder: Path) -> bool:
    """Whether the official files lie in a folder."""
    return any((folder / f"cifar-10-batches-{kind}").is_dir() for kind in ("bin", "py"))


def read_cifar(folder: Path, part: str, cache: Path | None = None) -> CifarSet:
    """One part of CIFAR-10.

    Parameters
    ----------
    folder : Path
        See above. Accuracies on "test", "lossless" (1,000 of its images) and "jpeg" are not comparable.
    part : {"train", "test", "lossless", "jpeg"}
        "train" prefers the official files.
    cache : Path, optional
        For decoded training images, see `cifar.load_train`.
    """
    if part not in PARTS:
        raise ValueError(f"part is {part!r}: choose one of {', '.join(PARTS)}.")
    if part == "test" or (part == "train" and has_official(folder)):
        return CifarSet(_official(folder, part))
    if not (folder / "cifar10").is_dir():
        raise FileNotFoundError(
            f"{folder} has no CIFAR-10: expected cifar-10-batches-bin, cifar-10-batches-py or cifar10."
        )
    if part == "train":
        return CifarSet(load_train(folder, cache))
    return CifarSet(load_test_lossless(folder) if part == "lossless" else load_test_jpeg(folder))


class CifarImages:
    """The batches of every epoch: images (n, 3, 32, 32) of float32, normalised, and labels (n,) of int64.

    Parameters
    ----------
    images : CifarSet
    order : Order
        Of so many images.
    augment : bool
        Move and reflect the images.

    >>> pixels = np.arange(5 * 32 * 32 * 3).reshape(5, 32, 32, 3).astype(np.uint8)
    >>> feed = CifarImages(CifarSet(Images(pixels, np.arange(5))), Order(rows=5, batch=2))
    >>> len(feed), [y.shape for x, y in feed.epoch(0)]
    (2, [torch.Size([2]), torch.Size([2])])
    """

    def __init__(self, images: CifarSet, order: Order, *, augment: bool = False) -> None:
        order.expect(len(images))
        self.order, self.rows = order, order.rows
        self.images, self.augment = images.images, augment

    def __len__(self) -> int:
        """Global batches of an epoch."""
        return len(self.order)

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's share of the global batches start, start + 1, ... of an epoch."""
        self.order.check(number, start)
        return self._read(number, start)

    def _read(self, number: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        pixels, labels = self.images
        for batch, rows in self.order.batches(number, start):
            mine = self.order.share(rows)
            if self.augment:
                generator = torch.Generator()
                generator.manual_seed(
                    int(np.random.SeedSequence((self.order.seed, number, batch)).generate_state(1)[0])
                )
                x = self.order.share(augmented(normalised(pixels[rows]), generator))
            else:
                x = normalised(pixels[mine])
            yield x.contiguous(), torch.from_numpy(labels[mine])


def _official(folder: Path, part: str) -> Images:
    home = folder / "cifar-10-batches-bin"
    if home.is_dir():
        size = 1 + 3 * SIDE * SIDE  # a label, then the planes of red, green and blue
        records = []
        for file in (home / name for name in _BINARY[part]):
            if not file.is_file() or file.stat().st_size == 0 or file.stat().st_size % size:
                raise ValueError(f"{file} is missing or cut short: unpack the archive again.")
            records.append(np.fromfile(file, np.uint8).reshape(-1, size))
        rows = np.concatenate(records)
        pixels = rows[:, 1:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
        return Images(np.ascontiguousarray(pixels), rows[:, 0].astype(np.int64))
    if not (folder / "cifar-10-batches-py").is_dir():
        raise FileNotFoundError(f"{folder} has no official files of CIFAR-10: expected cifar-10-batches-bin or -py.")
    import_torchvision()
    from torchvision.datasets import CIFAR10

    try:  # it compares digests before it unpickles anything
        found = CIFAR10(str(folder), train=part == "train", download=False)
    except RuntimeError as error:
        raise ValueError(
            f"{folder / 'cifar-10-batches-py'} is incomplete or changed: unpack the archive again."
        ) from error
    return Images(found.data, np.array(found.targets, np.int64))
