"""Claims that hold to a tolerance, checked by other formulas than those of their makers.

stationarity    with c = ||soft(L w_g - grad_g, mu)|| / (L + ridge), h(u) = (L + ridge) (u - c)^2 / 2 + Omega_g(u):
                no other norm u of a block lowers h by more than 10 tol |u - ||w_g|||, and w_g has the direction of
                the soft-thresholded vector
one_group_kkt   gradients of the objective in the active group, ||grad_j|| < lam omega_j in the others
approximation   eigenvalues of the curvature H, blocks scaled by weights, free columns projected out
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt.certificates.balls import Refusal, arb, sample_slope
from sparseopt.certificates.exact import Exact

__all__ = ["approximation", "exact_recovery", "one_group_kkt", "stationarity"]

Array = NDArray[np.float64]
_SETS = 200_000


def stationarity(case: Exact, claim: Any) -> str:
    """Check that no block wants to move."""
    tolerance = claim.tolerance
    if not (0.0 <= tolerance < 1.0 and claim.number("residual") <= tolerance):
        raise Refusal("the claimed residual exceeds the tolerance")
    z, V, pull = _gradient(case)
    own = _scale(case)
    if not claim.number("scale") <= 10.0 * own:
        raise Refusal(f"the gradient at zero is about {own:.3g}, far below the claimed scale")
    limit = 10.0 * tolerance * max(min(claim.number("scale"), own), 1e-300) + 1e-13 * own
    W = case.arrays["w"].reshape(V.shape).astype(np.float64)
    u = np.array([np.linalg.norm(W[rows]) for rows in case.groups])
    active = int(np.count_nonzero(u[case.penalised]))
    if claim.number("active") != active:
        raise Refusal(f"w has {active} active penalised groups, not {claim.number('active'):g}")
    if case.kind == "at_most" and active > case.words["k"]:
        raise Refusal(f"w has {active} active groups, more than k = {case.words['k']}")
    vacuous, curvature, worst = 0, _curvature(case, z), pull
    for g, rows in enumerate(case.groups):
        if not case.penalised[g] or (case.kind == "at_most" and (u[g] > 0.0 or active < case.words["k"])):
            bend = case.words["ridge"] * W[rows] if case.penalised[g] else 0.0
            worst = max(worst, float(np.linalg.norm(V[rows] + bend)))
        elif case.kind == "at_most":
            vacuous += 1
        else:
            X = case.dense(rows)
            L = max(float(np.linalg.eigvalsh(X.T @ (curvature[:, None] * X))[-1]), 1e-300)
            steep = case.block > 0 and u[g] == 0.0 and _steep(case.words["q"])
            vacuous += bool(steep)
            worst = max(worst, _pressure(case, g, u, W[rows], V[rows], L, limit))
    if not worst <= limit:
        raise Refusal(f"a block would move: its gradient is off by {worst / own:.1e} of that at zero")
    if claim.number("vacuous") < vacuous:
        raise Refusal(f"{vacuous} zero groups pass whatever the data are, more than claimed")
    return (
        f"no block moves by more than 10 x {tolerance:.0e} of the gradient at zero ({vacuous} zero groups cannot move)"
    )


def _pressure(case: Exact, g: int, u: Array, w: Array, grad: Array, L: float, limit: float) -> float:
    """How fast the majorised objective of a block falls, on average, towards another norm, at most."""
    mu, stiff = float(case.mu), L + case.words["ridge"]
    target = np.sign(L * w - grad) * np.maximum(np.abs(L * w - grad) - mu, 0.0) / stiff
    c, at = float(np.linalg.norm(target)), float(u[g])
    if at * L <= limit:
        at = 0.0
    tilt = float(np.linalg.norm(w - target / c * at)) * L if at > 0.0 and c > 0.0 else 0.0
    others = [h for h in np.flatnonzero(case.penalised) if h != g and u[h] > 0.0]
    rest = arb(0)
    if case.kind == "composite" and not case.is_lasso:
        rest = sum((case.q.value(case.omega[h] * arb(u[h])) for h in others), arb(0))

    def h(x: float) -> float:
        fit = 0.5 * stiff * (x - c) ** 2
        if case.is_lasso:
            return fit + float(case.block * case.omega[g]) * x
        if case.kind == "composite":
            lifted = case.q.inverse(case.q.value(case.omega[g] * arb(x)) + rest) if others else case.omega[g] * arb(x)
            return fit + float((case.block * lifted).upper())
        return fit + float(case.block * case.omega[g] * case.q.value(arb(x)))

    top = max(c, at, 1e-300)
    grid = [0.0, c, at * (1.0 - 1e-4), at * (1.0 + 1e-4), *(top * np.linspace(0.05, 1.0, 12))]
    here = h(at)
    if not math.isfinite(here):
        return math.inf
    falls = [(here - h(x) - 1e-14 * abs(here)) / abs(x - at) for x in grid if abs(x - at) > 1e-12 * top]
    return max([tilt, *falls])


def _steep(words: dict[str, Any]) -> bool:
    name = words["name"]
    return _steep(words["params"]["q"]) if name == "Scaled" else name in ("Power", "L0")


def one_group_kkt(case: Exact, claim: Any) -> str:
    """Check the conditions at a one-group candidate."""
    if not (case.is_lasso or (case.kind == "composite" and case.q.strict and case.q.concave)) or not case.mu == 0:
        raise Refusal("the conditions are those of the group lasso without l1 term, or of problem (1)")
    _, V, pull = _gradient(case)
    W = case.arrays["w"].reshape(V.shape).astype(np.float64)
    u = np.array([np.linalg.norm(W[rows]) for rows in case.groups])
    active = [int(g) for g in np.flatnonzero((u > 0.0) & case.penalised)]
    strength = case.words["lam"] * case.arrays["group_weights"]
    name = case.names[active[0]] if active else "none"
    if len(active) > 1 or str(claim.numbers.get("group")) != name or claim.number("lam") != case.words["lam"]:
        raise Refusal(f"{len(active)} groups are active, {name}, at lam = {case.words['lam']}: not as claimed")
    pulls, slack = [pull], 1.0
    for g, rows in enumerate(case.groups):
        if g in active:
            pulls.append(float(np.linalg.norm(V[rows] + (strength[g] / u[g] + case.words["ridge"]) * W[rows])))
        elif case.penalised[g]:
            slack = min(slack, 1.0 - float(np.linalg.norm(V[rows])) / strength[g])
        else:
            pulls.append(float(np.linalg.norm(V[rows])))
    residual = float(max(pulls)) / float(strength.max())
    if not residual <= claim.tolerance < 1.0 or residual > claim.number("residual") + 1e-9:
        raise Refusal(f"the residual is {residual:.3g}, beyond the tolerance or what is claimed")
    if not abs(slack - claim.number("slack")) <= 1e-9:
        raise Refusal(f"the slack is {slack:.9g}, not {claim.number('slack'):.9g}")
    if not (slack > claim.tolerance if claim.verdict == "HOLDS" else slack < -claim.tolerance):
        raise Refusal(f"the slack {slack:.3g} is not what the verdict needs")
    return f"with {name} active the conditions are met to {residual:.1e}, the others have slack {slack:.3g}"


def approximation(case: Exact, claim: Any) -> str:
    """Check the constants of group OMP and OMPR and that they are enough."""
    H, sizes = _scaled_gram(case)
    t, k, steps = len(sizes), int(claim.number("k")), math.log(1.0 / claim.number("accuracy"))
    L1, L2 = claim.number("L1"), claim.number("L2")
    cuts = [slice(end - size, end) for end, size in zip(np.cumsum(sizes), sizes, strict=True)]
    cross = np.array([[np.linalg.norm(H[a, b], 2) if a != b else 0.0 for b in cuts] for a in cuts])
    most = [float(np.linalg.eigvalsh(H[a, a])[-1]) for a in cuts]
    pairs = _extremes(H, cuts, 2, -1) if t > 1 else most
    if not (L1 >= max(most) * (1.0 - 1e-9) and L2 >= max(pairs) * (1.0 - 1e-9)):
        raise Refusal(f"L_1 and L_2 are {max(most):.6g} and {max(pairs):.6g}, more than claimed")
    said = []
    for who, size, mu_name in (("OMPR", "k_prime", "mu"), ("OMP", "k_prime_omp", "mu_omp")):
        if claim.numbers.get(size) == "none":
            continue
        kept, mu = int(claim.number(size)), claim.number(mu_name)
        if not (k >= 1 and kept >= k and k + kept <= t and mu > 0.0):
            raise Refusal(f"k' = {kept} is out of range")
        if not mu <= _least(case, H, cuts, cross, k + kept) * (1.0 + 1e-9):
            raise Refusal(f"mu of {k + kept} groups is less than the claimed {mu:.6g}")
        need = k * (L2 / mu) ** 2 if who == "OMPR" else k * L1 / mu * steps
        if not kept >= need * (1.0 - 1e-9):
            raise Refusal(f"group {who} needs {need:.4g} groups, more than {kept}")
        if who == "OMPR" and not claim.number("R") >= k * L2 / mu * steps * (1.0 - 1e-9):
            raise Refusal("the number of replacements is too small")
        said.append(f"group {who} with {kept} groups")
    if not said:
        raise Refusal("the claim promises nothing")
    return f"{' and '.join(said)} comes within {claim.number('accuracy'):.0e} of the best {k}, eigenvalues in floats"


def exact_recovery(case: Exact, claim: Any) -> str:
    """Check the block coherence."""
    if case.loss != "squares" or not case.ridge == 0:
        raise Refusal("exact recovery is a statement about least squares without ridge")
    H, sizes = _scaled_gram(case)
    cuts = [slice(end - size, end) for end, size in zip(np.cumsum(sizes), sizes, strict=True)]
    alpha = min(float(np.linalg.eigvalsh(H[a, a])[0]) for a in cuts)
    c = max((float(np.linalg.norm(H[a, b], 2)) for a, b in combinations(cuts, 2)), default=0.0)
    k = int(claim.number("k"))
    if not (claim.number("alpha") <= alpha * (1.0 + 1e-9) and claim.number("coherence") >= c * (1.0 - 1e-9)):
        raise Refusal(f"alpha is {alpha:.6g} and the coherence {c:.6g}, not as claimed")
    if not ((2 * k - 1) * c < alpha and (2 * claim.number("k_max") - 1) * c < alpha * (1.0 + 1e-9)):
        raise Refusal(f"(2k - 1) c = {(2 * k - 1) * c:.4g} is not below alpha = {alpha:.4g}")
    return f"(2k - 1) c = {(2 * k - 1) * c:.4g} < alpha = {alpha:.4g} for k = {k}, eigenvalues in floats"


def _gradient(case: Exact) -> tuple[Array, Array, float]:
    """z, X'dL/dz and the gradient in the intercept, rounded from balls."""
    z = case.predictor()
    A = [
        [s * x for x in sample_slope(case.loss, case.delta, y, row)]
        for s, y, row in zip(case.s, case.y, z, strict=True)
    ]
    total = [sum((row[k] for row in A), arb(0)) for k in range(case.K)]
    V = np.array([[float(x) for x in row] for row in case.pull(A)])
    pull = float(np.linalg.norm([float(x) for x in total])) if case.intercept else 0.0
    return np.array([[float(x) for x in row] for row in z]), V, pull


