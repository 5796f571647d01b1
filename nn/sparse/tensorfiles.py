"""Tensors and one text in a file of safetensors, with a checksum.

    metadata "sparseopt"    the text
    metadata "sha256"       of the text, and of names, types, shapes and bytes of all tensors
    metadata "format"       "pt", as other readers expect

The reader of safetensors makes sure that a header is JSON of the right form, and that the tensors lie side by side and
fill the file. It lets through: a name that comes twice, truth values other than 0 and 1, any number of dimensions, and
empty tensors with more rows than there is memory; these are refused here. The file is read into memory, and not mapped:
whoever writes to it later changes nothing that has been checked.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparseopt.nn.sparse.literals import brief, parsed
from sparseopt.nn.sparse.vocabulary import DTYPES
from sparseopt.nn.wholefile import replacing

__all__ = ["read_tensors", "writable", "write_tensors"]

_DTYPES = {getattr(torch, name) for name in DTYPES} | {torch.float8_e4m3fn, torch.float8_e5m2}


def write_tensors(path: str | os.PathLike[str], tensors: dict[str, Tensor], text: str) -> None:
    """Put a file of tensors, as `writable` returns them, and a text in the place of `path`, whole or not at all."""
    metadata = {"format": "pt", "sparseopt": text, "sha256": _digest(text, tensors)}
    data = _safetensors().save(tensors, metadata)
    with replacing(path) as file:
        file.write(data)


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], str]:
    """The tensors of a file, on the CPU in memory of their own, and its text.

    Raises
    ------
    ValueError
        When the file is truncated, damaged, or not by `write_tensors`.
    """
    library, data = _safetensors(), Path(path).read_bytes()
    try:
        tensors = library.load(data)
    except Exception as error:
        raise ValueError(f"it is truncated, damaged or no file of safetensors ({brief(error)}).") from error
    header = parsed(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata = header.get("__metadata__", {})
    text = metadata.get("sparseopt")
    if text is None:
        raise ValueError("it is a file of safetensors that sparseopt.nn.save did not write.")
    for name, tensor in tensors.items():
        # What safetensors lets through, and torch does not expect.
        absurd = tensor.ndim > 64 or max((0, *tensor.shape)) >= 2**48
        if absurd or (tensor.dtype == torch.bool and bool((tensor.view(torch.uint8) > 1).any())):
            raise ValueError(f"its tensor {name!r:.60} has a shape or truth values that none can have.")
    if _digest(text, tensors) != metadata.get("sha256"):
        raise ValueError("it is damaged, its contents do not match their checksum: go back to an older file.")
    return tensors, text


def writable(name: str, tensor: Tensor, storages: set[int]) -> Tensor:
    """The tensor as it can be written: on the CPU, in a memory that is not among `storages`, and is added to them."""
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.layout != torch.strided or tensor.is_meta:
        raise ValueError(
            f"the tensor {name!r} cannot be written, it is {type(tensor).__name__}, {tensor.layout} on "
            f"{tensor.device}: save a model whose tensors are plain, whole and in memory."
        )
    if tensor.dtype not in _DTYPES:
        raise ValueError(f"the tensor {name!r} is {tensor.dtype}, which no file holds: convert it first.")
    plain = tensor.detach().cpu().contiguous()
    if plain.untyped_storage().data_ptr() in storages:
        plain = plain.clone()
    storages.add(plain.untyped_storage().data_ptr())
    return plain


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the description, and of names, types, shapes and bytes of all tensors."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError("models are saved by safetensors, which is missing: pip install 'sparseopt[nn]'.") from error
    return safetensors.torch
