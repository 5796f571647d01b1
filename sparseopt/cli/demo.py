"""The command `demo`: three tables that come with scikit-learn, solved, described and drawn."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from sparseopt.cli.case import choose
from sparseopt.cli.describe import describe_solution
from sparseopt.cli.figures import can_draw, draw
from sparseopt.datasets import Table, breast_cancer, diabetes_additive, digits_rows
from sparseopt.problem import Problem
from sparseopt.validation import cross_validate

__all__ = ["DEMOS", "run_demo"]


class Demo(NamedTuple):
    """A table, the question it answers, and how finely the path is resolved."""

    table: Callable[[], Table]
    question: str
    n_lams: int
    ratio: float
    tol: float
    folds: int


def _few_digits() -> Table:
    """The first 300 images: enough to see which rows matter, and solved in seconds."""
    table = digits_rows()
    return table._replace(X=table.X[:300], y=table.y[:300])


DEMOS = {
    "breast": Demo(breast_cancer, "Which measurements of cell nuclei tell tumours apart?", 60, 1e-3, 1e-4, 5),
    "diabetes": Demo(diabetes_additive, "Which variables, bent by splines, predict diabetes?", 60, 1e-2, 1e-4, 5),
    "digits": Demo(_few_digits, "Which rows of pixels tell handwritten digits apart?", 20, 2e-2, 1e-3, 3),
}


def run_demo(args: argparse.Namespace) -> Iterator[str]:
    """The lines that `sparseopt demo` prints, as they become known; draws a figure for each table."""
    folder = Path(args.plot)
    if not folder.is_dir():
        raise ValueError(f"--plot {args.plot!r} is no folder: create it first.")
    if not can_draw():
        yield "matplotlib is not installed, so nothing is drawn: pip install matplotlib for figures."
    yield "The first run compiles the kernels, which may take a minute."
    for name in DEMOS if args.data == "all" else [args.data]:
        demo = DEMOS[name]
        started = time.perf_counter()
        table = demo.table()
        n, p = table.X.shape
        yield ""
        yield f"{name}: {demo.question}"
        yield f"{n} samples, {p} features in {len(table.group_names)} groups, {table.loss} loss"
        problem = Problem.build(table.X, table.y, [table.group_names[g] for g in table.groups], loss=table.loss)
        found = cross_validate(problem, cv=demo.folds, n_lams=demo.n_lams, ratio=demo.ratio, tol=demo.tol)
        solution, chosen = choose(found, "1se")
        yield from describe_solution(solution, chosen)
        if can_draw():
            file = folder / f"sparseopt_{name}.png"
            draw(found, file, {"smallest": found.best.problem.lam, "one s.e.": solution.problem.lam}, demo.question)
            yield f"Drew the path in {file}."
        yield f"{time.perf_counter() - started:.2f} s"