def _scale(case: Exact) -> float:
    """max_g ||grad_g L||, about, at the constant fit."""
    s, y = case.arrays["s"], case.arrays["y"]
    z = np.array([[float(x) for x in row] for row in case.offset])
    if case.loss in ("squares", "huber"):
        r = z - y
        r = r - (s @ r / s.sum() if case.intercept else 0.0)
        A = np.clip(r, -case.delta, case.delta) if case.loss == "huber" else r
    elif case.intercept:
        A = s @ y / s.sum() - y
    else:
        slopes = [sample_slope(case.loss, case.delta, a, b) for a, b in zip(case.y, case.offset, strict=True)]
        A = np.array([[float(x) for x in row] for row in slopes])
    V = np.array([[float(x) for x in row] for row in case.pull([[arb(x) for x in row] for row in s[:, None] * A])])
    return max(float(np.linalg.norm(V[rows])) for rows in case.groups)


def _curvature(case: Exact, z: Array) -> Array:
    """A bound of f'' at z, weights included."""
    if case.loss in ("squares", "huber"):
        c = np.ones(len(z))
    elif case.loss == "poisson":
        c = np.exp(z).max(axis=1)
    else:
        logistic = case.loss == "logistic"
        e = np.exp(-np.abs(z)) if logistic else np.exp(z - z.max(axis=1, keepdims=True))
        p = e / (1.0 + e) if logistic else e / e.sum(axis=1, keepdims=True)
        c = (p * (1.0 - p)).max(axis=1) * (1.0 if logistic else 2.0)
        c = c if logistic else np.minimum(c, p.max(axis=1))
    out: Array = case.arrays["s"] * c
    return out


