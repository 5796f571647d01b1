"""Group-sparse optimization: problems, solvers, paths, estimators, and certificates for what they return.

    minimise over w, b   (1/n) sum_i f(y_i, <x_i, w> + b)  +  lam sum_g omega_g q(||w_g||)

for a partition of the features into groups g, a loss f, and a regularizer q from the convex group lasso to nonconvex
penalties that shrink large groups less. All public names are attributes of `sparseopt`; each is imported on first use,
so `import sparseopt` takes milliseconds.

Notation everywhere: `w` coefficients, `z = Xw`, `u` norm of a block, `t` step, `q` regularizer, `lam` its strength,
`omega` group weights, `g` a group.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {  # module -> the public names it defines
    "groups": "Groups as_groups",
    "regularizers": "L2 Power LogSum LambertW Expm1Mask MCP SCAD Capped TransformedL1 Laplace Arctan L0 Scaled "
    "regularizer REGULARIZERS get_regularizer",
    "losses": "Squares Huber Logistic Poisson Multinomial get_loss",
    "designs": "Dense Csc RowBlocks as_design",
    "penalty": "Penalty Composite",
    "cardinality": "AtMost",
    "problem": "Problem",
    "solution": "Status Solution Path",
    "solvers": "solve bcd fista",
    "selection": "select select_path SubsetPath",
    "paths": "path lam_max",
    "certificates": "Certificate Report",
    "certificates.verify": "verify",
    "evidence": "certify certify_path",
    "validation": "cross_validate cross_validate_subsets CrossValidation",
    "estimators": "GroupSparseRegressor GroupSparseClassifier GroupSparseRegressorCV GroupSparseClassifierCV "
    "GroupSubsetRegressor GroupSubsetClassifier GroupSubsetRegressorCV GroupSubsetClassifierCV",
}
_HOMES = {name: module for module, names in _PUBLIC.items() for name in names.split()}

__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:  # the same table for type checkers and editors; `as` marks a name as exported
    from sparseopt.cardinality import AtMost as AtMost
    from sparseopt.certificates import Certificate as Certificate
    from sparseopt.certificates import Report as Report
    from sparseopt.certificates.verify import verify as verify
    from sparseopt.designs import Csc as Csc
    from sparseopt.designs import Dense as Dense
    from sparseopt.designs import RowBlocks as RowBlocks
    from sparseopt.designs import as_design as as_design
    from sparseopt.estimators import GroupSparseClassifier as GroupSparseClassifier
    from sparseopt.estimators import GroupSparseClassifierCV as GroupSparseClassifierCV
    from sparseopt.estimators import GroupSparseRegressor as GroupSparseRegressor
    from sparseopt.estimators import GroupSparseRegressorCV as GroupSparseRegressorCV
    from sparseopt.estimators import GroupSubsetClassifier as GroupSubsetClassifier
    from sparseopt.estimators import GroupSubsetClassifierCV as GroupSubsetClassifierCV
    from sparseopt.estimators import GroupSubsetRegressor as GroupSubsetRegressor
    from sparseopt.estimators import GroupSubsetRegressorCV as GroupSubsetRegressorCV
    from sparseopt.evidence import certify as certify
    from sparseopt.evidence import certify_path as certify_path
    from sparseopt.groups import Groups as Groups
    from sparseopt.groups import as_groups as as_groups
    from sparseopt.losses import Huber as Huber
    from sparseopt.losses import Logistic as Logistic
    from sparseopt.losses import Multinomial as Multinomial
    from sparseopt.losses import Poisson as Poisson
    from sparseopt.losses import Squares as Squares
    from sparseopt.losses import get_loss as get_loss
    from sparseopt.paths import lam_max as lam_max
    from sparseopt.paths import path as path
    from sparseopt.penalty import Composite as Composite
    from sparseopt.penalty import Penalty as Penalty
    from sparseopt.problem import Problem as Problem
    from sparseopt.regularizers import L0 as L0
    from sparseopt.regularizers import L2 as L2
    from sparseopt.regularizers import MCP as MCP
    from sparseopt.regularizers import REGULARIZERS as REGULARIZERS
    from sparseopt.regularizers import SCAD as SCAD
    from sparseopt.regularizers import Arctan as Arctan
    from sparseopt.regularizers import Capped as Capped
    from sparseopt.regularizers import Expm1Mask as Expm1Mask
    from sparseopt.regularizers import LambertW as LambertW
    from sparseopt.regularizers import Laplace as Laplace
    from sparseopt.regularizers import LogSum as LogSum
    from sparseopt.regularizers import Power as Power
    from sparseopt.regularizers import Scaled as Scaled
    from sparseopt.regularizers import TransformedL1 as TransformedL1
    from sparseopt.regularizers import get_regularizer as get_regularizer
    from sparseopt.regularizers import regularizer as regularizer
    from sparseopt.selection import SubsetPath as SubsetPath
    from sparseopt.selection import select as select
    from sparseopt.selection import select_path as select_path
    from sparseopt.solution import Path as Path
    from sparseopt.solution import Solution as Solution
    from sparseopt.solution import Status as Status
    from sparseopt.solvers import bcd as bcd
    from sparseopt.solvers import fista as fista
    from sparseopt.solvers import solve as solve
    from sparseopt.validation import CrossValidation as CrossValidation
    from sparseopt.validation import cross_validate as cross_validate
    from sparseopt.validation import cross_validate_subsets as cross_validate_subsets


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'sparseopt' has no attribute {name!r}: dir(sparseopt) lists the public names.")
    from importlib import import_module

    value = getattr(import_module(f"sparseopt.{_HOMES[name]}"), name)
    globals()[name] = value  # found directly from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
