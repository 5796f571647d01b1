"""What the numbers of `group_recovery` say: sentences made from the rows.

Every conclusion has a weight: how many standard errors its effect has, paired where two methods saw the same problems;
where nothing is compared, the root of the number of problems times the share that the sentence is about. Printed are
the strongest of each kind, a fifth of all at most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from math import ceil, inf, log, sqrt
from typing import NamedTuple

from sparseopt import REGULARIZERS
from sparseopt.experiments.group_recovery_report import Row, ceiling, half, paired, reached

__all__ = ["Claim", "claims", "conclusions", "strongest"]

MOST = 16  # conclusions that a reader takes in


class Claim(NamedTuple):
    """A sentence; what kind of question it answers, about which method, and its weight: see the top of this file."""

    kind: str
    about: str
    weight: float
    text: str


def conclusions(rows: Sequence[Row]) -> str:
    """The strongest claims, a line for each."""
    found = claims(rows)
    chosen = strongest(found)
    head = f"The strongest {len(chosen)} of {len(found)} conclusions"
    return "\n".join([head, *(f"* {claim.text}" for claim in chosen)])


def strongest(found: Sequence[Claim], share: float = 0.2, most: int = MOST) -> list[Claim]:
    """A share of the claims, `most` of them at most.

    The strongest of every kind, then the second of every kind, and so on; a method of which something is said already
    counts half, a third, ... as much.
    """
    kinds: dict[str, list[Claim]] = {}
    for claim in sorted(found, key=lambda claim: -claim.weight):
        kinds.setdefault(claim.kind, []).append(claim)
    chosen: list[Claim] = []
    said: Counter[str] = Counter()
    while len(chosen) < min(most, ceil(share * len(found))):
        for left in kinds.values():
            if left and len(chosen) < min(most, ceil(share * len(found))):
                claim = max(left, key=lambda claim: claim.weight / (1 + said[claim.about]))
                left.remove(claim)
                chosen.append(claim)
                said[claim.about] += 1
    return chosen


def claims(rows: Sequence[Row]) -> list[Claim]:
    """Every conclusion that the rows allow."""
    found: list[Claim] = []
    for make in (_transition, _composite, _rules, _unknown, _validation, _same, _failures, _limit, _paths, _bias):
        found += make([row for row in rows if row.panel == "n"])
    return [*found, *_correlation(rows), *_against(rows), *_scaling(rows), *_noise(rows), *_exact(rows)]


Curves = dict[tuple[str, str], list[Row]]


def _curves(rows: Sequence[Row]) -> Curves:
    """(method, rule) -> rows by setting."""
    out: Curves = {}
    for row in rows:
        out.setdefault((row.method, row.rule), []).append(row)
    return out


class _Duel(NamedTuple):
    """A method and what it is held against, on the same problems."""

    name: str
    rule: str
    mine: list[Row]
    other: list[Row]
    wins: int
    losses: int
    weight: float

    @property
    def rates(self) -> tuple[str, str]:
        return _percent(_bits(self.mine)), _percent(_bits(self.other))


def _duels(
    rows: Sequence[Row], rules: tuple[str, ...], against: Callable[[str, str], tuple[str, str]]
) -> Iterator[_Duel]:
    """Every method by one of the rules, against the method and rule that `against` says, where there is one."""
    curves = _curves(rows)
    for (name, rule), mine in curves.items():
        other = curves.get(against(name, rule))
        if rule in rules and other is not None and other is not mine:
            wins, losses, z = paired(_bits(mine), _bits(other))
            yield _Duel(name, rule, mine, other, wins, losses, abs(z))


def _bits(rows: Sequence[Row]) -> str:
    return "".join(row.exact for row in rows)


def _percent(bits: str) -> str:
    return f"{100.0 * bits.count('1') / len(bits):.0f} %"


def _transition(rows: Sequence[Row]) -> Iterator[Claim]:
    for duel in _duels(rows, ("best",), lambda name, rule: ("l2", rule)):
        if not all(row.short for row in duel.mine):
            mine, lasso = duel.rates
            yield Claim(
                "transition",
                duel.name,
                duel.weight,
                f"With k known (best), {duel.name} needs n = {reached(duel.mine)} for 50 % exact recovery, the group "
                f"lasso {reached(duel.other)}: over all n {mine} against {lasso}; solved by {duel.name} alone: "
                f"{duel.wins}, by the group lasso alone: {duel.losses}.",
            )


def _composite(rows: Sequence[Row]) -> Iterator[Claim]:
    for duel in _duels(rows, ("first", "ebic"), lambda name, rule: (name.removeprefix("composite-"), rule)):
        mine, plain = duel.rates
        yield Claim(
            "composite",
            duel.name,
            duel.weight,
            f"By the rule {duel.rule}, problem (1) with q = {duel.name.removeprefix('composite-')} recovers {mine} "
            f"against {plain} of the separable penalty ({duel.wins} won, {duel.losses} lost).",
        )


def _rules(rows: Sequence[Row]) -> Iterator[Claim]:
    for duel in _duels(rows, ("first",), lambda name, _: (name, "best")):
        first, pool = duel.rates
        yield Claim(
            "rules",
            duel.name,
            duel.weight,
            f"The first k groups on the path of {duel.name} are the true ones in {first} of the problems; the best k "
            f"that any solution of the path names, in {pool}.",
        )


def _unknown(rows: Sequence[Row]) -> Iterator[Claim]:
    for duel in _duels(rows, ("ebic",), lambda name, _: (name, "best")):
        unknown, known = duel.rates
        yield Claim(
            "unknown k",
            duel.name,
            duel.weight,
            f"Not knowing k costs {duel.name} {known} -> {unknown} of exact recoveries with EBIC; 50 % need "
            f"n = {reached(duel.mine)} instead of {reached(duel.other)}.",
        )


def _validation(rows: Sequence[Row]) -> Iterator[Claim]:
    for duel in _duels(rows, ("validation",), lambda name, _: (name, "ebic")):
        last = duel.mine[-1]
        mine, ebic = duel.rates
        yield Claim(
            "validation",
            duel.name,
            duel.weight,
            f"Chosen by validation error at n = {last.setting['n']}, {duel.name} keeps {last.groups[0]:.1f} groups "
            f"where {last.setting['active']} are true; over all n it is exact in {mine} of the problems, by EBIC in "
            f"{ebic}.",
        )


def _same(rows: Sequence[Row]) -> Iterator[Claim]:
    for (name, rule), mine in _curves(rows).items():
        if rule == "first" and name != "omp" and mine[0].like_omp is not None and mine[0].family == "selector":
            same, total = sum(row.like_omp or 0 for row in mine), sum(row.seeds for row in mine)
            other = total - same
            weight = sqrt(total) if not other else abs(same - other) / sqrt(total)
            yield Claim("same", name, weight, f"{name} chooses the k groups of omp in {same} of {total} problems.")


def _failures(rows: Sequence[Row]) -> Iterator[Claim]:
    for (name, rule), mine in _curves(rows).items():
        failed = sum(row.exact.count("0") for row in mine)
        if rule == "best" and failed and not any(row.short for row in mine):
            better = sum(row.better.count("1") for row in mine)
            yield Claim(
                "failures",
                name,
                abs(2 * better - failed) / sqrt(failed),
                f"When {name} (best) misses the true groups, its own k groups fit the samples at least as well in "
                f"{100.0 * better / failed:.0f} % of {failed} failures"
                + (": too few samples, not a poor search." if 2 * better > failed else ": the search fails."),
            )


def _limit(rows: Sequence[Row]) -> Iterator[Claim]:
    best = {row.setting["n"]: row for row in rows if (row.method, row.rule) == ("splicing", "first")}
    for n, row in best.items():
        bound = ceiling([each for each in rows if each.setting["n"] == n])
        if bound < 1.0:
            yield Claim(
                "limit",
                "splicing",
                4.0 * bound * (1.0 - bound) * sqrt(row.seeds),
                f"At n = {n} some method came upon {row.setting['active']} wrong groups that fit as well as the true "
                f"ones in {100.0 * (1.0 - bound):.0f} % of the problems: the exact search would find the truth in "
                f"{100.0 * bound:.0f} % at most, splicing finds it in {_percent(row.exact)}.",
            )


def _paths(rows: Sequence[Row]) -> Iterator[Claim]:
    for (name, rule), mine in _curves(rows).items():
        total, k = sum(row.seeds for row in mine), mine[0].setting["active"]
        for text, count in (
            (f"as many as {k} groups", sum(row.short for row in mine)),
            (f"exactly {k} groups", sum(row.without for row in mine)),
        ):
            if rule == "first" and count:
                yield Claim(
                    "paths",
                    name,
                    sqrt(total) * count / total,
                    f"No solution on the path of {name} has {text} in {100.0 * count / total:.0f} % of the problems"
                    f"{_ceiling_of(mine[0])}; its first {k} are the true ones in {_percent(_bits(mine))}.",
                )


def _ceiling_of(row: Row) -> str:
    """Why problem (1) with a bounded q cannot hold k groups, if it cannot."""
    q, k = (
        REGULARIZERS[row.method.removeprefix("composite-")] if row.family != "selector" else None,
        row.setting["active"],
    )
    if q is None or row.family != "composite" or k * q.value(1.0) < q.ceiling():
        return ""
    return f" ({k} groups of norm 1 cost {k} q(1) = {k * q.value(1.0):.2f}, the ceiling of q is {q.ceiling():.2f})"


def _bias(rows: Sequence[Row]) -> Iterator[Claim]:
    for (name, rule), mine in _curves(rows).items():
        if rule == "ebic":
            last = mine[-1]
            gap, noise = last.error[0] - last.refitted[0], sqrt(last.error[1] ** 2 + last.refitted[1] ** 2)
            yield Claim(
                "bias",
                name,
                abs(gap) / max(noise, 1e-3),
                f"On the groups that EBIC takes at n = {last.setting['n']}, the coefficients of {name} are off by "
                f"{100.0 * last.error[0]:.0f} % of ||w||; refitted, by {100.0 * last.refitted[0]:.0f} %.",
            )


def _correlation(rows: Sequence[Row]) -> Iterator[Claim]:
    for (name, rule), mine in _curves([row for row in rows if row.panel == "correlation"]).items():
        for row in mine:
            plain = _independent(rows, row)
            if rule in ("first", "best") and plain is not None:
                kind, rho = max((row.setting[key], key) for key in ("within", "between"))[::-1]
                pooled = (row.rate * row.seeds + plain.rate * plain.seeds) / (row.seeds + plain.seeds)
                noise = sqrt(max(pooled * (1.0 - pooled), 1e-4) * (1.0 / row.seeds + 1.0 / plain.seeds))
                where = "inside groups" if kind == "within" else "of neighbouring groups"
                yield Claim(
                    "correlation",
                    name,
                    abs(plain.rate - row.rate) / noise,
                    f"At n = {row.setting['n']} a correlation of {rho:g} {where} takes {name} ({rule}) from "
                    f"{_percent(plain.exact)} to {_percent(row.exact)} exact recovery.",
                )


def _against(rows: Sequence[Row]) -> Iterator[Claim]:
    for kind, where in (("within", "inside groups"), ("between", "of neighbouring groups")):
        under = [row for row in rows if row.panel == "correlation" and row.setting[kind]]
        for duel in _duels(under, ("first",), lambda name, rule: ("l2", rule)):
            mine, lasso = duel.rates
            yield Claim(
                "against",
                duel.name,
                duel.weight,
                f"Under correlation {where} the first k groups of {duel.name} are the true ones in {mine}, those of "
                f"the group lasso in {lasso} of the problems.",
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
            if abs(n) < inf:
                found[k] = n / (k * log(column[0].setting["n_groups"]))
        if rule == "best" and len(found) > 1:
            first, last = min(found), max(found)
            n_groups = mine[0].setting["n_groups"]
            yield Claim(
                "scaling",
                name,
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
                name,
                abs(z),
                f"{name} (best) differs most from the group lasso at a signal-to-noise ratio of "
                f"{row.setting['snr']:g}: {_percent(row.exact)} against {_percent(other.exact)} at "
                f"n = {row.setting['n']}.",
            )


def _exact(rows: Sequence[Row]) -> Iterator[Claim]:
    for duel in _duels([row for row in rows if row.panel == "exact"], ("best",), lambda *_: ("exact", "first")):
        total, split = sum(row.seeds for row in duel.mine), duel.wins + duel.losses
        unproved = sum(row.inaccurate for row in duel.other)
        mine, proved = duel.rates
        yield Claim(
            "exact",
            duel.name,
            split / sqrt(total) if split else sqrt(total) / 2.0,
            f"On the small problems the exact search finds the true groups in {proved}, {duel.name} (best) in {mine}; "
            f"{duel.name} alone is right in {duel.wins} of {total} problems, the exact search alone in {duel.losses}; "
            f"{unproved} optima are not proved.",
        )
