"""The networks of the experiments, with the parameter names of their well-known implementations.

resnet50()     He et al. (2016) with stride in the 3x3 convolutions, as in torchvision: 25.6 M parameters
resnet20()     the CIFAR network of the same paper, shortcuts without parameters: 0.27 M parameters
click_model()  embeddings of 10 numbers for each of 39 fields, then 400-400-400-1: the network for Criteo
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ClickModel", "ResNet20", "ResNet50", "click_model", "resnet20", "resnet50"]


class _Bottleneck(nn.Module):
    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample: nn.Module | None = None
        if stride > 1 or width_in != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(width_in, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet50(nn.Module):
    """ResNet-50 for images (N, 3, H, W)."""

    def __init__(self, n_classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        width_in = 64
        for number, (width, depth) in enumerate(zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True), start=1):
            blocks = []
            for i in range(depth):
                blocks.append(_Bottleneck(width_in, width, 2 if i == 0 and number > 1 else 1))
                width_in = 4 * width
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.fc = nn.Linear(2048, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
        return self.fc(x.mean((2, 3)))


class _Basic(nn.Module):
    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.pad = stride, (width - width_in) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        return torch.relu(y + functional.pad(shortcut, (0, 0, 0, 0, self.pad, self.pad)))


class ResNet20(nn.Module):
    """The ResNet of 20 layers for images (N, 3, 32, 32)."""

    def __init__(self, n_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        for number, (width_in, width) in enumerate(((16, 16), (16, 32), (32, 64)), start=1):
            first = _Basic(width_in, width, 1 if number == 1 else 2)
            self.add_module(f"layer{number}", nn.Sequential(first, _Basic(width, width, 1), _Basic(width, width, 1)))
        self.linear = nn.Linear(64, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        for number in range(1, 4):
            x = self.get_submodule(f"layer{number}")(x)
        return self.linear(x.mean((2, 3)))


class ClickModel(nn.Module):
    """Embeddings of categorical fields and plain numbers, concatenated, and a network on top: one logit per row.

    Parameters
    ----------
    vocabulary : sequence of int
        Values of each field; rows are (N, fields) of int64 or int32 with indices below them.
    width : int
        Numbers per embedding.
    hidden : sequence of int
        Sizes of the layers between.
    numbers : int
        How many numbers come with each row: the network is then called with (N, fields) and (N, numbers) of float32.
        They follow the embeddings, so the first layer reads width * fields + numbers.
    dropout : float
        Probability with which an output of a hidden layer is dropped in training. The names of the layers are the same
        with and without it.
    spread : float
        Standard deviation of the numbers in fresh embeddings. Torch's own 1 is large for networks of this kind.
    """

    starts: Tensor

    def __new__(
        cls,
        vocabulary: Sequence[int] = (),
        width: int = 10,
        hidden: Sequence[int] = (),
        numbers: int = 0,
        dropout: float = 0.0,
        spread: float = 1.0,
    ) -> ClickModel:
        # A forward with an optional argument would be no network of one input: compression does not fuse such.
        return super().__new__(_NumbersToo if numbers and cls is ClickModel else cls)

    def __init__(
        self,
        vocabulary: Sequence[int],
        width: int = 10,
        hidden: Sequence[int] = (400, 400, 400),
        numbers: int = 0,
        dropout: float = 0.0,
        spread: float = 1.0,
    ) -> None:
        super().__init__()
        if numbers < 0:
            raise ValueError(f"numbers is {numbers}: give at least 0.")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout is {dropout}: give at least 0 and less than 1.")
        starts = torch.tensor([0, *vocabulary[:-1]]).cumsum(0)
        self.register_buffer("starts", starts, persistent=False)
        self.embedding = nn.Embedding(sum(vocabulary), width)
        with torch.no_grad():
            self.embedding.weight *= spread
        sizes = [width * len(vocabulary) + numbers, *hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            # dropout shares the place of ReLU: in a place of its own it would rename the layers behind it
            active = nn.Sequential(nn.ReLU(), nn.Dropout(dropout)) if dropout else nn.ReLU()
            layers += [nn.Linear(before, after), active]
        self.dense = nn.Sequential(*layers, nn.Linear(sizes[-1], 1))

    def forward(self, rows: Tensor) -> Tensor:
        return self.dense(self.embedding(rows + self.starts).flatten(1)).squeeze(1)


class _NumbersToo(ClickModel):
    def forward(self, rows: Tensor, numbers: Tensor) -> Tensor:  # type: ignore[override]
        embedded = self.embedding(rows + self.starts).flatten(1)
        return self.dense(torch.cat([embedded, numbers], 1)).squeeze(1)


def resnet50(n_classes: int = 1000) -> ResNet50:
    """ResNet-50, freshly initialised.

    >>> sum(parameter.numel() for parameter in resnet50().parameters())
    25557032
    """
    return ResNet50(n_classes)


def resnet20(n_classes: int = 10) -> ResNet20:
    """The CIFAR ResNet-20, freshly initialised.

    >>> sum(parameter.numel() for parameter in resnet20().parameters())
    269722
    """
    return ResNet20(n_classes)


def click_model(vocabulary: Sequence[int], *, numbers: int = 0, dropout: float = 0.0) -> ClickModel:
    """The network for Criteo: 39 fields make a first dense layer of 390 x 400, and `numbers` come on top of 390.

    >>> click_model([5] * 39)(torch.zeros(2, 39, dtype=torch.int64)).shape
    torch.Size([2])
    >>> model = click_model([5] * 26, numbers=13, dropout=0.5)
    >>> model.dense[0], model(torch.zeros(2, 26, dtype=torch.int32), torch.zeros(2, 13)).shape
    (Linear(in_features=273, out_features=400, bias=True), torch.Size([2]))
    """
    return ClickModel(vocabulary, numbers=numbers, dropout=dropout)
