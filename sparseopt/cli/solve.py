"""The command `solve`: from a file and options to a solution, its table, plot and model file."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt.cli.data import Data, read_data, standardised
from sparseopt.cli.describe import describe_coefficients, describe_solution
from sparseopt.cli.figures import check_figure_file, draw
from sparseopt.cli.partition import partition
from sparseopt.cli.saved import check_model_file, model_of, save_model
from sparseopt.paths import lam_max, path
from sparseopt.penalty import named_regularizer
from sparseopt.problem import Problem
from sparseopt.solution import Path, Solution
from sparseopt.solvers import solve
from sparseopt.validation import CrossValidation, cross_validate

__all__ = ["RULES", "Target", "as_target", "choose", "run_solve"]

RULES = {
    "min": "the smallest held-out loss",
    "1se": "the largest within one standard error of the smallest held-out loss",
    "aic": "the smallest AIC",
    "bic": "the smallest BIC",
    "ebic": "the smallest EBIC",
}
_FEW = 20  # more distinct integers than this are taken for measurements


@dataclass(frozen=True)
class Target:
    """y as a loss wants it: the name of the loss, numbers, and the classes that 0, 1, ... stand for."""

    loss: str
    y: NDArray[np.float64]
    classes: tuple[str, ...]
    remark: str


def run_solve(args: argparse.Namespace) -> Iterator[str]:
    """The lines that `sparseopt solve` prints, as they become known; writes the files asked for."""
    started = time.perf_counter()
    _check_options(args)
    data = read_data(args.file, args.target, args.drop, args.categorical)
    target = as_target(data, args.loss)
    groups = partition(data, args.groups, args.weights)
    standardise = data.is_table if args.standardize is None else args.standardize
    X, scale = standardised(data.X, args.intercept) if standardise else (data.X, np.ones(data.X.shape[1]))
    problem = Problem.build(
        X,
        target.y,
        groups,
        loss=target.loss,
        penalty=_regularizer(args.penalty, args.param),
        lam=1.0,
        composite=args.composite,
        l1_ratio=args.l1_ratio,
        ridge=args.ridge,
        intercept=args.intercept,
        **dict(args.loss_param),
    )
    n, p = problem.design.shape
    yield f"{args.file}: {n} samples, {p} features in {len(groups)} groups, target {data.target!r}, {target.loss} loss"
    if not args.quiet:
        yield from data.remarks
        yield from filter(None, [target.remark])
        if args.groups is None and data.labels is None and len(groups) == p:
            yield "Every feature is a group of its own; --groups says otherwise."
        if standardise:
            yield "Columns were scaled to unit root mean square; --no-standardize takes them as they are."
    found, solution, chosen = _solved(problem, args)
    if found is not None and not args.quiet:
        lams = found.lams
        yield f"path of {len(lams)} lam from {lams[0]:.4g} to {lams[-1]:.4g}" + (
            f", {found.fold_losses.shape[1]} folds" if isinstance(found, CrossValidation) else ""
        )
    yield ""
    yield from describe_solution(solution, chosen, "scaled columns" if standardise else "")
    model = model_of(solution, features=data.features, target=data.target, classes=target.classes, scale=scale)
    if args.coefficients:
        w, b = problem.matrix(model["coefficients"]), np.atleast_1d(model["intercept"])
        outputs = target.classes if len(target.classes) == w.shape[1] else [str(k) for k in range(w.shape[1])]
        yield from ["", *describe_coefficients(w, b, data.features, outputs)]
    yield ""
    if args.save:
        save_model(model, args.save)
        yield f"Saved the model in {args.save}."
    if args.plot and found is not None:
        draw(found, args.plot, {_mark(args): solution.problem.lam}, str(args.file))
        yield f"Drew the path in {args.plot}."
    yield f"{time.perf_counter() - started:.2f} s in all"


def choose(found: Path | CrossValidation, rule: str) -> tuple[Solution, str]:
    """The solution that a rule of `RULES` chooses, and the rule in words."""
    if rule not in ("min", "1se"):
        return (found.path if isinstance(found, CrossValidation) else found).best(rule), RULES[rule]
    assert isinstance(found, CrossValidation)
    k = found.best_index if rule == "min" else found.one_se_index
    return found.choose(rule), f"{RULES[rule]}; here {found.mean[k]:.5g} ± {found.standard_error[k]:.2g}"


def as_target(data: Data, loss: str | None) -> Target:
    """The target as numbers, and the loss: the given one, or a guess.

    Two distinct values make logistic; text, or few distinct integers, make multinomial; anything else squares.
    """
    y = data.y
    text = y.dtype.kind in "US"
    if not text and (y.dtype.kind not in "biuf" or not np.isfinite(y).all()):
        raise ValueError(f"The target {data.target!r} holds values that are not finite numbers: leave out their rows.")
    values = np.unique(y) if y.ndim == 1 else np.empty(0)
    if values.size == 1:
        raise ValueError(f"The target {data.target!r} is {_name(values[0])} in every sample: nothing can be learned.")
    guess = "squares"
    if values.size == 2:
        guess = "logistic"
    elif text or (2 < values.size <= min(_FEW, len(y) // 10) and np.array_equal(values, np.round(values))):
        guess = "multinomial"
    name = loss or guess
    if name not in ("logistic", "multinomial"):
        if text:
            raise ValueError(
                f"The target {data.target!r} holds text such as {_name(values[0])!r}, but --loss {name} needs numbers: "
                f"use --loss {guess}."
            )
        remark = "" if loss else "The loss squares was guessed from the values of the target; --loss names another."
        return Target(name, y.astype(np.float64), (), remark)
    classes = tuple(_name(value) for value in values)
    if y.ndim != 1 or (name == "logistic" and values.size != 2) or values.size > len(y) // 2:
        remedy = "multinomial" if name == "logistic" and values.size <= len(y) // 2 else "squares"
        raise ValueError(
            f"The target {data.target!r} has {values.size or y.shape} different values, which --loss {name} cannot "
            f"model: use --loss {remedy}."
        )
    codes = np.searchsorted(values, y).astype(np.float64)
    remark = "" if loss else f"The loss {name} was guessed from the {values.size} values of the target."
    if name == "logistic":
        remark += f" A positive coefficient speaks for {classes[1]!r}, against {classes[0]!r}."
    return Target(name, codes, classes, remark.strip())


def _name(value: Any) -> str:
    return str(value) if isinstance(value, str) else f"{value:g}"


def _regularizer(penalty: str, params: list[tuple[str, float]]) -> Any:
    """An instance; as in `Problem.build`, the names "mcp" and "scad" mean knots at multiples of lam."""
    try:
        return named_regularizer(penalty, 1.0, **dict(params))
    except (ValueError, TypeError):
        raise
    except Exception as error:  # whatever a user's module does when it is imported
        raise ValueError(
            f"penalty {penalty!r} cannot be imported ({type(error).__name__}: {error}): mend the module."
        ) from error


def _check_options(args: argparse.Namespace) -> None:
    """What can be refused before a file is read."""
    if args.rule in ("min", "1se") and args.cv is None:
        raise ValueError(f"rule {args.rule!r} compares held-out losses: add --cv.")
    if args.lam is not None and args.cv is not None:
        raise ValueError("--cv chooses lam, which --lam gives already: leave one of them out.")
    if args.lam is not None and args.rule:
        raise ValueError(f"rule {args.rule!r} chooses lam, which --lam gives already: leave one of them out.")
    if args.lam is not None and args.plot:
        raise ValueError("--plot draws a path, and --lam asks for one solution only: leave one of them out.")
    if args.plot:
        check_figure_file(args.plot)
    if args.save:
        check_model_file(args.save)


def _solved(problem: Problem, args: argparse.Namespace) -> tuple[Path | CrossValidation | None, Solution, str]:
    options = {"tol": args.tol, "max_epochs": args.max_epochs}
    if args.lam is not None:
        value, relative = args.lam
        lam = value * lam_max(problem) if relative else value
        return None, solve(problem.at(lam), **options), f"{100 * value:g} % of lam_max" if relative else "as given"
    options |= {"n_lams": args.path, "progress": False if args.quiet else None}
    found: Path | CrossValidation = (
        path(problem, **options)
        if args.cv is None
        else cross_validate(problem, cv=args.cv, n_jobs=args.jobs, **options)
    )
    return found, *choose(found, _rule(args))


def _rule(args: argparse.Namespace) -> str:
    return args.rule or ("bic" if args.cv is None else "min")


def _mark(args: argparse.Namespace) -> str:
    rule = _rule(args)
    return rule.upper() if rule.endswith("ic") else rule
