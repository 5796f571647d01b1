"""Certificates: what is proved of an answer, and what is not.

    stationarity       no step in one block moves w                     every problem        holds to a tolerance
    duality_gap        D(A) <= F* <= F(w, b)                            q = L2               proved
    zero_groups        groups that vanish in every minimiser            q = L2               proved
    theorem_1_1        one active group: optimal for every q at once    q = L2, problem (1)  proved
    one_group_window   the lam for which exactly one group is active    q = L2, problem (1)  proved
    one_group_kkt      the conditions at a one-group candidate          q = L2, problem (1)  holds
    optimality_gap     a bound of the global optimum                    problem (1)          proved
    separable_bound    a bound of the global optimum                    concave q            proved
    best_subset        a bound of the best choice of k groups           AtMost               proved
    approximation      what greedy selection is sure to reach           squares, or ridge    holds
    exact_recovery     greedy selection finds any k groups              squares              holds

Each is a function of a problem, coefficients and evidence (dual points, leaves of a search), and recomputes every
number from these: no solver is asked, and none is believed. `sparseopt.certify` makes a `Report` of those that apply.

>>> import numpy as np
>>> from sparseopt import Problem
>>> problem = Problem.build(np.eye(3), [2.0, 0.1, 0.0], lam=0.1, intercept=False)
>>> w = np.array([1.7, 0.0, 0.0])
>>> print(Report(problem, w, 0.0, (zero_groups(problem, w),)))
Proved
  zero_groups: 2 of 3 penalised groups are zero in every minimiser; 1 may be nonzero: 0.
    not proved: That the other groups are nonzero at the optimum.
"""

from __future__ import annotations

from sparseopt.certificates.approximation import approximation, exact_recovery
from sparseopt.certificates.bounds import optimality_gap, separable_bound
from sparseopt.certificates.certificate import Certificate, Report, Verdict
from sparseopt.certificates.onegroup import one_group_kkt, one_group_window, theorem_1_1
from sparseopt.certificates.optimal import duality_gap, stationarity, zero_groups
from sparseopt.certificates.subset import best_subset

__all__ = [
    "Certificate",
    "Report",
    "Verdict",
    "approximation",
    "best_subset",
    "duality_gap",
    "exact_recovery",
    "one_group_kkt",
    "one_group_window",
    "optimality_gap",
    "separable_bound",
    "stationarity",
    "theorem_1_1",
    "zero_groups",
]
