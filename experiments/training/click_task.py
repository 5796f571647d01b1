"""Clicks: rows of 39 fields, a network of embeddings and dense layers, the mean logistic loss.

    loss = mean of log(1 + e^z) - y z,      z the network's output, y in {0, 1}

Rows come from a converted data set (`sparseopt.experiments.clicks`): `data.path` is one, or a folder of raw files, or
the one raw file that a protocol splits; raw files are converted once, into the cache. With `data.holdout` the last
share of the training rows takes the place of the validation rows, which then stay untouched: that is for tuning.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from sparseopt.experiments.clicks.batches import Batch, Batches
from sparseopt.experiments.clicks.columns import Columns
from sparseopt.experiments.networks import ClickModel
from sparseopt.experiments.training.recipes import ClickData, Recipe
from sparseopt.experiments.training.tasks import Feed, Gather, at_least_float, mean_loss

__all__ = ["ClickTask", "Rows", "opened"]


class Rows:
    """Rows start <= i < stop of a part of a data set, read as the part is."""

    def __init__(self, part: Any, start: int, stop: int) -> None:
        self.part = part
        self.start = start
        self.rows = stop - start

    def read(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[Any] | None, NDArray[Any]]:
        """ids, values and labels of some of them."""
        return self.part.read(self.start + start, self.start + stop)


def opened(data: ClickData, cache: Path) -> Columns:
    """The data set of a recipe, converted into a folder of `cache` if it is raw and not there yet."""
    path = Path(data.path)
    if not path.exists():
        raise FileNotFoundError(f"there is nothing at {path}: give the data by data=PATH.")
    if (path / "meta.json").is_file():
        return Columns.open(path)
    from sparseopt.experiments.clicks.conversion import convert

    sources: Path | dict[str, Path] = path
    if path.is_dir():
        named = {"train": data.train, "valid": data.valid, "test": data.test}
        sources = {part: path / name for part, name in named.items() if name}
        for file in sources.values():
            if not file.is_file():
                raise FileNotFoundError(f"{path} has no file {file.name}: give the names by data.train and data.valid.")
        if data.protocol != "files":
            sources = sources["train"]
    elif data.protocol == "files":
        raise ValueError(
            f"{path} is one file, and data.protocol is 'files': give its folder, or the protocol x1, x4 or time."
        )
    options: dict[str, Any] = {
        "protocol": data.protocol,
        "min_count": data.min_count,
        "hash_bins": data.hash_bins,
        "numbers": data.numbers,
    }
    key = json.dumps([str(path.resolve()), data.train, data.valid, data.test, options], sort_keys=True)
    folder = cache / f"{path.name.split('.')[0]}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    return convert(sources, folder, **options)


class ClickTask:
    """The task "clicks"."""

    metric = "loss"
    units = ""

    def __init__(self, recipe: Recipe, cache: Path) -> None:
        assert isinstance(recipe.data, ClickData)
        self.recipe = recipe
        self.columns = opened(recipe.data, cache)
        train, held_out = self.columns.part("train"), recipe.data.holdout
        cut = train.rows - round(held_out * train.rows)
        self.parts: dict[str, Any] = {"train": Rows(train, 0, cut), "valid": Rows(train, cut, train.rows)}
        if not held_out:
            self.parts["valid"] = self.columns.part("valid")

    def network(self) -> nn.Module:
        model = self.recipe.model
        numbers = len(self.columns.fields) - len(self.columns.vocabulary)
        return ClickModel(self.columns.vocabulary, model.embedding, model.hidden, numbers, model.dropout, model.spread)

    def feed(self, part: str, batch: int, rank: int, world: int) -> Feed:
        training = part == "train"
        seed = self.recipe.training.seed
        rows = self.parts[part]
        return Batches(rows, batch, seed=seed, shuffle=training, rank=rank, world=world, drop_last=training)

    def split(self, batch: Batch, parts: int) -> list[Any]:
        values = [None] * parts if batch.values is None else batch.values.chunk(parts)
        return [Batch(*each) for each in zip(batch.ids.chunk(parts), values, batch.labels.chunk(parts), strict=True)]

    def inputs(self, batch: Batch) -> tuple[Any, ...]:
        return (batch.ids,) if batch.values is None else (batch.ids, batch.values)

    def size(self, batch: Batch) -> int:
        return len(batch.labels)

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        z = at_least_float(output)
        return nn.functional.binary_cross_entropy_with_logits(z, batch.labels.to(z.dtype))

    def right(self, output: Tensor, batch: Batch) -> Tensor:
        return ((output > 0.0) == (batch.labels > 0.5)).float().mean()

    def metrics(self, outputs: Iterator[tuple[Tensor, Any]], gather: Gather) -> dict[str, float]:
        total, count = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        logits, labels = [torch.zeros(0, dtype=torch.float64)], [torch.zeros(0, dtype=torch.float64)]
        for output, batch in outputs:
            z, y = output.double().cpu(), batch.labels.double().cpu()
            total += nn.functional.binary_cross_entropy_with_logits(z, y, reduction="sum")
            count += len(y)
            logits.append(z)
            labels.append(y)
        z, y = gather(torch.cat(logits)), gather(torch.cat(labels))
        found = {"loss": mean_loss(total, count, gather)}
        if len(y) and 0.0 < float(y.mean()) < 1.0 and bool(z.isfinite().all()):
            return {**found, "auc": float(roc_auc_score(y.numpy(), z.numpy()))}
        return {**found, "auc": float("nan")}

    def facts(self) -> dict[str, Any]:
        return {
            "train_rows": int(self.parts["train"].rows),
            "valid_rows": int(self.parts["valid"].rows),
            "fields": len(self.columns.fields),
            "ids": int(sum(self.columns.vocabulary)),
        }
