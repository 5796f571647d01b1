"""Folders of images as batches: what is found, what is read, and the laws that feeds obey."""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("PIL")

import image_cases as laws  # noqa: E402
from PIL import Image  # noqa: E402

from sparseopt.experiments.images.folders import (  # noqa: E402
    FolderImages,
    ImageFiles,
    find_images,
    find_parts,
    read_image,
)
from sparseopt.experiments.images.order import Order, held_out  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

COUNTS = {"ant": 9, "bee": 4, "cat": 10}
ROWS = sum(COUNTS.values())

# Two readers are more than a machine with one core is told to have; from Python 3.12 on a fork beside threads warns.
with_readers = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    pytest.mark.filterwarnings("ignore:.*use of fork\\(\\) may lead to deadlocks:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ImageFiles:
    return find_images(laws.paint_folder(tmp_path_factory.mktemp("images"), COUNTS))


def feed(files: ImageFiles, rank: int = 0, world: int = 1, workers: int = 0, **options: Any) -> FolderImages:
    order = Order(len(files), **({"batch": 6, "seed": 5} | options), rank=rank, world=world)
    return FolderImages(files, laws.with_a_draw, order, workers=workers)


# -- what is found -----------------------------------------------------------------------------------------------------


def test_classes_and_files_come_in_the_order_of_names(files: ImageFiles) -> None:
    assert files.names == ("ant", "bee", "cat")
    assert files.classes == 3
    assert len(files) == ROWS
    assert files.labels.tolist() == [0] * 9 + [1] * 4 + [2] * 10
    assert [np.asarray(read_image(files.path(row)))[0, 0, 0] for row in range(ROWS)] == list(range(ROWS))


def test_files_lie_deeper_and_others_are_left_out(tmp_path: Path) -> None:
    laws.paint(tmp_path / "a" / "images" / "deep" / "1.PNG", 0)
    laws.paint(tmp_path / "a" / "2.jpeg", 0)
    laws.paint(tmp_path / "a" / "._2.jpeg", 0, "L")
    laws.paint(tmp_path / ".hidden" / "3.png", 0)
    laws.paint(tmp_path / "4.png", 0)
    (tmp_path / "a" / "boxes.txt").write_text("")
    (tmp_path / "a" / "folder.jpg").mkdir()
    laws.paint(tmp_path / "a" / "folder.jpg" / "ümlaut.png", 0)
    found = find_images(tmp_path, classes=1)
    assert [str(found.path(row).relative_to(tmp_path)) for row in range(len(found))] == [
        "a/2.jpeg",
        "a/folder.jpg/ümlaut.png",
        "a/images/deep/1.PNG",
    ]


def test_some_of_the_images(files: ImageFiles) -> None:
    some = files.take(np.array([20, 0, 9]))
    assert some.labels.tolist() == [2, 0, 1]
    assert some.classes == 3
    assert some.path(1) == files.path(0)


def test_what_is_wrong_with_a_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere: expected one that holds a folder"):
        find_images(tmp_path / "nowhere")
    laws.paint(tmp_path / "flat" / "1.png", 0)
    with pytest.raises(ValueError, match=r"flat has no folders: sort the images into .*flat/<class>/"):
        find_images(tmp_path / "flat")
    laws.paint_folder(tmp_path / "two", {"a": 1, "b": 1})
    with pytest.raises(ValueError, match=r"has 2 classes \(a, b\), and classes is 10"):
        find_images(tmp_path / "two", classes=10)
    for name in "defgh":
        (tmp_path / "two" / name).mkdir()
    with pytest.raises(ValueError, match="two has no images for d, e, f and 2 more: remove what is empty"):
        find_images(tmp_path / "two")


def test_parts_have_the_same_classes(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has no folder 'train': expected"):
        find_parts(tmp_path)
    laws.paint_folder(tmp_path / "train", {"a": 2, "b": 1})
    with pytest.raises(FileNotFoundError, match="has no folder 'val': expected"):
        find_parts(tmp_path)
    laws.paint_folder(tmp_path / "val", {"a": 1, "b": 1, "c": 1})
    with pytest.raises(ValueError, match=r"val has classes that .*train lacks \(c\): give both the same"):
        find_parts(tmp_path)
    laws.paint_folder(tmp_path / "train", {"c": 1, "d": 1})
    with pytest.raises(ValueError, match=r"train has classes that .*val lacks \(d\): give both the same"):
        find_parts(tmp_path)
    laws.paint(tmp_path / "val" / "d" / "1.png", 0)
    train, val = find_parts(tmp_path, classes=4)
    assert train.names == val.names == ("a", "b", "c", "d")
    assert (len(train), len(val)) == (5, 4)


# -- what is read ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", "jpg"), ("CMYK", "jpg"), ("1", "png"), ("P", "png"), ("LA", "png"), ("RGBA", "png"), ("L", "webp")],
)
def test_every_kind_of_image_becomes_rgb(tmp_path: Path, mode: str, suffix: str) -> None:
    image = read_image(laws.paint(tmp_path / f"1.{suffix}", 200, mode))
    assert image.mode == "RGB"
    assert image.size == (12, 10)


def test_a_grey_image_is_repeated(tmp_path: Path) -> None:
    pixels = np.asarray(read_image(laws.paint(tmp_path / "1.png", 90, "L")))
    assert np.array_equal(pixels[..., 0], pixels[..., 1])
    assert np.array_equal(pixels[..., 0], pixels[..., 2])


def test_a_palette_with_transparent_entries_is_read(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.save(tmp_path / "1.png", transparency=bytes([0, 128]))
    assert np.asarray(read_image(tmp_path / "1.png"))[0, 0].tolist() == [10, 20, 30]


def cut_short(file: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(file)
    file.write_bytes(file.read_bytes()[:-500])


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut short": (cut_short, "truncated"),
    "text": (lambda file: file.write_text("not an image"), "no format that Pillow knows"),
    "empty": (lambda file: file.write_bytes(b""), "no format that Pillow knows"),
    "gone": (lambda file: file.unlink(), "No such file"),
    "a broken header": (lambda file: file.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(30)), ""),
}


@pytest.mark.parametrize(("spoil", "reason"), BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=with_readers)])
def test_an_image_that_cannot_be_read_is_one_sentence(
    tmp_path: Path, spoil: Callable[[Path], object], reason: str, workers: int
) -> None:
    laws.paint_folder(tmp_path, {"a": 6})
    bad = tmp_path / "a" / "004.jpg"
    (tmp_path / "a" / "004.png").rename(bad)
    files = find_images(tmp_path)
    spoil(bad)
    found = iter(feed(files, batch=2, shuffle=False, workers=workers).epoch(0))
    assert len(next(found)[1]) == len(next(found)[1]) == 2
    with pytest.raises(ValueError, match="cannot be read as an image") as error:
        next(found)
    sentence = str(error.value)
    del error  # its traceback would keep the feed
    assert sentence.startswith(f"{bad} cannot be read as an image (")
    assert reason in sentence
    assert sentence.endswith("): repair the file or remove it.")
    assert "\n" not in sentence
    assert "Traceback" not in sentence


