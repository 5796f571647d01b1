"""A recipe: everything that a training needs to know, as one frozen object that is read from YAML and written to it.

    task       what is trained: "clicks" or "images"
    data       where its examples lie, and how they are read
    model      the network
    pruning    method, sparsity, blocks, phases; null trains dense, and so does the method "dense"
    training   optimizer, learning rate, batches, seed
    hardware   devices and precision
    output     what is written, where and when
    sweep      key: list of values; the recipe stands for one training with every combination, its cells
    variants   key: value: {key: value}: further values for the cells in which the first key has the first value

Every fault in a recipe becomes one sentence: the key, its value, what is allowed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from sparseopt.experiments.training.fields import Prose, sentences, shown
from sparseopt.experiments.training.overrides import (
    KEYS,
    assign,
    lookup,
    parsed,
    read_text,
    shipped,
    split_override,
)
from sparseopt.experiments.training.pruning import DENSE, Pruning
from sparseopt.experiments.training.sections import (
    ClickData,
    Hardware,
    ImageData,
    Model,
    Output,
    Section,
    Training,
)
from sparseopt.experiments.training.sweeps import (
    cell_name,
    combinations,
    distinct,
    equal,
    swept,
    varied,
    without,
)
from sparseopt.nn import PhaseSchedule

__all__ = [
    "Cell",
    "ClickData",
    "Hardware",
    "ImageData",
    "Model",
    "Output",
    "Pruning",
    "Recipe",
    "RecipeError",
    "Training",
    "read_recipe",
    "shipped",
]

# Keys whose values are lists: for these, a list is no list of values to try.
_LISTS = ("model.hidden", "pruning.block", "pruning.include", "pruning.exclude", "pruning.schedule")


class RecipeError(ValueError):
    """What is wrong with a recipe, one sentence a line."""


class Cell(NamedTuple):
    """One training: a name for its folder, the recipe, and what the sweep chose."""

    name: str
    recipe: Recipe
    values: dict[str, Any]


class Recipe(Section):
    """See the head of this file; `Recipe.from_yaml`, `Recipe.from_mapping` and `read_recipe` make one.

    Examples
    --------
    >>> recipe = read_recipe("criteo-table2", ["method=ac/dc", "block=20", "sparsity=[0.9, 0.95]", "seed=0"])
    >>> [cell.name for cell in recipe.cells()]
    ['ac-dc_b20_s90_seed0', 'ac-dc_b20_s95_seed0']
    """

    about: Prose = ""
    task: Literal["clicks", "images"]
    data: ClickData | ImageData
    model: Model = Model()
    pruning: Pruning | None = None
    training: Training
    hardware: Hardware = Hardware()
    output: Output = Output()
    sweep: dict[str, list[Any]] = Field(default_factory=dict)
    variants: dict[str, dict[Any, dict[str, Any]]] = Field(default_factory=dict)

    # -- reading and writing -------------------------------------------------------------------------------------------

    @classmethod
    def from_mapping(cls, mapping: Any) -> Recipe:
        """From nested mappings.

        Raises
        ------
        RecipeError
            With one sentence for each fault.
        """
        try:
            return cls.model_validate(mapping)
        except ValidationError as error:
            raise RecipeError("\n".join(sentences(error, KEYS))) from error
        except RecursionError as error:
            raise RecipeError("the recipe has lists in lists, or mappings in mappings, without end.") from error

    @classmethod
    def from_yaml(cls, text: str, where: str = "the recipe") -> Recipe:
        """From the text of a file, which errors call `where`."""
        return cls.from_mapping(parsed(text, where))

    def to_mapping(self) -> dict[str, Any]:
        """Complete, in lists, mappings, text and numbers; `from_mapping` makes an equal recipe of it."""
        empty = {key for key in ("about", "sweep", "variants") if not getattr(self, key)}
        mapping: dict[str, Any] = _listed(self.model_dump(exclude=empty))
        return mapping

    def to_yaml(self) -> str:
        """The complete recipe as the text of a file."""
        return yaml.safe_dump(self.to_mapping(), sort_keys=False, allow_unicode=True, width=120)

    @model_validator(mode="before")
    @classmethod
    def _prepared(cls, given: Any) -> Any:
        """Sweeps with full keys; a swept key that has no value gets its first; the method "dense" is no pruning."""
        if not isinstance(given, Mapping):
            return given
        mapping = {
            key: each.model_dump() if isinstance(each, Section) else deepcopy(each) for key, each in given.items()
        }
        sweep = swept(mapping.get("sweep"))
        mapping["sweep"], mapping["variants"] = sweep, varied(mapping.get("variants"))
        for key, values in sweep.items():
            section = mapping.get(key.partition(".")[0])
            if isinstance(section, (dict, type(None))) and lookup(mapping, key) in (None, DENSE):
                assign(mapping, key, next((value for value in values if value != DENSE), DENSE))
        if isinstance(pruning := mapping.get("pruning"), dict) and pruning.get("method") == DENSE:
            mapping["pruning"] = None
        return mapping

    @field_validator("data", mode="before")
    @classmethod
    def _of_the_task(cls, value: Any, info: Any) -> Any:
        task = info.data.get("task")
        if not isinstance(value, Mapping):
            raise ValueError("must be a mapping of keys to values")
        if task is None:  # its fault is told already: whatever the data are for
            task = "images" if any(key in ImageData.model_fields and key != "path" for key in value) else "clicks"
        mine, other = (ClickData, ImageData) if task == "clicks" else (ImageData, ClickData)
        for key in value:
            if key in other.model_fields and key not in mine.model_fields:
                raise ValueError(f"data.{key} is not for the task {task!r}: it takes {', '.join(mine.model_fields)}.")
        return mine.model_validate(value)

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        usual, clicks = Model(), self.task == "clicks"
        for key in ("pretrained", "weights") if clicks else ("embedding", "spread", "hidden", "dropout"):
            if getattr(self.model, key) != getattr(usual, key):
                raise ValueError(f"model.{key} is not for the task {self.task!r}: leave it out.")
        if clicks != (self.model.name == "click"):
            good = "choose click" if clicks else "choose one for images, such as resnet50"
            raise ValueError(f"model.name is {self.model.name!r}, and the task {self.task!r}: {good}.")
        if clicks and self.training.label_smoothing:
            raise ValueError("training.label_smoothing is not for the task 'clicks': leave it out.")
        pruned = [key for key in self.sweep if key.startswith("pruning.") and key != "pruning.method"]
        if self.pruning is None and pruned:
            raise ValueError(
                f"pruning is null, and the sweep varies {pruned[0]}: give pruning.method, or sweep over it."
            )
        for key, cases in self.variants.items():
            for name in (name for further in cases.values() for name in further):
                if name in self.sweep:
                    raise ValueError(f"variants.{key} sets {name}, which the sweep varies: keep one of the two.")
        if self.sweep or self.variants:
            self.cells()
        return self

    # -- one recipe or many --------------------------------------------------------------------------------------------

    def override(self, changes: Sequence[str]) -> Recipe:
        """With other values, "key=value" each; "data=PATH" is short for data.path.

        A value for a key of the sweep fixes it, a list takes the place of its values. For other keys a list begins a
        sweep, unless lists are what they hold. What is set here, variants do not change.
        """
        mapping = self.to_mapping()
        sweep, variants = mapping.pop("sweep", {}), mapping.pop("variants", {})
        for change in changes:
            key, value = split_override(change)
            if key in ("sweep", "variants"):
                sweep, variants = (value, variants) if key == "sweep" else (sweep, value)
                continue
            sweep, variants = dict(swept(sweep)), varied(variants)
            name = key.removeprefix("sweep.")
            if name != key or (isinstance(value, list) and (name in sweep or name not in _LISTS)):
                sweep[name] = value
            else:
                sweep = without(sweep, name)
                assign(mapping, name, value)
                if name == "pruning.method" and value == DENSE:
                    sweep = without(sweep, "pruning")
            variants = {
                each: {case: without(further, name) for case, further in cases.items()}
                for each, cases in variants.items()
            }
        return Recipe.from_mapping({**mapping, "sweep": sweep, "variants": variants})

    def cells(self) -> tuple[Cell, ...]:
        """The trainings that the recipe stands for, variants applied; each has neither sweep nor variants.

        Dense trainings that differ in nothing but how they would be pruned are one.
        """
        base = self.to_mapping()
        variants = base.pop("variants", {})
        found: dict[str, Cell] = {}
        for values in combinations(base.pop("sweep", {})):
            mapping = deepcopy(base)
            for key, value in values.items():
                assign(mapping, key, value)
            if lookup(mapping, "pruning.method") in (None, DENSE):
                mapping["pruning"] = {"method": DENSE}
                values = {key: value for key, value in values.items() if key in without(values, "pruning")} | {
                    key: value for key, value in values.items() if key == "pruning.method"
                }
            chosen = [
                further
                for key, cases in variants.items()
                for case, further in cases.items()
                if equal(lookup(mapping, key), case)
            ]
            for name, value in (item for further in chosen for item in further.items()):
                assign(mapping, name, value)
            try:
                recipe = Recipe.from_mapping(mapping)
            except RecipeError as error:
                where = ", ".join(f"{key}={shown(value)}" for key, value in values.items())
                raise RecipeError(f"in the cell {where}: {error}" if where else str(error)) from error
            final = recipe.to_mapping()
            found.setdefault(json.dumps(final), Cell(cell_name(final, values), recipe, values))
        names = distinct([(cell.name, cell.values) for cell in found.values()])
        return tuple(cell._replace(name=name) for name, cell in zip(names, found.values(), strict=True))

    def single(self) -> Cell:
        """The one training that this is.

        Raises
        ------
        ValueError
            When it is several.
        """
        cells = self.cells()
        if len(cells) > 1:
            keys = ", ".join(key for key, values in self.sweep.items() if len(values) > 1)
            raise ValueError(
                f"the recipe is {len(cells)} trainings: use `sparseopt sweep`, or give a value for {keys}."
            )
        return cells[0]

    def phases(self, total: int) -> PhaseSchedule | None:
        """The phases of a training of `total` steps; None without pruning, or where the method has its own."""
        return None if self.pruning is None else self.pruning.phases(total)


def read_recipe(recipe: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """The recipe in a file, or the shipped one of that name, with other values ("key=value").

    Raises
    ------
    ValueError
        With one sentence for each fault.
    """
    found = Recipe.from_yaml(read_text(recipe), str(recipe))
    return found.override(changes) if changes else found


def _listed(value: Any) -> Any:
    """Tuples as lists, which is what YAML has."""
    if isinstance(value, Mapping):
        return {key: _listed(each) for key, each in value.items()}
    return [_listed(each) for each in value] if isinstance(value, (list, tuple)) else value
