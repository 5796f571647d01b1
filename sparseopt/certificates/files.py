"""Certificates in files that anyone can read: NAME.json with the claims, NAME.npz beside it with the arrays, no pickle.

    {"format": "sparseopt certificates", "version": 1,
     "arrays":  {"file": "NAME.npz", "sha256": {array: hex}},
     "problem": {"loss": {"name", "params"}, "penalty": "penalty" | "composite" | "at_most", "q": {"name", "params"},
                 "lam", "l1_ratio", "ridge", "k", "intercept", "n_samples", "names"},
     "claims":  [{"kind", "statement", "verdict", "numbers", "tolerance", "not_proved", "evidence": {name: array}}]}

Floats are written by repr, which reads back exactly; inf and nan are strings. A hash runs over the type, the shape and
the bytes of an array in C order. Arrays: X (n, p), or X_data, X_indices, X_indptr by columns; y (n, K), s (n,), offset
(n, K) if there is one; group_indices, group_indptr, group_weights; w (p,) or (p, K), b (K,); the evidence of claim i
as claim<i>_<name>.

A hash tells accidents from content; what the claims are worth, `sparseopt.certificates.verify` recomputes.
"""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sparseopt.certificates.certificate import Report

__all__ = ["load_report", "read", "save_report"]

FORMAT, VERSION = "sparseopt certificates", 1

_Arrays = dict[str, NDArray[Any]]


def save_report(report: Report, path: str | Path) -> None:
    """Write a report as NAME.json and NAME.npz.

    Parameters
    ----------
    report : Report
        Problem, coefficients and certificates.
    path : str or Path
        NAME.json; NAME.npz is written beside it.

    Raises
    ------
    ValueError
        If the name does not end in .json, or the folder does not exist.
    TypeError
        If X is not in memory: the file holds X.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import Problem
    >>> from sparseopt.certificates import Report
    >>> problem = Problem.build(np.eye(2), [2.0, 0.0], lam=0.5, intercept=False)
    >>> save_report(Report(problem, np.array([1.0, 0.0]), 0.0, ()), "report.json")
    >>> document, arrays = read("report.json")
    >>> document["problem"]["lam"], arrays["w"]
    (0.5, array([1., 0.]))
    """
    path = Path(path)
    if path.suffix != ".json":
        raise ValueError(f"path is {str(path)!r}: a report is saved as .json, with the arrays beside it as .npz.")
    if not path.parent.is_dir():
        raise ValueError(f"path is {str(path)!r}, whose folder does not exist: create it first.")
    arrays = _problem_arrays(report.problem)
    arrays["w"] = np.asarray(report.w, dtype=np.float64)
    arrays["b"] = np.broadcast_to(np.asarray(report.b, dtype=np.float64).reshape(-1), (report.problem.n_outputs,))
    claims = []
    for i, claim in enumerate(report.certificates):
        evidence = {name: f"claim{i}_{name}" for name in claim.evidence}
        arrays.update({key: np.asarray(claim.evidence[name]) for name, key in evidence.items()})
        claims.append(
            {
                "kind": claim.kind,
                "statement": claim.statement,
                "verdict": claim.verdict.name,
                "numbers": {name: _plain(value) for name, value in claim.numbers.items()},
                "tolerance": _plain(claim.tolerance),
                "not_proved": list(claim.not_proved),
                "evidence": evidence,
            }
        )
    document = {
        "format": FORMAT,
        "version": VERSION,
        "arrays": {
            "file": path.with_suffix(".npz").name,
            "sha256": {name: digest(array) for name, array in arrays.items()},
        },
        "problem": _problem_words(report.problem),
        "claims": claims,
    }
    odd = [name for name, array in arrays.items() if array.dtype.kind not in "fiub"]
    if odd:
        raise TypeError(f"array {odd[0]!r} has the type {arrays[odd[0]].dtype}: evidence must be numbers.")
    named: dict[str, Any] = arrays
    np.savez_compressed(path.with_suffix(".npz"), **named)
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def load_report(path: str | Path, q: Any = None) -> Report:
    """The report that `save_report` wrote, its problem built anew.

    Parameters
    ----------
    path : str or Path
        NAME.json.
    q : regularizer, optional
        The regularizer, if it is not one of the package: a file is never allowed to name code to run.

    Raises
    ------
    ValueError
        If the files are malformed or altered, or the regularizer is unknown; the sentence says what is wrong.
    """
    from sparseopt.certificates.certificate import Certificate, Report, Verdict

    document, arrays = read(path)
    claims = []
    for claim in document["claims"]:
        if claim["verdict"] not in Verdict.__members__:
            _refuse(path, f"has the verdict {claim['verdict']!r}, which is unknown")
        claims.append(
            Certificate(
                claim["kind"],
                claim["statement"],
                Verdict[claim["verdict"]],
                claim["numbers"],
                claim["tolerance"],
                tuple(claim["not_proved"]),
                {name: arrays[key] for name, key in claim["evidence"].items()},
            )
        )
    problem = _problem(document["problem"], arrays, q, path)
    b = arrays["b"]
    return Report(problem, arrays["w"], float(b[0]) if b.size == 1 else b, tuple(claims))