# -- laws --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("batch", [1, 6, 23])
def test_every_image_comes_once_in_an_epoch(files: ImageFiles, batch: int, drop_last: bool) -> None:
    make = partial(feed, files, batch=batch, drop_last=drop_last)
    laws.every_image_comes_once(make, ROWS, batch, drop_last)


@pytest.mark.parametrize("world", [2, 3, 6])
@pytest.mark.parametrize("drop_last", [True, False])
def test_shares_join_to_the_global_batch(files: ImageFiles, world: int, drop_last: bool) -> None:
    laws.shares_join_to_the_global_batch(partial(feed, files, drop_last=drop_last), world)


def test_a_resumed_epoch_goes_on_as_the_whole_one(files: ImageFiles) -> None:
    laws.a_resumed_epoch_goes_on_as_the_whole_one(partial(feed, files, drop_last=False))


def test_epochs_are_repeatable_and_differ(files: ImageFiles) -> None:
    laws.epochs_are_repeatable_and_differ(partial(feed, files))


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=with_readers)])
def test_global_random_numbers_stay(files: ImageFiles, workers: int) -> None:
    laws.global_random_numbers_stay(partial(feed, files, workers=workers))


@pytest.mark.parametrize("workers", [pytest.param(1, marks=with_readers), pytest.param(2, marks=with_readers)])
def test_readers_give_the_same_batches(files: ImageFiles, workers: int) -> None:
    one, many = feed(files, drop_last=False), feed(files, drop_last=False, workers=workers)
    for epoch, start in ((0, 0), (1, 2), (0, 1), (3, 4)):
        assert laws.same(laws.batches(one, epoch, start), laws.batches(many, epoch, start))


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=with_readers)])
def test_an_epoch_may_be_left(files: ImageFiles, workers: int) -> None:
    left = feed(files, workers=workers, batch=2)
    for _ in zip(range(2), left.epoch(0), strict=False):
        pass
    assert laws.same(laws.batches(left, 1), laws.batches(feed(files, batch=2), 1))


