"""Fitted models in files that need no sparseopt to read, and no pickle.

The prediction for a row x of features is coefficients' x + intercept, passed through the response of the loss: itself
for squares and huber, exp for poisson, 1 / (1 + exp(-z)) for logistic (the probability of classes[1]), softmax for
multinomial. Coefficients are in the units of the data.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from sparseopt import __version__
from sparseopt.cardinality import AtMost
from sparseopt.penalty import Composite
from sparseopt.solution import Solution

__all__ = ["check_model_file", "load_model", "model_of", "save_model"]


def check_model_file(file: str | Path) -> None:
    """ValueError unless the name ends in .json or .npz and the folder exists."""
    if Path(file).suffix not in (".json", ".npz"):
        raise ValueError(f"A model is saved as .json or .npz, not as {str(file)!r}: change the ending.")
    if not Path(file).parent.is_dir():
        raise ValueError(f"The folder of {str(file)!r} does not exist: create it first.")


def model_of(
    solution: Solution,
    *,
    features: tuple[str, ...],
    target: str,
    classes: tuple[str, ...] = (),
    scale: Any = 1.0,
) -> dict[str, Any]:
    """A solution as a dict of numbers, strings and arrays; coefficients are divided by `scale` (p,)."""
    problem, penalty = solution.problem, solution.problem.penalty
    groups = problem.groups
    form = (
        {"penalty": "at most k groups", "k": penalty.k} if isinstance(penalty, AtMost) else {"penalty": str(penalty.q)}
    )
    return {
        "sparseopt": __version__,
        "target": target,
        "classes": np.array(classes, dtype=str),
        "features": np.array(features, dtype=str),
        "groups": np.array(groups.names, dtype=str)[groups.group_of],
        "coefficients": (problem.matrix(solution.w).T / scale).T.reshape(solution.w.shape),
        "intercept": np.asarray(solution.intercept, dtype=np.float64),
        "loss": problem.loss.name,
        **form,
        "composite": isinstance(penalty, Composite),
        "lam": penalty.lam,
        "l1_ratio": penalty.l1_ratio,
        "ridge": penalty.ridge,
        "objective": solution.objective,
        "loss_value": solution.loss,
        "relative_gap": np.nan if solution.gap is None else solution.gap,
        "stationarity": solution.stationarity,
        "status": solution.status.value,
    }


def save_model(model: dict[str, Any], file: str | Path) -> None:
    """Write the dict of `model_of` as .json or .npz."""
    check_model_file(file)
    if Path(file).suffix == ".npz":
        arrays: dict[str, Any] = {key: np.asarray(value) for key, value in model.items()}
        np.savez_compressed(file, **arrays)
        return
    # JSON has no NaN: where there is no gap, null.
    plain = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in model.items()}
    plain["relative_gap"] = None if np.isnan(model["relative_gap"]) else model["relative_gap"]
    Path(file).write_text(json.dumps(plain, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def load_model(file: str | Path) -> dict[str, Any]:
    """Read a model back: the dict that `model_of` made, whichever format it was saved in.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt.cli import load_model
    >>> from sparseopt.cli.saved import model_of, save_model
    >>> from sparseopt import Problem, bcd
    >>> solution = bcd(Problem.build(np.eye(3), [2.0, 0.0, 1.0], lam=0.1, intercept=False))
    >>> save_model(model_of(solution, features=("a", "b", "c"), target="y"), "model.json")
    >>> model = load_model("model.json")
    >>> model["coefficients"].round(3), model["loss"]
    (array([1.7, 0. , 0.7]), 'squares')
    """
    check_model_file(file)
    if Path(file).suffix == ".npz":
        with np.load(file, allow_pickle=False) as archive:
            model = {key: archive[key] for key in archive.files}
        return {key: value.item() if value.ndim == 0 and key != "intercept" else value for key, value in model.items()}
    model = json.loads(Path(file).read_text(encoding="utf-8"))
    for key in ("classes", "features", "groups"):
        model[key] = np.array(model[key], dtype=str)
    for key in ("coefficients", "intercept"):
        model[key] = np.array(model[key], dtype=np.float64)
    model["relative_gap"] = np.nan if model["relative_gap"] is None else model["relative_gap"]
    return dict(model)
