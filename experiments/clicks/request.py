"""What a conversion is asked for, and whether a finished folder is the answer to it.

A folder answers if it was made with the same options from the same files. A file counts as the same if it has its
length and time of modification, or its length and SHA-256: a copy is the same file, and so is one fetched again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sparseopt.experiments.clicks.columns import Columns
from sparseopt.experiments.clicks.lines import CATEGORIES, FIELDS
from sparseopt.experiments.clicks.splitting import PARTS, PROTOCOLS

__all__ = ["Options", "checked", "identity", "named", "reopened"]

VERSION = 1  # of what the same rows and options become
LARGEST = 2**31 - 3  # bins: ids reach the network as int32


@dataclass(frozen=True)
class Options:
    """What decides, with the raw files, every byte of the result."""

    protocol: str
    min_count: int | None
    hash_bins: int | None
    numbers: str
    shares: tuple[float, ...] | None
    version: int = VERSION

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that become ids."""
        return FIELDS if self.numbers == "buckets" else CATEGORIES


def checked(
    protocol: str, min_count: int, hash_bins: int | None, numbers: str, shares: Sequence[float] | None
) -> Options:
    """The options, if they have a sense."""
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol is {protocol!r}: choose one of {', '.join(PROTOCOLS)}.")
    if numbers not in ("buckets", "values"):
        raise ValueError(f"numbers is {numbers!r}: choose 'buckets' or 'values'.")
    if min_count < 1:
        raise ValueError(f"min_count is {min_count}: give at least 1.")
    if hash_bins is not None and not 1 <= hash_bins <= LARGEST:
        raise ValueError(f"hash_bins is {hash_bins}: give 1 to {LARGEST}.")
    if shares is not None:
        if protocol != "time":
            raise ValueError(f"shares are given, and protocol is {protocol!r}: they are for 'time' alone.")
        shares = tuple(float(share) for share in shares)
    return Options(protocol, None if hash_bins else int(min_count), hash_bins, numbers, shares)


def named(sources: Any, protocol: str) -> dict[str, Path]:
    """The files by their parts, in the order of `PARTS`."""
    if not isinstance(sources, Mapping):
        sources = {"train": sources}
    unknown = sources.keys() - set(PARTS)
    if unknown or "train" not in sources:
        raise ValueError(f"sources are named {sorted(sources)}: give 'train', and perhaps 'valid' and 'test'.")
    if protocol != "files" and len(sources) > 1:
        raise ValueError(f"protocol {protocol!r} splits one file, and {len(sources)} are given: give 'train' alone.")
    named = {part: Path(sources[part]) for part in PARTS if part in sources}
    for path in named.values():
        if not path.is_file():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return named


def identity(path: Path) -> dict[str, Any]:
    """What tells a file from a later version of it without reading it."""
    status = path.stat()
    return {"bytes": status.st_size, "modified_ns": status.st_mtime_ns}


def reopened(folder: Path, sources: Mapping[str, Path], options: Options) -> Columns:
    """The finished folder, if it was made from the same files in the same way."""
    columns = Columns.open(folder)
    made = columns.meta.get("conversion")
    if made is None:
        raise ValueError(f"{folder} holds columns that no conversion made: choose another folder.")
    asked = json.loads(json.dumps(asdict(options)))
    if asked != made["options"]:
        told = [
            f"{key} {made['options'].get(key)!r}, not {asked[key]!r}"
            for key in asked
            if asked[key] != made["options"].get(key)
        ]
        raise ValueError(f"{folder} was converted with {'; '.join(told)}: choose another folder, or remove it.")
    if sources.keys() != made["sources"].keys():
        raise ValueError(
            f"{folder} was converted from files for {', '.join(made['sources'])}, not for {', '.join(sources)}: "
            "choose another folder, or remove it."
        )
    for part, path in sources.items():
        before, now = made["sources"][part], identity(path)
        same = now["bytes"] == before["bytes"]
        if same and now["modified_ns"] != before["modified_ns"]:
            same = _sha256(path) == before["sha256"]
        if not same:
            raise ValueError(
                f"{folder} was converted from another file than {path}: choose another folder, or remove it."
            )
    return columns


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
