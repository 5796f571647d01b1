"""The command `solve`: from a file and options to a solution, its table, plot and model file."""

from __future__ import annotations

import argparse
import time
from collections.abc import Generator, Iterator
from typing import Any

from sparseopt.cli.case import Case, answer, check_outputs, check_rule, choose, opening, read_case, rule_of
from sparseopt.cli.figures import draw
from sparseopt.paths import lam_max, path
from sparseopt.penalty import named_regularizer
from sparseopt.problem import Problem
from sparseopt.solution import Path, Solution
from sparseopt.solvers import solve
from sparseopt.validation import CrossValidation, cross_validate

__all__ = ["run_solve", "solved"]


def run_solve(args: argparse.Namespace) -> Iterator[str]:
    """The lines that `sparseopt solve` prints, as they become known; writes the files asked for."""
    started = time.perf_counter()
    yield from solved(args)
    yield f"{time.perf_counter() - started:.2f} s in all"


def solved(args: argparse.Namespace) -> Generator[str, None, tuple[Case, Solution]]:
    """The same without the time; returns the problem and the solution chosen."""
    _check_options(args)
    case = read_case(
        args,
        penalty=_regularizer(args.penalty, args.param),
        lam=1.0,
        composite=args.composite,
        l1_ratio=args.l1_ratio,
        ridge=args.ridge,
    )
    yield from opening(case, args)
    found, solution, chosen = _solution(case.problem, args)
    if found is not None and not args.quiet:
        lams = found.lams
        yield f"path of {len(lams)} lam from {lams[0]:.4g} to {lams[-1]:.4g}" + (
            f", {found.fold_losses.shape[1]} folds" if isinstance(found, CrossValidation) else ""
        )
    yield from answer(case, solution, chosen, args)
    if args.plot and found is not None:
        rule = rule_of(args)
        mark = rule.upper() if rule.endswith("ic") else rule
        draw(found, args.plot, {mark: solution.problem.lam}, str(args.file))
        yield f"Drew the path in {args.plot}."
    return case, solution


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
    check_rule(args)
    if args.lam is not None and args.cv is not None:
        raise ValueError("--cv chooses lam, which --lam gives already: leave one of them out.")
    if args.lam is not None and args.rule:
        raise ValueError(f"rule {args.rule!r} chooses lam, which --lam gives already: leave one of them out.")
    if args.lam is not None and args.plot:
        raise ValueError("--plot draws a path, and --lam asks for one solution only: leave one of them out.")
    check_outputs(args)


def _solution(problem: Problem, args: argparse.Namespace) -> tuple[Path | CrossValidation | None, Solution, str]:
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
    return found, *choose(found, rule_of(args))
