"""Sweeps: what they may hold, the combinations of their values, and names for the cells.

A cell is named after method, block, sparsity and seed, and after what else the sweep varies:
"ac-dc_b20_s90_lr0p01_seed0". The four are always there, so that a sweep over more of them keeps its names. A name has
small letters, digits, "-" and "_" only.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from sparseopt.experiments.training.fields import plain, shown
from sparseopt.experiments.training.overrides import found_key, lookup
from sparseopt.experiments.training.pruning import DENSE, method_name, simple

__all__ = ["cell_name", "combinations", "distinct", "equal", "swept", "varied", "without"]

_NAMED = ("pruning.method", "pruning.block", "pruning.sparsity", "training.seed")
_MOST = 10_000  # cells: more are a mistake, and all are checked
_LONGEST = 120  # characters of a name


def combinations(sweep: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """One value of every key, in all ways; the last key changes fastest."""
    for values in product(*sweep.values()):
        yield dict(zip(sweep, values, strict=True))


def swept(given: Any) -> dict[str, list[Any]]:
    """A sweep with full keys, checked but for its values, which the cells check."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ValueError(f"sweep must be a mapping of keys to lists of values, got {shown(given)}.")
    sweep: dict[str, list[Any]] = {}
    for name, values in given.items():
        key = found_key(str(name), "sweep")
        if not isinstance(values, (list, tuple)) or not values:
            raise ValueError(f"sweep.{key} must be a list of values, got {shown(values)}.")
        if key in sweep:
            raise ValueError(f"sweep has {key} twice: join the two lists.")
        sweep[key] = [_value(f"sweep.{key}", key, value) for value in values]
    if (number := math.prod(map(len, sweep.values()))) > _MOST:
        raise ValueError(f"sweep has {number:,} combinations: leave at most {_MOST:,}.")
    return sweep


def varied(given: Any) -> dict[str, dict[Any, dict[str, Any]]]:
    """Variants with full keys, checked but for the values that they set."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ValueError(f"variants must be a mapping, key: {{value: {{key: value}}}}, got {shown(given)}.")
    variants: dict[str, dict[Any, dict[str, Any]]] = {}
    for name, cases in given.items():
        key = found_key(str(name), "variants")
        where = f"variants.{key}"
        if not isinstance(cases, Mapping) or not all(isinstance(further, Mapping) for further in cases.values()):
            raise ValueError(f"{where} must be a mapping, value: {{key: value}}, got {shown(cases)}.")
        if key in variants:
            raise ValueError(f"variants has {key} twice: join the two.")
        variants[key] = {}
        for case, further in cases.items():
            names = {found_key(str(each), where): value for each, value in further.items()}
            values = {each: _value(f"{where}: {each}", each, value) for each, value in names.items()}
            variants[key][_value(where, key, case)] = values
    return variants


def _value(where: str, key: str, value: Any) -> Any:
    try:
        return method_name(value) if key == "pruning.method" else simple(value)
    except ValueError as error:
        words = str(error)
        raise ValueError(f"{where} {words}, got {shown(value)}." if words.startswith("must be") else words) from error


def equal(value: Any, case: Any) -> bool:
    """Whether a variant is meant for a value."""
    return (value is not None and type(value) is not bool and plain(value) == plain(case)) or value is case


def without(mapping: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The items of a mapping but `key` and what lies inside it."""
    return {each: value for each, value in mapping.items() if each != key and not each.startswith(f"{key}.")}


# -- names -------------------------------------------------------------------------------------------------------------


def cell_name(mapping: Mapping[str, Any], keys: Iterable[str]) -> str:
    """The name of a complete recipe in a sweep over `keys`.

    >>> pruning = {"method": "ac/dc", "block": 20, "sparsity": 0.9}
    >>> recipe = {"pruning": pruning, "training": {"seed": 0, "lr": 0.01}}
    >>> cell_name(recipe, ["pruning.block"]), cell_name({**recipe, "pruning": None}, ["training.lr"])
    ('ac-dc_b20_s90_seed0', 'dense_lr0p01_seed0')
    """
    pruning, parts = mapping["pruning"], [DENSE]
    if pruning is not None:
        parts = [_word(pruning["method"]), f"b{_word(pruning['block'])}", f"s{_word(100.0 * pruning['sparsity'])}"]
    for key in keys:
        if key not in _NAMED:
            parts.append(key.rpartition(".")[2].replace("_", "-") + _word(lookup(mapping, key)))
    name = "_".join([*parts, f"seed{lookup(mapping, 'training.seed')}"])
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 7]}_{_digest(name)}"


def distinct(named: Sequence[tuple[str, Any]]) -> list[str]:
    """The names; where two are equal, with a mark of what they stand for."""
    names = [name for name, _ in named]
    return [name if names.count(name) == 1 else f"{name}_{_digest(value)}" for name, value in named]


def _word(value: Any) -> str:
    """A value as a part of a name.

    >>> _word("sequential-attention++"), _word(0.5), _word(1e-5), _word(True), _word([8, None])
    ('sequential-attention-pp', '0p5', '1e-05', 'true', '8xnull')
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:.10g}".replace(".", "p").replace("+", "")
    if isinstance(value, (list, tuple)):
        text = "x".join(_word(each) for each in value)
    else:
        text = value if isinstance(value, str) else shown(value)
    text = re.sub("[^a-z0-9]+", "-", text.lower().replace("++", "-pp")).strip("-")
    return text if 0 < len(text) <= 24 else _digest(value)


def _digest(value: Any) -> str:
    """Six letters that stand for a value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:6]
