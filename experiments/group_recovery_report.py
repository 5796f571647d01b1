"""What the numbers of `group_recovery` are: rows, intervals, tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, sqrt
from typing import Any

__all__ = ["Row", "ceiling", "half", "needed", "paired", "reached", "read_rows", "table", "tables", "wilson"]


@dataclass(frozen=True)
class Row:
    """A method by a rule on all problems of a setting.

    exact, better : a digit per seed, see `Score`
    true, false, groups, error, refitted : mean and its standard error
    like_omp : problems with the same choice as omp; without, short, cut : problems in which no solution of the path has
    exactly k groups, k or more, as many as ebic looks at; inaccurate : solutions that missed their tolerance, over all
    problems; seconds : of the CPU, the median of a path
    """

    panel: str
    setting: Mapping[str, Any]
    method: str
    family: str
    rule: str
    exact: str
    better: str
    true: tuple[float, float]
    false: tuple[float, float]
    groups: tuple[float, float]
    error: tuple[float, float]
    refitted: tuple[float, float]
    like_omp: int | None
    without: int
    short: int
    cut: int
    inaccurate: int
    seconds: float

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Row:
        """From JSON, where tuples are lists."""
        known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
        return cls(**known)

    @property
    def seeds(self) -> int:
        """Problems."""
        return len(self.exact)

    @property
    def rate(self) -> float:
        """Share of the problems in which exactly the true groups were chosen."""
        return self.exact.count("1") / self.seeds


# -- statistics --------------------------------------------------------------------------------------------------------


def read_rows(stored: Mapping[str, Any]) -> list[Row]:
    """The rows of a file, which has each setting once and its number in the rows."""
    return [Row.of({**each, "setting": stored["settings"][each["setting"]]}) for each in stored["rows"]]


def wilson(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The interval of a probability: all p within z of their own standard errors of successes / n.

    >>> [round(end, 3) for end in wilson(0, 20)]
    [0.0, 0.161]
    """
    share, spread = successes / n, z * z / n
    middle = (share + 0.5 * spread) / (1.0 + spread)
    width = z * sqrt(share * (1.0 - share) / n + 0.25 * spread / n) / (1.0 + spread)
    return max(middle - width, 0.0), min(middle + width, 1.0)


def half(x: Sequence[float], rates: Sequence[float], level: float = 0.5) -> float:
    """Where the rates first reach `level`, between the x by straight lines; -inf or inf if they do so outside.

    >>> half([40, 60, 80], [0.0, 0.25, 0.75])
    70.0
    """
    if rates[0] >= level:
        return float("-inf")
    for (x0, r0), (x1, r1) in zip(zip(x, rates, strict=True), list(zip(x, rates, strict=True))[1:], strict=False):
        if r1 >= level:
            return x0 + (x1 - x0) * (level - r0) / (r1 - r0)
    return float("inf")


def paired(a: str, b: str) -> tuple[int, int, float]:
    """Problems that a alone solves, that b alone solves, and McNemar's (a - b) / sqrt(a + b), the standard errors.

    >>> paired("1101", "0111")
    (1, 1, 0.0)
    """
    wins = sum(x > y for x, y in zip(a, b, strict=True))
    losses = sum(x < y for x, y in zip(a, b, strict=True))
    return wins, losses, (wins - losses) / sqrt(wins + losses) if wins + losses else 0.0


def ceiling(rows: Sequence[Row]) -> float:
    """A bound of the recovery of the exact search, from all methods in one setting.

    The share of problems in which none of them came upon k wrong groups that fit as well as the true ones.
    """
    seeds = rows[0].seeds
    return 1.0 - sum(any(row.better[at] == "1" for row in rows) for at in range(seeds)) / seeds


# -- the table ---------------------------------------------------------------------------------------------------------


def table(rows: Sequence[Row], rule: str) -> str:
    """Share of exact recoveries in per cent: a line per method, best first, and a column per setting."""
    shown = [row for row in rows if row.rule == rule]
    cells = {(row.method, _label(row.setting, shown)): f"{100.0 * row.rate:.0f}" for row in shown}
    return _aligned(shown, list(dict.fromkeys(_label(row.setting, shown) for row in shown)), cells)


def needed(rows: Sequence[Row], rule: str) -> str:
    """The n at which half of the recoveries are exact: a line per method, best first, and a column per k."""
    shown = [row for row in rows if row.rule == rule]
    columns: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(shown, key=lambda row: int(row.setting["active"])):
        columns.setdefault((row.method, f"k={row.setting['active']}"), []).append(row)
    return _aligned(
        shown, list(dict.fromkeys(label for _, label in columns)), {at: reached(c) for at, c in columns.items()}
    )


