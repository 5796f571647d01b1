"""Recipes as plain mappings: reading YAML, finding keys, changing single values.

A key is dotted, "pruning.block". Its end is enough, "block", if it is the end of one key only; keys of sections go
before the settings of methods, so that "seed" is training.seed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from sparseopt.experiments.training.fields import closest, nearest_key, shown
from sparseopt.experiments.training.pruning import Pruning
from sparseopt.experiments.training.sections import ClickData, Hardware, ImageData, Model, Output, Training
from sparseopt.nn import METHODS

__all__ = ["KEYS", "VALUES", "assign", "found_key", "lookup", "parsed", "read_text", "shipped", "split_override"]

_SECTIONS = {
    "data": (ClickData, ImageData),
    "model": (Model,),
    "pruning": (Pruning,),
    "training": (Training,),
    "hardware": (Hardware,),
    "output": (Output,),
}
_SETTINGS = dict.fromkeys(["c", *(each.name for kind in METHODS.values() for each in fields(kind))])

# All keys that hold values, and all that there are.
VALUES = (
    *dict.fromkeys(f"{name}.{key}" for name, kinds in _SECTIONS.items() for kind in kinds for key in kind.model_fields),
    *(f"pruning.settings.{name}" for name in _SETTINGS),
)
KEYS = ("about", "task", *_SECTIONS, "sweep", "variants", *VALUES)

# Each of the two takes the place of the other.
_EITHER = {"training.epochs": "training.steps", "training.steps": "training.epochs"}


def shipped() -> list[str]:
    """The names of the recipes that come with the package."""
    folder = files("sparseopt.experiments").joinpath("recipes")
    return sorted(each.name[:-5] for each in folder.iterdir() if each.name.endswith(".yaml")) if folder.is_dir() else []


def read_text(recipe: str | Path) -> str:
    """The text of a recipe: a file, or the name of one that comes with the package."""
    path = Path(recipe)
    try:
        if path.is_file():
            return path.read_text(encoding="utf-8")
        if str(recipe).removesuffix(".yaml") in (names := shipped()):
            name = str(recipe).removesuffix(".yaml") + ".yaml"
            return files("sparseopt.experiments").joinpath("recipes", name).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{recipe} is not text in UTF-8.") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{shown(str(recipe))} cannot be read: {error}.") from error
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise ValueError(f"there is no recipe {shown(str(recipe))}: neither a file, nor one of {', '.join(names)}.")
    raise ValueError(f"there is no recipe {shown(str(recipe))}: {closest(recipe, names)}")


class _Loader(yaml.SafeLoader):
    """`yaml.safe_load`, but a key that stands twice is an error, and so is an alias."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):  # a few lines of them can stand for more data than fit into memory
            raise yaml.composer.ComposerError(None, None, "aliases are not for recipes", self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None
            if name in seen and key.value != "<<":
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value} stands twice", key.start_mark)
            if name is not None:
                seen.add(name)
        return super().construct_mapping(node, deep)


def parsed(text: str, where: str) -> Any:
    """What YAML text says."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise ValueError(f"{where} is not YAML{place}: {error.problem or error.context}.") from error
    except Exception as error:  # what wrong dates, numbers and tags raise is of all kinds
        reason = str(error).split("\n")[0] or type(error).__name__
        raise ValueError(f"{where} is not YAML: {reason}.") from error


def found_key(key: str, who: str, keys: Collection[str] = VALUES) -> str:
    """The key that `key` is, or is the end of.

    >>> found_key("block", "override"), found_key("seed", "override")
    ('pruning.block', 'training.seed')
    """
    if key in keys:
        return key
    ends = [each for each in keys if each.endswith(f".{key}")]
    ends = [each for each in ends if each.count(".") == min(end.count(".") for end in ends)]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise ValueError(f"{who}: {key!r} can be {' or '.join(ends)}: write more of it.")
    raise ValueError(f"{who}: {key!r} is no key of a recipe: {nearest_key(key, keys)}")


def split_override(text: str) -> tuple[str, Any]:
    """Key and value of "key=value", the value in YAML.

    >>> split_override("block=[8, 16]")
    ('pruning.block', [8, 16])
    """
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise ValueError(f"an override is written key=value, such as training.seed=1, got {shown(text)}.")
    if key.strip() == "data":
        key = "data.path"
    start, _, rest = key.strip().partition(".")
    sweep = start == "sweep" and rest
    name = f"sweep.{found_key(rest, 'override')}" if sweep else found_key(key.strip(), "override", KEYS)
    return name, parsed(value, f"the value of {key.strip()}")


def assign(mapping: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key, making the sections on its way; steps replace epochs, and epochs steps."""
    *sections, last = key.split(".")
    inner = mapping
    for section in sections:
        if not isinstance(inner.get(section), dict):
            inner[section] = {}
        inner = inner[section]
    inner[last] = value
    if value is not None and key in _EITHER:
        assign(mapping, _EITHER[key], None)


def lookup(mapping: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key, None without one."""
    value: Any = mapping
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
