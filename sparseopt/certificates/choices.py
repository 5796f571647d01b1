"""The bound of the best choice of at most k groups, verified: leaves that cover all choices, and their dual points.

In a leaf the groups I are in and O are out. For A with U'A = 0 (unpenalised columns U) and radii ||w_g|| <= M_g,

    F >= -L*(A) - sum_{g in I} h(||X_g'A||) - (sum of the k - |I| largest h(||X_g'A||) over g in neither I nor O)
    h(v) = sup_{0 <= u <= M_g} v u - ridge u^2 / 2.

What lies outside the radii is no concern in three cases, told apart by the word `radius` of the claim, which is never
believed. Let c be the claimed bound; only w with F(w) <= c matter.

    not needed, ridge    ridge ||w_g||^2 / 2 <= F(w), so M_g >= sqrt(2 c / ridge) is enough, and so is inf
    not needed           A is made orthogonal to all columns that its leaf allows: h is applied to 0 only
    proved               squares with independent columns Z, H = Z'SZ, minimiser w^:
                         ||w_g - w^_g||^2 <= 2 (c - min F) lambda_max([H^-1]_gg), and M_g is at least that large
    assumed              otherwise: the bound is one for ||w_g|| <= M_g, which w must obey, and the sentence says so

Losses are never negative, so a bound c <= 0 says nothing, unless F(w, b) itself is at most 1e-9 of the loss without
groups (a perfect fit, separable classes). That loss has a lower bound by a dual point of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import Any

import numpy as np

from sparseopt.certificates.balls import Refusal, arb, arb_mat, norm
from sparseopt.certificates.exact import Exact
from sparseopt.certificates.windows import largest

__all__ = ["best_subset"]

Ball = Any
Leaf = tuple[frozenset[int], frozenset[int]]
_TINY = 1e-9


def best_subset(case: Exact, claim: Any) -> tuple[Ball, Ball, str, str]:
    """F(w, b), a lower bound, what it bounds, and why nothing or something is assumed; or a Refusal."""
    if case.kind != "at_most":
        raise Refusal("the claim is about a choice of groups, and the problem has a penalty")
    k, radius, points = case.words["k"], claim.array("radius"), claim.array("dual")
    if claim.number("k") != k or claim.number("leaves") != len(points) or radius.shape != (len(case.groups),):
        raise Refusal("k, the number of leaves or the radii do not fit the problem")
    counted = set(np.flatnonzero(case.penalised).tolist())
    leaves = _leaves(claim, counted, k)
    primal, what, word = case.objective(), f"the best choice of at most {k} groups", claim.numbers.get("radius")
    tail = _share(case, claim)
    if claim.number("dual") <= 0.0:
        if not tail:
            raise Refusal("a bound of at most 0 says nothing: losses are never negative")
        return primal, arb(0), what, f"losses are never negative, so nothing is assumed{tail}"
    if word not in ("not needed", "proved", "assumed"):
        raise Refusal(f"the claim says {word!r} of its radii, which is neither not needed, proved nor assumed")
    held = [(leaf, a) for leaf, a in zip(leaves, points, strict=True) if len(leaf[0]) <= k]
    if not held:
        raise Refusal("no leaf holds a choice of groups")
    if word == "not needed" and not case.ridge > 0:
        values = [case.minus_conjugate(case.dual(a, _allowed(leaf, counted, k))) for leaf, a in held]
        why = "no radius is needed: the dual points are orthogonal to all groups that their leaves allow"
        return primal, _least(values), what, why + tail
    bound = _least(_leaf_bound(case, leaf, a, radius.tolist(), counted) for leaf, a in held)
    if word == "not needed":
        enough = (2 * arb(claim.number("dual")) / case.ridge).sqrt()
        if not all(float(radius[g]) == np.inf or enough <= float(radius[g]) for g in counted):
            raise Refusal("a radius leaves out coefficients that the ridge allows")
        why = "no radius is needed: the ridge holds all coefficients that matter"
    elif word == "proved":
        _check_radii(case, radius.tolist(), claim.number("dual"), counted)
        why = "the radii are proved: all coefficients that could be better lie within"
    else:
        norms = case.norms(case.W)
        if not all(norms[g] <= float(radius[g]) for g in counted):
            raise Refusal("w lies outside the radii that the claim assumes")
        what, why = f"{what} with ||w_g|| <= M_g, the radii of the claim,", "the radii are assumed, not proved"
    return primal, bound, what, why + tail


# -- leaves ------------------------------------------------------------------------------------------------------------


def _leaves(claim: Any, counted: set[int], k: int) -> list[Leaf]:
    leaves = []
    for inside, outside in zip(claim.array("leaf_in"), claim.array("leaf_out"), strict=True):
        leaves.append((frozenset(inside[inside >= 0].tolist()), frozenset(outside[outside >= 0].tolist())))
    if len(leaves) != len(claim.array("dual")) or any(i & o or not i | o <= counted for i, o in leaves):
        raise Refusal("a leaf forces a group both in and out, or one that is not counted")
    if not _covered(leaves, k):
        raise Refusal("the leaves do not cover all choices of groups")
    return leaves


def _covered(leaves: list[Leaf], k: int) -> bool:
    """Whether every choice of at most k groups lies in a leaf: split on the group that most leaves decide."""
    todo = [(leaves, k)]
    while todo:
        rest, room = todo.pop()
        if any(not i and not o for i, o in rest):
            continue
        if not rest:
            return False
        decided = [g for i, o in rest for g in i | o]
        g = max(set(decided), key=decided.count)
        todo.append(([(i, o - {g}) for i, o in rest if g not in i], room))
        if room > 0:
            todo.append(([(i - {g}, o) for i, o in rest if g not in o], room - 1))
    return True


def _allowed(leaf: Leaf, counted: set[int], k: int) -> frozenset[int]:
    """The groups that may be nonzero in a leaf: those in if there are k of them, else all that are not out."""
    return leaf[0] if len(leaf[0]) == k else frozenset(counted) - leaf[1]


def _leaf_bound(case: Exact, leaf: Leaf, a: Any, radius: list[float], counted: set[int]) -> Ball:
    inside, outside = leaf
    point = case.dual(a)
    norms = case.norms(point.V)
    worth = {g: _worth(norms[g], radius[g], case.ridge) for g in counted - outside}
    rest = sorted((worth[g].upper() for g in worth if g not in inside), reverse=True)
    best = sum((worth[g] for g in inside), arb(0)) + sum(rest[: case.words["k"] - len(inside)], arb(0))
    return case.minus_conjugate(point) - best


def _worth(v: Ball, radius: float, ridge: Ball) -> Ball:
    """An upper bound of sup over 0 <= u <= radius of v u - ridge u^2 / 2."""
    if not radius >= 0.0 or (radius == np.inf and not ridge > 0):
        raise Refusal("a radius is infinite without a ridge, or negative")
    if ridge > 0 and not v / ridge >= radius:
        return v * v / (2 * ridge)
    return v * radius - ridge * radius * radius / 2


def _least(values: Iterable[Ball]) -> Ball:
    """A lower bound of the smallest, -inf if one of them is unknown: a comparison with NaN would lose it."""
    ends = (value.lower() if value.is_finite() else arb("-inf") for value in values)
    return reduce(lambda a, b: a if a < b else b, ends)


# -- what lies outside the radii ---------------------------------------------------------------------------------------


def _check_radii(case: Exact, radius: list[float], level: float, counted: set[int]) -> None:
    """A Refusal unless ||w_g|| <= M_g for every w with F(w) <= level and every choice of b."""
    if case.loss != "squares" or case.ridge > 0:
        raise Refusal("radii are proved for squares without a ridge only")
    Z = case.free(range(len(case.groups)))
    left, right = arb_mat(Z.shape[1], case.n, Z.T.ravel().tolist()), []
    for s, row, y, offset in zip(case.s, Z.tolist(), case.y, case.offset, strict=True):
        right.append([s * x for x in [*row, *(a - o for a, o in zip(y, offset, strict=True))]])
    product = (left * arb_mat(right)).tolist()
    m = len(product)
    try:
        inverse = arb_mat([row[:m] for row in product]).inv()
    except ZeroDivisionError:
        raise Refusal("the columns are not shown to be independent, so no radius is proved") from None
    best = (inverse * arb_mat([row[m:] for row in product])).tolist()
    total = sum((s * (a - o) ** 2 for s, *rows in zip(case.s, case.y, case.offset, strict=True)
                 for a, o in zip(*rows, strict=True)), arb(0))  # fmt: skip
    fitted = sum((x * c for row, pull in zip(best, product, strict=True) for x, c in zip(row, pull[m:], strict=True)),
                 arb(0))  # fmt: skip
    spare = 2 * (arb(level) - (total - fitted) / 2).upper().max(arb(0))
    start = int(case.intercept)
    for g, group in enumerate(case.groups):
        own = range(start, start + len(group))
        start += len(group)
        room = arb(radius[g]) - norm(x for j in own for x in best[j])
        if g not in counted:
            continue
        block = arb_mat([[inverse[i, j] for j in own] for i in own])
        enough = room * room / spare if spare > 0 else arb("inf")
        if not (room >= 0 and (spare == 0 or largest(block, enough) < enough)):
            raise Refusal(f"the radius of group {case.names[g]} is smaller than what can be proved")


def _share(case: Exact, claim: Any) -> str:
    """How small F(w, b) is beside the loss without groups, if the claim says that it is tiny; or a Refusal."""
    if "null" not in claim.numbers:
        return ""
    null, gap = claim.number("null"), claim.number("primal") - max(claim.number("dual"), 0.0)
    if not case.minus_conjugate(case.dual(claim.array("null"))) >= null:
        raise Refusal(f"the loss without groups is not shown to be at least {null:.10g}, as claimed")
    if not 0.0 <= claim.number("primal") <= _TINY * null:
        raise Refusal(f"F(w, b) is not at most {_TINY:.0e} of the loss without groups, so a bound of 0 says nothing")
    share = claim.number("gap_to_null")
    if not share * null >= gap * (1.0 - 1e-9):
        raise Refusal(f"the gap is not {share:.3g} of the loss without groups, as claimed")
    return f"; the gap is {share:.1e} of the loss without groups"
