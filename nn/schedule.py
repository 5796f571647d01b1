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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from numbers import Integral
from typing import Any, NamedTuple

__all__ = ["CUBIC", "EXPONENTIAL", "KINDS", "Cubic", "Exponential", "Linear", "Phase", "PhaseSchedule"]

KINDS = ("dense", "sparsify", "sparse")


class Phase(NamedTuple):
    """Steps start <= n < stop of one kind."""

    kind: str
    start: int
    stop: int


@dataclass(frozen=True)
class Exponential:
    """(1 - e^(-c t)) / (1 - e^(-c)), c >= 0: most blocks leave early. arXiv 2402.17902 uses c = 4; c = 0 is t.

    >>> round(Exponential(4.0)(0.5), 4)
    0.8808
    """

    c: float = 4.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.c < math.inf:
            raise ValueError(f"c must be a finite number of at least 0, got {self.c}.")

    def __call__(self, t: float) -> float:
        return math.expm1(-self.c * t) / math.expm1(-self.c) if self.c > 0.0 else t


@dataclass(frozen=True)
class Cubic:
    """1 - (1 - t)^3: the gradual magnitude pruning of Zhu and Gupta (2017).

    >>> Cubic()(0.5)
    0.875
    """

    def __call__(self, t: float) -> float:
        return 1.0 - (1.0 - t) ** 3


