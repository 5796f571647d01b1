"""What the numbers of `group_recovery` say: intervals, a table, and the conclusions that stand out.

Every conclusion is a sentence made from the rows, with a weight: how many standard errors its effect has, paired where
two methods saw the same problems. Printed are the strongest of each kind, a fifth of all at most.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from math import ceil, log, sqrt
from typing import Any, NamedTuple

__all__ = ["Claim", "Row", "claims", "half", "paired", "report", "strongest", "table", "wilson"]

MOST = 16  # conclusions that a reader takes in


@dataclass(frozen=True)
class Row:
    """A method by a rule on all problems of a setting.

    exact, better : a digit per seed, see `Score`
    true, false, groups, error, refitted : mean and its standard error
    like_omp : problems with the same choice as omp; without : no solution of the path has exactly k groups; short :
    none has k or more; inaccurate : solutions that missed their tolerance, over all problems; seconds : of the CPU, the
    median of a path
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
    inaccurate: int
    seconds: float

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Row:
        """From JSON, where tuples are lists."""
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in stored.items()})

    @property
    def seeds(self) -> int:
        """Problems."""
        return len(self.exact)

    @property
    def rate(self) -> float:
        """Share of the problems in which exactly the true groups were chosen."""
        return self.exact.count("1") / self.seeds


# -- statistics --------------------------------------------------------------------------------------------------------


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


# -- the table ---------------------------------------------------------------------------------------------------------


def table(rows: Sequence[Row], rule: str) -> str:
    """Share of exact recoveries in per cent: a line per method, best first, and a column per setting."""
    shown = [row for row in rows if row.rule == rule]
    columns = list(dict.fromkeys(_label(row.setting, shown) for row in shown))
    cells = {(row.method, _label(row.setting, shown)): row for row in shown}
    methods = dict.fromkeys(row.method for row in shown)
    total = {name: sum(row.rate for row in shown if row.method == name) for name in methods}
    width, space = max(len(name) for name in methods), [max(6, len(column) + 2) for column in columns]
    lines = [" " * width + "".join(column.rjust(room) for column, room in zip(columns, space, strict=True))]
    for name in sorted(methods, key=lambda name: -total[name]):
        known = (cells.get((name, column)) for column in columns)
        texts = ["-" if row is None else f"{100.0 * row.rate:.0f}" for row in known]
        lines.append(name.ljust(width) + "".join(text.rjust(room) for text, room in zip(texts, space, strict=True)))
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
        + f"{'jumps':>7}{'short':>7}{'ms':>7}",
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
        lines.append(line + f"{row.without:>7}{row.short:>7}{1e3 * row.seconds:>7.0f}")
    return "\n".join(lines)


def report(rows: Sequence[Row]) -> str:
    """Tables and conclusions."""
    parts = []
    for panel in dict.fromkeys(row.panel for row in rows):
        mine = [row for row in rows if row.panel == panel]
        for rule in ("first", "best", "ebic"):
            if any(row.rule == rule for row in mine):
                parts.append(f"{panel}, rule {rule}: exact recoveries in per cent\n{table(mine, rule)}")
    curve = [row for row in rows if row.panel == "n"]
    if curve:
        n = _pivot(curve)
        parts.append(
            f"n = {n}: found = share of the true groups, wrong = share of the others, error = ||v - w|| / ||w||,\n"
            f"jumps and short = problems of {curve[0].seeds} whose path has no solution with k groups, none with k or "
            "more\n" + _details([row for row in curve if row.setting["n"] == n])
        )
    found = claims(rows)
    chosen = strongest(found)
    parts.append(
        f"The strongest {len(chosen)} of {len(found)} conclusions\n" + "\n".join(f"* {c.text}" for c in chosen)
    )
    return "\n\n".join(parts)


def _pivot(curve: Sequence[Row]) -> int:
    """The n at which methods differ most: recovery of all methods by best nearest to one half."""
    means: dict[int, list[float]] = {}
    for row in curve:
        if row.rule == "best":
            means.setdefault(row.setting["n"], []).append(row.rate)
    return min(means, key=lambda n: abs(sum(means[n]) / len(means[n]) - 0.5))


# -- conclusions -------------------------------------------------------------------------------------------------------


class Claim(NamedTuple):
    """A sentence, what kind of question it answers, and how many standard errors its effect has."""

    kind: str
    weight: float
    text: str


def strongest(found: Sequence[Claim], share: float = 0.2, most: int = MOST) -> list[Claim]:
    """A share of the claims, `most` of them at most: the strongest of every kind, then the second of every kind, ..."""
    kinds: dict[str, list[Claim]] = {}
    for claim in sorted(found, key=lambda claim: -claim.weight):
        kinds.setdefault(claim.kind, []).append(claim)
    rounds = [claim for row in zip_longest(*kinds.values()) for claim in row if claim is not None]
    return rounds[: min(most, ceil(share * len(found)))]


def claims(rows: Sequence[Row]) -> list[Claim]:
    """Every conclusion that the rows allow."""
    found: list[Claim] = []
    for make in (_transition, _composite, _rules, _unknown, _validation, _same, _failures, _paths, _bias):
        found += make([row for row in rows if row.panel == "n"])
    return [*found, *_correlation(rows), *_scaling(rows), *_noise(rows), *_exact(rows)]


