"""Reports of every kind of claim, and ways to change what their files say. Imported by tests of the verifier."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from sparseopt import L2, AtMost, Groups, LogSum, Penalty, Problem, Squares, as_design, solve
from sparseopt.certificates import (
    Certificate,
    Report,
    approximation,
    best_subset,
    duality_gap,
    exact_recovery,
    one_group_kkt,
    one_group_window,
    optimality_gap,
    separable_bound,
    stationarity,
    theorem_1_1,
    zero_groups,
)
from sparseopt.certificates.files import digest, save_report
from sparseopt.certificates.regularizers import regularizer
from sparseopt.designs import dense_columns
from sparseopt.selection.exact import exact
from sparseopt.solution import BoundProof

RNG = np.random.default_rng(7)
X = RNG.standard_normal((40, 24))
SIGNAL = X[:, :4] @ np.array([2.0, -1.0, 1.5, 1.0])
Z = SIGNAL + 0.5 * RNG.standard_normal(40)
TARGETS = {
    "squares": Z,
    "huber": Z,
    "logistic": (Z > 0).astype(float),
    "poisson": np.rint(np.exp(0.3 * Z)),
    "multinomial": np.digitize(Z, [-1.0, 1.0]),
}


def lasso(loss: str = "squares", lam: float = 0.3, **options: Any) -> Problem:
    groups = options.pop("groups", 4)
    if loss == "perfect":
        return Problem.build(X, SIGNAL, groups, lam=lam, **options)
    return Problem.build(options.pop("X", X), TARGETS[loss], groups, loss=loss, lam=lam, **options)


def report(problem: Problem, *makers: Callable[..., Certificate], **options: Any) -> Report:
    """Certificates at a tight solution of the group lasso of the problem."""
    # One kind of design: the solver's kernels are compiled for each.
    design = as_design(dense_columns(problem.design, np.arange(24)))
    at = solve(Problem(design, problem.loss, convex_penalty(problem), problem.intercept), tol=1e-12)
    return Report(problem, at.w, at.intercept, tuple(m(problem, at.w, at.intercept, **options) for m in makers))


def convex_penalty(problem: Problem) -> Penalty:
    p = problem.penalty
    return Penalty(L2(), problem.groups, p.lam, p.l1_ratio, p.ridge)


def one_active(problem: Problem) -> Problem:
    """The problem at a lam in its window, where one group is active."""
    numbers = one_group_window(problem).numbers
    return problem.at(0.5 * (float(numbers["lam_low"]) + float(numbers["tau"])))


def subset(k: int = 1, ridge: float = 0.1) -> Report:
    """The best group, from one leaf per group in a chain of splits, by brute force."""
    groups = Groups.equal(24, 4)
    problem = Problem(as_design(X), Squares.of(Z), AtMost(groups, k, ridge), False)
    best, where = np.inf, (0,)
    for chosen in itertools.combinations(range(6), k):
        w = fit_on(problem, chosen)
        if problem.value(w) < best:
            best, where = problem.value(w), chosen
    w = fit_on(problem, where)
    leaf_in, leaf_out, dual = [], [], []
    for g in range(6):  # g is the first group that is in
        leaf_in.append((g,))
        leaf_out.append(tuple(range(g)))
        z = problem.predictor(fit_on(problem, tuple(range(g, 6)) if k > 1 else (g,)))
        dual.append(problem.loss.derivative(z))
    leaf_in.append(())
    leaf_out.append(tuple(range(6)))
    dual.append(problem.loss.derivative(problem.predictor(np.zeros(24))))
    proof = BoundProof(np.array(dual), tuple(leaf_in), tuple(leaf_out), np.full(6, np.inf))
    return Report(problem, w, 0.0, (best_subset(problem, w, 0.0, proof),))


def unconditional(loss: str = "squares", k: int = 2, **options: Any) -> Report:
    """The best choice without a ridge, as exact selection proves it."""
    base = lasso(loss, **options)
    problem = Problem(base.design, base.loss, AtMost(base.groups, k), base.intercept)
    best = exact(problem, engine="enumeration")
    return Report(problem, best.w, best.intercept, (best_subset(problem, best.w, best.intercept, best.proof),))


def fit_on(problem: Problem, chosen: tuple[int, ...]) -> Any:
    rows = np.concatenate([problem.groups[g] for g in chosen])
    w = np.zeros(24)
    part = X[:, rows]
    ridge = problem.penalty.ridge
    w[rows] = np.linalg.solve(part.T @ part / 40 + ridge * np.eye(len(rows)), part.T @ Z / 40)
    return w


def path_report() -> Report:
    problem = lasso(penalty=LogSum(2.0), lam=0.8)
    strengths = np.geomspace(0.1, 1.0, 9)
    convex = Problem(problem.design, problem.loss, convex_penalty(problem), True)
    points = []
    for strength in strengths:
        at = solve(convex.at(float(strength)), tol=1e-12)
        points.append(problem.loss.derivative(problem.predictor(at.w, at.intercept)))
    at = solve(convex.at(0.5), tol=1e-12)
    certificate = separable_bound(problem, at.w, at.intercept, strengths=strengths, A=np.array(points))
    return Report(problem, at.w, at.intercept, (certificate,))


ORTHO = np.linalg.qr(RNG.standard_normal((40, 24)))[0] * np.sqrt(40.0)

REPORTS: dict[str, Callable[[], Report]] = {
    "duality_gap": lambda: report(lasso(), duality_gap),
    "zero_groups": lambda: report(lasso(), zero_groups),
    "theorem_1_1": lambda: report(one_active(lasso()), theorem_1_1),
    "one_group_window": lambda: report(one_active(lasso()), one_group_window),
    "one_group_kkt": lambda: report(one_active(lasso()), one_group_kkt),
    "optimality_gap": lambda: report(one_active(lasso(penalty=LogSum(0.5), composite=True)), optimality_gap),
    "separable_bound": path_report,
    "best_subset": subset,
    "radii": unconditional,
    "orthogonal": lambda: unconditional("huber"),
    "perfect": lambda: unconditional("perfect", 1),
    "regularizer": lambda: report(lasso(penalty=LogSum(0.5)), regularizer),
    "stationarity": lambda: report(lasso(), stationarity),
    "approximation": lambda: report(lasso(X=ORTHO), approximation, k=1, accuracy=0.1),
    "exact_recovery": lambda: report(lasso(X=ORTHO), exact_recovery, k=1),
}


@cache
def made(kind: str) -> Report:
    return REPORTS[kind]()


def saved_in(folder: Path) -> Callable[[str], Path]:
    """A function that saves the report of a kind in the folder, once, and tells where."""

    def get(kind: str) -> Path:
        path = folder / f"{kind}.json"
        if not path.exists():
            save_report(made(kind), path)
        return path

    return get


Change = Callable[[dict[str, Any], dict[str, Any]], Any]


def forge(path: Path, tmp_path: Path, change: Change, fit: bool = True) -> Path:
    """A copy with `change(document, arrays)` applied; `fit` makes the hashes fit again."""
    document = json.loads(path.read_text())
    with np.load(path.with_suffix(".npz")) as archive:
        arrays = {name: archive[name].copy() for name in archive.files}
    change(document, arrays)
    out = tmp_path / "forged.json"
    document["arrays"]["file"] = "forged.npz"
    if fit:
        document["arrays"]["sha256"] = {name: digest(array) for name, array in arrays.items()}
    out.write_text(json.dumps(document))
    np.savez(out.with_suffix(".npz"), **arrays)
    return out


def numbers(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["claims"][0]["numbers"]
    return found


def times(name: str, factor: float) -> Change:
    return lambda d, a: numbers(d).update({name: numbers(d)[name] * factor})


def plus(name: str, amount: float) -> Change:
    return lambda d, a: numbers(d).update({name: numbers(d)[name] + amount})


def put(name: str, value: Any) -> Change:
    return lambda d, a: numbers(d).update({name: value})


def set_problem(name: str, value: Any) -> Change:
    return lambda d, a: d["problem"].update({name: value})