@pytest.mark.parametrize("cycle", [False, pytest.param(True, id="in a cycle")])
@pytest.mark.parametrize("workers", [pytest.param(2, marks=with_readers)])
def test_readers_end_with_the_feed(files: ImageFiles, workers: int, cycle: bool) -> None:
    gone = feed(files, batch=1, workers=workers)
    others = set(multiprocessing.active_children())
    epoch = gone.epoch(0)
    next(epoch)
    readers = set(multiprocessing.active_children()) - others
    assert len(readers) == workers
    if cycle:
        gone.itself = gone  # type: ignore[attr-defined]
    began = time.monotonic()
    del gone, epoch
    gc.collect()
    assert not any(reader.is_alive() for reader in readers)
    # Readers that nobody told to end are waited for 5 s each; those that were take a few hundredths of one.
    assert time.monotonic() - began < 5.0


def test_two_epochs_at_a_time_are_rejected(files: ImageFiles) -> None:
    one = feed(files, batch=2)
    first = one.epoch(0)
    next(first)
    second = one.epoch(1)
    next(second)
    with pytest.raises(RuntimeError, match="another epoch of this feed was begun since: make a second feed"):
        next(first)
    assert len(next(second)[1]) == 2


def test_seeds_differ(files: ImageFiles) -> None:
    one, other = (laws.batches(feed(files, seed=seed), 0) for seed in (0, 1))
    assert laws.images_of(one) != laws.images_of(other)


def test_without_shuffling_images_come_as_they_are_numbered(files: ImageFiles) -> None:
    found = laws.batches(feed(files, shuffle=False, drop_last=False), 3)
    assert laws.images_of(found) == list(range(ROWS))
    assert torch.cat([y for _, y in found]).tolist() == files.labels.tolist()


def test_a_share_may_be_empty(files: ImageFiles) -> None:
    some = files.take(np.arange(7))
    found = laws.batches(feed(some, 0, 6, shuffle=False, drop_last=False), 0)
    assert [tuple(x.shape) for x, _ in found] == [(1, 3, 2, 2), (0, 3, 2, 2)]
    laws.every_image_comes_once(partial(feed, some, drop_last=False), 7, 6, drop_last=False)