Curves = dict[tuple[str, str], list[Row]]


def _curves(rows: Sequence[Row]) -> Curves:
    """(method, rule) -> rows by setting."""
    out: Curves = {}
    for row in rows:
        out.setdefault((row.method, row.rule), []).append(row)
    return out


def _bits(rows: Sequence[Row]) -> str:
    return "".join(row.exact for row in rows)


def _percent(bits: str) -> str:
    return f"{100.0 * bits.count('1') / len(bits):.0f} %"


def _reached(rows: Sequence[Row]) -> str:
    x = [row.setting["n"] for row in rows]
    n = half(x, [row.rate for row in rows])
    return f"fewer than {x[0]}" if n == float("-inf") else f"more than {x[-1]}" if n == float("inf") else f"{n:.0f}"


def _transition(rows: Sequence[Row]) -> Iterator[Claim]:
    curves = _curves(rows)
    base = curves.get(("l2", "best"))
    for (name, rule), mine in curves.items():
        if rule == "best" and name != "l2" and base is not None:
            wins, losses, z = paired(_bits(mine), _bits(base))
            yield Claim(
                "transition",
                abs(z),
                f"With k known (best), {name} needs {_reached(mine)} samples for 50 % exact recovery, the group lasso "
                f"{_reached(base)}: over all n {_percent(_bits(mine))} against {_percent(_bits(base))}; {wins} "
                f"problems are solved by {name} alone, {losses} by the group lasso alone.",
            )


def _composite(rows: Sequence[Row]) -> Iterator[Claim]:
    curves = _curves(rows)
    for (name, rule), mine in curves.items():
        plain = curves.get((name.removeprefix("composite-"), rule))
        if rule in ("first", "ebic") and name.startswith("composite-") and plain is not None:
            wins, losses, z = paired(_bits(mine), _bits(plain))
            yield Claim(
                "composite",
                abs(z),
                f"By the rule {rule}, problem (1) with q = {name.removeprefix('composite-')} recovers "
                f"{_percent(_bits(mine))} against {_percent(_bits(plain))} of the separable penalty ({wins} won, "
                f"{losses} lost).",
            )


def _rules(rows: Sequence[Row]) -> Iterator[Claim]:
    curves = _curves(rows)
    for (name, rule), mine in curves.items():
        if rule == "first":
            pool = curves[name, "best"]
            _, _, z = paired(_bits(pool), _bits(mine))
            yield Claim(
                "rules",
                abs(z),
                f"The first k groups on the path of {name} are the true ones in {_percent(_bits(mine))} of the "
                f"problems; the best k that any solution of the path names, in {_percent(_bits(pool))}.",
            )


def _unknown(rows: Sequence[Row]) -> Iterator[Claim]:
    curves = _curves(rows)
    for (name, rule), mine in curves.items():
        if rule == "ebic":
            known = curves[name, "best"]
            _, _, z = paired(_bits(known), _bits(mine))
            yield Claim(
                "unknown k",
                abs(z),
                f"Not knowing k costs {name} {_percent(_bits(known))} -> {_percent(_bits(mine))} of exact recoveries "
                f"with EBIC; 50 % need {_reached(mine)} samples instead of {_reached(known)}.",
            )


def _validation(rows: Sequence[Row]) -> Iterator[Claim]:
    curves = _curves(rows)
    for (name, rule), mine in curves.items():
        if rule == "validation":
            other = curves[name, "ebic"]
            last, k = mine[-1], mine[-1].setting["active"]
            _, _, z = paired(_bits(other), _bits(mine))
            yield Claim(
                "validation",
                abs(z),
                f"Chosen by validation error at n = {last.setting['n']}, {name} keeps {last.groups[0]:.1f} groups "
                f"where {k} are true; over all n it is exact in {_percent(_bits(mine))} of the problems, by EBIC in "
                f"{_percent(_bits(other))}.",
            )


def _same(rows: Sequence[Row]) -> Iterator[Claim]:
    for (name, rule), mine in _curves(rows).items():
        if rule == "first" and name != "omp" and mine[0].like_omp is not None and mine[0].family == "selector":
            same, total = sum(row.like_omp or 0 for row in mine), sum(row.seeds for row in mine)
            other = total - same
            weight = sqrt(total) if not other else abs(same - other) / sqrt(total)
            yield Claim("same", weight, f"{name} chooses the k groups of omp in {same} of {total} problems.")


def _failures(rows: Sequence[Row]) -> Iterator[Claim]:
    for (name, rule), mine in _curves(rows).items():
        failed = sum(row.exact.count("0") for row in mine)
        if rule == "best" and failed:
            better = sum(row.better.count("1") for row in mine)
            yield Claim(
                "failures",
                abs(2 * better - failed) / sqrt(failed),
                f"When {name} (best) misses the true groups, its own k groups fit the samples at least as well in "
                f"{100.0 * better / failed:.0f} % of {failed} failures"
                + (": too few samples, not a poor search." if 2 * better > failed else ": the search fails."),
            )


