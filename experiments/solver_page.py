"""The page of `bench_solvers`: index.md with tables and pictures, from the numbers of its JSON alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparseopt.experiments.growth_report import Row as Size
from sparseopt.experiments.growth_report import draw, exponent
from sparseopt.experiments.race import Row
from sparseopt.experiments.solver_figures import draw_ratios
from sparseopt.experiments.solver_report import CONCAVE, Ratio, goals, mean_ratio, ratios
from sparseopt.experiments.tables.text import Grid, Heading, Part, as_markdown

__all__ = ["write_page"]

_HOW = (
    "Medians of runs that alternate, at the loosest tolerance (a power of ten) whose answers pass: objectives within "
    "1e-6 of the best known lower bound at every lam, judged by one evaluator that is part of no package. Each package "
    "counts with its best number of threads and its fastest mode, float32 and covariance mode included."
)
_MEMORY = (
    "MB of resident memory beyond what a fresh process had with the data loaded: at most during import and first call "
    "(peak), and at most during a second call beyond what was there before it (extra). First call: seconds of import, "
    "kernels from disk and solve, minus those of the second call. Gap: share of the time in dual point, dual bound and "
    "primal value; check: with the gradients of all groups, which a solver without gaps needs as well."
)


def write_page(
    folder: Path,
    rows: Sequence[Row],
    about: Mapping[str, Any],
    growth: Mapping[str, Any] | None = None,
    selection: Mapping[str, Any] | None = None,
    notes: str = "",
) -> Path:
    """Write index.md and its pictures.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    rows : list of Row
        Of `bench_solvers`.
    about : dict
        Its environment.
    growth, selection : dict, optional
        What `bench_growth --json` and `bench_selection --json` wrote.
    notes : str
        Markdown that goes under the goals as it is.

    Returns
    -------
    Path
        Of index.md.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = ratios(rows)
    text = ["# Solvers compared\n", as_markdown([_environment(about), _HOW, Heading("Aims"), _goals(rows)])]
    text += [as_markdown(_above(found))] + ([notes.rstrip() + "\n"] if notes else [])
    text.append(as_markdown([Heading("Time")]))
    if draw_ratios(found, "time", folder / "time.png"):
        text.append("![time over that of the fastest peer](time.png)\n")
    text.append(as_markdown([_times(found), Heading("Memory, first calls, certificates"), _MEMORY]))
    if draw_ratios(found, "memory", folder / "memory.png"):
        text.append("![peak memory over that of the leanest peer](memory.png)\n")
    text.append(as_markdown([_costs(rows)]))
    if growth is not None:
        sizes = [Size(**each) for each in growth["rows"]]
        draw(sizes, folder / "growth.png")
        text.append(as_markdown([Heading("Growth"), "Seconds of a group-lasso path while one thing grows."]))
        text.append("![seconds over size](growth.png)\n")
        text.append(as_markdown([_growth(sizes)]))
    if selection is not None:
        text.append(as_markdown([Heading("Best subsets"), _selection(selection["rows"])]))
    text.append(as_markdown([Heading("Every competitor"), *_details(rows)]))
    page = folder / "index.md"
    page.write_text("\n".join(text), encoding="utf-8")
    return page


# -- tables ------------------------------------------------------------------------------------------------------------


