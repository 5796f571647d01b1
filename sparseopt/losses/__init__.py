"""Losses: what a fit is measured by.

    L(z) = sum_i s_i f(y_i, z_i + o_i),    z = Xw of shape (n, K),   s_i = 1/n unless given

    squares       ||z - y||^2 / 2                       real y, one output or several
    huber         the same up to |z - y| = delta, then linear
    logistic      log(1 + e^z) - y z                    y in {0, 1}
    poisson       e^z - y z + y log y - y               counts y >= 0
    multinomial   log sum_k e^(z_k) - <y, z>            one-hot y, one output per class

f >= 0, and L is a mean unless weights say otherwise. `Loss` lists what a loss can do and how to write another one.
"""

from __future__ import annotations

import difflib
import inspect
from typing import Any

from numpy.typing import ArrayLike

from sparseopt.losses.classification import Logistic, Multinomial
from sparseopt.losses.loss import Loss
from sparseopt.losses.regression import Huber, Poisson, Squares

__all__ = ["LOSSES", "Huber", "Logistic", "Loss", "Multinomial", "Poisson", "Squares", "get_loss"]

LOSSES: dict[str, type[Loss]] = {cls.name: cls for cls in (Squares, Huber, Logistic, Poisson, Multinomial)}


def get_loss(
    name: str, y: ArrayLike, weights: ArrayLike | None = None, offset: ArrayLike | None = None, **params: Any
) -> Loss:
    """Build a loss by its name.

    Parameters
    ----------
    name : a key of `LOSSES`.
    y, weights, offset : see `Loss.of`.
    **params : parameters of that loss, such as delta of Huber's.

    Raises
    ------
    ValueError
        If the name is unknown, or `of` refuses an argument.
    TypeError
        If the loss has no such parameter, or an argument does not hold real numbers.

    Examples
    --------
    >>> from sparseopt.losses import get_loss
    >>> get_loss("huber", [0.0, 1.0, 5.0], delta=2.0).delta
    2.0
    """
    if name not in LOSSES:
        near = difflib.get_close_matches(str(name).lower(), LOSSES, n=1)
        hint = f"did you mean {near[0]!r}? Known" if near else "known"
        raise ValueError(f"loss is {name!r}, which is unknown: {hint} names are {', '.join(LOSSES)}.")
    cls = LOSSES[name]
    known = [p for p in inspect.signature(cls.of).parameters if p not in ("y", "weights", "offset")]
    for param in params:
        if param not in known:
            remedy = f"it takes {', '.join(known)}" if known else "it takes none"
            raise TypeError(f"loss {name!r} has no parameter {param!r}: {remedy}.")
    return cls.of(y, weights, offset, **params)
