"""What a saved pruning must have in common with the one that continues it: plan, method with its settings, schedule.

A state that was made otherwise is refused with a list of what differs. Settings are compared by their text; memory
addresses in it (those of functions that have no better name) are left out, as they change from process to process.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from sparseopt.nn.methods import Method
from sparseopt.nn.planning import Plan
from sparseopt.nn.schedule import PhaseSchedule

__all__ = ["differences", "identity", "listed"]


def identity(plan: Plan, method: Method, schedule: PhaseSchedule) -> dict[str, Any]:
    """Numbers, strings and lists that tell one pruning from another."""
    settings = {field.name: _text(getattr(method, field.name)) for field in fields(method)}
    return {"plan": plan.to_dict(), "method": method.name, "settings": settings, "schedule": schedule.to_list()}


def differences(state: Mapping[str, Any], plan: Plan, method: Method, schedule: PhaseSchedule) -> list[str]:
    """What a state has otherwise, one phrase each; empty if nothing.

    >>> from sparseopt.nn.methods import ACDC
    >>> from sparseopt.nn.planning import Plan
    >>> mine = Plan((), (), 0.9), ACDC(), PhaseSchedule.one_shot(10)
    >>> differences(identity(Plan((), (), 0.8), ACDC(zero=False), PhaseSchedule.one_shot(12)), *mine)
    ['sparsity is 0.8 there, 0.9 here', 'zero of the method is False there, True here', 'the schedule has 12 steps
     there, 10 here']
    """
    ours = identity(plan, method, schedule)
    missing = [key for key in ours if key not in state]
    if missing:
        return [f"it has no entry {missing[0]!r}, so it is no state of a sparsifier"]
    found = plan.differences(state["plan"])
    if state["method"] != ours["method"]:
        found.append(f"the method is {state['method']!r} there, {ours['method']!r} here")
    else:
        theirs = state["settings"]
        for key in dict.fromkeys((*theirs, *ours["settings"])):
            there, here = theirs.get(key, "missing"), ours["settings"].get(key, "missing")
            if there != here:
                found.append(f"{key} of the method is {there} there, {here} here")
    return found + _schedules(state["schedule"], ours["schedule"])


def listed(phrases: list[str], at_most: int = 4) -> str:
    """The phrases in one sentence, not too long.

    >>> listed(["a", "b", "c"], 2)
    'a; b; and 1 more'
    """
    more = f"; and {len(phrases) - at_most} more" if len(phrases) > at_most else ""
    return "; ".join(phrases[:at_most]) + more


def _text(value: Any) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def _schedules(theirs: list[list[Any]], ours: list[list[Any]]) -> list[str]:
    """The first difference of two schedules: a list of all would be as long as they are."""
    totals = sum(length for _, length in theirs), sum(length for _, length in ours)
    if totals[0] != totals[1]:
        return [f"the schedule has {totals[0]} steps there, {totals[1]} here"]
    for number, ((there, long), (here, own)) in enumerate(zip(theirs, ours, strict=False), 1):
        if (there, long) != (here, own):
            return [f"phase {number} of the schedule is {there} for {long} steps there, {here} for {own} here"]
    return []
