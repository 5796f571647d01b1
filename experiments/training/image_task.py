"""Images: a network by name, cross-entropy, the share of images that are named rightly.

    loss = mean of -sum_c t_c log softmax(z)_c,      t = (1 - s) onehot(y) + s / classes,  s the label smoothing

`data.kind` is "folder" for the layout of ImageNet, DIR/{train,val}/<class>/*, or "cifar". With `data.holdout` a share
of the training images, the same ones for all runs, takes the place of the validation images: that is for tuning.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparseopt.experiments.images.cifar_feed import CifarImages, has_official, read_cifar
from sparseopt.experiments.images.folders import FolderImages, find_parts
from sparseopt.experiments.images.models import image_model
from sparseopt.experiments.images.order import Order, held_out
from sparseopt.experiments.images.presets import evaluation_transform, training_transform
from sparseopt.experiments.training.recipes import ImageData, Recipe
from sparseopt.experiments.training.tasks import Feed, Gather, at_least_float, mean_loss

__all__ = ["ImageTask"]


class ImageTask:
    """The task "images"."""

    metric = "accuracy"
    units = "%"

    def __init__(self, recipe: Recipe, cache: Path) -> None:
        assert isinstance(recipe.data, ImageData)
        self.recipe, self.data = recipe, recipe.data
        self.folder = Path(self.data.path)
        if not self.folder.is_dir():
            raise FileNotFoundError(f"there is no folder {self.folder}: give the images by data=PATH.")
        if self.data.kind == "cifar" and self.folder.name == "cifar10":
            self.folder = self.folder.parent
        train, valid = self._images(cache)
        if self.data.holdout:
            kept, held = held_out(train.labels, self.data.holdout)
            train, valid = train.take(kept), train.take(held)
        self.parts: dict[str, Any] = {"train": train, "valid": valid}

    def _images(self, cache: Path) -> tuple[Any, Any]:
        if self.data.kind == "folder":
            return find_parts(self.folder, self.data.classes)
        official = has_official(self.folder)
        test = "test" if official else self.data.test
        return read_cifar(self.folder, "train", cache / "cifar-train.npy"), read_cifar(self.folder, test)

    def network(self) -> nn.Module:
        model = self.recipe.model
        weights = None if model.weights is None else Path(model.weights)
        if weights is not None and not weights.exists():  # beside the images, then
            weights = self.folder / weights
        return image_model(model.name, self.parts["train"].classes, weights=weights, pretrained=model.pretrained)

    def feed(self, part: str, batch: int, rank: int, world: int) -> Feed:
        training, images = part == "train", self.parts[part]
        order = Order(len(images), batch, self.recipe.training.seed, training, training, rank, world)
        if self.data.kind == "cifar":
            return CifarImages(images, order, augment=training and self.data.preset != "none")
        data = self.data
        transform = evaluation_transform(data.size, data.resize)
        if training:
            transform = training_transform(data.preset, data.size, data.resize, data.erasing)
        return FolderImages(images, transform, order, workers=data.workers)

    def split(self, batch: Any, parts: int) -> list[Any]:
        return list(zip(*(tensor.chunk(parts) for tensor in batch), strict=True))

    def inputs(self, batch: Any) -> tuple[Any, ...]:
        return (batch[0],)

    def size(self, batch: Any) -> int:
        return len(batch[1])

    def loss(self, output: Tensor, batch: Any) -> Tensor:
        smoothing = self.recipe.training.label_smoothing
        return nn.functional.cross_entropy(at_least_float(output), batch[1], label_smoothing=smoothing)

    def right(self, output: Tensor, batch: Any) -> Tensor:
        return (output.argmax(1) == batch[1]).float().mean()

    def metrics(self, outputs: Iterator[tuple[Tensor, Any]], gather: Gather) -> dict[str, float]:
        sums = torch.zeros(3, dtype=torch.float64)
        count = torch.zeros((), dtype=torch.float64)
        for output, (_, labels) in outputs:
            logits, labels = output.double().cpu(), labels.cpu()
            best = logits.topk(min(5, logits.shape[1]), 1).indices == labels[:, None]
            sums[0] += best[:, 0].sum()
            sums[1] += best.any(1).sum()
            sums[2] += nn.functional.cross_entropy(logits, labels, reduction="sum")
            count += len(labels)
        top1, top5, loss = (mean_loss(each, count, gather) for each in sums)
        return {"accuracy": top1, "top5": top5, "loss": loss}

    def facts(self) -> dict[str, Any]:
        return {f"{part}_images": len(images) for part, images in self.parts.items()}
