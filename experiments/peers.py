"""The competitors of `bench_solvers`, each behind one call.

`prepare(instance, threads)` turns X and the groups into what a package takes and returns `solve(lams, tol)`, the part
whose time counts: from arrays to coefficients for every lam, largest first, each started from the one before where the
package can. `solve` returns `read()`, which is not timed and gives the coefficients as (m, p, K) and the epochs, None
where the package does not tell. X comes in the competitor's dtype; the penalty is that of the instance.

What one has to know of the packages, as of the versions named:

    adelie 1.1.52       grpnet: "multigaussian" divides the loss by K; in float32 the default newton_tol is never met
    celer 0.7.4         celer_path with prune=1 is faster, but may drop and retake the same groups for ever
    skglm 0.5           no path for groups, so the loop is here; WeightedL1GroupL2 needs all weights of features equal;
                        MCP and SCAD for rows of several responses only
    scikit-learn 1.9.1  rows of several responses only
    group-lasso 1.5.0   minimises loss + 2 reg, not its documented objective, so it is given half of every lam
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sparseopt.experiments.judging import GAMMA, THETA
from sparseopt.experiments.problems import PROBLEMS, Instance

__all__ = ["COMPETITORS", "Competitor", "Read", "Solve"]

Array = NDArray[np.float64]
Read: TypeAlias = "Callable[[], tuple[Array, int | None]]"
Solve: TypeAlias = "Callable[[Array, float], Read]"


class Competitor(NamedTuple):
    """A solver under one way of calling it.

    package: the module to import; problems: what it solves, and `concave` those with MCP and SCAD; prepare: see the top
    of this file. Of its tolerances, 10^-first is tried first, 10^-tightest last, and 10^-sharp is good enough to know
    the optimum by. dtype: of X; largest: values of X, or of its Gram matrix where it makes one, beyond which it is not
    asked.
    """

    package: str
    problems: frozenset[str]
    first: int
    sharp: int
    tightest: int
    prepare: Callable[[Instance, int], Solve]
    dtype: type = np.float64
    concave: frozenset[str] = frozenset()
    largest: float = np.inf

    def refusal(self, instance: Instance) -> str:
        """Why this problem is not for it, "" if it is."""
        n, p = instance.X.shape
        if instance.name not in (self.problems if instance.penalty == "l2" else self.concave):
            return "not its problem"
        return "too large for it" if (p * p if self.prepare is _adelie_cov else n * p) > self.largest else ""


# -- this project ------------------------------------------------------------------------------------------------------


def _sparseopt(instance: Instance, threads: int) -> Solve:
    from sparseopt import Groups, Problem, path

    X, y = instance.X, instance.y
    groups = Groups.from_sizes(instance.sizes)
    how: dict[str, Any] = {"loss": instance.loss, "l1_ratio": instance.l1_ratio, "intercept": False}
    how["penalty"] = instance.penalty

    def solve(lams: Array, tol: float) -> Read:
        answer = path(Problem.build(X, y, groups, **how), lams, tol=tol)
        return lambda: (_three_axes(answer.coefs), int(answer.epochs.sum()))

    return solve


# -- peers -------------------------------------------------------------------------------------------------------------


def _adelie(instance: Instance, threads: int) -> Solve:
    ad = import_module("adelie")
    X, K, is_sparse = instance.X, instance.Y.shape[1], instance.is_sparse
    y: NDArray = np.ascontiguousarray(instance.y, dtype=X.dtype)
    family = "binomial" if instance.loss == "logistic" else "gaussian" if K == 1 else "multigaussian"
    how: dict[str, Any] = {
        "groups": instance.starts,
        "penalty": instance.weights.astype(X.dtype),
        "intercept": False,
        "early_exit": False,
        "progress_bar": False,
        "n_threads": threads,
        "newton_tol": 1e-12 if X.dtype == np.float64 else 1e-6,
    }

    def solve(lams: Array, tol: float) -> Read:
        matrix = ad.matrix.sparse(X, method="naive", n_threads=threads) if is_sparse else X
        glm = getattr(ad.glm, family)(y, dtype=y.dtype.type)
        state = ad.grpnet(matrix, glm, lmda_path=lams / K, tol=tol, irls_tol=tol, **how)
        return lambda: (_all_lams(state.betas.toarray(), lams).reshape(len(lams), -1, K), None)

    return solve


def _adelie_cov(instance: Instance, threads: int) -> Solve:
    """X'X by SciPy's BLAS, as this project computes it: that of NumPy 1 does not know recent processors."""
    ad = import_module("adelie")
    X, n = instance.X, len(instance.Y)
    y = instance.y.astype(X.dtype)
    how = {"groups": instance.starts, "penalty": instance.weights.astype(X.dtype), "n_threads": threads}
    how |= {"early_exit": False, "progress_bar": False, "rdev_tol": 0.0}
    how |= {"newton_tol": 1e-12 if X.dtype == np.float64 else 1e-6}
    syrk = import_module("scipy.linalg").get_blas_funcs("syrk", dtype=X.dtype)

    def solve(lams: Array, tol: float) -> Read:
        gram = syrk(1.0 / n, X, trans=1)
        gram += np.triu(gram, 1).T
        state = ad.gaussian_cov(gram, X.T @ y / X.dtype.type(n), lmda_path=lams.astype(X.dtype), tol=tol, **how)
        return lambda: (_all_lams(state.betas.toarray(), lams)[:, :, None], None)

    return solve


def _celer(instance: Instance, threads: int) -> Solve:
    homotopy = import_module("celer.homotopy")
    X, Y = instance.X, instance.Y
    sizes, weights = [int(size) for size in instance.sizes], instance.weights
    prune = 0 if instance.is_sparse else 1  # on the sparse problem it does not end

    def solve(lams: Array, tol: float) -> Read:
        if Y.shape[1] > 1:
            coefs = homotopy.mtl_path(X, Y, alphas=lams, tol=tol)[1]
            return lambda: (coefs.transpose(2, 1, 0), None)
        coefs = homotopy.celer_path(
            X, Y[:, 0], "grouplasso", alphas=lams, groups=sizes, weights=weights, tol=tol, max_iter=100, prune=prune
        )[1]
        return lambda: (coefs.T[:, :, None], None)

    return solve


def _skglm(instance: Instance, threads: int) -> Solve:
    datafits, penalties = import_module("skglm.datafits"), import_module("skglm.penalties")
    group, block = import_module("skglm.datafits.group"), import_module("skglm.penalties.block_separable")
    solvers = import_module("skglm.solvers")
    clone = import_module("skglm.utils.jit_compilation").compiled_clone
    X, (n, p), K = instance.X, instance.X.shape, instance.Y.shape[1]
    y = 2.0 * instance.y - 1.0 if instance.loss == "logistic" else instance.y
    weights, a = instance.weights, instance.l1_ratio
    layout = np.append(instance.starts, p).astype(np.int32), np.arange(p, dtype=np.int32)
    rows = {
        "l2": lambda: penalties.L2_1(1.0),
        "mcp": lambda: block.BlockMCPenalty(1.0, GAMMA),
        "scad": lambda: block.BlockSCAD(1.0, THETA),
    }[instance.penalty]

    def solve(lams: Array, tol: float) -> Read:
        if K > 1:
            datafit, penalty = datafits.QuadraticMultiTask(), rows()
            solver = solvers.MultiTaskBCD(tol=tol, fit_intercept=False, max_iter=1000)
        elif instance.loss == "logistic":
            datafit, penalty = group.LogisticGroup(*layout), block.WeightedGroupL2(1.0, weights, *layout)
            solver = solvers.GroupProxNewton(tol=tol, max_iter=1000)
        elif a > 0.0:
            datafit = group.QuadraticGroup(*layout)
            penalty = block.WeightedL1GroupL2(1.0, (1.0 - a) * weights, np.full(p, a), *layout)
            solver = solvers.GroupBCD(tol=tol, ws_strategy="fixpoint")
        else:
            datafit, penalty = group.QuadraticGroup(*layout), block.WeightedGroupL2(1.0, weights, *layout)
            solver = solvers.GroupBCD(tol=tol)
        datafit, penalty = clone(datafit), clone(penalty)
        w, z = np.zeros((p, K) if K > 1 else p), np.zeros((n, K) if K > 1 else n)
        found = []
        for lam in lams:
            penalty.alpha = float(lam)
            w = solver.solve(X, y, datafit, penalty, w, z)[0]
            found.append(w.copy())
        return lambda: (_three_axes(np.array(found)), None)

    return solve


def _sklearn(instance: Instance, threads: int) -> Solve:
    enet_path = import_module("sklearn.linear_model").enet_path
    X, Y = instance.X, instance.Y

    def solve(lams: Array, tol: float) -> Read:
        how: dict[str, Any] = {"l1_ratio": 1.0, "max_iter": 100_000, "copy_X": False, "return_n_iter": True}
        _, coefs, _, epochs = enet_path(X, Y, alphas=lams, tol=tol, **how)
        return lambda: (coefs.transpose(2, 1, 0), int(np.sum(epochs)))

    return solve


def _group_lasso(instance: Instance, threads: int) -> Solve:
    GroupLasso = import_module("group_lasso").GroupLasso
    X, y, a = instance.X, instance.Y, instance.l1_ratio
    labels = np.repeat(np.arange(len(instance.sizes)), instance.sizes)

    def solve(lams: Array, tol: float) -> Read:
        model = GroupLasso(
            labels, tol=tol, n_iter=100_000, fit_intercept=False, warm_start=True, supress_warning=True, random_state=0
        )
        found = []
        for lam in lams:
            model.group_reg, model.l1_reg = list(0.5 * lam * (1.0 - a) * instance.weights), 0.5 * lam * a
            found.append(model.fit(X, y).coef_.copy())
        return lambda: (np.array(found), None)

    return solve


def _three_axes(coefs: Array) -> Array:
    return coefs[:, :, None] if coefs.ndim == 2 else coefs


def _all_lams(coefs: Array, lams: Array) -> Array:
    """The answers that a package gave, and NaN for every lam that it gave up."""
    out = np.full((len(lams), coefs.shape[1]), np.nan)
    out[: len(coefs)] = coefs
    return out


_ALL = frozenset(PROBLEMS)
_ONE_RESPONSE = frozenset({"dense", "wide", "corr", "unequal", "tall", "sparse"})
_BLOCKS = _ALL - {"sgl"}
_GRAM = 4e7  # values, 320 MB
_SMALL = 2e6  # values of X: beyond them it takes minutes for one lam

COMPETITORS: dict[str, Competitor] = {
    "sparseopt": Competitor("sparseopt", _ALL, 3, 8, 12, _sparseopt, concave=_BLOCKS),
    "sparseopt_f32": Competitor("sparseopt", _ALL, 3, 8, 12, _sparseopt, np.float32, _BLOCKS),
    "adelie": Competitor("adelie", _BLOCKS, 6, 11, 14, _adelie),
    "adelie_f32": Competitor("adelie", _BLOCKS, 6, 11, 12, _adelie, np.float32),
    "adelie_cov": Competitor("adelie", _ONE_RESPONSE - {"sparse"}, 3, 8, 14, _adelie_cov, largest=_GRAM),
    "adelie_cov_f32": Competitor(
        "adelie", _ONE_RESPONSE - {"sparse"}, 3, 8, 12, _adelie_cov, np.float32, largest=_GRAM
    ),
    "celer": Competitor("celer", _ONE_RESPONSE | {"multitask"}, 3, 7, 12, _celer),
    "skglm": Competitor("skglm", _ALL, 2, 6, 12, _skglm, concave=frozenset({"multitask"})),
    "sklearn": Competitor("sklearn", frozenset({"multitask"}), 3, 7, 12, _sklearn),
    "group-lasso": Competitor(
        "group_lasso", _ONE_RESPONSE - {"sparse"} | {"sgl"}, 3, 7, 12, _group_lasso, largest=_SMALL
    ),
}
