"""CIFAR-10 as it lies beside the repository: 50,000 lossy training images, and two encodings of test images.

    cifar10/train_webp90/batch_00.webp ...    sheets of 25 x 40 images, with train_labels.npy
    cifar10/cifar10_lossless_small.npz        X_test, y_test: the first 1,000 test images, exact
    cifar10/cifar10_test_jpeg75.npz           all 10,000 test images as JPEG byte streams

Accuracies on the three encodings are not comparable with each other: a network that was trained on exact images loses
ten points on JPEG. Images are uint8 (N, 32, 32, 3) here; `normalised` makes what networks read.

Augmentation is that of He et al. (2016): four pixels of padding, a random crop, a random reflection.
"""

from __future__ import annotations

import io
import itertools
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["MEAN", "STD", "Images", "augmented", "load_test_jpeg", "load_test_lossless", "load_train", "normalised"]

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
SIDE = 32  # pixels of an image


class Images(NamedTuple):
    """pixels: (N, 32, 32, 3) of uint8; labels: (N,) of int64."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> Images:
        """The images of these rows."""
        return Images(self.pixels[rows], self.labels[rows])


def load_train(folder: Path, cache: Path | None = None) -> Images:
    """The training images, in their official order.

    Parameters
    ----------
    folder : Path
        The data folder; `cifar10` lies in it.
    cache : Path, optional
        A file that keeps the decoded images: written at the first call, read by later ones.
    """
    home = folder / "cifar10"
    labels = np.load(home / "train_labels.npy", allow_pickle=False).astype(np.int64)
    if cache is not None and cache.is_file():
        return _checked(np.load(cache, allow_pickle=False), labels, cache)
    files = sorted((home / "train_webp90").glob("batch_*.webp"))
    if not files:
        raise FileNotFoundError(f"no sheets batch_*.webp in {home / 'train_webp90'}: give the data folder by --data.")
    images = _checked(np.concatenate([_sheet(file.read_bytes()) for file in files]), labels, home)
    if cache is not None:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache.parent, suffix=".npy", delete=False) as file:
            np.save(file, images.pixels)
        Path(file.name).replace(cache)  # in one move: another process never reads half a file
    return images


def load_test_lossless(folder: Path) -> Images:
    """The first 1,000 test images, exact."""
    file = folder / "cifar10" / "cifar10_lossless_small.npz"
    with np.load(file, allow_pickle=False) as arrays:
        return _checked(arrays["X_test"], arrays["y_test"].astype(np.int64), file)


def load_test_jpeg(folder: Path) -> Images:
    """The 10,000 test images, from JPEG of quality 75."""
    file = folder / "cifar10" / "cifar10_test_jpeg75.npz"
    with np.load(file, allow_pickle=False) as arrays:
        stream, ends = arrays["jpeg"].tobytes(), arrays["offsets"]
        pixels = [_decode(stream[a:b]) for a, b in itertools.pairwise(ends)]
        return _checked(np.stack(pixels), arrays["labels"].astype(np.int64), file)


def normalised(pixels: NDArray[np.uint8]) -> Tensor:
    """(N, 3, 32, 32) of float32: pixels / 255, minus the channels' mean, over their standard deviation.

    >>> normalised(np.full((1, 32, 32, 3), 255, np.uint8))[0, :, 0, 0]
    tensor([2.2489, 2.4286, 2.6400])
    """
    scaled = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255.0)
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (MEAN, STD))
    return scaled.sub_(mean).div_(std)


def augmented(x: Tensor, generator: torch.Generator, pad: int = 4) -> Tensor:
    """Every image moved by up to `pad` pixels either way, 0 coming in, and reflected with probability 1/2.

    The numbers are drawn by `generator`: equal generators give equal batches.
    """
    n, _, height, width = x.shape
    padded = torch.nn.functional.pad(x, (pad, pad, pad, pad))
    down, right = torch.randint(0, 2 * pad + 1, (2, n), generator=generator)
    reflected = torch.rand(n, generator=generator) < 0.5
    rows = down[:, None] + torch.arange(height)
    columns = torch.arange(width).expand(n, width)
    columns = right[:, None] + torch.where(reflected[:, None], width - 1 - columns, columns)
    images = torch.arange(n)[:, None, None]
    return padded.permute(0, 2, 3, 1)[images, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _decode(data: bytes) -> NDArray[np.uint8]:
    from PIL import Image  # matplotlib brings it, and only images need it

    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def _sheet(data: bytes) -> NDArray[np.uint8]:
    pixels = _decode(data)
    parts = pixels.reshape(-1, SIDE, pixels.shape[1] // SIDE, SIDE, 3).transpose(0, 2, 1, 3, 4)
    return parts.reshape(-1, SIDE, SIDE, 3)


def _checked(pixels: NDArray[np.uint8], labels: NDArray[np.int64], source: Path) -> Images:
    if pixels.shape != (len(labels), SIDE, SIDE, 3) or pixels.dtype != np.uint8:
        raise ValueError(
            f"{source} has images of shape {pixels.shape} and {pixels.dtype} for {len(labels)} labels: "
            f"expected ({len(labels)}, {SIDE}, {SIDE}, 3) of uint8."
        )
    return Images(pixels, labels)
