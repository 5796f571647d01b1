"""Methods of NamedTuples inside compiled kernels.

A kernel cannot call a Python object, but Numba passes a NamedTuple by its fields. `compiled` makes the methods callable
as well, so that `q.prox(u, t)` in a kernel is the same text that runs on a float, an array or a tensor:

    @compiled
    class LogSum(NamedTuple):
        eps: float

        def value(self, u):
            return log1p(u / self.eps)

Numba resolves a method by its name alone, before it knows the class. So methods of one name must have one signature
in all compiled classes; `compiled` checks it when the class is created.
"""

from __future__ import annotations

import functools
import inspect
from types import FunctionType
from typing import Any, TypeVar

from numba import types
from numba.extending import models, overload_method, register_model, typeof_impl

from sparseopt.jit import depends_on

__all__ = ["compiled"]

_Class = TypeVar("_Class", bound=type)
_signatures: dict[str, inspect.Signature] = {}


class _Parameterless(types.NamedTuple):
    """The type of a NamedTuple without fields: Numba drops the receiver of a method if its type is false."""

    def __bool__(self) -> bool:
        return True


register_model(_Parameterless)(models.TupleModel)


def compiled(cls: _Class) -> _Class:
    """Make every public method of the NamedTuple `cls` callable inside kernels.

    Raises
    ------
    TypeError
        If a method has another signature than the method of the same name in an earlier class.
    """
    for name, method in vars(cls).items():
        if name.startswith("_") or not inspect.isfunction(method):
            continue
        signature = _bare(method)
        known = _signatures.setdefault(name, signature)
        if known is signature:
            _overload(name, signature)
        elif known != signature:
            raise TypeError(
                f"{cls.__name__}.{name}{signature} must be written {name}{known}: "
                "methods of one name share one signature."
            )
    if not cls._fields:  # type: ignore[attr-defined]
        typeof_impl.register(cls)(lambda value, context: _Parameterless((), type(value)))
    depends_on(cls)
    return cls


def _bare(method: Any) -> inspect.Signature:
    """The signature without annotations: only names and order matter to a kernel."""
    parameters = inspect.signature(method).parameters.values()
    return inspect.Signature([p.replace(annotation=inspect.Parameter.empty) for p in parameters])


@functools.cache
def _unannotated(method: Any) -> Any:
    """`method` with a bare signature: Numba compares signatures with their annotations."""
    if method is None:
        return None
    code, scope = method.__code__, method.__globals__
    return FunctionType(code, scope, method.__name__, method.__defaults__, method.__closure__)


def _overload(name: str, signature: inspect.Signature) -> None:
    def resolve(self, *args):
        return _unannotated(getattr(self.instance_class, name, None))

    resolve.__signature__ = signature  # type: ignore[attr-defined]
    overload_method(types.BaseNamedTuple, name)(resolve)
