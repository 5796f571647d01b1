"""A network as an ONNX file, checked by the runtime that will read it.

ONNX has no block-sparse product, so the file holds the dense twin of the network: zeros stored, activations beside
their layers. What is written is run before it gets its name, on the example and, where the batch size is left open, on
the example twice over. With f the network and g the file, both in float32,

    difference = max over outputs of  max |f(x) - g(x)| / max |f(x)|     must stay below 1e-4.

Needs onnx and onnxscript, and onnxruntime for the check: pip install "sparseopt[onnx]".
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sparseopt.nn.masking import masks_of
from sparseopt.nn.sparse.densify import densified

__all__ = ["export_onnx"]

TOLERANCE = 1e-4
LARGEST = 2**31  # bytes of one protobuf message


def export_onnx(
    model: nn.Module, example_input: Any, path: str | os.PathLike[str], dynamic_batch: bool = True
) -> float:
    """Write `model` to an ONNX file, with dense layers in place of block-sparse ones.

    Parameters
    ----------
    model : nn.Module
        Folded; not changed. It is exported in evaluation mode and on the CPU, half precision as float32.
    example_input : Tensor, or tuple or dict of arguments
        Its tensors have one example per entry of their first dimension.
    path : path
        Put in place in one step, when everything below has succeeded; otherwise left as it was.
    dynamic_batch : bool
        Whether the first dimension of all inputs is left open, as one number called "batch".

    Returns
    -------
    float
        The largest difference between the outputs of the model and of the file, relative to the largest entry of an
        output; NaN if onnxruntime is not installed and nothing was compared.

    Raises
    ------
    ValueError
        When blocks are still hidden behind masks, torch cannot export the model, the weights do not fit in one file,
        or the outputs differ by more than 1e-4.
    ImportError
        When onnx or onnxscript is missing.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(8, 4), nn.ReLU())
    >>> export_onnx(model, torch.randn(2, 8), "model.onnx") < 1e-5
    True
    """
    _require("onnx", "onnxscript")
    path = Path(os.path.realpath(path))
    if not path.parent.is_dir():
        raise ValueError(f"the folder of {str(path)!r} does not exist: create it first.")
    if path.is_dir():
        raise ValueError(f"{str(path)!r} is a folder: give the name of a file, such as model.onnx.")
    for name, _, _, _ in masks_of(model):
        raise ValueError(f"the blocks of {name} are still hidden behind a mask: call fold() first.")
    model = _prepared(model)
    call = _Call.of(example_input).map(lambda tensor: _widened(tensor.detach().cpu()))
    dense = densified(model)
    size = sum(tensor.nbytes for tensor in dense.state_dict().values())
    if size >= LARGEST:
        raise ValueError(f"the dense weights take {size / 1e9:.1f} GB, and an ONNX file holds 2.1 GB at most.")
    # torch takes a dimension of one for a constant, so the doubled example is what it sees.
    calls = [call, call.map(lambda tensor: torch.cat([tensor, tensor]) if tensor.ndim else tensor)]
    calls = calls if dynamic_batch else calls[:1]
    expected = [_outputs(model, call) for call in calls]
    temporary = path.with_name(path.name + ".tmp")
    try:
        _write(dense, calls[-1], len(expected[0]), temporary, dynamic_batch)
        if find_spec("onnxruntime") is None:
            difference = math.nan
        else:
            difference = _difference(temporary, calls, expected)
            if not difference <= TOLERANCE:
                raise ValueError(
                    f"the outputs of the file and of the model differ by {difference:.1e} of the largest, more than "
                    f"{TOLERANCE:g}: an operation of the model means something else in ONNX."
                )
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())  # the name must not reach the disk before the contents
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return difference


def _require(*packages: str) -> None:
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ImportError(f'{" and ".join(missing)} must be installed for this: pip install "sparseopt[onnx]".')


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _prepared(model: nn.Module) -> nn.Module:
    """A copy on the CPU, in evaluation mode, half precision widened."""
    model = deepcopy(model).cpu().eval()
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = _widened(tensor.data)
    return model


class _Call(NamedTuple):
    """The arguments of one call of the model."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, example_input: Any) -> _Call:
        if isinstance(example_input, dict):
            return cls((), dict(example_input))
        return cls(tuple(example_input) if isinstance(example_input, (tuple, list)) else (example_input,), {})

    def map(self, change: Callable[[Tensor], Any], other: Callable[[Any], Any] = lambda each: each) -> _Call:
        """The call with every tensor changed, and everything else by `other`."""

        def act(each: Any) -> Any:
            return change(each) if isinstance(each, Tensor) else other(each)

        return _Call(tuple(map(act, self.args)), {name: act(each) for name, each in self.kwargs.items()})


def _write(dense: nn.Module, call: _Call, outputs: int, file: Path, dynamic_batch: bool) -> None:
    import onnx

    shapes: Any = None
    if dynamic_batch:
        batch = torch.export.Dim("batch")
        opened = call.map(lambda tensor: {0: batch} if tensor.ndim else None, lambda constant: None)
        shapes = opened.args or opened.kwargs
    names = ["output"] if outputs == 1 else [f"output_{number}" for number in range(outputs)]
    options: dict[str, Any] = {"dynamic_shapes": shapes, "output_names": names, "dynamo": True, "verbose": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are about torch's own calls of torch: nobody can follow their advice
        try:
            program = torch.onnx.export(dense, call.args, kwargs=call.kwargs, **options)
        except Exception as error:
            hint = ": pass dynamic_batch=False if its batch size is fixed." if dynamic_batch else "."
            raise ValueError(f"torch cannot export the model, {_cause(error)}{hint}") from error
    assert program is not None
    program.save(file, external_data=False)
    onnx.checker.check_model(str(file), full_check=True)


def _cause(error: BaseException) -> str:
    """What the innermost of the errors says first."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].rstrip('.:!')}" if lines else type(error).__name__


def _outputs(model: nn.Module, call: _Call) -> list[Tensor]:
    with torch.no_grad():
        return [leaf for leaf in pytree.tree_leaves(model(*call.args, **call.kwargs)) if isinstance(leaf, Tensor)]


def _difference(file: Path, calls: Sequence[_Call], expected: Sequence[Sequence[Tensor]]) -> float:
    """The largest relative difference over calls and outputs; NaN where the file computes no number."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    found = [torch.zeros(1, dtype=torch.float64)]
    for call, wanted in zip(calls, expected, strict=True):
        tensors = {name: each for name, each in call.kwargs.items() if isinstance(each, Tensor)}
        tensors = tensors or dict(zip(names, (each for each in call.args if isinstance(each, Tensor)), strict=True))
        try:
            got = session.run(None, {name: tensor.numpy() for name, tensor in tensors.items()})
        except Exception as error:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors.values())
            raise ValueError(f"onnxruntime cannot run the exported model on {shapes}, {_cause(error)}.") from error
        for ours, theirs in zip(wanted, map(torch.from_numpy, got), strict=True):
            distance = (ours.double() - theirs.double()).abs().masked_fill(ours == theirs, 0.0)  # inf - inf is NaN
            found.append(distance.flatten() / _largest(ours))
    return float(torch.cat(found).max())


def _largest(tensor: Tensor) -> Tensor:
    """The largest finite magnitude, at least the smallest normal number."""
    sizes = tensor.double().abs()
    return torch.cat([sizes[sizes.isfinite()], sizes.new_tensor([1e-300])]).max()
