"""What `solve`, `select` and `certify` share: from a file to a problem, and from its solution to lines and files."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt.cli.data import Data, read_data, standardised
from sparseopt.cli.describe import describe_coefficients, describe_solution
from sparseopt.cli.figures import check_figure_file
from sparseopt.cli.partition import partition
from sparseopt.cli.saved import check_model_file, model_of, save_model
from sparseopt.cli.target import Target, as_target
from sparseopt.problem import Problem
from sparseopt.solution import Path, Solution
from sparseopt.validation import CrossValidation

__all__ = [
    "RULES",
    "Case",
    "answer",
    "check_outputs",
    "check_rule",
    "choose",
    "opening",
    "read_case",
    "rule_of",
]

RULES = {
    "min": "the smallest held-out loss",
    "1se": "the largest within one standard error of the smallest held-out loss",
    "aic": "the smallest AIC",
    "bic": "the smallest BIC",
    "ebic": "the smallest EBIC",
}


@dataclass(frozen=True, eq=False)
class Case:
    """A file as a problem.

    Parameters
    ----------
    data : Data
    target : Target
    problem : Problem
        On scaled columns if `is_scaled`.
    scale : (p,) array
        What the columns of the file were divided by.
    is_scaled : bool
    """

    data: Data
    target: Target
    problem: Problem
    scale: NDArray[np.float64]
    is_scaled: bool


def read_case(args: argparse.Namespace, **penalty: Any) -> Case:
    """Read a file as the options say; `penalty` are further arguments of `Problem.build`."""
    data = read_data(args.file, args.target, args.drop, args.categorical)
    target = as_target(data, args.loss)
    groups = partition(data, args.groups, args.weights)
    is_scaled = data.is_table if args.standardize is None else args.standardize
    X, scale = standardised(data.X, args.intercept) if is_scaled else (data.X, np.ones(data.X.shape[1]))
    problem = Problem.build(
        X, target.y, groups, loss=target.loss, intercept=args.intercept, **dict(args.loss_param), **penalty
    )
    return Case(data, target, problem, scale, is_scaled)


def opening(case: Case, args: argparse.Namespace) -> Iterator[str]:
    """What was read and what was assumed."""
    data, problem = case.data, case.problem
    n, p = problem.design.shape
    G = len(problem.groups)
    yield f"{args.file}: {n} samples, {p} features in {G} groups, target {data.target!r}, {case.target.loss} loss"
    if args.quiet:
        return
    yield from data.remarks
    yield from filter(None, [case.target.remark])
    if args.groups is None and data.labels is None and G == p:
        yield "Every feature is a group of its own; --groups says otherwise."
    if case.is_scaled:
        yield "Columns were scaled to unit root mean square; --no-standardize takes them as they are."


def answer(case: Case, solution: Solution, chosen: str, args: argparse.Namespace) -> Iterator[str]:
    """The solution in words, its coefficients if asked for, and the model file."""
    data, target, problem = case.data, case.target, case.problem
    yield ""
    yield from describe_solution(solution, chosen, "scaled columns" if case.is_scaled else "")
    model = model_of(solution, features=data.features, target=data.target, classes=target.classes, scale=case.scale)
    if args.coefficients:
        w, b = problem.matrix(model["coefficients"]), np.atleast_1d(model["intercept"])
        outputs = target.classes if len(target.classes) == w.shape[1] else [str(k) for k in range(w.shape[1])]
        yield from ["", *describe_coefficients(w, b, data.features, outputs)]
    yield ""
    if args.save:
        save_model(model, args.save)
        yield f"Saved the model in {args.save}."


def choose(found: Path | CrossValidation, rule: str, words: Mapping[str, str] = RULES) -> tuple[Solution, str]:
    """The solution that a rule chooses, and the rule in words."""
    if rule not in ("min", "1se"):
        return (found.path if isinstance(found, CrossValidation) else found).best(rule), words[rule]
    assert isinstance(found, CrossValidation)
    k = found.best_index if rule == "min" else found.one_se_index
    return found.choose(rule), f"{words[rule]}; here {found.mean[k]:.5g} ± {found.standard_error[k]:.2g}"


def rule_of(args: argparse.Namespace) -> str:
    """The rule that was named, or the usual one."""
    return args.rule or ("bic" if args.cv is None else "min")


def check_rule(args: argparse.Namespace) -> None:
    """ValueError if a rule needs folds and there are none."""
    if args.rule in ("min", "1se") and args.cv is None:
        raise ValueError(f"rule {args.rule!r} compares held-out losses: add --cv.")


def check_outputs(args: argparse.Namespace) -> None:
    """ValueError if a file that is asked for cannot be written under its name."""
    if args.plot:
        check_figure_file(args.plot)
    if args.save:
        check_model_file(args.save)
