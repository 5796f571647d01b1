"""From a column to what a loss needs: numbers, the classes behind them, and the loss itself if none was named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt.cli.data import Data

__all__ = ["Target", "as_target"]

_FEW = 20  # more distinct integers than this are taken for measurements


@dataclass(frozen=True)
class Target:
    """y as a loss wants it: the name of the loss, numbers, and the classes that 0, 1, ... stand for."""

    loss: str
    y: NDArray[np.float64]
    classes: tuple[str, ...]
    remark: str


def as_target(data: Data, loss: str | None) -> Target:
    """The target as numbers, and the loss: the given one, or a guess.

    Two distinct values make logistic; text, or few distinct integers, make multinomial; anything else squares.
    """
    y = data.y
    text = y.dtype.kind in "US"
    if not text and (y.dtype.kind not in "biuf" or not np.isfinite(y).all()):
        raise ValueError(f"The target {data.target!r} holds values that are not finite numbers: leave out their rows.")
    values = np.unique(y) if y.ndim == 1 else np.empty(0)
    if values.size == 1:
        raise ValueError(f"The target {data.target!r} is {_name(values[0])} in every sample: nothing can be learned.")
    guess = "squares"
    if values.size == 2:
        guess = "logistic"
    elif text or (2 < values.size <= min(_FEW, len(y) // 10) and np.array_equal(values, np.round(values))):
        guess = "multinomial"
    name = loss or guess
    if name not in ("logistic", "multinomial"):
        if text:
            raise ValueError(
                f"The target {data.target!r} holds text such as {_name(values[0])!r}, but --loss {name} needs numbers: "
                f"use --loss {guess}."
            )
        remark = "" if loss else "The loss squares was guessed from the values of the target; --loss names another."
        return Target(name, y.astype(np.float64), (), remark)
    classes = tuple(_name(value) for value in values)
    if y.ndim != 1 or (name == "logistic" and values.size != 2) or values.size > len(y) // 2:
        remedy = "multinomial" if name == "logistic" and values.size <= len(y) // 2 else "squares"
        raise ValueError(
            f"The target {data.target!r} has {values.size or y.shape} different values, which --loss {name} cannot "
            f"model: use --loss {remedy}."
        )
    codes = np.searchsorted(values, y).astype(np.float64)
    remark = "" if loss else f"The loss {name} was guessed from the {values.size} values of the target."
    if name == "logistic":
        remark += f" A positive coefficient speaks for {classes[1]!r}, against {classes[0]!r}."
    return Target(name, codes, classes, remark.strip())


def _name(value: Any) -> str:
    return str(value) if isinstance(value, str) else f"{value:g}"
