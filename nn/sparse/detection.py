"""Which blocks a weight was pruned in, found in its zeros.

A plain network with exact zeros does not say how large its blocks were. Every size out of a list is tried: a block is
stored if it has an entry other than 0, so too large ones store zeros, and too small ones are slow. With n stored blocks
of b_out x b_in, the time is taken to be proportional to

    n (b_in + 1/4) (p + 4),      p = b_out, up to 16 the next power of two, above it the next multiple of 4,

what the kernels need for their multiplications and, beside these, to find a block and to fetch an input. It is right
within a factor of 2, which is enough to choose what to measure. Entries that are not zero in a box of the matrix are
counted by four corners of

    S[i, j] = entries that are not 0 in the first i rows and j columns.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

__all__ = ["SIDES", "blocks_for", "cost"]

SIDES = (1, 2, 4, 5, 8, 10, 16, 20, 32, 64, 128)
_SMALLEST = 16  # entries: zeros that nobody pruned do not come in blocks
_WORSE = 1.25  # blocks that are expected to be this much slower than the best are not proposed


def cost(blocks: int, block: tuple[int, int]) -> float:
    """Expected time of a product with so many stored blocks, in arbitrary units.

    >>> cost(100, (16, 16)) < cost(400, (8, 8)) < cost(200, (16, 16))
    True
    """
    b_out, b_in = block
    outputs = -(-b_out // 4) * 4 if b_out > 16 else 1 << (b_out - 1).bit_length()
    return blocks * (b_in + 0.25) * (outputs + 4)


def blocks_for(weight: Tensor, most: int = 2) -> list[tuple[int, int]]:
    """Sizes (outputs, inputs) of blocks that suit the zeros of a weight, the most promising first.

    Parameters
    ----------
    weight : Tensor, (out, in, *kernel)
    most : int
        Sizes to return at most.

    Returns
    -------
    list of tuple
        Empty if no block of 16 entries or more is zero.

    Examples
    --------
    >>> checkered = torch.eye(4).repeat_interleave(16, 0).repeat_interleave(16, 1)
    >>> blocks_for(checkered)[0]
    (16, 16)
    """
    matrix = weight.detach().flatten(2).transpose(1, 2).flatten(1) if weight.ndim > 2 else weight.detach()
    rows, cols = matrix.shape
    corners = torch.nn.functional.pad((matrix != 0).to(torch.int32), (1, 0, 1, 0))
    corners = corners.cumsum(0, dtype=torch.int32).cumsum(1, dtype=torch.int32)
    channels = weight.shape[1]
    # A stored block of a convolution lies at one kernel position.
    widths = {min(side, cols) for side in SIDES if weight.ndim == 2 or channels % side == 0}
    heights = {min(side, rows) for side in SIDES}
    entries: dict[tuple[int, int], int] = {}
    found: list[tuple[float, int, tuple[int, int]]] = []
    for b_out, b_in in product(heights, widths):
        if b_out * b_in < min(_SMALLEST, matrix.numel()):
            continue
        box = corners[_cuts(rows, b_out)][:, _cuts(cols, b_in)]
        counts = box[1:, 1:] - box[:-1, 1:] - box[1:, :-1] + box[:-1, :-1]
        stored = int((counts != 0).sum())
        entries[b_out, b_in] = stored * b_out * b_in
        if stored < counts.numel():
            # Of equally good ones the largest: in a layer without any entry they all are.
            found.append((cost(stored, (b_out, b_in)), -b_out * b_in, (b_out, b_in)))
    chosen: dict[int, tuple[int, int]] = {}
    for price, _, block in sorted(found):
        if price > _WORSE * min(found)[0] or len(chosen) == most:
            break
        # The same entries in smaller pieces are no other choice.
        chosen.setdefault(entries[block], block)
    return list(chosen.values())


def _cuts(total: int, side: int) -> Tensor:
    return torch.tensor([*range(0, total, side), total])
