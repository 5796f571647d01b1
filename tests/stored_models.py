"""Models with block-sparse layers for the tests of files, and a forger who writes files by hand."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparseopt.experiments.networks import click_model, resnet20
from sparseopt.nn import BlockGrid
from sparseopt.nn.sparse.layers import BlockSparseConv1d, BlockSparseConv2d, BlockSparseLinear
from sparseopt.nn.sparse.shrinking import ShrunkConv2d, ShrunkLinear

KINDS: dict[type[nn.Module], Any] = {
    nn.Linear: BlockSparseLinear,
    nn.Conv1d: BlockSparseConv1d,
    nn.Conv2d: BlockSparseConv2d,
}


def sparse(model: nn.Module, block: int = 4, keep: float = 0.4, least: int = 8) -> nn.Module:
    """The model with block-sparse layers, some blocks chosen at random, in eval mode."""
    for module in list(model.modules()):
        for key, child in list(module._modules.items()):
            if type(child) in KINDS and min(child.weight.shape[:2]) >= least:
                grid = BlockGrid(tuple(child.weight.shape), (block, block))
                module._modules[key] = KINDS[type(child)].from_dense(child, grid, torch.rand(grid.counts) < keep)
    return model.eval()


class TiedEmbedding(nn.Module):
    """Words in, words out: the embedding is also the weight of the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(12, 16)
        self.middle = nn.Linear(16, 16)
        self.decoder = nn.Linear(16, 12)
        self.decoder.weight = self.embedding.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.decoder(self.embedding(words) + self.middle(self.embedding(words)))


