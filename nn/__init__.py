"""PyTorch side of sparseopt: the core's regularizers on tensors of any device.

Importing this package lets `sparseopt.scalar` act on `torch.Tensor`, so every regularizer's `value`, `slope` and
`prox` accepts tensors, keeps their dtype and device, and has gradients.
"""

from __future__ import annotations

import torch

from sparseopt import scalar

scalar.use(torch.Tensor, torch)