def _paths(rows: Sequence[Row]) -> Iterator[Claim]:
    for (name, rule), mine in _curves(rows).items():
        total = sum(row.seeds for row in mine)
        for text, count in (
            ("as many as k groups", sum(row.short for row in mine)),
            ("exactly k groups", sum(row.without for row in mine)),
        ):
            if rule == "first" and count:
                yield Claim(
                    "paths",
                    sqrt(total) * count / total,
                    f"No solution on the path of {name} has {text} in {100.0 * count / total:.0f} % of the problems; "
                    f"its first k are the true ones in {_percent(_bits(mine))}.",
                )


def _bias(rows: Sequence[Row]) -> Iterator[Claim]:
    for (name, rule), mine in _curves(rows).items():
        if rule == "ebic":
            last = mine[-1]
            gap, noise = last.error[0] - last.refitted[0], sqrt(last.error[1] ** 2 + last.refitted[1] ** 2)
            yield Claim(
                "bias",
                abs(gap) / max(noise, 1e-3),
                f"On the groups that EBIC takes at n = {last.setting['n']}, the coefficients of {name} are off by "
                f"{100.0 * last.error[0]:.0f} % of ||w||; refitted, by {100.0 * last.refitted[0]:.0f} %.",
            )


def _correlation(rows: Sequence[Row]) -> Iterator[Claim]:
    for (name, rule), mine in _curves([row for row in rows if row.panel == "correlation"]).items():
        for row in mine:
            plain = _independent(rows, row)
            if rule == "best" and plain is not None:
                kind, rho = max((row.setting[key], key) for key in ("within", "between"))[::-1]
                pooled = (row.rate * row.seeds + plain.rate * plain.seeds) / (row.seeds + plain.seeds)
                noise = sqrt(max(pooled * (1.0 - pooled), 1e-4) * (1.0 / row.seeds + 1.0 / plain.seeds))
                where = "inside groups" if kind == "within" else "of neighbouring groups"
                yield Claim(
                    "correlation",
                    abs(plain.rate - row.rate) / noise,
                    f"At n = {row.setting['n']} a correlation of {rho:g} {where} takes {name} (best) from "
                    f"{_percent(plain.exact)} to {_percent(row.exact)} exact recovery.",
                )


def _independent(rows: Sequence[Row], correlated: Row) -> Row | None:
    """The same method and rule on independent columns."""
    wanted = {**correlated.setting, "within": 0.0, "between": 0.0}
    same = [row for row in rows if (row.method, row.rule) == (correlated.method, correlated.rule)]
    return next((row for row in same if dict(row.setting) == wanted), None)


def _scaling(rows: Sequence[Row]) -> Iterator[Claim]:
    for (name, rule), mine in _curves([row for row in rows if row.panel == "map"]).items():
        found = {}
        for k in dict.fromkeys(row.setting["active"] for row in mine):
            column = [row for row in mine if row.setting["active"] == k]
            n = half([row.setting["n"] for row in column], [row.rate for row in column])
            if abs(n) < float("inf"):
                found[k] = n / (k * log(column[0].setting["n_groups"]))
        if rule == "best" and len(found) > 1:
            first, last = min(found), max(found)
            n_groups = mine[0].setting["n_groups"]
            yield Claim(
                "scaling",
                2.0 * abs(log(found[last] / found[first])) * sqrt(mine[0].seeds),
                f"50 % recovery by {name} (best) takes {found[first]:.1f} k log p samples with k = {first} true groups "
                f"and {found[last]:.1f} k log p with k = {last} (p = {n_groups} groups).",
            )


def _noise(rows: Sequence[Row]) -> Iterator[Claim]:
    curves = _curves([row for row in rows if row.panel == "noise"])
    for (name, rule), mine in curves.items():
        base = curves.get(("l2", rule))
        if rule == "best" and name != "l2" and base is not None:
            gains = [(paired(row.exact, other.exact)[2], row, other) for row, other in zip(mine, base, strict=True)]
            z, row, other = max(gains, key=lambda gain: abs(gain[0]))
            yield Claim(
                "noise",
                abs(z),
                f"{name} (best) differs most from the group lasso at a signal-to-noise ratio of "
                f"{row.setting['snr']:g}: {_percent(row.exact)} against {_percent(other.exact)} at "
                f"n = {row.setting['n']}.",
            )


def _exact(rows: Sequence[Row]) -> Iterator[Claim]:
    curves = _curves([row for row in rows if row.panel == "exact"])
    proved = curves.get(("exact", "first"))
    for (name, rule), mine in curves.items():
        if proved is not None and rule == "best" and name != "exact":
            wins, losses, _ = paired(_bits(mine), _bits(proved))
            total = len(_bits(mine))
            yield Claim(
                "exact",
                abs(wins + losses) / sqrt(total) if wins + losses else sqrt(total) / 2.0,
                f"On the small problems the exact search finds the true groups in {_percent(_bits(proved))}, {name} "
                f"(best) in {_percent(_bits(mine))}; they disagree about {wins + losses} of {total} problems.",
            )
