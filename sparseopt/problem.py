"""Problems: a loss of a linear predictor plus a group-sparse penalty.

    minimise over w, b    F(w, b) = L(Xw + 1 b') + Omega(w)

for a design X (n, p), a loss L of K outputs and a penalty Omega; b is a free intercept per output, or 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.cardinality import AtMost
from sparseopt.designs import Design, RowBlocks, lay_out, require_finite, writeable_design
from sparseopt.groups import Groups, as_groups
from sparseopt.losses import Loss, get_loss
from sparseopt.penalty import Composite, Penalty, bounded_number, named_regularizer

__all__ = ["Problem"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Problem:
    """minimise over w, b    F(w, b) = L(Xw + 1 b') + Omega(w).

    Parameters
    ----------
    design : Dense, Csc or RowBlocks
        X, (n, p); see `as_design`.
    loss : Loss
        L, with the targets, sample weights and offset inside; n samples, K outputs.
    penalty : Penalty, Composite or AtMost
        Omega, with the groups inside; p features.
    intercept : bool
        Whether b is free (never penalised); otherwise b = 0.

    Raises
    ------
    ValueError
        If the numbers of samples or features differ.

    Examples
    --------
    >>> import numpy as np
    >>> problem = Problem.build(np.eye(4), [3.0, 1.0, 0.0, 0.0], groups=2, lam=0.1, intercept=False)
    >>> problem.value(np.zeros(4))
    1.25
    """

    design: Design
    loss: Loss
    penalty: Penalty | AtMost
    intercept: bool = False

    def __post_init__(self) -> None:
        n, p = self.design.shape
        if self.loss.n_samples != n:
            raise ValueError(f"y has {self.loss.n_samples} samples but X has {n} rows: pass one target per row of X.")
        if self.penalty.groups.n_features != p:
            raise ValueError(
                f"groups cover {self.penalty.groups.n_features} features but X has {p} columns: they must be equal."
            )

    def __setstate__(self, state: dict[str, Any]) -> None:
        # joblib maps large arrays into its workers read-only.
        self.__dict__.update(state, design=writeable_design(state["design"]))

    @classmethod
    def build(
        cls,
        X: Any,
        y: ArrayLike,
        groups: Any = None,
        *,
        loss: str = "squares",
        penalty: Any = "l2",
        lam: float = 0.1,
        composite: bool = False,
        l1_ratio: float = 0.0,
        ridge: float = 0.0,
        intercept: bool = True,
        sample_weight: ArrayLike | None = None,
        offset: ArrayLike | None = None,
        weights: Any = "sqrt",
        **loss_params: Any,
    ) -> Problem:
        """A problem from what a user has.

        Parameters
        ----------
        X : (n, p) array, sparse matrix, data frame, memory map or Dask array
            See `as_design`. It may be shared, not copied: do not change it afterwards, products with it are kept.
        y : (n,) or (n, K) array
            Targets that fit the loss: reals for squares and huber, counts for poisson, 0/1 for logistic, labels
            0, ..., K - 1 for multinomial.
        groups : any description of a partition
            See `as_groups`; None makes every feature a group.
        loss : str
            "squares", "huber", "logistic", "poisson" or "multinomial".
        penalty : str, class or regularizer
            A name of `REGULARIZERS`, "module:Class", or an instance. The names "mcp" and "scad" mean the penalties of
            the literature, whose knots lie at multiples of lam: `Scaled(MCP(), lam)`.
        lam, l1_ratio, ridge : float
            See `Penalty`.
        composite : bool
            Problem (1) instead of the separable penalty, see `Composite`.
        intercept : bool
            Whether to fit an unpenalised intercept per output.
        sample_weight : (n,) array
            s_i >= 0, used as they are; default 1/n each, so that the loss is a mean.
        offset : (n,) or (n, K) array
            Known part of the linear predictor.
        weights : "sqrt", "ones", array or dict
            Group weights, see `as_groups`.
        **loss_params
            Parameters of the loss, such as delta=1.345 for huber.

        Raises
        ------
        ValueError, TypeError
            If an argument is not as described; the sentence names it, its value and the remedy.
        """
        design = lay_out(X)
        n, p = design.shape
        samples = np.shape(y)
        if not samples or samples[0] != n:
            raise ValueError(f"y has the shape {samples} but X has {n} rows: pass one target per row of X.")
        lam = bounded_number("lam", lam, np.inf)
        q = named_regularizer(penalty, lam)
        names = None if X is design else getattr(X, "columns", None)
        partition = as_groups(groups, p, names, weights)
        kind = Composite if composite else Penalty
        fit = get_loss(loss, y, sample_weight, offset, **loss_params)
        problem = cls(design, fit, kind(q, partition, lam, l1_ratio, ridge), bool(intercept))
        if design is not X and not isinstance(design, RowBlocks):
            # A product that solvers start with is not finite where X is not: so X is read once, not twice.
            if fit.n_outputs > 1 or not np.isfinite(problem.null_gradient).all():
                require_finite(design)
        return problem

    @property
    def shrinkage(self) -> Penalty:
        """The penalty, where it is one on norms; TypeError for `AtMost`, which selectors serve and solvers do not."""
        if isinstance(self.penalty, AtMost):
            raise TypeError(f"penalty allows at most {self.penalty.k} groups: use select, solvers need one on norms.")
        return self.penalty

    @property
    def groups(self) -> Groups:
        """The partition of the features."""
        return self.penalty.groups

    @property
    def lam(self) -> float:
        """Strength of the penalty."""
        return self.penalty.lam

    @property
    def n_outputs(self) -> int:
        """K, the columns of the linear predictor."""
        return self.loss.n_outputs

    @cached_property
    def is_convex(self) -> bool:
        """Whether F is known to be convex; every loss of the package is."""
        return self.penalty.is_convex

    @cached_property
    def null_gradient(self) -> Array:
        """Gradient of the loss in w at w = 0 and the best intercept for it, (p, K); kept, so do not write into it."""
        b = self.loss.null_intercept() if self.intercept else np.zeros(self.n_outputs)
        return self.design.rmatvec(self.loss.derivative(np.broadcast_to(b, self.loss.y.shape).copy()))

    def at(self, lam: float) -> Problem:
        """The same problem with another lam."""
        return replace(self, penalty=self.penalty.at(lam))

    def predictor(self, w: ArrayLike, b: ArrayLike = 0.0) -> Array:
        """z = Xw + 1 b', (n, K), without the offset (the loss adds it)."""
        return self.design.matvec(self.matrix(w)) + np.asarray(b, dtype=np.float64).reshape(1, -1)

    def value(self, w: ArrayLike, b: ArrayLike = 0.0) -> float:
        """F(w, b)."""
        return self.loss.value(self.predictor(w, b)) + self.penalty.value(w)

    def gradient(self, w: ArrayLike, b: ArrayLike = 0.0) -> tuple[Array, Array]:
        """Gradient of the loss: in w, shaped like w, and in b, (K,)."""
        A = self.loss.derivative(self.predictor(w, b))
        return self.design.rmatvec(A).reshape(np.shape(w)), A.sum(axis=0)

    def matrix(self, w: ArrayLike) -> Array:
        """w as a (p, K) float64 array, a view if possible; ValueError if it has another size."""
        w = np.asarray(w, dtype=np.float64)
        shape = (self.design.shape[1], self.n_outputs)
        if w.shape != shape and (w.shape != shape[:1] or shape[1] != 1):
            raise ValueError(f"w has the shape {w.shape}: pass {shape if shape[1] > 1 else shape[:1]}.")
        return w.reshape(shape)