def _scaled_gram(case: Exact) -> tuple[Array, list[int]]:
    """H of the penalised groups, free columns projected out, ridge included, and the sizes of the groups."""
    counted = np.flatnonzero(case.penalised)
    bound = {"squares": 1.0, "huber": 1.0, "logistic": 0.25, "multinomial": 0.5}.get(case.loss)
    if bound is None or not counted.size:
        raise Refusal("the curvature of the loss has no bound, or no group is penalised")
    sizes = [len(case.groups[g]) for g in counted]
    root = np.sqrt(bound * case.arrays["s"])[:, None]
    weights = np.repeat(case.arrays["group_weights"][counted], sizes)
    X = root * case.dense(np.concatenate([case.groups[g] for g in counted])) / weights
    U = root * case.free()
    if U.shape[1]:
        X = X - U @ np.linalg.lstsq(U, X, rcond=None)[0]
    H: Array = X.T @ X + np.diag(case.words["ridge"] / weights**2)
    return H, sizes


def _extremes(H: Array, cuts: list[slice], s: int, which: int) -> list[float]:
    """The largest (which = -1) or least (0) eigenvalue of H_SS for every S of s blocks."""
    index = np.arange(len(H))
    out = []
    for chosen in combinations(cuts, s):
        rows = np.concatenate([index[a] for a in chosen])
        out.append(float(np.linalg.eigvalsh(H[np.ix_(rows, rows)])[which]))
    return out


def _least(case: Exact, H: Array, cuts: list[slice], cross: Array, s: int) -> float:
    """mu_s, exactly if that is few sets, else a lower bound; the ridge for losses that may be flat."""
    if case.loss != "squares":
        return float((case.words["ridge"] / case.arrays["group_weights"][case.penalised] ** 2).min())
    if math.comb(len(cuts), s) <= _SETS:
        return min(_extremes(H, cuts, s, 0))
    discs = [
        np.linalg.eigvalsh(H[a, a])[0] - np.sort(row)[len(row) - s + 1 :].sum()
        for a, row in zip(cuts, cross, strict=True)
    ]
    return max(float(min(discs)), float(np.linalg.eigvalsh(H)[0]))
