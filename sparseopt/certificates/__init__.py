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
    regularizer        q is increasing, concave, subadditive, bounded   any q                proved or refuted

Each is a function of a problem, coefficients and evidence (dual points, leaves of a search), and recomputes every
number from these: no solver is asked, and none is believed. `sparseopt.certify` makes a `Report` of those that apply,
and `sparseopt.certificates.verify` checks saved reports with formulas of its own, in ball arithmetic.

>>> import numpy as np
>>> from sparseopt.certificates import Report, zero_groups
>>> from sparseopt import Problem
>>> problem = Problem.build(np.eye(3), [2.0, 0.1, 0.0], lam=0.1, intercept=False)
>>> w = np.array([1.7, 0.0, 0.0])
>>> print(Report(problem, w, 0.0, (zero_groups(problem, w),)))
Proved
  zero_groups: 2 of 3 penalised groups are zero in every minimiser; 1 may be nonzero: 0.
    not proved: That the other groups are nonzero at the optimum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

_HOMES = {  # public name -> its module; imported on first use, so that the verifier runs without the makers of claims
    "Certificate": "certificate",
    "Report": "certificate",
    "Verdict": "certificate",
    "approximation": "recovery",
    "best_subset": "subset",
    "duality_gap": "optimal",
    "exact_recovery": "recovery",
    "one_group_kkt": "onegroup",
    "one_group_window": "onegroup",
    "optimality_gap": "bounds",
    "regularizer": "regularizers",
    "separable_bound": "bounds",
    "stationarity": "optimal",
    "theorem_1_1": "onegroup",
    "zero_groups": "optimal",
}

__all__ = [*_HOMES]

if TYPE_CHECKING:
    from sparseopt.certificates.bounds import optimality_gap as optimality_gap
    from sparseopt.certificates.bounds import separable_bound as separable_bound
    from sparseopt.certificates.certificate import Certificate as Certificate
    from sparseopt.certificates.certificate import Report as Report
    from sparseopt.certificates.certificate import Verdict as Verdict
    from sparseopt.certificates.onegroup import one_group_kkt as one_group_kkt
    from sparseopt.certificates.onegroup import one_group_window as one_group_window
    from sparseopt.certificates.onegroup import theorem_1_1 as theorem_1_1
    from sparseopt.certificates.optimal import duality_gap as duality_gap
    from sparseopt.certificates.optimal import stationarity as stationarity
    from sparseopt.certificates.optimal import zero_groups as zero_groups
    from sparseopt.certificates.recovery import approximation as approximation
    from sparseopt.certificates.recovery import exact_recovery as exact_recovery
    from sparseopt.certificates.regularizers import regularizer as regularizer
    from sparseopt.certificates.subset import best_subset as best_subset


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'sparseopt.certificates' has no attribute {name!r}: it has {', '.join(__all__)}.")
    from importlib import import_module

    value = getattr(import_module(f"sparseopt.certificates.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
