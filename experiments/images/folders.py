"""Images in one folder per class, as ImageNet and torchvision's ImageFolder have them, and batches of them.

    DIR/train/<class>/*.jpg        DIR/val/<class>/*.jpg        classes are numbered in the order of their names

Folders inside a class belong to it. Files are found by name and read when a batch needs them, in processes of their
own. The names of all files are one array: the 1.3 million of ImageNet take 50 MB, which the processes share.

What is random in image i of epoch e is drawn from (seed, e, i). So a batch is the same with any number of processes,
reading or training, and wherever an epoch is taken up.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from sparseopt.experiments.images.order import Order
from sparseopt.experiments.images.presets import Transform

__all__ = ["FolderImages", "ImageFiles", "find_images", "find_parts", "read_image"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff")

Assignment = tuple[int, NDArray[np.int64]]  # an epoch, and the images to read


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Files of images and their classes.

    Attributes
    ----------
    folder : Path
    names : tuple of str
        The classes, in order.
    files : (n,) array of bytes
        Paths below the folder, as the file system spells them.
    labels : (n,) array of int64
        Indices into `names`.
    """

    folder: Path
    names: tuple[str, ...]
    files: NDArray[np.bytes_]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.files)

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.names)

    def path(self, row: int) -> Path:
        """The file of one image."""
        return self.folder / os.fsdecode(bytes(self.files[row]))

    def take(self, rows: NDArray[np.int64]) -> ImageFiles:
        """Some of the images; the classes stay as they are."""
        return replace(self, files=self.files[rows], labels=self.labels[rows])


def find_images(folder: Path, classes: int | None = None) -> ImageFiles:
    """All images below `folder`, class by class, by name within a class.

    Files whose names begin with a point, or do not end like those of images, are left out.

    Parameters
    ----------
    folder : Path
    classes : int, optional
        How many classes there should be.

    Raises
    ------
    FileNotFoundError, ValueError
        When there is no such folder, a class has no images, or the number of classes is another.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}: expected one that holds a folder for every class.")
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    if not names:
        raise ValueError(f"{folder} has no folders: sort the images into {folder}/<class>/.")
    if classes is not None and len(names) != classes:
        raise ValueError(f"{folder} has {len(names)} classes ({_some(names)}), and classes is {classes}.")
    found = [_below(folder, name) for name in names]
    if empty := [name for name, files in zip(names, found, strict=True) if not files]:
        raise ValueError(
            f"{folder} has no images for {_some(empty)}: remove what is empty, or give files {', '.join(SUFFIXES)}."
        )
    files = np.array([os.fsencode(file) for group in found for file in group])
    return ImageFiles(folder, tuple(names), files, np.repeat(np.arange(len(names)), [len(group) for group in found]))


def find_parts(folder: Path, classes: int | None = None) -> tuple[ImageFiles, ImageFiles]:
    """The images in `folder`/train and `folder`/val, which have the same classes."""
    for part in ("train", "val"):
        if not (folder / part).is_dir():
            raise FileNotFoundError(f"{folder} has no folder {part!r}: expected {folder}/{{train,val}}/<class>/.")
    train, val = find_images(folder / "train", classes), find_images(folder / "val")
    for here, there in ((train, val), (val, train)):
        if more := sorted(set(here.names) - set(there.names)):
            raise ValueError(
                f"{here.folder} has classes that {there.folder} lacks ({_some(more)}): give both the same."
            )
    return train, val


def read_image(path: Path) -> Any:
    """An image of PIL in RGB: grey is repeated, CMYK converted, transparency left out.

    Raises
    ------
    ValueError
        When the file is missing, no image, or cut short.
    """
    from PIL import Image, UnidentifiedImageError  # matplotlib and torchvision bring it, and only images need it

    try:
        with Image.open(path) as image:
            # Pillow wants palettes with transparent entries to be spelled out first.
            return (image.convert("RGBA") if "transparency" in image.info else image).convert("RGB")
    except UnidentifiedImageError:
        reason = "no format that Pillow knows"
    except Exception as error:  # its readers raise whatever a broken file leads them into
        reason = str(error).split("\n")[0] or type(error).__name__
    raise ValueError(f"{path} cannot be read as an image ({reason}): repair the file or remove it.")


class FolderImages:
    """The batches of every epoch: images (n, 3, size, size) of float32, labels (n,) of int64.

    Parameters
    ----------
    files : ImageFiles
    transform : callable
        From an image of PIL to a tensor, see `presets`. It may draw from torch's global generator and no other.
    order : Order
        Of so many files; its seed is that of the transform too.
    workers : int
        Processes that read ahead; 0 reads in this one. The batches are the same.

    A feed has one epoch under way at a time: the iterator of an earlier one ends with a RuntimeError.
    """

    def __init__(
        self,
        files: ImageFiles,
        transform: Transform,
        order: Order,
        *,
        workers: int = 0,
    ) -> None:
        if workers < 0:
            raise ValueError(f"workers is {workers}: give at least 0.")
        order.expect(len(files))
        self.order, self.rows = order, order.rows
        self._assignments = _Assignments()
        self._turn = 0
        self._loader: DataLoader[Any] = DataLoader(
            _Reader(files, transform, order.seed),
            batch_size=None,  # an assignment is a batch already
            sampler=self._assignments,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=_as_it_is,
            generator=torch.Generator(),  # else it would draw a number from the global one
        )
        # The garbage collector may find a feed in a cycle, and would take the queues away before the readers are told
        # to end: each would be waited for 5 s. Held from here, the loader ends after the feed and in its own order.
        weakref.finalize(self, _as_it_is, self._loader)

    def __len__(self) -> int:
        """Global batches of an epoch."""
        return len(self.order)

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's share of the global batches start, start + 1, ... of an epoch.

        Raises
        ------
        ValueError
            Before the first batch, when there is no such epoch or batch; later, when an image cannot be read.
        """
        self.order.check(number, start)
        self._turn += 1
        return self._read(number, start, self._turn)

    def _read(self, number: int, start: int, turn: int) -> Iterator[tuple[Tensor, Tensor]]:
        self._expect(turn)
        order = self.order  # the loader must not hold the feed, see __init__
        self._assignments.current = ((number, order.share(rows)) for _, rows in order.batches(number, start))
        for batch in self._loader:
            if isinstance(batch, str):
                raise ValueError(batch)
            x, y = batch  # pinned, it is a list
            yield x, y
            self._expect(turn)

    def _expect(self, turn: int) -> None:
        if turn != self._turn:
            raise RuntimeError("another epoch of this feed was begun since: make a second feed to have two at a time.")


