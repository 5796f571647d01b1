"""Small recipes and how their faults are told: imported by tests of recipes."""

from __future__ import annotations

from typing import Any

import pytest

from sparseopt.experiments.training.recipes import (
    Recipe,
    RecipeError,
)

OURS = "sequential-attention++"


PLAIN = {
    "task": "clicks",
    "data": {"path": "rows"},
    "pruning": {"method": "ac/dc", "sparsity": 0.9, "block": 20},
    "training": {"epochs": 4, "batch": 1024, "lr": 0.001},
}
IMAGES = {**PLAIN, "task": "images", "data": {"path": "images"}, "model": {"name": "resnet50"}}


def with_values(base: dict[str, Any], **values: Any) -> dict[str, Any]:
    """A copy of a mapping of sections with other values, "section__key"."""
    changed = {key: dict(each) if isinstance(each, dict) else each for key, each in base.items()}
    for name, value in values.items():
        section, _, key = name.partition("__")
        if key:
            changed.setdefault(section, {})[key] = value
        else:
            changed[section] = value
    return changed


def told(mapping: Any) -> str:
    """What is wrong with a recipe."""
    with pytest.raises(RecipeError) as error:
        Recipe.from_mapping(mapping)
    return str(error.value)


def require_sentences(text: str) -> None:
    """Every line is a sentence, and none of pydantic's or Python's own words are in it."""
    for line in text.split("\n"):
        assert line[-1:] in (".", "?"), text
        assert line.strip(), text
    for foreign in ("Input should", "type=", "input_value", "pydantic", "Traceback", "<class", "validation error"):
        assert foreign not in text, text