class Functional(nn.Module):
    """Functions, methods, attributes, slices and constants of all kinds."""

    scale: Tensor
    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleDict({"first": nn.Linear(16, 16), "last": nn.Linear(16, 16)})
        self.free = nn.Parameter(torch.randn(16), requires_grad=False)
        self.register_buffer("scale", torch.rand(16))
        self.register_buffer("shift", torch.rand(16), persistent=False)
        self.plain = torch.rand(16)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> dict[str, Any]:
        if mask is not None:
            x = x * mask
        n, channels = x.shape[0], x.size(-1)
        y = functional.gelu(self.inner["first"](x), approximate="tanh") * self.scale + self.shift * self.free
        y = y.reshape(n, 2, channels // 2).permute(0, 2, 1).flatten(1).to(torch.float32)
        z = torch.einsum("ni,ni->n", y, x).clamp(max=float("inf"))[:, None]
        pair = torch.split(self.inner["last"](y) + self.plain + torch.tensor([0.5]), 8, dim=-1)
        return {"y": pair[0].mean(dim=(0, 1)), "z": [z, pair[1][..., ::2].softmax(-1)], "n": n}


class Sequences(nn.Module):
    """Recurrence, attention, normalisation and a convolution in one dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(8, 8, num_layers=2, batch_first=True, bidirectional=True)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.conv = nn.Conv1d(16, 8, 3, padding="same")
        self.unused = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.recurrent(x)[0]
        x = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        return self.conv(x.transpose(1, 2))


def shared() -> nn.Module:
    """One layer in two places."""
    layer = nn.Linear(16, 16)
    model = sparse(nn.Sequential(layer, nn.ReLU(), nn.Linear(16, 16)))
    model.append(model[0])
    return model.append(model[1])


def shrunk() -> nn.Module:
    """Layers that lack some channels."""
    conv, linear = nn.Conv2d(8, 8, 3, stride=2, padding="valid"), nn.Linear(8, 8)
    with torch.no_grad():
        conv.weight[:, 2] = 0.0
        conv.weight[5] = 0.0
        linear.weight[1:4] = 0.0
    parts = (ShrunkConv2d.from_dense(conv), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*parts, ShrunkLinear.from_dense(linear)).eval()


def mlp() -> nn.Module:
    """Three layers, two of them block-sparse."""
    return sparse(nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 16), nn.Linear(16, 3)))


def convolutional() -> nn.Module:
    """Two small convolutions, the second block-sparse and strided."""
    layers = (
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, 2, 1),
        nn.Flatten(),
        nn.Linear(32, 4),
    )
    return sparse(nn.Sequential(*layers))


def floats(*shape: int) -> Callable[[], Tensor]:
    """Random numbers of that shape."""
    return lambda: torch.randn(*shape, generator=torch.Generator().manual_seed(5))


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "mlp": (mlp, floats(4, 16)),
    "convolutions": (convolutional, floats(2, 3, 6, 6)),
    "residual": (lambda: sparse(resnet20()), floats(1, 3, 32, 32)),
    "clicks": (lambda: sparse(click_model([3, 4, 5])), lambda: torch.tensor([[0, 1, 2], [2, 3, 4]])),
    "tied": (lambda: sparse(TiedEmbedding(), least=16), lambda: torch.tensor([[0, 5, 11]])),
    "functional": (lambda: sparse(Functional()), floats(3, 16)),
    "sequences": (lambda: sparse(Sequences()), floats(2, 5, 8)),
    "shared": (shared, floats(4, 16)),
    "shrunk": (shrunk, floats(2, 8, 9, 9)),
    "one layer": (lambda: BlockSparseLinear.from_dense(nn.Linear(8, 8), 4).eval(), floats(2, 8)),
    "bfloat16": (lambda: convolutional().bfloat16(), lambda: floats(2, 3, 6, 6)().bfloat16()),
    "channels last": (
        lambda: convolutional().to(memory_format=torch.channels_last),
        lambda: floats(2, 3, 6, 6)().to(memory_format=torch.channels_last),
    ),
}


def made(name: str) -> tuple[nn.Module, Tensor]:
    """A model and an input; the same ones every time."""
    torch.manual_seed(0)
    model, x = MODELS[name]
    return model(), x()


class Forger:
    """The contents of a file, to be changed and written with a right checksum; uses none of the code under test."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        self.header: dict[str, Any] = json.loads(data[8 : 8 + length])
        self.metadata: dict[str, str] = self.header.pop("__metadata__")
        self.description: dict[str, Any] = json.loads(self.metadata["sparseopt"])
        body = data[8 + length :]
        self.tensors = {
            name: bytearray(body[slice(*entry["data_offsets"])])
            for name, entry in sorted(self.header.items(), key=lambda item: item[1]["data_offsets"])
        }

    def numbers(self, name: str, code: str = "i") -> list[Any]:
        """The entries of a tensor."""
        return list(memoryview(bytes(self.tensors[name])).cast(code))

    def put(self, name: str, numbers: list[Any], code: str = "i", dtype: str = "I32", shape: Any = None) -> None:
        """Another tensor of that name."""
        self.tensors[name] = bytearray(struct.pack(f"<{len(numbers)}{code}", *numbers))
        self.header[name] = {"dtype": dtype, "shape": [len(numbers)] if shape is None else shape}

    def remove(self, name: str) -> None:
        """No tensor of that name."""
        del self.tensors[name], self.header[name]

    def write(self, path: Path, text: str | None = None) -> None:
        """A file with these contents; `text` instead of the description."""
        text = json.dumps(self.description) if text is None else text
        offset, header = 0, {}
        for name, content in self.tensors.items():
            header[name] = self.header[name] | {"data_offsets": [offset, offset + len(content)]}
            offset += len(content)
        metadata = self.metadata | {"sparseopt": text, "sha256": self.digest(text)}
        raw = json.dumps({"__metadata__": metadata, **header}).encode()
        path.write_bytes(struct.pack("<Q", len(raw)) + raw + b"".join(self.tensors.values()))

    def digest(self, text: str) -> str:
        """The checksum of the format."""
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
        for name in sorted(self.tensors):
            dtype, shape = DTYPES.get(self.header[name]["dtype"], "?"), self.header[name]["shape"]
            digest.update(json.dumps([name, f"torch.{dtype}", shape]).encode() + self.tensors[name])
        return digest.hexdigest()


DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "C64": "complex64"}
DTYPES |= {"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool"}