def _environment(about: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    threads = about["threads"] if isinstance(about["threads"], list) else [about["threads"]]
    counts = " or ".join(map(str, threads))
    machine = f"{about['machine']} with {about['cpus']} cores, {counts} threads"
    return f"{machine}, Python {about['python']}; versions: {versions}."


def _goals(rows: Sequence[Row]) -> Grid:
    lines = [("what", "at most", "measured", "")]
    for words, bound, figure in goals(rows):
        state = "" if figure is None else "reached" if figure <= bound else "not reached"
        lines.append((words, f"{bound:g}", "not measured" if figure is None else f"{figure:.2f}", state))
    return Grid((tuple(lines),), words=1)


def _above(found: Sequence[Ratio]) -> list[Part]:
    """What stays above 0.7, with what is known of it."""
    high = [each for each in found if each.task not in CONCAVE and each.time is not None and each.time > 0.7]
    if not high:
        return []
    lines = [("above 0.7", "size", "task", "ratio", "rival", "accuracy", "of the rival", "gap %", "check %")]
    for each in high:
        assert each.own is not None  # a ratio has both
        assert each.rival is not None
        shares = (_percent(each.own.gap), _percent(each.own.check))
        accuracies = f"{each.own.accuracy:.0e}", f"{each.rival.accuracy:.0e}"
        lines.append((each.problem, each.size, each.task, f"{each.time:.2f}", each.rival.name, *accuracies, *shares))
    return [Grid((tuple(lines),), words=3)]


def _times(found: Sequence[Ratio]) -> Grid:
    head = ("problem", "size", "task", "ours", "seconds", "threads", "rival", "seconds", "threads", "ratio")
    lines: list[tuple[str, ...]] = [head]
    for each in found:
        mine, other = _who(each.own), _who(each.rival)
        lines.append((each.problem, each.size, each.task, *mine, *other, _number(each.time, ".2f")))
    for size, task in dict.fromkeys((each.size, each.task) for each in found):
        mean = mean_ratio([each for each in found if (each.size, each.task) == (size, task)])
        if mean is not None:
            lines.append(("geometric mean", size, task, *[""] * 6, f"{mean:.2f}"))
    return Grid((tuple(lines),), words=4)


def _who(row: Row | None) -> tuple[str, str, str]:
    return ("-", "-", "-") if row is None else (row.name, _number(row.seconds, ".3g"), str(row.threads))


def _costs(rows: Sequence[Row]) -> Grid:
    lines = [("problem", "size", "task", "who", "peak", "extra", "first call", "gap %", "check %")]
    for row in rows:
        if row.first is not None and row.second is not None:
            label = row.name if row.penalty == "l2" else f"{row.name} {row.penalty}"
            costs = (_number(row.peak, ".0f"), _number(row.extra, ".0f"), f"{row.first - row.second:.2f}")
            lines.append((row.problem, row.size, row.task, label, *costs, _percent(row.gap), _percent(row.check)))
    return Grid((tuple(lines),), words=4)


def _growth(sizes: Sequence[Size]) -> Grid:
    lines = [("direction", "from", "to", "seconds", "seconds", "exponent", "last step")]
    for name in dict.fromkeys(row.direction for row in sizes):
        x, y = zip(*((row.size, row.seconds) for row in sizes if row.direction == name), strict=True)
        slopes = (f"{exponent(x, y):.2f}", f"{exponent(x[-2:], y[-2:]):.2f}") if len(x) > 1 else ("-", "-")
        lines.append((name, f"{x[0]:g}", f"{x[-1]:g}", f"{y[0]:.3g}", f"{y[-1]:.3g}", *slopes))
    return Grid((tuple(lines),), words=1)


def _selection(rows: Sequence[Mapping[str, Any]]) -> Grid:
    lines = [("case", "size of the subset", "who", "seeds", "exact", "true", "false", "seconds", "ratio")]
    for row in rows:
        shown = [_number(row[key], ".2f") for key in ("exact", "true", "false")]
        shown += [_number(row["seconds"], ".3g"), _number(row["ratio"], ".2f")]
        lines.append((row["case"], row["task"], row["name"], str(row["seeds"]), *shown))
    return Grid((tuple(lines),), words=3)


def _details(rows: Sequence[Row]) -> list[Part]:
    """All rows of one problem and task, fastest first."""
    head = ("who", "threads", "seconds", "accuracy", "tol", "epochs", "cold s", "objective", "")
    parts: list[Part] = []
    for problem, size, task in dict.fromkeys((row.problem, row.size, row.task) for row in rows):
        mine = [row for row in rows if (row.problem, row.size, row.task) == (problem, size, task)]
        mine.sort(key=lambda row: (row.status != "passed", row.seconds or 0.0))
        lines = [(f"{problem} {size} {task}", *head[1:])]
        for row in mine:
            numbers = (_number(row.seconds, ".3g"), _number(row.accuracy, ".0e"), _number(row.tol, ".0e"))
            rest = (_number(row.epochs, "d"), _number(row.cold, ".1f"), _number(row.objective, ".7g"))
            name = row.name if row.penalty == "l2" else f"{row.name} {row.penalty}"
            lines.append((name, str(row.threads), *numbers, *rest, "" if row.status == "passed" else row.status))
        parts.append(Grid((tuple(lines),), words=1))
    return parts


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100.0 * share:.1f}"


def _number(value: float | None, how: str) -> str:
    return "-" if value is None else format(value, how)
