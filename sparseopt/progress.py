"""A progress bar around steps that take a while."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

__all__ = ["shown"]

_Step = TypeVar("_Step")


def shown(steps: Iterable[_Step], progress: bool | None, total: int | None = None) -> Iterable[_Step]:
    """`steps` behind a progress bar: after two seconds on a terminal, or as `progress` says."""
    if progress is False or (progress is None and not (sys.stderr and sys.stderr.isatty())):
        return steps
    from tqdm import tqdm

    return tqdm(steps, total=total, delay=0.0 if progress else 2.0, disable=False, leave=False)
