"""The command `select`: at most k groups for a file, for one k or a path of them."""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from sparseopt.cli.case import RULES, Case, answer, check_outputs, check_rule, choose, opening, read_case, rule_of
from sparseopt.cli.certify import certified, check_prefix
from sparseopt.cli.describe import describe_sizes, size_of
from sparseopt.cli.figures import draw_sizes
from sparseopt.evidence import certify, certify_path
from sparseopt.problem import Problem
from sparseopt.selection import SubsetPath, select, select_path
from sparseopt.solution import ConvergenceWarning, Solution
from sparseopt.validation import CrossValidation, cross_validate_subsets

__all__ = ["run_select"]

Found = TypeVar("Found")

_RULES = {
    **RULES,
    "1se": "the fewest groups within one standard error of the smallest held-out loss",
    "bonferroni": "the smallest fit with Bonferroni's price",
    "gap": "the largest break in what a group brings",
}
_RIDGE = 1e-4  # for classes, as in GroupSubsetClassifier


def run_select(args: argparse.Namespace) -> Iterator[str]:
    """The lines that `sparseopt select` prints, as they become known; writes the files asked for."""
    started = time.perf_counter()
    options = _check_options(args)
    case = _with_penalty(read_case(args, lam=0.0), args)
    _check_size(case.problem, args.k)
    yield from opening(case, args)
    if args.ridge is None and case.target.classes and not args.quiet:
        yield f"A ridge of {_RIDGE:g} keeps coefficients finite where groups separate classes; --ridge sets another."
    if isinstance(args.k, int):
        solution = _suited(args, lambda: select(case.problem, args.k, **options))
        yield from answer(case, solution, "as given", args)
        if args.certify is not None:
            yield from certified({f"subset_{args.k}": certify(solution, seconds=args.seconds)}, case, args)
    else:
        found = _suited(args, lambda: _path(case.problem, args, options))
        rule = rule_of(args)
        solution, chosen = choose(found, rule, _RULES)
        k = size_of(solution)
        yield ""
        yield from describe_sizes(found, rule, k)
        yield from answer(case, solution, chosen, args)
        if args.plot:
            draw_sizes(found, args.plot, rule, k, str(args.file))
            yield f"Drew the choices in {args.plot}."
        if args.certify is not None:
            path: Any = found.path if isinstance(found, CrossValidation) else found
            progress = False if args.quiet else None
            yield from certified(certify_path(path, seconds=args.seconds, progress=progress), case, args)
    _warn(solution)
    yield f"{time.perf_counter() - started:.2f} s in all"


def _check_options(args: argparse.Namespace) -> dict[str, Any]:
    """What can be refused before a file is read; the options of `select`."""
    check_rule(args)
    if isinstance(args.k, int):
        for option, given, purpose in (
            ("--cv", args.cv, "chooses k"),
            ("--rule", args.rule, "chooses k"),
            ("--plot", args.plot, "draws several k"),
        ):
            if given is not None:
                raise ValueError(f"{option} {purpose}, but --k {args.k} is one: give a range such as --k 0..{args.k}.")
    options = dict(args.method_option)
    for name in ("problem", "k", "start", "method", "sizes", "progress"):
        if name in options:
            raise ValueError(f"--method-option {name} is no option of a method: leave it out.")
    if args.time_limit is not None:
        if args.method != "exact":
            raise ValueError(f"--time-limit is for --method exact, not for {args.method!r}: leave it out.")
        options["time_limit"] = args.time_limit
    check_outputs(args)
    if args.certify is not None:
        check_prefix(args.certify)
    return {"method": args.method, **options}


def _with_penalty(case: Case, args: argparse.Namespace) -> Case:
    """The case with the ridge and the groups that are always in."""
    penalty = case.problem.penalty
    ridge = args.ridge if args.ridge is not None else _RIDGE if case.target.classes else 0.0
    groups = penalty.groups
    if args.always_in:
        from sparseopt.estimators.inputs import with_always_in

        known = groups.names
        given = [[text] if text in known else text.split(",") for text in args.always_in]
        groups = with_always_in(groups, [name.strip() for names in given for name in names])
    return replace(case, problem=replace(case.problem, penalty=replace(penalty, ridge=ridge, groups=groups)))


def _check_size(problem: Problem, k: int | Sequence[int] | None) -> None:
    """ValueError if more groups are asked for than there are."""
    count = int(np.count_nonzero(problem.penalty.penalised))
    several = (k,) if isinstance(k, int) else (0,) if k is None else k
    most = several[-1] if isinstance(several, range) else max(several)
    if most > count:
        raise ValueError(f"--k asks for {most} groups, but there are {count} to choose from: lower it.")


def _path(problem: Problem, args: argparse.Namespace, options: dict[str, Any]) -> SubsetPath | CrossValidation:
    progress = False if args.quiet else None
    if args.cv is None:
        return select_path(problem, args.k, progress=progress, **options)
    return cross_validate_subsets(problem, args.k, cv=args.cv, n_jobs=args.jobs, progress=progress, **options)


def _suited(args: argparse.Namespace, run: Callable[[], Found]) -> Found:
    """What `run` returns; where Python complains of the type of an option, the option is named."""
    try:
        return run()
    except TypeError as error:
        if not args.method_option or str(error).startswith("option "):
            raise
        given = ", ".join(f"{name}={value}" for name, value in args.method_option)
        raise ValueError(f"--method-option {given} does not suit --method {args.method} ({error}): mend it.") from error


def _warn(solution: Solution) -> None:
    if not solution.status.ok:
        warnings.warn(solution.status.value, ConvergenceWarning, stacklevel=2)
