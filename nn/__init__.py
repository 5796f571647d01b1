"""PyTorch side of sparseopt: networks trained to block sparsity with the core's regularizers and selection rules.

    s = prune(model, optimizer, sparsity=0.9, block=16, total_steps=N)
    ...                                                                     the training loop, unchanged
    model = s.fold()
    fast = compress(model, example_input=x)

Importing this package also lets `sparseopt.scalar` act on `torch.Tensor`, so every regularizer's `value`, `slope` and
`prox` accepts tensors, keeps their dtype and device, and has gradients.
"""

from __future__ import annotations

import torch

from sparseopt import scalar
from sparseopt.nn.blocks import BlockGrid
from sparseopt.nn.budget import kept_blocks
from sparseopt.nn.checkpoint import load_checkpoint, save_checkpoint
from sparseopt.nn.correspondence import groups_of, imprint, pairing_of
from sparseopt.nn.logs import JsonLinesLog, TensorBoardLog
from sparseopt.nn.masking import dense_state_dict, fold, sync_masks
from sparseopt.nn.methods import (
    ACDC,
    METHODS,
    OMP,
    OMPR,
    Expm1,
    GradualMagnitude,
    GroupLasso,
    Magnitude,
    MaskedL1,
    Method,
    PowerPropagation,
    ProximalMethod,
    RigL,
    SequentialAttention,
    get_method,
)
from sparseopt.nn.penalty import BlockPenalty
from sparseopt.nn.pictures import plot_attention, plot_history, plot_masks, plot_schedule
from sparseopt.nn.planning import LayerPlan, Plan, plan
from sparseopt.nn.proximal import Proximal
from sparseopt.nn.pruning import prune
from sparseopt.nn.reporting import LayerReport, Report, report
from sparseopt.nn.schedule import Cubic, Exponential, Linear, Phase, PhaseSchedule
from sparseopt.nn.sparse import (
    BlockSparse,
    BlockSparseConv1d,
    BlockSparseConv2d,
    BlockSparseLinear,
    Compression,
    compress,
    export_onnx,
    load,
    load_pretrained,
    save,
    save_pretrained,
)
from sparseopt.nn.sparsifier import Sparsifier

__all__ = [
    "plan",
    "Plan",
    "LayerPlan",
    "BlockGrid",
    "prune",
    "Sparsifier",
    "fold",
    "dense_state_dict",
    "sync_masks",
    "PhaseSchedule",
    "Phase",
    "Exponential",
    "Cubic",
    "Linear",
    "METHODS",
    "get_method",
    "Method",
    "SequentialAttention",
    "ACDC",
    "Magnitude",
    "GradualMagnitude",
    "PowerPropagation",
    "MaskedL1",
    "Expm1",
    "GroupLasso",
    "ProximalMethod",
    "OMP",
    "OMPR",
    "RigL",
    "kept_blocks",
    "save_checkpoint",
    "load_checkpoint",
    "compress",
    "Compression",
    "BlockSparse",
    "BlockSparseLinear",
    "BlockSparseConv1d",
    "BlockSparseConv2d",
    "save",
    "load",
    "save_pretrained",
    "load_pretrained",
    "export_onnx",
    "Proximal",
    "BlockPenalty",
    "groups_of",
    "pairing_of",
    "imprint",
    "report",
    "Report",
    "LayerReport",
    "plot_masks",
    "plot_history",
    "plot_schedule",
    "plot_attention",
    "TensorBoardLog",
    "JsonLinesLog",
]

scalar.use(torch.Tensor, torch)