def read(path: str | Path) -> tuple[dict[str, Any], _Arrays]:
    """What the files hold, checked for form and hashes: the JSON document and the arrays by name.

    Numbers that JSON has no sign for ("inf", "-inf", "nan") are floats again. Nothing of the mathematics is checked.

    Raises
    ------
    ValueError
        If a file is missing, malformed, truncated or altered; the sentence says which part.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        document = json.loads(text, parse_constant=lambda name: _refuse(path, f"has the number {name}"))
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read ({error.strerror}): pass the .json file of a report.") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path.name} is not JSON ({error}): it is truncated, or not the file of a report.") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        _refuse(path, f"does not say that its format is {FORMAT!r}")
    if document.get("version") != VERSION:
        _refuse(path, f"has version {document.get('version')!r}, and this package reads {VERSION}")
    _check_form(document, _FORM, path, "")
    for claim in document["claims"]:
        _check_form(claim, _CLAIM, path, "claims.")
        claim["numbers"] = {name: _number(value) for name, value in claim["numbers"].items()}
        claim["tolerance"] = _number(claim["tolerance"])
    arrays = _read_arrays(path, document["arrays"])
    for claim in document["claims"]:
        lost = [key for key in claim["evidence"].values() if key not in arrays]
        if lost:
            _refuse(path, f"names the evidence {lost[0]!r}, which the arrays lack")
    _check_problem(document["problem"], arrays, path)
    return document, arrays


def digest(array: NDArray[Any]) -> str:
    """SHA-256 of the type, shape and C-order bytes of an array, as hex."""
    array = np.asarray(array)
    head = f"{array.dtype.str} {array.shape} ".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()


_FORM = {"arrays": dict, "arrays.file": str, "arrays.sha256": dict, "problem": dict, "claims": list} | {
    f"problem.{key}": kind
    for key, kind in {
        "loss": dict,
        "loss.name": str,
        "loss.params": dict,
        "penalty": str,
        "q": (dict, type(None)),
        "lam": (int, float),
        "l1_ratio": (int, float),
        "ridge": (int, float),
        "k": (int, type(None)),
        "intercept": bool,
        "n_samples": int,
        "names": list,
    }.items()
}
_CLAIM = {
    "kind": str,
    "statement": str,
    "verdict": str,
    "numbers": dict,
    "tolerance": (int, float, str),
    "not_proved": list,
    "evidence": dict,
}


def _check_form(document: Any, form: dict[str, Any], path: Path, prefix: str) -> None:
    for key, kind in form.items():
        value = document
        for part in key.split("."):
            value = value.get(part, ...) if isinstance(value, dict) else ...
        allowed = kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            _refuse(path, f"has no proper entry {prefix}{key}")


def _read_arrays(path: Path, entry: dict[str, Any]) -> _Arrays:
    file = path.with_name(Path(entry["file"]).name)
    if file.name != entry["file"] or not file.is_file():
        _refuse(path, f"names the arrays {entry['file']!r}, which do not lie beside it")
    try:
        # A handle of our own: NumPy leaves its file open where the archive is malformed.
        with file.open("rb") as handle, np.load(handle, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{file.name} cannot be read ({error}): it is truncated or altered.") from error
    hashes = entry["sha256"]
    if set(hashes) != set(arrays):
        odd = min(set(hashes) ^ set(arrays))
        _refuse(path, f"and its arrays disagree on whether there is an array {odd!r}")
    for name, array in arrays.items():
        if digest(array) != hashes[name]:
            _refuse(path, f"has another hash for the array {name!r} than the array itself: one of them was altered")
        if array.dtype.kind not in "fiub":
            _refuse(path, f"has the array {name!r} of type {array.dtype}, which is no number")
    return arrays


def _check_problem(words: dict[str, Any], arrays: _Arrays, path: Path) -> None:
    """Shapes, signs and finiteness of the data, so that readers need not ask again."""
    sparse = "X_data" in arrays
    needed = ["X_data", "X_indices", "X_indptr"] if sparse else ["X"]
    for name in [*needed, "y", "s", "group_indices", "group_indptr", "group_weights", "w", "b"]:
        if name not in arrays:
            _refuse(path, f"lacks the array {name!r}")
    n, names = words["n_samples"], words["names"]
    if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        _refuse(path, "has names of groups that repeat or are no text")
    y, s, indices, indptr = (arrays[name] for name in ("y", "s", "group_indices", "group_indptr"))
    p, K = arrays["X_indptr"].size - 1 if sparse else arrays["X"].shape[-1], y.shape[-1] if y.ndim else 0
    shapes = {"y": (n, K), "s": (n,), "group_indices": (p,), "group_indptr": (len(names) + 1,), "b": (K,)}
    shapes |= {"group_weights": (len(names),), "w": (p,) if K == 1 and arrays["w"].ndim == 1 else (p, K)}
    shapes |= {"X_indices": arrays["X_data"].shape[:1], "X_indptr": (p + 1,)} if sparse else {"X": (n, p)}
    shapes |= {"offset": (n, K)} if "offset" in arrays else {}
    for name, shape in shapes.items():
        if arrays[name].shape != shape or 0 in shape:
            _refuse(path, f"has the array {name!r} of shape {arrays[name].shape} where {shape} is needed")
        if not np.isfinite(arrays[name]).all():
            _refuse(path, f"has the array {name!r} with entries that are not finite")
    if (s < 0.0).any() or not s.any() or (arrays["group_weights"] < 0.0).any():
        _refuse(path, "has negative sample or group weights")
    if indices.dtype.kind != "i" or not np.array_equal(np.sort(indices), np.arange(p)):
        _refuse(path, "has group_indices that do not list every feature once")
    if indptr.dtype.kind != "i" or indptr[0] != 0 or indptr[-1] != p or (np.diff(indptr) < 1).any():
        _refuse(path, "has group_indptr that do not cut the features into groups")
    if sparse:
        columns, rows = arrays["X_indptr"], arrays["X_indices"]
        sound = columns[0] == 0 and columns[-1] == rows.size and (np.diff(columns) >= 0).all()
        if not (sound and np.isfinite(arrays["X_data"]).all()) or (rows.size and not 0 <= rows.min() <= rows.max() < n):
            _refuse(path, "has a sparse X whose rows or columns lie outside the matrix")
        if np.unique(rows + n * np.repeat(np.arange(p), np.diff(columns))).size != rows.size:
            _refuse(path, "has a sparse X with two values at one place")
    for name, high in (("lam", math.inf), ("ridge", math.inf), ("l1_ratio", 1.0)):
        if not 0.0 <= words[name] <= high or words[name] == math.inf:
            _refuse(path, f"has {name} = {words[name]}, out of range")
    _check_targets(words["loss"], y, path)


def _check_targets(loss: dict[str, Any], y: NDArray[Any], path: Path) -> None:
    name, delta = loss["name"], loss["params"].get("delta", 1.0)
    labels = bool(np.isin(y, (0.0, 1.0)).all())
    sound = {
        "squares": True,
        "huber": isinstance(delta, float) and 0.0 < delta < math.inf,
        "logistic": labels,
        "poisson": bool((y >= 0.0).all()),
        "multinomial": labels and bool((y.sum(axis=1) == 1.0).all()),
    }
    if not sound.get(name):
        _refuse(path, f"has the loss {name!r}, " + ("with y or delta out of range" if name in sound else "unknown"))


def _problem_arrays(problem: Any) -> _Arrays:
    from sparseopt.designs import in_memory

    design: Any = in_memory(problem.design, "a saved certificate")
    loss, groups = problem.loss, problem.groups
    if hasattr(design, "indptr"):
        arrays = {"X_data": design.data, "X_indices": design.indices, "X_indptr": design.indptr}
    else:
        arrays = {"X": np.ascontiguousarray(design.columns.T)}
    arrays |= {"y": loss.y, "s": loss.s} | ({} if loss.offset is None else {"offset": loss.offset})
    return arrays | {
        "group_indices": groups.indices,
        "group_indptr": groups.indptr,
        "group_weights": groups.weights,
    }


def _problem_words(problem: Any) -> dict[str, Any]:
    loss, penalty = problem.loss, problem.penalty
    kind = {"Penalty": "penalty", "Composite": "composite", "AtMost": "at_most"}[type(penalty).__name__]
    return {
        "loss": {"name": loss.name, "params": {"delta": loss.delta} if loss.name == "huber" else {}},
        "penalty": kind,
        "q": None if kind == "at_most" else _regularizer_words(penalty.q),
        "lam": penalty.lam,
        "l1_ratio": penalty.l1_ratio,
        "ridge": penalty.ridge,
        "k": penalty.k if kind == "at_most" else None,
        "intercept": problem.intercept,
        "n_samples": problem.design.shape[0],
        "names": list(problem.groups.names),
    }


def _regularizer_words(q: Any) -> dict[str, Any]:
    """Class and parameters; a class of the user carries its module, so that it cannot pass for one of the package."""
    cls = type(q)
    own = cls.__module__.startswith("sparseopt.regularizers.")
    params = {k: _regularizer_words(v) if isinstance(v, tuple) else v for k, v in zip(q._fields, q, strict=True)}
    return {"name": cls.__name__ if own else f"{cls.__module__}:{cls.__qualname__}", "params": params}


def _problem(words: dict[str, Any], arrays: _Arrays, q: Any, path: str | Path) -> Any:
    from sparseopt.cardinality import AtMost
    from sparseopt.designs import Csc, as_design
    from sparseopt.groups import Groups
    from sparseopt.losses import LOSSES
    from sparseopt.penalty import Composite, Penalty
    from sparseopt.problem import Problem

    groups = Groups(
        arrays["group_indices"], arrays["group_indptr"], arrays["group_weights"], tuple(map(str, words["names"]))
    )
    penalty: Any
    if words["penalty"] == "at_most":
        penalty = AtMost(groups, words["k"], words["ridge"])
    elif words["penalty"] in ("penalty", "composite"):
        kind = Penalty if words["penalty"] == "penalty" else Composite
        shape = _regularizer(words["q"], path) if q is None else q
        penalty = kind(shape, groups, words["lam"], words["l1_ratio"], words["ridge"])
    else:
        _refuse(path, f"has the penalty {words['penalty']!r}, which is unknown")
    if "X" in arrays:
        design: Any = as_design(arrays["X"])
    else:
        design = Csc(arrays["X_data"], arrays["X_indices"], arrays["X_indptr"], words["n_samples"])
    # As stored, without `of`: its checks ran when the loss was built, and y is one-hot or 0/1 already.
    loss = LOSSES[words["loss"]["name"]](arrays["y"], arrays["s"], arrays.get("offset"), **words["loss"]["params"])
    return Problem(design, loss, penalty, words["intercept"])


def _regularizer(words: Any, path: str | Path) -> Any:
    from sparseopt import regularizers

    name = words.get("name") if isinstance(words, dict) else None
    if name not in {type(q).__name__ for q in regularizers.REGULARIZERS.values()} | {"Scaled"}:
        _refuse(path, f"has the regularizer {name!r}, which is not one of the package: pass it as q")
    params = {k: _regularizer(v, path) if isinstance(v, dict) else v for k, v in words.get("params", {}).items()}
    return regularizers.get_regularizer(getattr(regularizers, name), **params)


def _plain(value: Any) -> Any:
    """A number, string or list for JSON, inf and nan as strings."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: Any) -> Any:
    if isinstance(value, list):
        return [_number(item) for item in value]
    return float(value) if value in ("inf", "-inf", "nan") else value


def _refuse(path: str | Path, what: str) -> NoReturn:
    raise ValueError(f"{Path(path).name} {what}.")