class _Assignments(Sampler[Assignment]):
    """What is to be read next: exchanged for every epoch, while the processes stay."""

    current: Iterator[Assignment] = iter(())

    def __iter__(self) -> Iterator[Assignment]:
        return self.current


class _Reader(Dataset[Any]):
    def __init__(self, files: ImageFiles, transform: Transform, seed: int) -> None:
        self.files, self.transform, self.seed = files, transform, seed

    def __getitem__(self, assignment: Assignment) -> tuple[Tensor, Tensor] | str:
        """A batch, or the sentence about an image that cannot be read: an exception would bring a traceback along."""
        epoch, rows = assignment
        if len(rows) == 0:  # its shape is that of any other
            first = self[epoch, np.zeros(1, np.int64)]
            return first if isinstance(first, str) else (first[0][:0], first[1][:0])
        tensors = []
        for row in rows:
            try:
                image = read_image(self.files.path(row))
            except ValueError as error:
                return str(error)
            with _drawing_from(self.seed, epoch, int(row)):
                tensors.append(self.transform(image))
        return default_collate(tensors), torch.from_numpy(self.files.labels[rows])


@contextmanager
def _drawing_from(*key: int) -> Iterator[None]:
    """torch's global generator, seeded by some numbers for a while."""
    generator = torch.default_generator  # torch.manual_seed would turn to all GPUs as well
    before = generator.get_state()
    generator.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
    try:
        yield
    finally:
        generator.set_state(before)


def _as_it_is(batch: Any) -> Any:
    return batch


def _below(folder: Path, name: str) -> list[str]:
    """The images below a folder of `folder`, sorted; os.scandir asks for no file's properties."""
    found, waiting = [], [name]
    while waiting:
        inside = waiting.pop()
        with os.scandir(folder / inside) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.name.lower().endswith(SUFFIXES) and entry.is_file():
                    found.append(f"{inside}/{entry.name}")
                elif entry.is_dir():
                    waiting.append(f"{inside}/{entry.name}")
    return sorted(found)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
