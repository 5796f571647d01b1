"""The certificate of a choice of at most k groups: bounds over the leaves of a search tree.

In a leaf the groups I are forced in and O forced out. For every A with X_0'A = 0 (always-in columns; 1'A = 0 with an
intercept) and every choice of the leaf, with v_g = ||X_g'A||,

    F(w, b) >= -L*(A) - sum_{g in I} h(v_g) - (sum of the k - |I| largest h(v_g) over g in neither I nor O)
    h(v) = sup_{0 <= u <= M_g} v u - ridge u^2 / 2

which follows from L(z) >= <A, z> - L*(A). The smallest bound c of the leaves holds for all choices if every choice lies
in a leaf, which is checked by splitting on one group after another. It holds for all coefficients, not only those with
||w_g|| <= M_g, if every w with F(w) <= c obeys the radii, or if no radius matters. The word `radius` says so:

    not needed    with a ridge, M_g >= sqrt(2 c / ridge), inf included; without, A is orthogonal to all that is allowed
    proved        squares with independent columns, and M_g as large as the ellipsoid of the w with F(w) <= c
    assumed       neither: the claim is about coefficients within the radii

Losses are never negative, so c <= 0 says nothing, unless F(w, b) is itself next to nothing: a perfect fit, or classes
that are separable. Then the gap counts in units of the loss without groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.cardinality import AtMost
from sparseopt.certificates.certificate import Certificate, Verdict, as_dual, not_applicable
from sparseopt.certificates.duals import feasible, null_loss, rounded_down, squared_norms, upper_bound
from sparseopt.certificates.optimal import gap_certificate
from sparseopt.certificates.radii import level_radii, orthogonal
from sparseopt.optimality import dual_candidate
from sparseopt.problem import Problem
from sparseopt.solution import BoundProof

__all__ = ["best_subset", "covers", "leaf_bound"]

Array = NDArray[np.float64]

_TINY = 1e-9  # of the loss without groups: a perfect fit
_SMALL = 1e-6  # relative gap


def best_subset(problem: Problem, w: ArrayLike, b: ArrayLike = 0.0, proof: BoundProof | None = None) -> Certificate:
    """That the best choice of at most k groups lies between a bound and F(w, b).

    Parameters
    ----------
    problem : Problem
        With an `AtMost` penalty.
    w, b : arrays
        Coefficients with at most k active groups, and intercept.
    proof : BoundProof, optional
        Leaves and dual points, as exact selection returns them; by default one leaf with dL/dz at (w, b).

    Notes
    -----
    The claim is about all coefficients where that can be proved, see the top of this file: with a ridge, for squares
    with independent columns, and for dual points that are orthogonal to all columns that their leaf allows. Otherwise
    it is about coefficients with ||w_g|| <= M_g, and says so.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import AtMost, Groups, Problem
    >>> from sparseopt.designs import as_design
    >>> from sparseopt.losses import Squares
    >>> loss = Squares.of([2.0, 0.1, 0.0], weights=[1.0, 1.0, 1.0])
    >>> problem = Problem(as_design(np.eye(3)), loss, AtMost(Groups.equal(3), 1, ridge=1.0))
    >>> certificate = best_subset(problem, [1.0, 0.0, 0.0])
    >>> round(certificate.numbers["primal"], 9), round(certificate.numbers["dual"], 9)
    (1.005, 1.005)
    """
    kind = "best_subset"
    penalty = problem.penalty
    if not isinstance(penalty, AtMost):
        return not_applicable(kind, "The claim is about a choice of at most k groups, and this problem has a penalty.")
    n_groups = len(problem.groups)
    if proof is None:
        A = dual_candidate(problem, problem.predictor(w, b))
        proof = BoundProof(A[None], ((),), ((),), np.full(n_groups, np.inf))
    points = as_dual(problem, proof.dual, leaves=True)
    radius = np.asarray(proof.radius, dtype=np.float64)
    if radius.shape != (n_groups,) or np.isnan(radius).any() or (radius < 0.0).any():
        raise ValueError(f"radius has the shape {radius.shape}: pass one radius >= 0 for each of {n_groups} groups.")
    if not len(points) == len(proof.leaf_in) == len(proof.leaf_out):
        raise ValueError(f"proof has {len(points)} dual points for {len(proof.leaf_in)} leaves: pass one for each.")
    primal = upper_bound(problem, w, b)
    counted = np.flatnonzero(penalty.penalised)
    states = leaf_states(n_groups, proof.leaf_in, proof.leaf_out)
    numbers: dict[str, Any] = {"primal": primal, "k": penalty.k, "leaves": len(points)}
    if states is None or (states[:, ~penalty.penalised] != 0).any():
        statement = "The leaves force a group both in and out, or one that does not exist or is always in."
        return Certificate(kind, statement, Verdict.FAILED, numbers)
    if not covers(states[:, counted], penalty.k):
        return Certificate(kind, "The leaves do not cover all choices of groups.", Verdict.FAILED, numbers)
    if not np.isfinite(primal):
        return Certificate(kind, f"w has more than {penalty.k} active groups.", Verdict.FAILED, numbers)
    bounds = np.empty(len(points))
    kept, squared = np.empty_like(points), squared_norms(problem)
    for m, state in enumerate(states):
        bounds[m], kept[m] = leaf_bound(problem, points[m], state, radius, squared)
    found = _beyond_radii(problem, float(bounds.min()), kept, radius, states)
    evidence = {"dual": found.points, "leaf_in": _padded(states > 0), "leaf_out": _padded(states < 0)}
    evidence["radius"] = found.radius
    numbers |= {
        "dual": found.dual,
        "radius": found.word,
        "largest_radius": float(found.radius[counted].max(initial=0.0)),
    }
    what, caveats = f"The best choice of at most {penalty.k} groups", ["That w is the only best choice."]
    if not (found.dual > 0.0 and primal - found.dual <= _SMALL * primal):
        scale, at_null = null_loss(problem)
        if primal <= _TINY * scale:
            gap = primal - max(found.dual, 0.0)
            numbers |= {"null": scale, "gap_to_null": gap / scale}
            evidence["null"] = at_null
            if not found.dual > 0.0:
                numbers |= {"dual": 0.0, "radius": "not needed"}
        elif not found.dual > 0.0:
            statement = f"No bound better than 0 was found for the best choice, and F(w, b) is {primal:.10g}."
            return Certificate(kind, statement, Verdict.FAILED, numbers)
    if numbers["radius"] == "assumed":
        if (problem.groups.norms(problem.matrix(w)) * (1.0 + 1e-12) > radius)[counted].any():
            return Certificate(kind, "w lies outside the radii of the proof.", Verdict.FAILED, numbers)
        what += " with ||w_g|| <= M_g"
        caveats.insert(0, f"Anything about coefficients outside ||w_g|| <= M_g: the radii are assumed, as {found.why}.")
    claim = gap_certificate(kind, what, evidence=evidence, not_proved=tuple(caveats), **numbers)
    if "null" not in numbers:
        return claim
    within = f"F is within {numbers['gap_to_null']:.1e} of the loss without groups of it"
    return replace(claim, statement=f"{what} lies between {numbers['dual']:.10g} and {primal:.10g}: {within}.")


class _Found(NamedTuple):
    """A bound of all leaves, its evidence, and whether radii are assumed."""

    dual: float
    points: Array
    radius: Array
    word: str
    why: str = ""


def _beyond_radii(problem: Problem, dual: float, points: Array, radius: Array, states: NDArray[np.int64]) -> _Found:
    """The bound `dual` for ||w_g|| <= radius, or one for all w where that can be shown."""
    penalty = problem.penalty
    counted = penalty.penalised
    if penalty.ridge > 0.0:
        enough = np.sqrt(2.0 * max(dual, 0.0) / penalty.ridge) * (1.0 + 1e-9)
        if (radius[counted] >= enough).all():
            return _Found(dual, points, radius, "not needed")
        return _Found(dual, points, radius, "assumed", "they leave out coefficients that the ridge allows")
    limits = level_radii(problem, dual) if np.isfinite(dual) else None
    if limits is not None and (limits[counted] <= radius[counted]).all():
        return _Found(dual, points, radius, "proved")
    found = orthogonal(problem, points, states)
    if not isinstance(found, str):
        return _Found(float(found[0].min()), found[1], np.where(counted, np.inf, radius), "not needed")
    why = found if limits is None else "they are smaller than what can be proved"
    return _Found(dual, points, radius, "assumed", why)


def leaf_bound(
    problem: Problem, A: Array, state: NDArray[np.int64], radius: Array, squared: Array | None = None
) -> tuple[float, Array]:
    """The bound of one leaf, rounded down, and the feasible point it is from; state is 1 in, -1 out, 0 open.

    inf for a leaf with more than k groups forced in, which holds no choice. `squared` is ||X_g||^2, if it is known.
    """
    penalty = problem.penalty
    assert isinstance(penalty, AtMost)
    point = feasible(problem, A, squared)
    seen = penalty.penalised
    inside, open_ = (state > 0) & seen, (state == 0) & seen
    room = penalty.k - int(np.count_nonzero(inside))
    if room < 0:
        return float("inf"), point.A
    worth = _worth(point.norms + point.error, radius, penalty.ridge)
    best = np.sort(worth[open_])[::-1][:room]
    return rounded_down(problem, point.A, float(worth[inside].sum() + best.sum())), point.A


def covers(states: NDArray[np.int64], k: int) -> bool:
    """Whether every choice of at most k groups lies in a leaf; states (m, t) hold 1 in, -1 out, 0 open.

    Splits on the group that most leaves decide: as many steps as there are leaves if they come from a search tree.

    Examples
    --------
    >>> covers(np.array([[1, 0], [-1, 1], [-1, -1]]), 2), covers(np.array([[1, 0], [-1, 1]]), 2)
    (True, False)
    """
    if not len(states):
        return False
    pending = [(np.arange(len(states)), np.zeros(states.shape[1], dtype=bool), k)]
    while pending:
        leaves, decided, room = pending.pop()
        open_ = np.where(decided, 0, states[leaves])
        if not len(leaves):
            return False
        if not open_.any(axis=1).all():  # a leaf that asks for nothing more holds all that is left
            continue
        g = int(np.count_nonzero(open_, axis=0).argmax())
        after = decided.copy()
        after[g] = True
        pending.append((leaves[states[leaves, g] <= 0], after, room))
        if room > 0:
            pending.append((leaves[states[leaves, g] >= 0], after, room - 1))
    return True


def leaf_states(
    n_groups: int, leaf_in: Sequence[Sequence[int]], leaf_out: Sequence[Sequence[int]]
) -> NDArray[np.int64] | None:
    """(m, n_groups): 1 in, -1 out, 0 open; None if a leaf contradicts itself or names no group."""
    states = np.zeros((len(leaf_in), n_groups), dtype=np.int64)
    for state, inside, outside in zip(states, leaf_in, leaf_out, strict=True):
        ids = np.concatenate([np.asarray(inside, np.int64), np.asarray(outside, np.int64)])
        if ids.size and not 0 <= ids.min() <= ids.max() < n_groups:
            return None
        state[np.asarray(inside, np.int64)] = 1
        if state[np.asarray(outside, np.int64)].any():
            return None
        state[np.asarray(outside, np.int64)] = -1
    return states


def _worth(v: Array, radius: Array, ridge: float) -> Array:
    """h(v) = sup over 0 <= u <= M of v u - ridge u^2 / 2."""
    if ridge == 0.0:
        return np.where(v > 0.0, v * np.where(v > 0.0, radius, 0.0), 0.0)
    u = np.minimum(v / ridge, radius)
    return u * (v - 0.5 * ridge * u)


def _padded(chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The group numbers of each row, (m, width), filled up with -1."""
    counts = np.count_nonzero(chosen, axis=1)
    out = np.full((len(chosen), int(counts.max(initial=0))), -1, dtype=np.int64)
    for row, mask in zip(out, chosen, strict=True):
        ids = np.flatnonzero(mask)
        row[: len(ids)] = ids
    return out