WRONG_ORDERS: dict[str, Callable[[Order, np.ndarray], np.ndarray]] = {
    "interleaved": lambda order, rows: rows[order.rank :: order.world],
    "the whole batch each": lambda order, rows: rows,
    "the last image forgotten": lambda order, rows: rows[: len(rows) // order.world * order.world - 1],
}


@pytest.mark.parametrize("share", WRONG_ORDERS.values(), ids=WRONG_ORDERS)
def test_wrong_shares_are_rejected(
    files: ImageFiles, share: Callable[[Order, np.ndarray], np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Order, "share", lambda self, rows: share(self, rows) if self.world > 1 else rows)
    with pytest.raises(AssertionError):
        laws.shares_join_to_the_global_batch(partial(feed, files), 2)


def test_a_feed_that_repeats_an_image_is_rejected(files: ImageFiles) -> None:
    def repeat(right: FolderImages, number: int, start: int) -> Iterator[Any]:
        for x, y in right.epoch(number, start):
            x[-1], y[-1] = x[0], y[0]
            yield x, y

    with pytest.raises(AssertionError):
        laws.every_image_comes_once(lambda *at: laws.Wrong(feed(files, *at), repeat), ROWS, 6, drop_last=True)


def test_a_feed_that_begins_a_resumed_epoch_anew_is_rejected(files: ImageFiles) -> None:
    def anew(right: FolderImages, number: int, start: int) -> Iterator[Any]:
        return (batch for _, batch in zip(range(start, len(right)), right.epoch(number), strict=False))

    with pytest.raises(AssertionError):
        laws.a_resumed_epoch_goes_on_as_the_whole_one(lambda *at: laws.Wrong(feed(files, *at), anew))


def test_a_feed_with_one_order_is_rejected(files: ImageFiles) -> None:
    with pytest.raises(AssertionError):
        laws.epochs_are_repeatable_and_differ(partial(feed, files, shuffle=False))


def test_draws_from_what_came_before_are_rejected(files: ImageFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import nullcontext

    from sparseopt.experiments.images import folders

    monkeypatch.setattr(folders, "_drawing_from", lambda *key: nullcontext())
    for law in (laws.a_resumed_epoch_goes_on_as_the_whole_one, laws.global_random_numbers_stay):
        with pytest.raises(AssertionError):
            law(partial(feed, files))
    with pytest.raises(AssertionError):
        laws.shares_join_to_the_global_batch(partial(feed, files), 2)


def test_draws_that_are_alike_in_all_epochs_are_rejected(files: ImageFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    from sparseopt.experiments.images import folders

    right = folders._drawing_from
    monkeypatch.setattr(folders, "_drawing_from", lambda seed, epoch, row: right(seed, row))
    with pytest.raises(AssertionError):
        laws.epochs_are_repeatable_and_differ(partial(feed, files))


# -- arguments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch": 0}, "batch is 0: give at least 1"),
        ({"seed": -1}, "seed is -1: give at least 0"),
        ({"world": 0}, "world is 0: give at least 1"),
        ({"rank": 2, "world": 2}, "rank is 2 of 2 processes: expected 0 to 1"),
        ({"world": 4}, "batch is 6 for 4 processes: give a multiple of 4"),
        ({"batch": 24}, "batch is 24, there are 23 images, and drop_last leaves nothing: give a batch of at most 23"),
        ({"workers": -1}, "workers is -1: give at least 0"),
    ],
)
def test_wrong_arguments_are_one_sentence(files: ImageFiles, options: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        feed(files, **options)


def test_epochs_that_do_not_exist_are_one_sentence(files: ImageFiles) -> None:
    with pytest.raises(ValueError, match="epoch is -1: give at least 0"):
        feed(files).epoch(-1)
    with pytest.raises(ValueError, match="start is 4, and an epoch has 3 batches: expected 0 to 3"):
        feed(files).epoch(0, 4)


def test_what_is_held_out_is_a_share_of_every_class() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(4), [10, 20, 40, 3]))
    kept, held = held_out(labels, 0.1)
    assert sorted([*kept, *held]) == list(range(73))
    assert np.bincount(labels[held], minlength=4).tolist() == [1, 2, 4, 0]
    assert all(np.array_equal(a, b) for a, b in zip(held_out(labels, 0.1), (kept, held), strict=True))
    with pytest.raises(ValueError, match=r"a share of 0.01 holds out 0 of 73 images: expected some, not all"):
        held_out(labels, 0.01)


# -- real images -------------------------------------------------------------------------------------------------------


def test_imagenette_is_read(shared_data: Path) -> None:
    from sparseopt.experiments.images.presets import evaluation_transform, training_transform
    from sparseopt.experiments.images.vision import prepare_torchvision

    if not prepare_torchvision():
        pytest.skip("torchvision is not installed")
    if not (shared_data / "imagenette_mini").is_dir():
        pytest.skip("imagenette_mini is not here")
    train, val = find_parts(shared_data / "imagenette_mini", classes=10)
    assert (len(train), len(val)) == (700, 250)
    images = FolderImages(train, training_transform(size=32), Order(len(train), 50))
    x, y = next(images.epoch(0))
    assert x.shape == (50, 3, 32, 32)
    assert y.min() >= 0
    assert y.max() < 10
    judged = laws.batches(
        FolderImages(val, evaluation_transform(32, 36), Order(len(val), 100, shuffle=False, drop_last=False)), 0
    )
    assert torch.cat([y for _, y in judged]).tolist() == val.labels.tolist()
    pixels = torch.cat([x for x, _ in judged])
    assert abs(float(pixels.mean())) < 0.3  # normalised
    assert 0.7 < float(pixels.std()) < 1.4
