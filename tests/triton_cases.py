"""What the Triton kernels are tried on: a table of layers, their operands, and the product by dense operations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sparseopt.nn.sparse import triton_kernels
from sparseopt.nn.sparse.geometry import Geometry

HALF, BRAIN, SINGLE = torch.float16, torch.bfloat16, torch.float32
ONE = (1, 1)


@dataclass
class Case:
    block: tuple[int, int]
    shape: tuple[int, ...]  # (out, in) or (out, in, height, width)
    images: tuple[int, ...]  # (batch,) or (batch, height, width)
    stride: tuple[int, int] = ONE
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = ONE
    dtype: torch.dtype = SINGLE
    weights: torch.dtype | None = None  # dtype of the blocks, if not that of x
    density: float = 0.5
    bias: bool = True
    relu: bool = False
    memory: str = "rows"  # "rows", "gaps": other numbers between the pixels, or "planes": one channel after another


CASES = {
    "blocks of 4": Case((4, 4), (18, 30), (5,)),
    "blocks of 5": Case((5, 5), (13, 17), (3,)),
    "blocks of 8": Case((8, 8), (30, 83), (20,)),
    "blocks of 10": Case((10, 10), (34, 45), (4,), relu=True),
    "blocks of 16": Case((16, 16), (50, 70), (7,)),
    "blocks of 20": Case((20, 20), (45, 65), (1,)),
    "blocks of 32": Case((32, 32), (70, 100), (3,)),
    "blocks of 64": Case((64, 64), (130, 150), (3,), dtype=HALF),
    "blocks of 128": Case((128, 128), (256, 200), (2,)),
    "blocks of 8 x 32": Case((8, 32), (20, 100), (3,), bias=False),
    "blocks of 1 x 16": Case((1, 16), (6, 50), (3,), relu=True),
    "blocks taller than a tile": Case((144, 16), (200, 40), (2,), dtype=HALF),
    "float16": Case((16, 16), (48, 600), (10,), dtype=HALF, density=0.9),
    "bfloat16": Case((8, 16), (24, 200), (10,), dtype=BRAIN),
    "float16 x float32": Case((16, 16), (32, 48), (10,), dtype=HALF, weights=SINGLE),
    "float32 x bfloat16": Case((16, 16), (32, 48), (10,), weights=BRAIN),
    "no images": Case((4, 4), (8, 8), (0,)),
    "no blocks": Case((4, 4), (8, 8), (3,), density=0.0),
    "every block": Case((8, 8), (24, 40), (3,), density=1.0),
    "several tiles of pixels": Case((16, 8), (32, 24), (150,)),
    "gaps between pixels": Case((8, 8), (16, 24), (9,), memory="gaps"),
    "channels apart": Case((8, 8), (16, 24, 3, 3), (2, 5, 4), padding=ONE, memory="planes"),
    "3 x 3": Case((8, 8), (16, 24, 3, 3), (2, 5, 6), padding=ONE),
    "3 x 3, float16": Case((16, 16), (32, 32, 3, 3), (1, 5, 6), padding=ONE, dtype=HALF),
    "3 x 3, wide blocks": Case((16, 32), (32, 64, 3, 3), (1, 4, 5), padding=ONE, relu=True),
    "3 x 3, channels left over": Case((8, 8), (20, 13, 3, 3), (2, 4, 4), padding=ONE, memory="gaps"),
    "wide blocks, channels left over": Case((8, 32), (20, 45, 3, 3), (1, 4, 4), padding=ONE, memory="gaps"),
    "2 x 3, stepping and spread": Case((5, 4), (12, 8, 2, 3), (2, 9, 8), (2, 1), (1, 2), (1, 2)),
    "1 x 1, stepping": Case((20, 10), (40, 20, 1, 1), (2, 5, 6), (2, 3)),
    "1 x 1, padded": Case((8, 8), (16, 16, 1, 1), (1, 3, 3), padding=ONE),
    "one dimension": Case((8, 8), (16, 16, 1, 3), (2, 1, 7), padding=(0, 1)),
    "pixels numbered in 64 bits": Case((8, 8), (16, 8, 3, 3), (2, 4, 4)),
}


# The kernels are compiled for these cases and a GPU's compute capability.
COMPILED = {
    "blocks of 24": (80, Case((24, 24), (48, 72, 3, 3), (4, 16, 16), padding=ONE, dtype=HALF, bias=False)),
    "blocks of 64": (90, Case((64, 64), (256, 128), (512,), dtype=BRAIN, bias=False)),
    "float32": (90, Case((32, 32), (64, 64, 3, 3), (4, 16, 16), padding=ONE, bias=False)),
}


@dataclass
class Operands:
    """Random operands of a case, and their product by dense float64 operations."""

    case: Case

    def __post_init__(self) -> None:
        case, draw = self.case, torch.Generator(torch.get_default_device()).manual_seed(0)
        out, channels, *kernel = case.shape
        self.kernel = tuple(kernel) or ONE
        height, width = case.block
        rows, runs = -(-out // height), -(-channels // width)
        kept = torch.rand(rows, self.kernel[0] * self.kernel[1] * runs, generator=draw) < case.density
        kept[rows // 2] &= case.density == 1  # an empty row of blocks
        dtype = case.weights or case.dtype
        self.weight = torch.randn(out, channels, *self.kernel, generator=draw).to(dtype).double()
        every = self.packed(self.weight)
        self.kept, self.values = kept, every[kept].to(dtype)
        self.weight *= self.unpacked(kept)
        self.col = kept.nonzero()[:, 1].to(torch.int32)
        self.crow = functional.pad(kept.sum(1).cumsum(0), (1, 0)).to(torch.int32)
        self.bias = torch.randn(out, generator=draw).to(case.dtype) if case.bias else None
        self.x = self.image(torch.randn(case.images[0], *(case.images[1:] or ONE), channels, generator=draw))
        self.geometry = Geometry(self.kernel, case.stride, case.padding, case.dilation)
        dense = functional.conv2d(self.x.permute(0, 3, 1, 2).double(), self.weight, None, *self.geometry[1:])
        self.grad = torch.randn(dense.permute(0, 2, 3, 1).shape, generator=draw).to(case.dtype)

    def packed(self, weight: Tensor) -> Tensor:
        """(rows, positions * runs, b_in, b_out): all blocks of a weight, with zeros over the edges."""
        (height, width), (out, channels) = self.case.block, weight.shape[:2]
        weight = functional.pad(weight, (0, 0, 0, 0, 0, -channels % width, 0, -out % height))
        blocks = weight.flatten(2).unflatten(1, (-1, width)).unflatten(0, (-1, height))  # row, j, run, i, position
        return blocks.permute(0, 4, 2, 3, 1).flatten(1, 2)

    def unpacked(self, kept: Tensor) -> Tensor:
        """Ones where a weight has a kept block."""
        (height, width), (out, channels) = self.case.block, self.case.shape[:2]
        entries = kept.unflatten(1, (*self.kernel, -1)).permute(0, 3, 1, 2)
        return entries.repeat_interleave(height, 0).repeat_interleave(width, 1)[:out, :channels].double()

    def image(self, values: Tensor) -> Tensor:
        """The values in the case's memory, with other numbers behind the last one."""
        values = values.to(self.case.dtype)
        if self.case.memory == "planes":
            return values.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
        gap = 3 if self.case.memory == "gaps" else 0
        memory = torch.full(
            (values.numel() // values.shape[3] * (values.shape[3] + gap) + 9999,), 7.0, dtype=values.dtype
        )
        pixel = values.shape[3] + gap
        steps = (values.shape[1] * values.shape[2] * pixel, values.shape[2] * pixel, pixel, 1)
        view = memory.as_strided(values.shape, steps)
        return view.copy_(values)

    def product(self) -> Tensor:
        weights = (self.values, self.crow, self.col, self.bias)
        return triton_kernels.product(self.x, *weights, self.case.shape[0], self.geometry, self.case.relu)

    def product_grad(self) -> Tensor:
        return triton_kernels.product_grad(self.x, self.grad, self.crow, self.col, self.case.block, self.geometry)

    def expected(self, absolute: bool = False) -> tuple[Tensor, Tensor]:
        """The product and the gradient, or the sums of their terms' absolute values."""
        x, weight, grad = self.x.double().permute(0, 3, 1, 2), self.weight, self.grad.double().permute(0, 3, 1, 2)
        bias = None if self.bias is None else self.bias.double()
        if absolute:
            x, weight, grad = x.abs(), weight.abs(), grad.abs()
            bias = None if bias is None else bias.abs()
        weight = weight.clone().requires_grad_()
        y = functional.conv2d(x, weight, bias, *self.geometry[1:])
        (slope,) = torch.autograd.grad(y, weight, grad)
        y = y.relu() if self.case.relu else y
        return y.detach().permute(0, 2, 3, 1), self.packed(slope)[self.kept]
