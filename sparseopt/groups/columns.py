"""Which variable a column of X belongs to: by the prefix of its name, or by how a `ColumnTransformer` made it.

One-hot encoding, splines and binning turn one column into several, which belong together in one group. Their names
tell (`colour_red`, `age_sp_3`), but names can mislead: `a_b_c` may be category `b_c` of `a` or `c` of `a_b`. So each
transformer is asked for the names of its outputs under inputs renamed to marks that occur nowhere else, and the marks
found in a name are its origin:

    one mark     the output belongs to that input column (encoders, splines, scalers, imputers with indicators)
    several      an interaction, with a group of its own for each set of columns (polynomial features)
    none         the output mixes what the transformer saw (PCA), so all such outputs share a group named after it
"""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np

__all__ = ["is_column_transformer", "origins", "prefixes"]

# Tried in this order: DictVectorizer writes "city=Rome", formulas write "city[T.Rome]", and get_dummies and
# OneHotEncoder write "city_Rome". The underscore comes last because names contain it anyway.
SEPARATORS = ("=", "[", "_")

# Two characters reserved for private use (Unicode plane 0), which no real name contains.
_MARK = re.compile("\ue000([0-9]+)\ue001")


def prefixes(names: Iterable[str], separator: str | None = None) -> list[str]:
    """Every name up to the first `separator` after its first character, or the whole name where there is none.

    `separator=None` takes the first of "=", "[", "_" that occurs in any name.

    >>> prefixes(["age", "city_Rome", "city_Oslo"])
    ['age', 'city', 'city']
    """
    names = [str(name) for name in names]
    if separator is None:
        separator = next((s for s in SEPARATORS if any(s in name for name in names)), SEPARATORS[-1])
    if not separator:
        raise ValueError("separator is '': give the characters that end a prefix, for example '_'.")
    return [name[: max(name.find(separator, 1), 0) or None] for name in names]


def is_column_transformer(candidate: object) -> bool:
    """Whether `candidate` is a `ColumnTransformer`; does not import scikit-learn to find out."""
    module = sys.modules.get("sklearn.compose")  # loaded if anyone could have made one
    return module is not None and isinstance(candidate, module.ColumnTransformer)


def origins(transformer: Any) -> list[str]:
    """The name of the input column, of the interaction `a:b`, or of the step, that each output column comes from.

    Parameters
    ----------
    transformer : sklearn.compose.ColumnTransformer
        Fitted. Its steps may be pipelines and unions themselves.

    Returns
    -------
    list of str, one per output column.

    Raises
    ------
    ValueError
        If it is not fitted, or if a step with several input columns does not name its outputs.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.compose import ColumnTransformer
    >>> from sklearn.preprocessing import OneHotEncoder
    >>> X = np.array([[0, 5], [1, 6], [2, 5]])
    >>> origins(ColumnTransformer([("hot", OneHotEncoder(), [0, 1])]).fit(X))
    ['x0', 'x0', 'x0', 'x1', 'x1']
    """
    slices = getattr(transformer, "output_indices_", None)
    if slices is None:
        raise ValueError("groups is a ColumnTransformer that is not fitted: call its fit method first.")
    given = getattr(transformer, "feature_names_in_", None)
    names = [f"x{j}" for j in range(transformer.n_features_in_)] if given is None else [str(name) for name in given]
    found: dict[int, str] = {}
    for step, part, columns in transformer.transformers_:
        outputs = range(*slices[step].indices(sys.maxsize)) if step in slices else range(0)
        if outputs:
            inputs = _positions(columns, names)
            found.update(zip(outputs, _of_step(step, part, [names[j] for j in inputs], len(outputs)), strict=True))
    return [found[j] for j in range(len(found))]


def _of_step(step: str, part: Any, inputs: list[str], n_outputs: int) -> list[str]:
    """The origin of each of the outputs of one step, whose input columns are called `inputs`."""
    if len(inputs) == 1:
        return inputs * n_outputs
    if part == "passthrough":
        return inputs
    marks = np.array([f"\ue000{j}\ue001" for j in range(len(inputs))], dtype=object)
    try:
        outputs = _nameless(part).get_feature_names_out(marks)
    except AttributeError as error:
        raise ValueError(
            f"groups cannot be read off the step {step!r}, because {type(part).__name__} does not name its outputs: "
            f"give it get_feature_names_out, as FunctionTransformer(..., feature_names_out='one-to-one') does."
        ) from error
    found = []
    for output in outputs:
        columns = sorted({int(mark) for mark in _MARK.findall(str(output))})
        found.append(":".join(inputs[j] for j in columns) if columns else step)
    return found


def _nameless(part: Any) -> Any:
    """A copy of an estimator, and of those inside, that has forgotten its input names and so accepts marks instead.

    Copies are shallow: fitted arrays are shared, and the original is left as it was.
    """
    from sklearn.base import BaseEstimator

    if isinstance(part, BaseEstimator):
        clone = copy.copy(part)
        vars(clone).pop("feature_names_in_", None)
        for key, value in vars(clone).items():
            if isinstance(value, (BaseEstimator, list, tuple)):
                vars(clone)[key] = _nameless(value)
        return clone
    if type(part) in (list, tuple):
        return type(part)(_nameless(item) for item in part)
    return part


def _positions(columns: Any, names: list[str]) -> list[int]:
    """Column numbers for any selection a `ColumnTransformer` accepts: names, numbers, a mask or a slice of either."""
    where: dict[Hashable, int] = {name: j for j, name in enumerate(names)}
    if isinstance(columns, slice):
        start, stop = where.get(columns.start, columns.start), where.get(columns.stop, columns.stop)
        if isinstance(columns.stop, str):
            stop = where[columns.stop] + 1  # a slice of names includes its end, as in pandas
        return list(range(len(names)))[start : stop : columns.step]
    if isinstance(columns, (str, int, np.integer)):
        columns = [columns]
    chosen = np.asarray(columns)
    if chosen.dtype == bool:
        return [int(j) for j in np.flatnonzero(chosen)]
    return [where[str(c)] if isinstance(c, str) else range(len(names))[int(c)] for c in chosen.tolist()]