@dataclass(frozen=True)
class Linear:
    """t.

    >>> Linear()(0.5)
    0.5
    """

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
        object.__setattr__(self, "phases", tuple(Phase(*phase) for phase in self.phases))
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

        Phases end at the steps nearest to their shares of `total`, halves rounded up.

        Raises
        ------
        ValueError
            When the shares do not add up to 1, or a phase would last less than one step.

        Examples
        --------
        >>> PhaseSchedule.from_list([("dense", 3), ("sparse", 4)]).to_list()
        [['dense', 3], ['sparse', 4]]
        >>> PhaseSchedule.from_list([("dense", 0.1), ("sparsify", 0.35), ("sparse", 0.55)], 10).to_list()
        [['dense', 1], ['sparsify', 4], ['sparse', 5]]
        """
        pairs = [_pair(phase) for phase in phases]
        if not pairs:
            raise ValueError("a schedule needs at least one phase.")
        kinds, lengths = [kind for kind, _ in pairs], [length for _, length in pairs]
        for kind, length in pairs:
            if kind not in KINDS:
                raise ValueError(f"a phase is one of {', '.join(KINDS)}, got {kind!r}.")
            if not length > 0.0:
                raise ValueError(f"the {kind} phase has the length {length:g}: leave it out, or make it longer than 0.")
        if total is None:
            if not all(length.is_integer() for length in lengths):
                raise ValueError(f"without total, lengths are whole numbers of steps, got {lengths}.")
            ends = [int(end) for end in accumulate(lengths)]
        else:
            total = _whole(total)
            if not abs(math.fsum(lengths) - 1.0) <= 1e-6:
                raise ValueError(
                    f"the shares of the phases must add up to 1, got {math.fsum(lengths):.6g} from {lengths}."
                )
            # Exact fractions: sums of floats such as 0.1 / 3 would move the ends that fall on half a step.
            shares = [Fraction(length).limit_denominator(10**9) or Fraction(length) for length in lengths]
            whole = sum(shares)
            ends = [math.floor(total * end / whole + Fraction(1, 2)) for end in accumulate(shares)]
            fewest = math.ceil(whole / min(shares))
            for kind, length, start, end in zip(kinds, lengths, [0, *ends], ends, strict=False):
                if end <= start:
                    raise ValueError(
                        f"the {kind} phase of share {length:g} has no step in a training of {total} steps: "
                        f"use fewer phases, or {fewest} steps or more."
                    )
        return cls(tuple(Phase(*each) for each in zip(kinds, [0, *ends], ends, strict=False)))

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
        if cycles < 1:
            raise ValueError(f"cycles must be 1 or more, got {cycles}.")
        each = 0.6 / cycles
        if sparsify:
            cycle = [("sparsify", each / 3), ("sparse", each / 3), ("dense", each / 3)]
            phases = [*cycle * (cycles - 1), ("sparsify", each)]
        else:
            phases = [("sparse", each / 2), ("dense", each / 2)] * cycles
        return cls.from_list([("dense", 0.2), *phases, ("sparse", 0.2)], total)

    @classmethod
    def one_shot(cls, total: int, dense: float = 0.5) -> PhaseSchedule:
        """`dense` of the steps dense, the others sparse: train, prune once, fine-tune. 0 prunes before the first step.

        >>> PhaseSchedule.one_shot(10).to_list(), PhaseSchedule.one_shot(10, dense=0.0).to_list()
        ([['dense', 5], ['sparse', 5]], [['sparse', 10]])
        """
        if not 0.0 <= dense < 1.0:
            raise ValueError(f"dense must be in [0, 1), got {dense}: the other steps are sparse.")
        return cls.from_list(_without_empty([("dense", dense), ("sparse", 1.0 - dense)]), total)

    @classmethod
    def gradual(cls, total: int, dense: float = 0.1, sparsify: float = 0.6) -> PhaseSchedule:
        """Dense, one long sparsify phase, and the rest sparse.

        >>> PhaseSchedule.gradual(10).to_list()
        [['dense', 1], ['sparsify', 6], ['sparse', 3]]
        """
        if not (dense >= 0.0 and sparsify > 0.0 and dense + sparsify < 1.0 - 1e-9):
            raise ValueError(
                f"dense={dense} and sparsify={sparsify} must leave a share for the sparse phase: choose dense >= 0 and "
                "sparsify > 0 with a sum below 1."
            )
        rest = 1.0 - dense - sparsify
        return cls.from_list(_without_empty([("dense", dense), ("sparsify", sparsify), ("sparse", rest)]), total)

    def to_list(self) -> list[list[Any]]:
        """[[kind, steps], ...]: what `from_list` without total takes back."""
        return [[phase.kind, phase.stop - phase.start] for phase in self.phases]

    def progress(self, step: int) -> float:
        """How far step `step` is in its phase, in [0, 1); 1 after the last step."""
        phase = self.at(step)
        return min((step - phase.start) / (phase.stop - phase.start), 1.0)

    def targets(self, share: Callable[[float], float] = EXPONENTIAL) -> Sequence[float]:
        """The share of the pruning that is in force at every step, `total` numbers in [0, 1]."""
        return [each for phase in self.phases for each in _targets(phase, share)]

    def plot(self, sparsity: float = 1.0, share: Callable[[float], float] = EXPONENTIAL, ax: Any = None) -> Any:
        """A picture of the phases and of the sparsity asked for, see `sparseopt.nn.plot_schedule`."""
        from sparseopt.nn.pictures import plot_schedule

        return plot_schedule(self, sparsity, share, ax)


def _targets(phase: Phase, share: Callable[[float], float]) -> list[float]:
    steps = phase.stop - phase.start
    if phase.kind == "sparsify":
        return [share(step / steps) for step in range(steps)]
    return [float(phase.kind == "sparse")] * steps


def _pair(phase: Any) -> tuple[str, float]:
    """(kind, length), checked."""
    try:
        kind, length = phase
        number = float(length)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(phase, str) or not math.isfinite(number):
        raise ValueError(f"a phase is a pair such as ('dense', 0.1), got {phase!r}.")
    return str(kind), number


def _whole(total: Any) -> int:
    """A number of steps, checked."""
    if not isinstance(total, Integral) or total < 1:
        raise ValueError(f"total must be a positive whole number of steps, got {total!r}.")
    return int(total)


def _without_empty(pairs: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    return [(kind, length) for kind, length in pairs if length != 0.0]