def reached(rows: Sequence[Row]) -> str:
    """The n at which half of the recoveries are exact, or on which side of those tried it lies."""
    x = [row.setting["n"] for row in rows]
    n = half(x, [row.rate for row in rows])
    return f"<{x[0]}" if n == -inf else f">{x[-1]}" if n == inf else f"{n:.0f}"


def _aligned(rows: Sequence[Row], columns: Sequence[str], cells: Mapping[tuple[str, str], str]) -> str:
    methods = dict.fromkeys(row.method for row in rows)
    total = {name: sum(row.rate for row in rows if row.method == name) for name in methods}
    width, space = max(len(name) for name in methods), [max(6, len(column) + 2) for column in columns]
    lines = [" " * width + "".join(column.rjust(room) for column, room in zip(columns, space, strict=True))]
    for name in sorted(methods, key=lambda name: -total[name]):
        texts = (cells.get((name, column), "-").rjust(room) for column, room in zip(columns, space, strict=True))
        lines.append(name.ljust(width) + "".join(texts))
    return "\n".join(lines)


def _label(setting: Mapping[str, Any], among: Sequence[Row]) -> str:
    """What tells this setting from the others."""
    names = [key for key in setting if len({row.setting[key] for row in among}) > 1] or ["n"]
    if {"within", "between"} <= set(names):
        names = [key for key in names if setting[key]] or ["within"]
    return " ".join(f"{ {'active': 'k'}.get(key, key) }={setting[key]:g}" for key in names)


def _details(rows: Sequence[Row]) -> str:
    """One setting: how each rule does, what it chooses, and how far the coefficients are from the true ones."""
    methods = list(dict.fromkeys(row.method for row in rows))
    cells = {(row.method, row.rule): row for row in rows}
    width = max(len(name) for name in methods)
    lines = [
        f"{'':{width}}  {'exact, per cent, with 95 % interval':^39}  {'ebic':^28}  {'validation':^28}",
        f"{'':{width}}{'first':>14}{'best':>14}{'ebic':>14}"
        + f"{'found':>7}{'wrong':>7}{'error':>7}{'refit':>7}" * 2
        + f"{'jumps':>7}{'short':>7}{'cut':>7}{'ms':>7}",
    ]
    for name in sorted(methods, key=lambda name: -cells[name, "best"].rate):
        line = name.ljust(width)
        for rule in ("first", "best", "ebic"):
            row = cells[name, rule]
            low, high = wilson(row.exact.count("1"), row.seeds)
            line += f"{100 * row.rate:.0f} ({100 * low:.0f}-{100 * high:.0f})".rjust(14)
        for rule in ("ebic", "validation"):
            row = cells[name, rule]
            line += f"{row.true[0]:>7.2f}{row.false[0]:>7.3f}{row.error[0]:>7.2f}{row.refitted[0]:>7.2f}"
        lines.append(line + f"{row.without:>7}{row.short:>7}{row.cut:>7}{1e3 * row.seconds:>7.0f}")
    return "\n".join(lines)


def tables(rows: Sequence[Row]) -> str:
    """Exact recoveries in every panel, and all that is known of the methods where they differ most."""
    parts = []
    for panel in dict.fromkeys(row.panel for row in rows):
        mine = [row for row in rows if row.panel == panel]
        for rule in ("first", "best", "ebic"):
            if any(row.rule == rule for row in mine) and panel == "map":
                parts.append(f"{panel}, rule {rule}: samples for 50 % exact recovery\n{needed(mine, rule)}")
            elif any(row.rule == rule for row in mine):
                parts.append(f"{panel}, rule {rule}: exact recoveries in per cent\n{table(mine, rule)}")
    curve = [row for row in rows if row.panel == "n"]
    if curve:
        n = _pivot(curve)
        parts.append(
            f"n = {n}: found = share of the true groups, wrong = share of the others, error = ||v - w|| / ||w||;\n"
            f"jumps, short, cut = problems of {curve[0].seeds} whose path has no solution with k groups, k or more, "
            "as many as\nebic looks at; ms = milliseconds of a CPU for a path\n"
            + _details([row for row in curve if row.setting["n"] == n])
        )
    return "\n\n".join(parts)


def _pivot(curve: Sequence[Row]) -> int:
    """The n at which methods differ most: recovery of all methods by best nearest to one half."""
    means: dict[int, list[float]] = {}
    for row in curve:
        if row.rule == "best":
            means.setdefault(row.setting["n"], []).append(row.rate)
    return min(means, key=lambda n: abs(sum(means[n]) / len(means[n]) - 0.5))
