"""Which planted groups are found: every regularizer and every selector on the same linear regressions.

    python -m sparseopt.experiments.group_recovery --json group-recovery.json --figures .    16 minutes of one CPU
    python -m sparseopt.experiments.group_recovery --quick                                   seconds: small, few methods
    python -m sparseopt.experiments.group_recovery --from group-recovery.json --figures .    tables and pictures again

Problems, methods and the rules by which a solution is taken from a path are in `planted_groups`; what is made of the
numbers in `group_recovery_report`, `group_recovery_claims` and `group_recovery_figures`. The panels:

    n            samples, all methods but three: the phase transition
    correlation  inside groups, and between neighbouring groups, the same methods
    map          samples by true groups, a few methods
    noise        signal-to-noise ratios, a few methods
    exact        small problems, where the best choice can be proved
    searched     problem (1) with the two q whose prox is a search, seconds for a path: a few problems only

All methods of a panel see the same problems: seeds 0, 1, ...
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sparseopt.experiments.bench_solvers import environment
from sparseopt.experiments.group_recovery_claims import conclusions
from sparseopt.experiments.group_recovery_report import Row, read_rows, tables
from sparseopt.experiments.planted_groups import METHODS, RULES, Refits, Score, Setting, judge, largest_size, planted

__all__ = ["Outcome", "Panel", "main", "outcomes", "panels", "run"]

SEARCHED = ("composite-lambertw", "composite-expm1")  # without a fast prox: seconds for a path
_FAST = tuple(name for name in METHODS if name not in (*SEARCHED, "exact"))
_FEW = ("l2", "mcp", "power", "composite-log", "omp", "splicing")


class Panel(NamedTuple):
    """Settings that share methods and seeds 0, ..., seeds - 1."""

    name: str
    settings: tuple[Setting, ...]
    methods: tuple[str, ...]
    seeds: int


def panels(quick: bool = False) -> tuple[Panel, ...]:
    """What is run. `quick`: the same pictures from small problems."""
    if quick:
        small, few = Setting(n=30, n_groups=12, size=3, active=2), ("l2", "mcp", "composite-log", "omp", "splicing")
        return (
            Panel("n", tuple(small._replace(n=n) for n in (12, 20, 30)), few, 6),
            Panel("correlation", (small._replace(within=0.9), small._replace(between=0.9)), few, 4),
            Panel("map", tuple(small._replace(n=n, active=k) for k in (1, 3) for n in (12, 20, 30)), few, 3),
            Panel("noise", tuple(small._replace(snr=snr) for snr in (1.0, 20.0)), few, 4),
            Panel("exact", (small._replace(n=16),), ("l2", "splicing", "exact"), 3),
        )
    one = Setting()
    correlated: list[dict[str, Any]] = [{name: rho} for name in ("within", "between") for rho in (0.3, 0.6, 0.9)]
    small = Setting(n_groups=20, active=3)
    return (
        Panel("n", tuple(one._replace(n=n) for n in (40, 50, 60, 70, 80, 100, 120)), _FAST, 32),
        Panel("correlation", tuple(one._replace(n=80, **how) for how in correlated), _FAST, 14),
        Panel(
            "map",
            tuple(one._replace(n=n, active=k) for k in (1, 2, 3, 5, 7, 10) for n in (20, 30, 45, 60, 80, 110, 150)),
            _FEW,
            14,
        ),
        Panel("noise", tuple(one._replace(n=80, snr=snr) for snr in (0.5, 1.0, 2.0, 20.0)), _FEW, 24),
        Panel("exact", tuple(small._replace(n=n) for n in (24, 30, 40)), (*_FEW, "exact"), 16),
        Panel("searched", (one,), (*SEARCHED, "lambertw", "expm1", "l2"), 3),
    )


# -- the run -----------------------------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """A method on one problem; without, short, cut: no solution has exactly k groups, k, as many as ebic looks at."""

    scores: dict[str, Score]
    without: bool
    short: bool
    cut: bool
    inaccurate: int
    seconds: float


def outcomes(setting: Setting, seed: int, methods: Sequence[str]) -> dict[str, Outcome]:
    """All methods on one problem, in one thread."""
    from threadpoolctl import threadpool_limits

    made = planted(setting, seed)
    refits = Refits(made.problem)
    sizes = range(max(min(30, largest_size(made.problem)), setting.active) + 1)
    found = {}
    with threadpool_limits(1):
        for name in methods:
            began = time.process_time()  # others may use the machine
            trace = METHODS[name].trace(made.problem, [setting.active] if name == "exact" else sizes)
            seconds, most = time.process_time() - began, int(trace.n_active.max())
            found[name] = Outcome(
                judge(made, trace.coefs, refits),
                without=setting.active not in trace.n_active,
                short=most < setting.active,
                cut=most < min(largest_size(made.problem), setting.n_groups),
                inaccurate=sum(not status.ok for status in trace.statuses),
                seconds=seconds,
            )
    return found


def run(panel: Panel, jobs: int = 1) -> list[Row]:
    """The rows of a panel: settings, methods, rules."""
    from joblib import Parallel, delayed

    tasks = [(setting, seed) for setting in panel.settings for seed in range(panel.seeds)]
    calls = (delayed(outcomes)(setting, seed, panel.methods) for setting, seed in tasks)
    began, shown, done = time.perf_counter(), time.perf_counter(), []
    for result in Parallel(n_jobs=jobs, return_as="generator")(calls):
        done.append(result)
        if time.perf_counter() - shown > 20.0:
            shown = time.perf_counter()
            print(f"  {panel.name}: {len(done)} of {len(tasks)} problems, {shown - began:.0f} s", flush=True)
    rows = []
    for at, setting in enumerate(panel.settings):
        mine = done[at * panel.seeds : (at + 1) * panel.seeds]
        for name in panel.methods:  # one size of exact is dear enough: the other rules have nothing to choose from
            rules = RULES[:1] if name == "exact" else RULES
            rows += [_row(panel.name, setting, name, rule, mine) for rule in rules]
    print(f"{panel.name}: {len(tasks)} problems, {time.perf_counter() - began:.0f} s", flush=True)
    return rows


def _row(panel: str, setting: Setting, name: str, rule: str, mine: Sequence[Mapping[str, Outcome]]) -> Row:
    results = [each[name] for each in mine]
    scores = [result.scores[rule] for result in results]
    like_omp = None
    if "omp" in mine[0]:
        theirs = [each["omp"].scores[rule].support for each in mine]
        like_omp = sum(np.array_equal(s.support, other) for s, other in zip(scores, theirs, strict=True))

    def mean(values: Sequence[float]) -> tuple[float, float]:
        spread = float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else float("nan")
        return round(float(np.mean(values)), 5), round(spread, 5)

    return Row(
        panel,
        setting._asdict(),
        name,
        METHODS[name].family,
        rule,
        exact="".join("01"[s.exact] for s in scores),
        better="".join("01"[s.better] for s in scores),
        true=mean([s.true for s in scores]),
        false=mean([s.false for s in scores]),
        groups=mean([float(len(s.support)) for s in scores]),
        error=mean([s.error for s in scores]),
        refitted=mean([s.refitted for s in scores]),
        like_omp=like_omp,
        without=sum(result.without for result in results),
        short=sum(result.short for result in results),
        cut=sum(result.cut for result in results),
        inaccurate=sum(result.inaccurate for result in results),
        seconds=round(float(np.median([result.seconds for result in results])), 5),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment; see `--help`."""
    options = _parser().parse_args(arguments)
    if options.source is not None:
        stored = json.loads(options.source.read_text(encoding="utf-8"))
        about, rows = stored["environment"], read_rows(stored)
    else:
        began = time.perf_counter()
        about, rows = environment([], 1), []
        for panel in panels(options.quick):
            able = tuple(name for name in panel.methods if name in options.methods)
            if able:
                rows += run(panel._replace(methods=able, seeds=options.seeds or panel.seeds), options.jobs)
        about["seconds"], about["cpu_seconds"] = round(time.perf_counter() - began), round(time.process_time())
    print(f"{tables(rows)}\n\n{conclusions(rows)}")
    if options.json is not None:
        settings = list({str(row.setting): row.setting for row in rows}.values())  # each once: rows have its number
        listed = [{**asdict(row), "setting": settings.index(row.setting)} for row in rows]
        stored = {"environment": about, "settings": settings, "rows": listed}
        options.json.write_text(json.dumps(stored, separators=(",", ":")).replace('{"panel"', '\n{"panel"') + "\n")
    if options.figures is not None:
        from sparseopt.experiments.group_recovery_figures import draw

        print("Drew " + ", ".join(str(file) for file in draw(rows, options.figures)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sparseopt.experiments.group_recovery",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, names = parser.add_argument, list(METHODS)
    add("--quick", action="store_true", help="small problems, five methods: seconds")
    add("--methods", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    add("--seeds", type=int, metavar="N", help="problems per setting (default: by panel, 3 to 32)")
    add("--jobs", type=int, default=1, metavar="N", help="processes (default 1)")
    add("--json", type=Path, metavar="FILE", help="write all numbers to this file")
    add("--figures", type=Path, metavar="FOLDER", help="draw into this folder")
    add("--from", dest="source", type=Path, metavar="FILE", help="run nothing: report on this file of --json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
