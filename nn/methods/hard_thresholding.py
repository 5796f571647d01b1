"""AC/DC: dense and sparse phases in turn, which is stochastic iterative hard thresholding.

    dense phase     W <- W - lr grad L(W)
    its end         W <- H_k(W): the k blocks of largest norm stay, the others become 0
    sparse phase    steps on these blocks only

Blocks that were dropped start the next dense phase from 0 and may come back. With dense phases of one step each and no
sparse phase in between this is iterative hard thresholding itself.

References: Peste, Iofinova, Vladu, Alistarh (2021), "AC/DC: alternating compressed / decompressed training of deep
neural networks", NeurIPS; Blumensath, Davies (2009), "Iterative hard thresholding for compressed sensing", ACHA 27.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sparseopt.nn.layers import Layer
from sparseopt.nn.methods.method import Method
from sparseopt.nn.schedule import PhaseSchedule

__all__ = ["ACDC"]


@dataclass(frozen=True)
class ACDC(Method):
    """AC/DC on blocks.

    Parameters
    ----------
    zero : bool
        Set dropped blocks to 0 (iterative hard thresholding). False keeps them under the mask, and the next dense phase
        starts where they were.
    """

    zero: bool = True

    name: ClassVar[str] = "ac/dc"

    def schedule(self, total: int) -> PhaseSchedule:
        return PhaseSchedule.imagenet(total, sparsify=False)

    def scores(self, layer: Layer) -> Tensor:
        return layer.norms()

    def selected(self, layer: Layer) -> None:
        if self.zero:
            layer.clear(~layer.kept)
