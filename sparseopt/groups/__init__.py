"""Partitions of the features: the object `Groups`, and `as_groups` to make one from any description."""

from __future__ import annotations

from sparseopt.groups.convert import as_groups
from sparseopt.groups.partition import Groups

__all__ = ["Groups", "as_groups"]
