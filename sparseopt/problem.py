"""Problems: a loss of a linear predictor plus a group-sparse penalty.

    minimise over w, b    F(w, b) = L(Xw + 1 b') + Omega(w)

    Penalty     Omega(w) = lam [(1 - a) sum_g omega_g q(||w_g||) + a ||w||_1] + ridge / 2 ||w||^2
    Composite   Omega(w) = lam [(1 - a) q^-1(sum_g q(omega_g ||w_g||)) + a ||w||_1] + ridge / 2 ||w||^2

with a = l1_ratio; groups of weight 0 are left out of every term of Omega. The second is problem (1) of arXiv
2402.17902. With several outputs w is a matrix (p, K), and a group is a set of its rows.

The terms work together in one prox: soft-threshold by t lam a, divide by 1 + t ridge, then shrink the block's norm.
That is exact for every nondecreasing q: for a block of given norm r, the best direction is that of the thresholded
block, whatever r is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.designs import Design, as_design, writeable_design
from sparseopt.groups import Groups, as_groups
from sparseopt.losses import Loss, get_loss
from sparseopt.regularizers import L2, Regularizer, Scaled, checked, get_regularizer
from sparseopt.structs import compiled

__all__ = ["Composite", "Lifted", "Penalty", "Problem", "Separable", "named_regularizer"]

Array = NDArray[np.float64]


@compiled
class Separable(NamedTuple):
    """How a block is shrunk when groups do not see each other: the penalty is t omega q(u)."""

    q: Regularizer

    def shrink(self, u, t, omega, rest):
        return self.q.prox(u, t * omega)

    def cost(self, u, omega):
        return 0.0


@compiled
class Lifted(NamedTuple):
    """How a block is shrunk in problem (1): the penalty is t q^-1(q(omega u) + rest), rest = sum of the other costs."""

    q: Regularizer

    def shrink(self, u, t, omega, rest):
        return self.q.lifted_prox(omega * u, t * omega * omega, rest) / omega

    def cost(self, u, omega):
        return self.q.value(omega * u)


@dataclass(frozen=True, eq=False)
class Penalty:
    """Separable group penalty, Omega(w) = lam [(1 - a) sum_g omega_g q(||w_g||) + a ||w||_1] + ridge / 2 ||w||^2.

    Parameters
    ----------
    q : regularizer
        See `sparseopt.regularizers`.
    groups : Groups
        The partition, with weights omega; groups of weight 0 are not penalised at all.
    lam : float, >= 0
        Strength, in units of the loss per unit of the coefficients.
    l1_ratio : float in [0, 1]
        a: share of lam that acts on single coefficients (sparse group lasso), 0 by default.
    ridge : float, >= 0
        Strength of the squared norm; makes every convex problem strongly convex. 0 by default.

    Examples
    --------
    >>> from sparseopt import Groups, L2
    >>> penalty = Penalty(L2(), Groups.equal(4, 2), lam=0.5)
    >>> penalty.value([3.0, 4.0, 0.0, 0.0]) / 2**0.5
    2.5
    >>> (penalty.prox([3.0, 4.0, 0.1, 0.1], t=1 / 2**0.5) / 0.9).round(12)
    array([3., 4., 0., 0.])
    """

    q: Any
    groups: Groups
    lam: float
    l1_ratio: float = 0.0
    ridge: float = 0.0

    def __post_init__(self) -> None:
        q = checked(self.q)
        if isinstance(q, Scaled) and isinstance(q.q, L2):
            q = L2()
        if not isinstance(self.groups, Groups):
            raise TypeError(f"groups must be a Groups, got {type(self.groups).__name__}: convert it with as_groups.")
        object.__setattr__(self, "q", q)
        for name, high in (("lam", np.inf), ("l1_ratio", 1.0), ("ridge", np.inf)):
            object.__setattr__(self, name, _number(name, getattr(self, name), high))

    @property
    def is_convex(self) -> bool:
        """Whether Omega is convex: q convex, for `Composite` q = L2."""
        return self.lam * (1.0 - self.l1_ratio) == 0.0 or self.q.weak_convexity() == 0.0

    @property
    def is_group_lasso(self) -> bool:
        """Whether q(u) = u, so that the dual is known: (sparse) group lasso, with or without ridge."""
        return self.lam * (1.0 - self.l1_ratio) == 0.0 or isinstance(self.q, L2)

    @property
    def shape(self) -> Separable | Lifted:
        """What kernels shrink a block with."""
        return Separable(self.q)

    @property
    def penalised(self) -> NDArray[np.bool_]:
        """Which groups the penalty sees, (n_groups,)."""
        return self.groups.weights > 0.0

    @property
    def block_strength(self) -> float:
        """lam (1 - l1_ratio), the factor of the group term."""
        return self.lam * (1.0 - self.l1_ratio)

    @property
    def entry_strength(self) -> float:
        """lam l1_ratio, the factor of the l1 norm."""
        return self.lam * self.l1_ratio

    def at(self, lam: float) -> Penalty:
        """The same penalty with another lam; the knots of a `Scaled` regularizer move with it."""
        q = self.q._replace(lam=float(lam)) if isinstance(self.q, Scaled) and lam > 0.0 else self.q
        return replace(self, q=q, lam=lam)

    def value(self, w: ArrayLike) -> float:
        """Omega(w) for w of shape (p,) or (p, K)."""
        w = np.asarray(w, dtype=np.float64)
        with np.errstate(over="ignore"):
            total = self.block_strength * self.group_term(self.groups.norms(w)) if self.block_strength else 0.0
            if self.entry_strength or self.ridge:
                seen = w[self.groups.expand(self.penalised)]
                total += self.entry_strength * np.abs(seen).sum() + 0.5 * self.ridge * np.vdot(seen, seen)
        return float(total)

    def prox(self, w: ArrayLike, t: float | ArrayLike) -> Array:
        """argmin_v ||v - w||^2 / 2 + t Omega(v), t a number or one step per group; a new array like w.

        For `Composite`, whose Omega does not separate, see `block_prox`.
        """
        return self.block_prox(w, t, w)

    def block_prox(self, w: ArrayLike, t: float | ArrayLike, at: ArrayLike) -> Array:
        """`prox` of every block, the other blocks fixed where `at` has them.

        A point w with block_prox(w - t grad L(w), t, w) = w is optimal in each block, up to the majorisation by t.
        """
        w = np.asarray(w, dtype=np.float64)
        steps = np.broadcast_to(np.asarray(t, dtype=np.float64), (len(self.groups),)) * self.penalised
        by_feature = self.groups.expand(steps).reshape(-1, *[1] * (w.ndim - 1))
        v = np.sign(w) * np.maximum(np.abs(w) - by_feature * self.entry_strength, 0.0) / (1.0 + by_feature * self.ridge)
        u = self.groups.norms(v)
        shrunk = self._shrink_norms(u, steps / (1.0 + steps * self.ridge), self.groups.norms(at))
        factor = np.divide(shrunk, u, out=np.zeros_like(u), where=u > 0.0)
        return v * self.groups.expand(factor).reshape(by_feature.shape)

    def group_term(self, u: Array) -> float:
        """sum_g omega_g q(u_g), or for `Composite` q^-1(sum_g q(omega_g u_g)), from the norms u of all groups."""
        return float(self.groups.weights @ np.where(self.penalised, self.q.value(u), 0.0))

    def _shrink_norms(self, u: Array, steps: Array, at: Array) -> Array:
        t = steps * self.block_strength * self.groups.weights
        out = u.copy()
        seen = t > 0.0
        out[seen] = self.q.prox(u[seen], t[seen])
        return out


@dataclass(frozen=True, eq=False)
class Composite(Penalty):
    """The penalty of problem (1), Omega(w) = lam q^-1(sum_g q(omega_g ||w_g||)), with the optional terms of `Penalty`.

    One active group costs lam omega_g ||w_g||, whatever q is; further groups cost less than in the group lasso. For q
    strictly increasing, subadditive and q(0) = 0, Theorem 1.1 of arXiv 2402.17902 ties its minimisers to those of the
    group lasso. For bounded q the value is inf as soon as the sum exceeds the ceiling of q.

    Notes
    -----
    Not convex unless q is L2; convex in each block, the others fixed, for the q with 1 / q' convex. The prox of the
    whole does not separate, so only block solvers apply.

    Examples
    --------
    >>> from sparseopt import Groups, LogSum
    >>> groups = Groups.equal(2, 1)
    >>> round(Composite(LogSum(1.0), groups, lam=1.0).value([3.0, 1.0]), 12)  # (1 + 3)(1 + 1) - 1
    7.0
    """

    @property
    def is_convex(self) -> bool:
        """Whether Omega is known to be convex: for q = L2."""
        return self.is_group_lasso

    @property
    def shape(self) -> Separable | Lifted:
        """What kernels shrink a block with."""
        return Separable(self.q) if self.is_group_lasso else Lifted(self.q)

    def prox(self, w: ArrayLike, t: float | ArrayLike) -> Array:
        """Only for q = L2; TypeError otherwise, because the groups do not separate."""
        if not self.is_group_lasso:
            raise TypeError(f"Composite of {self.q} has no prox of its own: use block_prox, or solve by bcd.")
        return super().prox(w, t)

    def group_term(self, u: Array) -> float:
        """q^-1(sum_g q(omega_g u_g)) from the norms u of all groups."""
        if self.is_group_lasso:
            return float(self.groups.weights @ u)
        return float(self.q.inverse(float(self._costs(u).sum())))

    def _shrink_norms(self, u: Array, steps: Array, at: Array) -> Array:
        if self.is_group_lasso:
            return super()._shrink_norms(u, steps, at)
        out = u.copy()
        costs = self._costs(at)
        total = float(costs.sum())
        shape = self.shape
        for g in np.flatnonzero(steps * self.block_strength * self.groups.weights):
            rest = max(total - float(costs[g]), 0.0)
            t = float(steps[g]) * self.block_strength
            out[g] = shape.shrink(float(u[g]), t, float(self.groups.weights[g]), rest)
        return out

    def _costs(self, u: Array) -> Array:
        """q(omega_g u_g), 0 for groups that the penalty does not see."""
        return np.where(self.penalised, self.q.value(self.groups.weights * u), 0.0)


@dataclass(frozen=True, eq=False)
class Problem:
    """minimise over w, b    F(w, b) = L(Xw + 1 b') + Omega(w).

    Parameters
    ----------
    design : Dense or Csc
        X, (n, p); see `as_design`.
    loss : Loss
        L, with the targets, sample weights and offset inside; n samples, K outputs.
    penalty : Penalty or Composite
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
    penalty: Penalty
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
        X : (n, p) array, sparse matrix or data frame
            See `as_design`.
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
        design = as_design(X)
        n, p = design.shape
        samples = np.shape(y)
        if not samples or samples[0] != n:
            raise ValueError(f"y has the shape {samples} but X has {n} rows: pass one target per row of X.")
        lam = _number("lam", lam, np.inf)
        q = named_regularizer(penalty, lam)
        names = None if X is design else getattr(X, "columns", None)
        partition = as_groups(groups, p, names, weights)
        kind = Composite if composite else Penalty
        return cls(
            design,
            get_loss(loss, y, sample_weight, offset, **loss_params),
            kind(q, partition, lam, l1_ratio, ridge),
            bool(intercept),
        )

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


def named_regularizer(penalty: Any, lam: float, **params: float) -> Any:
    """`get_regularizer`, with the names "mcp" and "scad" meaning the penalties whose knots are multiples of lam."""
    q = get_regularizer(penalty, **params)
    return Scaled(q, lam) if penalty in ("mcp", "scad") and lam > 0.0 else q


def _number(name: str, value: Any, high: float) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}: pass a float.")
    number = float(value)
    if not 0.0 <= number <= high or number == np.inf:
        bound = "finite and >= 0" if high == np.inf else f"between 0 and {high:g}"
        raise ValueError(f"{name} is {value}: pass a number that is {bound}.")
    return number
