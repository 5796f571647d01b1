"""Laws that implementations of the package's roles must obey, for tests of one's own classes.

    check_regularizer(q)        a regularizer is what its four to twelve methods say
    check_loss(loss)            a loss is what its value, derivative, curvature and conjugate say
    check_solver(solver)        a solver's answers are solutions, and what it says of them is true
    check_selector(selector)    a selector's answers are fits of at most k groups, however the problem is put

Each raises AssertionError with the numbers that break a law. The package's own tests run the same functions, and feed
them wrong implementations that they must reject.
"""

from __future__ import annotations

from sparseopt.laws.losses import check_loss
from sparseopt.laws.regularizers import check_regularizer
from sparseopt.laws.selectors import check_selector
from sparseopt.laws.solvers import check_solver

__all__ = ["check_loss", "check_regularizer", "check_selector", "check_solver"]
