"""Running checks: each with random numbers of its own, so that the choice of checks does not change what one finds."""

from __future__ import annotations

import difflib
import json
import zlib
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparseopt.proofs_checks.evidence import SIZES, Evidence, Finding, Statement, Verdict

if TYPE_CHECKING:
    from sparseopt.proofs_checks.own_regularizer import Summary

__all__ = ["STATEMENTS", "as_json", "run", "statement", "write_certificates", "write_evidence"]

# In the order of the report: the paper first, then what goes beyond it.
STATEMENTS = (
    "variational_masks",
    "regularizer_hypotheses",
    "lambertw_thresholds",
    "sum_norm_bounds",
    "unique_minimiser",
    "dropped_hypotheses",
    "one_group_window",
    "argmax_outside_window",
    "sequential_selection",
    "omp_rate",
    "ompr_rate",
    "block_coherence",
    "prox_and_block_functions",
    "stationarity_identity",
    "sequential_attention_recipe",
    "paper_tables",
    "optimality_gap",
    "separable_bound",
    "expm1_repair",
    "normalised_softmax",
    "sparse_stationary_points",
    "reverse_maps",
    "machine_proofs",
)


def statement(name: str) -> Statement:
    """The statement of that name.

    Raises
    ------
    ValueError
        If there is none.
    """
    if name not in STATEMENTS:
        near = difflib.get_close_matches(name, STATEMENTS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose among {', '.join(STATEMENTS)}."
        raise ValueError(f"statement {name!r} is unknown: {hint}")
    found: Statement = import_module(f"sparseopt.proofs_checks.{name}").STATEMENT
    return found


def run(
    only: Iterable[str] | None = None,
    *,
    size: str = "small",
    seed: int = 0,
    jobs: int | None = None,
    regularizer: Any = None,
    progress: bool | None = None,
) -> list[Evidence]:
    """Check statements.

    Parameters
    ----------
    only : names, optional
        Of `STATEMENTS`; default all, or with a regularizer all that take one.
    size : str
        "small", "medium" or "large": how many instances, and how large.
    seed : int
        Same seed, same evidence.
    jobs : int, optional
        Checks at a time, by joblib.
    regularizer : optional
        A regularizer of one's own, for the checks that take one.
    progress : bool, optional
        Show a progress bar; by default after two seconds on a terminal.

    Returns
    -------
    list of Evidence, in the order of `STATEMENTS`.

    Raises
    ------
    ValueError
        If a name or the size is unknown.
    """
    from joblib import Parallel, delayed

    from sparseopt.progress import shown

    if size not in SIZES:
        raise ValueError(f"size is {size!r}, which is unknown: choose one of {', '.join(SIZES)}.")
    names = [statement(name).name for name in (STATEMENTS if only is None else only)]
    if regularizer is not None:
        names = [name for name in names if statement(name).takes_regularizer]
    ordered = [name for name in STATEMENTS if name in names]
    tasks = (delayed(_check)(name, size, seed, regularizer) for name in ordered)
    results = Parallel(n_jobs=jobs, return_as="generator")(tasks)
    return list(shown(results, progress, len(ordered)))


def as_json(found: Sequence[Evidence], size: str, seed: int, own: Summary | None = None) -> str:
    """Evidence as JSON text, the same for the same seed byte for byte; `own` is about a regularizer of one's own."""
    content: dict[str, Any] = {"size": size, "seed": seed}
    if own is not None:
        content["regularizer"] = own.as_dict()
    content["statements"] = [_entry(evidence) for evidence in found]
    return json.dumps(content, indent=1, allow_nan=False)


def write_evidence(
    found: Sequence[Evidence], path: str | Path, size: str, seed: int, own: Summary | None = None
) -> None:
    """Write `as_json` to a file."""
    Path(path).write_text(as_json(found, size, seed, own) + "\n", encoding="utf-8")


def write_certificates(found: Sequence[Evidence], folder: str | Path) -> None:
    """Save the reports of all findings in a folder, which exists, under their names."""
    for evidence in found:
        for finding in evidence.findings:
            for name, report in finding.reports.items():
                report.save(Path(folder) / name)


def _check(name: str, size: str, seed: int, regularizer: Any) -> Evidence:
    from threadpoolctl import threadpool_limits

    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    with threadpool_limits(1):  # how a sum is split among threads shows in its last digits
        if regularizer is None:
            return statement(name).check(rng, size)
        try:
            return statement(name).check(rng, size, regularizer=regularizer)
        except (ArithmeticError, ValueError, AssertionError, LookupError) as error:
            said = f"{type(error).__name__}: {' '.join(str(error).split())}"
            failed = Finding("The check runs to its end", Verdict.REFUTED, detail=said, violation=1.0)
            return Evidence(name, (failed,))


def _entry(evidence: Evidence) -> dict[str, Any]:
    return {
        "statement": evidence.statement,
        "as_expected": evidence.as_expected,
        "tried": evidence.tried,
        "findings": [_finding(finding) for finding in evidence.findings],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "claim": finding.claim,
        "verdict": finding.verdict.value,
        "expected": finding.expected.value,
        "as_expected": finding.as_expected,
        "tried": finding.tried,
        "violation": _number(finding.violation),
        "tolerance": _number(finding.tolerance),
        "detail": finding.detail,
        "printed": finding.printed,
        "corrected": finding.corrected,
        "certificates": list(finding.certificates),
    }


def _number(x: float) -> float | str:
    return x if np.isfinite(x) else str(x)
