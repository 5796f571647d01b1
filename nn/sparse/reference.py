"""The product with a block-sparse weight in plain torch, for any device and floating dtype: slow, and an oracle.

With x of shape (N, H, W, C) and one stored block per (row r, kernel position p, run of channels c),

    y[n, h, w, r b_out + j] = sum over blocks t of row r, over i:
                                  x[n, h stride - padding + p_h dilation, w ..., c b_in + i] values[t, i, j].

The blocks' inputs are gathered, multiplied one by one as a batch, and added up by rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from sparseopt.nn.sparse.format import rows_of
from sparseopt.nn.sparse.geometry import Geometry

__all__ = ["product", "product_grad"]


def product(
    x: Tensor,
    values: Tensor,
    crow: Tensor,
    col: Tensor,
    bias: Tensor | None,
    out: int,
    geometry: Geometry,
    relu: bool,
    added: Tensor | None = None,
) -> Tensor:
    """y, (N, H', W', out), in the dtype of x."""
    width, height = values.shape[1:]
    wide = torch.promote_types(values.dtype, torch.float32)  # sums in 16 bits would lose most of them
    patches = _patches(x, width, geometry).to(wide)
    spatial, rows = patches.shape[:3], len(crow) - 1
    inputs = patches.flatten(0, 2)[:, col.long()]  # (L, blocks, b_in)
    parts = torch.einsum("lti,tij->tlj", inputs, values.to(wide))
    y = parts.new_zeros(rows, len(inputs), height).index_add(0, rows_of(crow, col), parts)
    y = y.transpose(0, 1).reshape(*spatial, rows * height)[..., :out]
    y = y if bias is None else y + bias
    y = y if added is None else y + added
    return (y.relu() if relu else y).to(x.dtype).contiguous()


def product_grad(
    x: Tensor,
    grad: Tensor,
    crow: Tensor,
    col: Tensor,
    block: Sequence[int],
    geometry: Geometry,
) -> Tensor:
    """The gradient with respect to `values`, (blocks, b_in, b_out), of <grad, product(x, values)>."""
    height, width = block
    rows = len(crow) - 1
    inputs = _patches(x, width, geometry).flatten(0, 2)[:, col.long()]
    inputs = inputs.to(torch.promote_types(torch.promote_types(x.dtype, grad.dtype), torch.float32))
    grad = functional.pad(grad, (0, rows * height - grad.shape[-1])).flatten(0, 2).unflatten(1, (rows, height))
    return torch.einsum("lti,ltj->tij", inputs, grad[:, rows_of(crow, col)].to(inputs.dtype))


def _patches(
    x: Tensor,
    width: int,
    geometry: Geometry,
) -> Tensor:
    """(N, H', W', positions * runs, b_in): what each run of channels at each kernel position sees."""
    kernel, stride, (above, left), dilation = geometry
    short = -x.shape[3] % width
    x = functional.pad(x, (0, short, left, left, above, above))
    high, wide = (x.shape[1 + a] - dilation[a] * (kernel[a] - 1) for a in (0, 1))
    parts = [
        x[:, i * dilation[0] :, j * dilation[1] :][:, : high : stride[0], : wide : stride[1]]
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]
    return torch.cat([part.unflatten(3, (-1, width)) for part in parts], 3)
