"""Phases: when a network trains dense, when its blocks fall away, and when it trains sparse.

    dense      every block is used
    sparsify   blocks are dropped step by step: at progress t in [0, 1) of the phase, the share share(t) of the pruning
               is done
    sparse     the blocks chosen at its start are used, and no others

A schedule is a list of phases, as data. With cycles of dense and sparse phases the blocks are chosen anew after every
dense phase (AC/DC: iterative hard thresholding); with a sparsify phase between them they leave one after the other
(SequentialAttention++). Steps are the optimizer's. Phase i holds the steps start <= n < stop.

`share` is (1 - e^(-c t)) / (1 - e^(-c)) for `Exponential(c)`, 1 - (1 - t)^3 for `Cubic()`, t for `Linear()`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

__all__ = ["CUBIC", "EXPONENTIAL", "KINDS", "Cubic", "Exponential", "Linear", "Phase", "PhaseSchedule"]

KINDS = ("dense", "sparsify", "sparse")


class Phase(NamedTuple):
    """Steps start <= n < stop of one kind."""

    kind: str
    start: int
    stop: int


class Exponential(NamedTuple):
    """(1 - e^(-c t)) / (1 - e^(-c)), c > 0: most blocks leave early. arXiv 2402.17902 uses c = 4.

    >>> round(Exponential(4.0)(0.5), 4)
    0.8808
    """

    c: float = 4.0

    def __call__(self, t: float) -> float:
        return math.expm1(-self.c * t) / math.expm1(-self.c)


class Cubic(NamedTuple):
    """1 - (1 - t)^3: the gradual magnitude pruning of Zhu and Gupta (2017)."""

    def __call__(self, t: float) -> float:
        return 1.0 - (1.0 - t) ** 3


class Linear(NamedTuple):
    """t."""

    def __call__(self, t: float) -> float:
        return t


EXPONENTIAL = Exponential()
CUBIC = Cubic()


@dataclass(frozen=True)
class PhaseSchedule:
    """Phases that follow each other without gaps from step 0.

    Build one with `from_list`, `imagenet`, `criteo` or `one_shot`.

    Examples
    --------
    >>> schedule = PhaseSchedule.from_list([("dense", 0.2), ("sparsify", 0.3), ("sparse", 0.5)], 100)
    >>> schedule.phases
    (Phase(kind='dense', start=0, stop=20), Phase(kind='sparsify', start=20, stop=50),
     Phase(kind='sparse', start=50, stop=100))
    >>> schedule.at(49).kind, schedule.at(50).kind, schedule.at(1000).kind
    ('sparsify', 'sparse', 'sparse')
    """

    phases: tuple[Phase, ...]

    def __post_init__(self) -> None:
        if not self.phases:
            raise ValueError("a schedule needs at least one phase.")
        expected = 0
        for phase in self.phases:
            if phase.kind not in KINDS:
                raise ValueError(f"a phase is one of {', '.join(KINDS)}, got {phase.kind!r}.")
            if phase.start != expected or phase.stop <= phase.start:
                raise ValueError(
                    f"phases follow each other from step 0 and last one step or more, got {tuple(phase)} "
                    f"where step {expected} comes next."
                )
            expected = phase.stop

    @property
    def total(self) -> int:
        """Steps of all phases together."""
        return self.phases[-1].stop

    def index(self, step: int) -> int:
        """The number of the phase that step `step` (0-based) belongs to; the last one for later steps."""
        for number, phase in enumerate(self.phases):
            if step < phase.stop:
                return number
        return len(self.phases) - 1

    def at(self, step: int) -> Phase:
        """The phase of step `step` (0-based); the last one for later steps."""
        return self.phases[self.index(step)]

    @classmethod
    def from_list(cls, phases: Iterable[tuple[str, float]], total: int | None = None) -> PhaseSchedule:
        """From (kind, length) pairs: shares of `total` that add up to 1, or numbers of steps if `total` is None.

        Raises
        ------
        ValueError
            When the shares do not add up to 1, or a phase would last less than one step.
        """
        pairs = [(str(kind), float(length)) for kind, length in phases]
        if not pairs:
            raise ValueError("a schedule needs at least one phase.")
        lengths = [length for _, length in pairs]
        if total is None:
            if any(length != int(length) for length in lengths):
                raise ValueError(f"without total, lengths are whole numbers of steps, got {lengths}.")
            ends = [int(sum(lengths[: i + 1])) for i in range(len(lengths))]
        else:
            if total < 1:
                raise ValueError(f"total must be a positive number of steps, got {total}.")
            if min(lengths) < 0.0 or abs(sum(lengths) - 1.0) > 1e-6:
                raise ValueError(f"the shares of the phases must add up to 1, got {sum(lengths):.6g} from {lengths}.")
            ends = [math.floor(total * sum(lengths[: i + 1]) + 0.5) for i in range(len(lengths))]
        starts = [0, *ends[:-1]]
        for (kind, length), start, end in zip(pairs, starts, ends, strict=True):
            if end <= start:
                shortest = min(length for length in lengths if length > 0.0) if total else 1.0
                raise ValueError(
                    f"the {kind} phase of length {length:g} has no step in a training of {ends[-1]} steps: "
                    f"use fewer phases, or at least {math.ceil(1.0 / shortest)} steps."
                )
        return cls(tuple(Phase(kind, a, b) for (kind, _), a, b in zip(pairs, starts, ends, strict=True)))

    @classmethod
    def imagenet(cls, total: int, sparsify: bool = True) -> PhaseSchedule:
        """The schedule of arXiv 2402.17902 for ImageNet.

        10 % dense, six cycles of 10 %, a last cycle of 15 %, and 15 % sparse. A cycle is sparsify, sparse and dense in
        equal parts, the last one sparsify alone; with `sparsify=False` (AC/DC) 5 % sparse and then dense.
        """
        if sparsify:
            cycle = [("sparsify", 0.1 / 3), ("sparse", 0.1 / 3), ("dense", 0.1 / 3)]
            return cls.from_list([("dense", 0.1), *cycle * 6, ("sparsify", 0.15), ("sparse", 0.15)], total)
        cycles = [("sparse", 0.05), ("dense", 0.05)] * 6
        return cls.from_list([("dense", 0.1), *cycles, ("sparse", 0.05), ("dense", 0.1), ("sparse", 0.15)], total)

    @classmethod
    def criteo(cls, total: int, sparsify: bool = True, cycles: int = 10) -> PhaseSchedule:
        """The schedule of arXiv 2402.17902 for Criteo: 20 % dense, `cycles` cycles over 60 %, and 20 % sparse.

        A cycle is sparsify, sparse and dense in equal parts, the last one sparsify alone; with `sparsify=False` (AC/DC)
        sparse and dense.
        """
        each = 0.6 / cycles
        if sparsify:
            cycle = [("sparsify", each / 3), ("sparse", each / 3), ("dense", each / 3)]
            phases = [*cycle * (cycles - 1), ("sparsify", each)]
        else:
            phases = [("sparse", each / 2), ("dense", each / 2)] * cycles
        return cls.from_list([("dense", 0.2), *phases, ("sparse", 0.2)], total)

    @classmethod
    def one_shot(cls, total: int, dense: float = 0.5) -> PhaseSchedule:
        """`dense` of the steps dense, the others sparse: train, prune once, fine-tune."""
        return cls.from_list([("dense", dense), ("sparse", 1.0 - dense)], total)

    @classmethod
    def gradual(cls, total: int, dense: float = 0.1, sparsify: float = 0.6) -> PhaseSchedule:
        """Dense, one long sparsify phase, and the rest sparse."""
        return cls.from_list([("dense", dense), ("sparsify", sparsify), ("sparse", 1.0 - dense - sparsify)], total)

    def to_list(self) -> list[list[Any]]:
        """[[kind, steps], ...]: what `from_list` without total takes back."""
        return [[phase.kind, phase.stop - phase.start] for phase in self.phases]

    def progress(self, step: int) -> float:
        """How far step `step` is in its phase, in [0, 1)."""
        phase = self.at(step)
        return min((step - phase.start) / (phase.stop - phase.start), 1.0)

    def targets(self, share: Any = EXPONENTIAL) -> Sequence[float]:
        """The share of the pruning that is in force at every step, `total` numbers in [0, 1]."""
        rising = {
            "dense": lambda step: 0.0,
            "sparsify": lambda step: share(self.progress(step)),
            "sparse": lambda _: 1.0,
        }
        return [rising[self.at(step).kind](step) for step in range(self.total)]
