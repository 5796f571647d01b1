"""What greedy selection is guaranteed to reach, from restricted smoothness and strong convexity.

For sets S of groups, scaled by their weights, free directions minimised out, H the curvature of the loss (with ridge):

    L_s = max over |S| = s of lambda_max(H_SS),    mu_s = min over |S| = s of lambda_min(H_SS).

    group OMP    k' >= k (L_1 / mu_{k+k'}) ln(1/eps) steps:     L - L* <= eps (L(start) - L*)
    group OMPR   k' >= k kappa^2, kappa = L_2 / mu_{k+k'}, R = ceil(k kappa ln(1/eps)) replacements: the same

for L* the best of k groups. Where no k' <= n_groups - k fits, the theorem promises nothing. mu_s is enumerated, or
bounded from below by lambda_min(H) and by Gershgorin for blocks, lambda_min(H_ii) - sum of the s - 1 largest ||H_ij||.

Exact recovery: with alpha = min_i lambda_min(H_ii) and c = max_{i != j} ||H_ij||, (2k - 1) c < alpha makes group OMP
find every y = Xw of k groups in k steps. Squares without ridge only.

Proofs: one step of OMP gains ||g_i||^2 / (2 L_1), and k groups carry sum ||g_j||^2 >= 2 mu (L - L*). OMPR: the point
x - x_j - g_i / L_2 changes two groups; strong convexity bounds what the smallest group x_j is worth.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from sparseopt.certificates.blockgram import BlockGram
from sparseopt.certificates.certificate import Certificate, Verdict, not_applicable
from sparseopt.problem import Problem

__all__ = ["approximation", "exact_recovery"]

_FEATURES = 3000  # above, H is not formed


def approximation(
    problem: Problem,
    w: ArrayLike | None = None,
    b: ArrayLike = 0.0,
    *,
    k: int | None = None,
    accuracy: float = 1e-6,
) -> Certificate:
    """What group OMP and group OMPR are guaranteed to reach, or that these theorems promise nothing here.

    Parameters
    ----------
    problem : Problem
        Any penalty: its groups, weights and ridge count. Squares, or a loss of bounded curvature with a ridge.
    w, b : arrays, optional
        Only the number of active groups of w is used, if k is not given.
    k : int, optional
        The number of groups of the comparator; by default that of the constraint, else of w, else 1.
    accuracy : float
        eps: the share of the initial excess over the best choice of k groups that may be left.

    Notes
    -----
    The eigenvalues are computed in floating point. Losses other than squares have mu = ridge: the curvature of logistic
    loss has no positive lower bound over all w.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import Problem
    >>> problem = Problem.build(np.sqrt(8.0) * np.eye(8), np.arange(8.0), groups=2, intercept=False)
    >>> certificate = approximation(problem, k=1, accuracy=0.1)
    >>> certificate.numbers["kappa"], certificate.numbers["k_prime"], certificate.numbers["R"]
    (1.0, 1, 3)
    """
    kind = "approximation"
    if not 0.0 < accuracy < 1.0:
        raise ValueError(f"accuracy is {accuracy}: pass the share of the excess to be left, between 0 and 1.")
    reason = _outside(problem)
    if reason:
        return not_applicable(kind, reason)
    k = _count(problem, w, k)
    gram = BlockGram.of(problem)
    steps = math.log(1.0 / accuracy)
    L1, L2 = gram.largest(1), gram.largest(2)
    numbers: dict[str, float | int | str] = {"k": k, "accuracy": accuracy, "L1": L1, "L2": L2}
    kept_ompr, mu, method, s = _first(gram, k, lambda kept, mu: kept >= k * (L2 / mu) ** 2)
    greedy, mu_greedy, _, _ = _first(gram, k, lambda kept, mu: kept >= k * (L1 / mu) * steps)
    exists = kept_ompr is not None
    kappa = L2 / mu if mu > 0.0 else math.inf
    numbers |= {"s": s, "mu": mu, "kappa": kappa, "method": method}
    numbers |= {"k_prime": kept_ompr if kept_ompr is not None else "none"}
    numbers |= {"R": math.ceil(k * kappa * steps) if exists else "none"}
    numbers |= {"k_prime_omp": greedy if greedy is not None else "none", "mu_omp": mu_greedy}
    goal = f"leaves at most {accuracy:.0e} of the initial excess over the best {k} groups"
    sentences = []
    if exists:
        sentences.append(f"Group OMPR with {kept_ompr} groups and {numbers['R']} replacements {goal}")
    if greedy is not None:
        sentences.append(f"group OMP with {greedy} groups {goal}" if not exists else f"group OMP does with {greedy}")
    if not sentences:
        reach = f"mu_{s} = 0" if mu <= 0.0 else f"kappa = {kappa:.3g} for {s} groups"
        statement = f"Neither theorem promises anything: {reach}, and no number of groups kept is enough."
        verdict = Verdict.FAILED
    else:
        statement = "; ".join(sentences) + f" (restricted condition number {kappa:.3g}, by {method})."
        verdict = Verdict.HOLDS
        statement = statement[0].upper() + statement[1:]
    caveats = ["That more groups are needed: the bounds are sufficient only."]
    if verdict is Verdict.HOLDS:
        caveats.append("Anything in exact arithmetic: the eigenvalues are computed in floating point.")
        caveats.append("The bound is on the loss (with ridge), not on which groups are chosen.")
    return Certificate(kind, statement, verdict, numbers, 1e-10, tuple(caveats))


def exact_recovery(
    problem: Problem, w: ArrayLike | None = None, b: ArrayLike = 0.0, *, k: int | None = None
) -> Certificate:
    """That group OMP finds any k groups from noiseless data, by block coherence.

    Parameters
    ----------
    problem : Problem
        With squares and no ridge; its targets do not matter.
    w, b, k : see `approximation`.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import Problem
    >>> X = np.array([[1.0, 0.0, 0.2], [0.0, 1.0, 0.2], [0.0, 0.0, 0.96]])
    >>> exact_recovery(Problem.build(X, np.zeros(3), intercept=False), k=2).numbers["k_max"]
    2
    """
    kind = "exact_recovery"
    if not problem.loss.is_quadratic or problem.penalty.ridge > 0.0:
        return not_applicable(kind, "Exact recovery is a statement about least squares without ridge.")
    reason = _outside(problem)
    if reason:
        return not_applicable(kind, reason)
    k = _count(problem, w, k)
    gram = BlockGram.of(problem)
    alpha = float(gram.least.min())
    c = float(gram.cross.max()) if len(gram.least) > 1 else 0.0
    reach = gram.n_groups if c == 0.0 else max(math.ceil(0.5 * (alpha / c + 1.0)) - 1, 0)
    numbers = {"k": k, "alpha": alpha, "coherence": c, "k_max": min(reach, gram.n_groups)}
    holds = (2 * k - 1) * c < alpha * (1.0 - 1e-10)
    sign, word = ("<", "finds every") if holds else (">=", "is not guaranteed to find")
    statement = (
        f"(2k - 1) c = {(2 * k - 1) * c:.4g} {sign} alpha = {alpha:.4g}: group OMP {word} "
        f"{'choice of' if holds else 'all choices of'} {k} groups in {k} steps from noiseless data."
    )
    caveats = ("Anything about noisy data.", "That recovery fails where the condition does: it is sufficient only.")
    return Certificate(kind, statement, Verdict.HOLDS if holds else Verdict.FAILED, numbers, 1e-10, caveats)


def _first(gram: BlockGram, k: int, enough: Callable[[int, float], bool]) -> tuple[int | None, float, str, int]:
    """The least k' that is enough for mu_{k+k'}, with that mu and k + k'; else None, with the mu that rules it out.

    mu_s falls with s, so sizes that are not enough for mu_2 need not be looked at; where pairs are too many to
    enumerate, the bound of mu_2 says nothing about larger s, and all sizes are tried.
    """
    pairs, method = gram.smallest(min(2, gram.n_groups))
    exact = method == "enumeration"
    last = (pairs, method, 2)
    for kept in range(k, gram.n_groups - k + 1):
        if exact and (pairs <= 0.0 or not enough(kept, pairs)):
            continue
        mu, method = gram.smallest(k + kept)
        last = (mu, method, k + kept)
        if mu <= 0.0:
            break
        if enough(kept, mu):
            return kept, *last
    return None, *last


def _count(problem: Problem, w: ArrayLike | None, k: int | None) -> int:
    if k is None:
        k = int(getattr(problem.penalty, "k", 0))
        if not k and w is not None:
            norms = problem.groups.norms(problem.matrix(w))
            k = int(np.count_nonzero(norms[problem.penalty.penalised]))
    if k is not None and k < 0:
        raise ValueError(f"k is {k}: pass a number of groups >= 1.")
    return max(int(k), 1)


def _outside(problem: Problem) -> str:
    loss = problem.loss
    if loss.curvature_bound() is None:
        return f"The curvature of the loss {loss.name} has no bound, so no smoothness constant exists."
    if not problem.penalty.penalised.any():
        return "No group is penalised."
    features = int(problem.groups.sizes[problem.penalty.penalised].sum())
    if features > _FEATURES:
        return f"The curvature of {features} features is not formed; {_FEATURES} are the most."
    return ""
