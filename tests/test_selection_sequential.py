"""Sequential selection by a penalised problem chooses as OMP does in a window of lam, and not always outside.

The numbers are those of the windows and counterexamples of problem (1), arXiv 2402.17902.
"""

from __future__ import annotations

import numpy as np
import pytest
import subset_oracle as oracle
from selection_cases import instance, instance_h

from sparseopt import LogSum, Power, Problem, select
from sparseopt.regularizers import L2, TransformedL1
from sparseopt.selection import refit
from sparseopt.selection.sequential import next_by_penalty


def window(problem: Problem, chosen: list[int]) -> tuple[float, float]:
    """tau_S, and the lower end of the explicit window of lam in which only OMP's group is active (least squares).

    L_S(w) = min over the free columns of the loss; its Hessian is that of (I - P) X, in units w_g omega_g.
    """
    X, n, groups = oracle.dense(problem), len(problem.loss.y), problem.groups
    features = groups.features(np.array(chosen, dtype=int))
    Q = np.linalg.qr(np.column_stack([np.ones(n), X[:, features]]))[0]
    rest = (X - Q @ (Q.T @ X)) / np.sqrt(n)
    pulls = oracle.scores(problem, oracle.fit(problem, chosen).A)
    pulls[chosen] = -np.inf
    order = np.argsort(-pulls)
    i, tau = order[0], pulls[order[0]]
    blocks = {g: rest[:, groups[int(g)]] / groups.weights[g] for g in order if g not in chosen}
    mu = np.linalg.eigvalsh(blocks[i].T @ blocks[i])[0]
    M = max(np.linalg.norm(blocks[j].T @ blocks[i], 2) for j in blocks if j != i)
    return float(tau), float(tau - (tau - pulls[order[1]]) * mu / (mu + M))


QS = {"lasso": L2(), "log": LogSum(1.0), "sharp log": LogSum(0.1), "root": Power(0.5), "tl1": TransformedL1(1.0)}


@pytest.mark.parametrize("name", QS)
def test_in_the_window_the_penalised_problem_chooses_as_omp(name: str) -> None:
    """60 instances of 8 groups, 4 steps each, at the lower end of the window, and by `sequential` in all windows."""
    for seed in range(60):
        problem = instance(seed, rho=0.3)
        order = oracle.omp(problem, 4)
        shares = []
        for step in range(4):
            tau, low = window(problem, order[:step])
            assert 0.0 < low < tau
            shares.append(low / tau)
            fit = refit(problem, order[:step])
            for share in (shares[-1] + 1e-6, 0.5 * (1.0 + shares[-1])):
                assert next_by_penalty(fit, QS[name], share) == order[step]
        inside = 0.1 + 0.9 * max(shares)
        kind = {"by": "lasso"} if name == "lasso" else {"by": "q", "penalty": QS[name]}
        solution = select(problem, 4, "sequential", lam_share=inside, **kind)
        assert solution.support.tolist() == sorted(order)


@pytest.mark.parametrize("loss", ["logistic", "poisson", "multinomial"])
def test_sequential_lasso_of_other_losses_chooses_as_omp(loss: str) -> None:
    for seed in range(2):
        problem = instance(seed, loss)
        chosen = select(problem, 3, "sequential", lam_share=0.999).support
        np.testing.assert_array_equal(chosen, sorted(oracle.omp(problem, 3)))


def test_outside_the_window_the_choice_may_differ() -> None:
    problem = instance_h()
    X = oracle.dense(problem)
    np.testing.assert_allclose(X.T @ X, [[1.0, 0.45], [0.45, 0.25]], atol=1e-12)
    np.testing.assert_allclose(X.T @ problem.loss.y[:, 0], [1.0, 0.95], atol=1e-12)
    assert select(problem, 1, "omp").support.tolist() == [0]
    for share, expected in ((0.95, 0), (0.92, 0), (0.88, 1), (0.5, 1), (0.26, 1)):
        assert select(problem, 1, "sequential", lam_share=share).support.tolist() == [expected], share


def gaps(problem: Problem, order: list[int]) -> float:
    """The smallest lead of the first score over the second, as a share, along the steps of OMP."""
    least = 1.0
    for step in range(len(order)):
        pulls = oracle.scores(problem, oracle.fit(problem, order[:step]).A)
        pulls[order[:step]] = -np.inf
        first, second = np.sort(pulls)[[-1, -2]]
        least = min(least, 1.0 - second / first)
    return least


def test_the_softmax_mask_chooses_as_omp_where_gaps_are_clear() -> None:
    tried = 0
    for seed in range(200):
        problem = instance(seed, rho=0.2)
        order = oracle.omp(problem, 2)
        if gaps(problem, order) < 0.15:
            continue
        assert select(problem, 2, "sequential", by="softmax").support.tolist() == sorted(order), seed
        tried += 1
        if tried == 20:
            return
    raise AssertionError(f"{tried} instances have clear gaps")
