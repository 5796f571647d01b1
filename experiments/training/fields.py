"""What the keys of a recipe may hold, and the sentence about a value that they may not.

A type here is a check with the words for it: `Positive` takes "1e-3" as well as 0.001, since YAML 1.1 reads numbers
without a point as text, and answers to anything else "must be a number above 0".
"""

from __future__ import annotations

import difflib
import math
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError

__all__ = [
    "Count",
    "Items",
    "Natural",
    "NonNegative",
    "OpenShare",
    "Positive",
    "Prose",
    "Share",
    "Text",
    "Truth",
    "closest",
    "nearest_key",
    "plain",
    "require_printable",
    "sentences",
    "shown",
]

_NUMBER = re.compile(r"[-+]?(\d+(_\d+)*\.?\d*|\.\d+)([eE][-+]?\d+)?")


def plain(value: Any) -> Any:
    """`value`, or the number that the text `value` is in every language but YAML 1.1.

    >>> plain("1e-3"), plain("2e4"), plain("adam"), plain([1, "1e1"])
    (0.001, 20000.0, 'adam', [1, 10.0])
    """
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        number = float(value)
        return number if math.isfinite(number) else value
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    return value


def _number(words: str, good: Callable[[float], bool], whole: bool = False) -> BeforeValidator:
    def check(value: Any) -> Any:
        number = plain(value)
        fits = isinstance(number, (int, float)) and not isinstance(number, bool)
        # Whole numbers above 2^63 count nothing, and are more than other libraries take.
        if not fits or not abs(number) < 2**63 or not good(number) or (whole and number != int(number)):
            raise ValueError(f"must be {words}")
        return int(number) if whole else float(number)

    return BeforeValidator(check)


def require_printable(text: str, but: str = "") -> None:
    """Control characters, and line breaks of other alphabets, do not come back from YAML as they were."""
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") and letter not in but for letter in text):
        raise ValueError("must be text without control characters")


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be text")
    require_printable(value)
    return value


def _prose(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text")
    require_printable(value, but="\n\t")
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _items(value: Any) -> Any:
    if not isinstance(value, (list, tuple)):
        raise ValueError("must be a list")
    return tuple(value)


Positive = Annotated[float, _number("a number above 0", lambda x: x > 0)]
NonNegative = Annotated[float, _number("a number of at least 0", lambda x: x >= 0)]
Share = Annotated[float, _number("a number of at least 0 and below 1", lambda x: 0 <= x < 1)]
OpenShare = Annotated[float, _number("a number between 0 and 1, both excluded", lambda x: 0 < x < 1)]
Count = Annotated[int, _number("a whole number of at least 1", lambda x: x >= 1, whole=True)]
Natural = Annotated[int, _number("a whole number of at least 0", lambda x: x >= 0, whole=True)]
Text = Annotated[str, BeforeValidator(_text)]
Prose = Annotated[str, BeforeValidator(_prose)]
Truth = Annotated[bool, BeforeValidator(_truth)]
Items = BeforeValidator(_items)


def closest(name: Any, known: Iterable[str]) -> str:
    """ "did you mean ...?", or the names that there are."""
    names = list(known)
    close = difflib.get_close_matches(str(name), names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(names)}."


def shown(value: Any) -> str:
    """A value as one would write it in YAML, on one line and not long."""
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def sentences(error: ValidationError, keys: Collection[str]) -> list[str]:
    """One for each fault: the key, its value, what is allowed. `keys` are all that there are, dotted."""
    return list(dict.fromkeys(_sentence(each, keys) for each in error.errors()))


def _sentence(fault: Any, keys: Collection[str]) -> str:
    key = ".".join(str(part) for part in fault["loc"]) or "a recipe"
    value, kind = fault["input"], fault["type"]
    if kind == "extra_forbidden":
        named = key if key.isprintable() else repr(key)
        return f"{named} is no key of a recipe: {nearest_key(key, keys)}"
    if kind == "missing":
        return f"{key} is missing."
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"{key} must be a mapping of keys to values, got {shown(value)}."
    if kind == "literal_error":
        expected = fault["ctx"]["expected"]
        close = difflib.get_close_matches(str(value), re.findall(r"'([^']*)'", expected), n=1)
        hint = f": did you mean {close[0]!r}?" if close else "."
        return f"{key} must be {expected}, got {shown(value)}{hint}"
    words = str(fault["ctx"]["error"]) if kind == "value_error" else str(fault["msg"]).replace("Input should", "must")
    if words.startswith("must be"):
        return f"{key} {words}, got {shown(value)}."
    return words if kind == "value_error" else f"{key}: {words}, got {shown(value)}."


def nearest_key(key: str, keys: Collection[str]) -> str:
    """What a key that is not there was meant to be: one with the same last part, a similar one beside it, or anywhere.

    >>> keys = ["training.lr", "training.batch", "pruning.block"]
    >>> nearest_key("lr", keys), nearest_key("training.bach", keys), nearest_key("blocks", keys)
    ("did you mean 'training.lr'?", "did you mean 'training.batch'?", "did you mean 'pruning.block'?")
    """
    section, _, last = key.rpartition(".")
    same = [each for each in keys if each.rpartition(".")[2] == last]
    if same:
        return f"did you mean {' or '.join(repr(each) for each in same)}?"
    beside = [each for each in keys if each.rpartition(".")[0] == section]
    close = difflib.get_close_matches(key, beside, n=1) or difflib.get_close_matches(key, list(keys), n=1)
    if not close:
        ends = {each.rpartition(".")[2]: each for each in keys}
        close = [ends[end] for end in difflib.get_close_matches(last, list(ends), n=1)]
    return f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(beside or keys)}."
