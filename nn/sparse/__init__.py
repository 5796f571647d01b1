"""Block-sparse networks that run faster.

    fast = compress(s.fold(), example_input=x)      each layer block-sparse where that is measured to be faster
    save(fast, "model.safetensors")
    fast = load("model.safetensors")                without the code that made it

From the ground up: `format` stores weights; `tile`, `machine`, `kernels`, `team` and `outputs` multiply on the CPU,
`triton_kernels` on GPUs, `reference` anywhere; `ops` makes differentiable operators of them and `layers` modules;
`compression` puts those into networks, `files`, `pretrained` and `onnx_export` take networks elsewhere, and `benchmark`
measures them.
"""

from __future__ import annotations

from sparseopt.nn.sparse.choices import Compression, LayerChoice
from sparseopt.nn.sparse.compression import compress
from sparseopt.nn.sparse.files import load, save
from sparseopt.nn.sparse.format import BlockSparse
from sparseopt.nn.sparse.layers import BlockSparseConv1d, BlockSparseConv2d, BlockSparseLinear
from sparseopt.nn.sparse.onnx_export import export_onnx
from sparseopt.nn.sparse.pretrained import load_pretrained, save_pretrained

__all__ = [
    "BlockSparse",
    "BlockSparseConv1d",
    "BlockSparseConv2d",
    "BlockSparseLinear",
    "Compression",
    "LayerChoice",
    "compress",
    "export_onnx",
    "load",
    "load_pretrained",
    "save",
    "save_pretrained",
]
