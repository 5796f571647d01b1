"""What `compress` found out about every layer, and what it chose: the table that it leaves with the model."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from sparseopt.console import columns

__all__ = ["Compression", "LayerChoice"]


@dataclass(frozen=True)
class LayerChoice:
    """One layer.

    Attributes
    ----------
    name : str
        Of its weight in the given model.
    kind : str
        Type of the module there: "Linear", "Conv2d", ...
    shape : tuple of int
        Shape of its weight there.
    chosen : {"dense", "sparse", "shrunk"}
        What it is now.
    reason : str
        Why, and what else was done to it.
    block : (outputs, inputs) or None
        Size of the stored blocks; None if there is none that would be zero.
    density : float
        Share of the blocks that are stored; without blocks, of the entries that are not zero.
    dense_ms, sparse_ms, shrunk_ms : float or None
        Medians of one call; of all its calls, if the network calls it more than once. None if not measured.
    removed : (outputs, inputs)
        Channels that have left the network, see `sparseopt.nn.sparse.removal`.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    chosen: str
    reason: str
    block: tuple[int, int] | None = None
    density: float = 1.0
    dense_ms: float | None = None
    sparse_ms: float | None = None
    shrunk_ms: float | None = None
    removed: tuple[int, int] = (0, 0)

    @property
    def speedup(self) -> float | None:
        """Dense time over the time of what was chosen; 1 where that is the dense layer, None if not measured."""
        taken = {"dense": self.dense_ms, "sparse": self.sparse_ms, "shrunk": self.shrunk_ms}[self.chosen]
        return None if self.dense_ms is None or taken is None else self.dense_ms / taken


@dataclass(frozen=True)
class Compression:
    """All layers, and the network as a whole. `print(compression)` shows a table.

    Attributes
    ----------
    layers : tuple of LayerChoice
        In the model's order.
    notes : tuple of str
        What was done to the network, and what could not be.
    dense_ms, compressed_ms : float or None
        Medians of one run on the example: of the best dense network, with BatchNorm folded where it can be, and of the
        compressed one. None if not measured.
    """

    layers: tuple[LayerChoice, ...]
    notes: tuple[str, ...] = ()
    dense_ms: float | None = None
    compressed_ms: float | None = None

    @property
    def speedup(self) -> float | None:
        """Dense time over compressed time of the whole network, None if not measured."""
        if self.dense_ms is None or self.compressed_ms is None:
            return None
        return self.dense_ms / self.compressed_ms

    def to_dict(self) -> dict[str, Any]:
        """Numbers, strings and lists only: for JSON."""
        layers = [
            {
                **{name: getattr(layer, name) for name in ("name", "kind", "chosen", "reason", "density")},
                **{name: getattr(layer, name) for name in ("dense_ms", "sparse_ms", "shrunk_ms", "speedup")},
                "shape": list(layer.shape),
                "removed": list(layer.removed),
                "block": None if layer.block is None else list(layer.block),
            }
            for layer in self.layers
        ]
        totals = {name: getattr(self, name) for name in ("dense_ms", "compressed_ms", "speedup")}
        return {"layers": layers, "notes": list(self.notes), **totals}

    def __str__(self) -> str:
        heading = ("layer", "matrix", "chosen", "block", "density", "dense ms", "sparse ms", "speed-up")
        rows = [heading, *(_row(layer) for layer in self.layers)]
        lines = columns(rows, indent="", left=4)
        width = max(map(len, lines))
        reasons = ["reason", *(_reason(layer) for layer in self.layers)]
        lines = [f"{line:<{width}}  {reason}".rstrip() for line, reason in zip(lines, reasons, strict=True)]
        if self.speedup is not None:
            lines.append(
                f"whole network: dense {_ms(self.dense_ms)} ms, compressed {_ms(self.compressed_ms)} ms, "
                f"speed-up {self.speedup:.2f}"
            )
        return "\n".join((*lines, *self.notes))


def _row(layer: LayerChoice) -> tuple[str, ...]:
    matrix = f"{layer.shape[0]} x {prod(layer.shape[1:])}" if layer.shape else "?"
    block = "-" if layer.block is None else f"{layer.block[0]} x {layer.block[1]}"
    speedup = "-" if layer.speedup is None else f"{layer.speedup:.2f}"
    times = (_ms(layer.dense_ms), _ms(layer.sparse_ms))
    return (layer.name, matrix, layer.chosen, block, f"{layer.density:.3f}", *times, speedup)


def _reason(layer: LayerChoice) -> str:
    gone = [f"{n} {what} removed" for n, what in zip(layer.removed, ("outputs", "inputs"), strict=True) if n]
    return ", ".join([layer.reason] * bool(layer.reason) + gone)


def _ms(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds:.3g}" if milliseconds < 100 else f"{milliseconds:.0f}"
