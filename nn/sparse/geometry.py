"""How a kernel moves over images of pixels: y at line h, pixel w looks at x, for kernel position (a, b), at

    line h stride - padding + a dilation,     pixel w stride - padding + b dilation,

each with its own pair of numbers. A linear layer is a kernel of one position on images of one pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

__all__ = ["LINEAR", "Geometry"]


class Geometry(NamedTuple):
    """Kernel, stride, padding and dilation, each for lines and for pixels."""

    kernel: Sequence[int] = (1, 1)
    stride: Sequence[int] = (1, 1)
    padding: Sequence[int] = (0, 0)
    dilation: Sequence[int] = (1, 1)

    @property
    def positions(self) -> int:
        """Of the kernel."""
        return self.kernel[0] * self.kernel[1]

    def require(self) -> None:
        """Refuse numbers that lead outside an image: kernels trust them with addresses."""
        if any(len(pair) != 2 for pair in self):
            raise ValueError("kernel, stride, padding and dilation must have two numbers each, for lines and pixels.")
        if min(*self.kernel, *self.stride, *self.dilation) < 1 or min(self.padding) < 0:
            raise ValueError(
                f"kernel={list(self.kernel)}, stride={list(self.stride)} and dilation={list(self.dilation)} must be "
                f"positive, padding={list(self.padding)} not negative."
            )

    def sizes(self, image: Sequence[int]) -> list[int]:
        """Lines and pixels of y for those of x.

        Raises
        ------
        RuntimeError
            When the image is smaller than the kernel.
        """
        out = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(image, *self, strict=True)]
        torch._check(
            out[0] > 0 and out[1] > 0,
            lambda: "an image with its padding must be at least as large as the kernel with its dilation.",
        )
        return out


LINEAR = Geometry()
