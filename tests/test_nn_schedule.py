"""Schedules: phases without gaps, the paper's phases, the number of steps that errors ask for, and shares."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="schedules belong to sparseopt.nn")

from sparseopt.nn import Cubic, Exponential, Linear, Phase, PhaseSchedule
from sparseopt.nn.schedule import KINDS

BUILDERS: dict[str, Callable[[int], PhaseSchedule]] = {
    "imagenet": PhaseSchedule.imagenet,
    "imagenet ac/dc": lambda total: PhaseSchedule.imagenet(total, sparsify=False),
    "criteo": PhaseSchedule.criteo,
    "criteo ac/dc": lambda total: PhaseSchedule.criteo(total, sparsify=False),
    "criteo 7": lambda total: PhaseSchedule.criteo(total, cycles=7),
    "criteo 1": lambda total: PhaseSchedule.criteo(total, cycles=1),
    "one shot": PhaseSchedule.one_shot,
    "gradual": PhaseSchedule.gradual,
}
FEWEST = {"imagenet": 30, "imagenet ac/dc": 20, "criteo": 50, "criteo ac/dc": 34, "criteo 7": 35, "criteo 1": 5}


def fault(schedule: PhaseSchedule, total: int) -> str:
    """What is wrong with a schedule of `total` steps."""
    if schedule.phases[0].start != 0 or schedule.phases[-1].stop != total or schedule.total != total:
        return "it does not run from the first step to the last"
    if any(before.stop != after.start for before, after in pairwise(schedule.phases)):
        return "there is a gap"
    if any(phase.stop <= phase.start for phase in schedule.phases):
        return "a phase is empty"
    for number, phase in enumerate(schedule.phases):
        for step in {phase.start, (phase.start + phase.stop) // 2, phase.stop - 1}:
            if schedule.index(step) != number or schedule.at(step) != phase:
                return "a step is in another phase"
            if schedule.progress(step) != (step - phase.start) / (phase.stop - phase.start):
                return "progress is wrong"
    return ""


@pytest.mark.parametrize("name", BUILDERS)
def test_phases_follow_each_other_without_gaps(name: str) -> None:
    for total in (*range(FEWEST.get(name, 10), 400), 999, 12_345, 1_000_003, 10**9 + 7):
        assert fault(BUILDERS[name](total), total) == ""


@settings(max_examples=200)
@given(st.lists(st.floats(1e-3, 1.0), min_size=1, max_size=12), st.integers(1, 10**7))
def test_any_shares_give_steps_without_gaps_close_to_the_shares(parts: list[float], total: int) -> None:
    shares = [part / math.fsum(parts) for part in parts]
    pairs = [(KINDS[i % 3], share) for i, share in enumerate(shares)]
    if min(shares) * total < 1.0:
        # The ends are rounded: a phase shorter than a step may still get one.
        with contextlib.suppress(ValueError):
            assert fault(PhaseSchedule.from_list(pairs, total), total) == ""
        return
    schedule = PhaseSchedule.from_list(pairs, total)
    assert fault(schedule, total) == ""
    for i, phase in enumerate(schedule.phases):
        assert abs(phase.stop - total * math.fsum(shares[: i + 1])) <= 0.5 + 1e-6


def test_gaps_and_lost_steps_are_rejected() -> None:
    def truncated(shares: list[float], total: int) -> PhaseSchedule:
        """Wrong: every phase gets its own whole number of steps, and the rest is lost."""
        return PhaseSchedule.from_list([("dense", float(int(share * total))) for share in shares])

    assert fault(truncated([0.1] * 10, 105), 105) != ""

    class Late(PhaseSchedule):
        def index(self, step: int) -> int:
            return super().index(step - 1)

    assert fault(Late(PhaseSchedule.imagenet(60).phases), 60) == "a step is in another phase"


def test_shares_that_are_off_by_rounding_lose_no_step() -> None:
    for thirds in (0.3333333, 0.3333336):  # these add up to 1 within the millionth that is allowed
        schedule = PhaseSchedule.from_list([("dense", thirds), ("sparsify", thirds), ("sparse", thirds)], 3_000_000)
        assert schedule.to_list() == [["dense", 10**6], ["sparsify", 10**6], ["sparse", 10**6]]


def test_halves_are_rounded_up_whatever_floats_add_up_to() -> None:
    assert 0.1 + 0.2 != 0.3
    for total in range(30, 3000, 10):
        ends = [phase.stop for phase in PhaseSchedule.imagenet(total).phases]
        thirds = [Fraction(1, 10) + Fraction(i, 30) for i in range(19)]
        wanted = [math.floor(total * end + Fraction(1, 2)) for end in (*thirds, Fraction(17, 20), Fraction(1))]
        assert ends == wanted


# ------------------------------------------------------------------------------------------- the schedules of papers


def borders(schedule: PhaseSchedule, kind: str) -> list[int]:
    return [phase.start for phase in schedule.phases if phase.kind == kind]


def test_acdc_on_imagenet_prunes_and_restores_in_the_epochs_of_its_authors() -> None:
    schedule = PhaseSchedule.imagenet(100, sparsify=False)
    assert borders(schedule, "sparse") == [10, 20, 30, 40, 50, 60, 70, 85]
    assert borders(schedule, "dense") == [0, 15, 25, 35, 45, 55, 65, 75]
    assert schedule.to_list()[-2:] == [["dense", 10], ["sparse", 15]]


def test_acdc_on_imagenet_in_90_epochs() -> None:
    schedule = PhaseSchedule.imagenet(900, sparsify=False)  # tenths of an epoch
    lengths = [length for _, length in schedule.to_list()]
    assert lengths == [90, *[45] * 13, 90, 135]
    epochs = PhaseSchedule.imagenet(90, sparsify=False)
    assert borders(epochs, "sparse") == [9, 18, 27, 36, 45, 54, 63, 77]  # 76.5 is rounded up
    assert borders(epochs, "dense") == [0, 14, 23, 32, 41, 50, 59, 68]


def test_sequential_attention_on_imagenet_has_six_cycles_and_a_long_last_one() -> None:
    schedule = PhaseSchedule.imagenet(90)
    cycle = [["sparsify", 3], ["sparse", 3], ["dense", 3]]
    assert schedule.to_list()[:19] == [["dense", 9], *cycle * 6]
    assert schedule.phases[19:] == (Phase("sparsify", 63, 77), Phase("sparse", 77, 90))
    assert PhaseSchedule.imagenet(1000).phases[19:] == (Phase("sparsify", 700, 850), Phase("sparse", 850, 1000))


def test_criteo_has_ten_cycles_over_sixty_percent() -> None:
    schedule = PhaseSchedule.criteo(1000, sparsify=False)
    assert schedule.to_list() == [["dense", 200], *[["sparse", 30], ["dense", 30]] * 10, ["sparse", 200]]
    schedule = PhaseSchedule.criteo(1000)
    cycle = [["sparsify", 20], ["sparse", 20], ["dense", 20]]
    assert schedule.to_list() == [["dense", 200], *cycle * 9, ["sparsify", 60], ["sparse", 200]]


def test_one_shot_and_gradual_leave_empty_phases_out() -> None:
    assert PhaseSchedule.one_shot(10).to_list() == [["dense", 5], ["sparse", 5]]
    assert PhaseSchedule.one_shot(10, dense=0.0).to_list() == [["sparse", 10]]
    assert PhaseSchedule.gradual(20).to_list() == [["dense", 2], ["sparsify", 12], ["sparse", 6]]
    assert PhaseSchedule.gradual(20, dense=0.0, sparsify=0.5).to_list() == [["sparsify", 10], ["sparse", 10]]


# ------------------------------------------------------------------------------------------------- too few steps


def enough(build: Callable[[int], PhaseSchedule]) -> str:
    """What is wrong with the number of steps that the error for one step asks for."""
    try:
        build(1)
    except ValueError as error:
        found = re.search(r"use fewer phases, or (\d+) steps or more\.$", str(error))
    else:
        return "one step is enough"
    if found is None:
        return "no number"
    asked = int(found[1])
    for total in (*range(asked, asked + 40), 1000 * asked, 1000 * asked + 1):
        try:
            build(total)
        except ValueError:
            return f"{total} steps are not enough"
    return ""


@pytest.mark.parametrize("name", BUILDERS)
def test_the_number_of_steps_in_the_error_is_enough(name: str) -> None:
    assert enough(BUILDERS[name]) == ""


@settings(max_examples=50)
@given(st.lists(st.integers(1, 60), min_size=2, max_size=9))
def test_the_number_of_steps_is_enough_for_any_shares(parts: list[int]) -> None:
    pairs = [("dense", part / sum(parts)) for part in parts]
    assert enough(lambda total: PhaseSchedule.from_list(pairs, total)) == ""


@pytest.mark.parametrize("name", FEWEST)
def test_the_number_of_steps_is_the_smallest_that_the_shortest_phase_allows(name: str) -> None:
    with pytest.raises(ValueError, match=rf"or {FEWEST[name]} steps or more\.$"):
        BUILDERS[name](1)


@pytest.mark.parametrize("share", [0.07, 1e-6, 1e-9, 3e-13])
def test_the_number_of_steps_is_enough_for_a_tiny_share(share: float) -> None:
    assert enough(lambda total: PhaseSchedule.from_list([("dense", 1.0 - share), ("sparse", share)], total)) == ""


def test_numbers_that_are_not_enough_are_rejected() -> None:
    def modest(total: int) -> PhaseSchedule:
        try:
            return PhaseSchedule.imagenet(total)
        except ValueError as error:
            raise ValueError(str(error).replace("30 steps", "20 steps")) from None

    assert enough(modest) == "20 steps are not enough"


# ------------------------------------------------------------------------------------------------------- bad lists

WRONG: list[tuple[Any, Any, str]] = [
    ([], 10, "a schedule needs at least one phase."),
    ([("dense", 0.5), ("sparse", 0.4)], 10, "the shares of the phases must add up to 1, got 0.9 from [0.5, 0.4]."),
    ([("dense", 0.5), ("sparse", 0.7)], 10, "the shares of the phases must add up to 1, got 1.2 from [0.5, 0.7]."),
    ([("dense", 1.0), ("spars", 1.0)], None, "a phase is one of dense, sparsify, sparse, got 'spars'."),
    ([("dense", 1.5)], None, "without total, lengths are whole numbers of steps, got [1.5]."),
    ([("dense", 0)], None, "the dense phase has the length 0: leave it out, or make it longer than 0."),
    (
        [("dense", 1.2), ("sparse", -0.2)],
        9,
        "the sparse phase has the length -0.2: leave it out, or make it longer than 0.",
    ),
    ([("dense", 0.0), ("sparse", 1.0)], 9, "the dense phase has the length 0: leave it out, or make it longer than 0."),
    ([("dense", math.nan)], 9, "a phase is a pair such as ('dense', 0.1), got ('dense', nan)."),
    ([("dense", math.inf)], None, "a phase is a pair such as ('dense', 0.1), got ('dense', inf)."),
    ([("dense", "long")], 9, "a phase is a pair such as ('dense', 0.1), got ('dense', 'long')."),
    (["dense", "sparse"], 9, "a phase is a pair such as ('dense', 0.1), got 'dense'."),
    ([("dense",)], 9, "a phase is a pair such as ('dense', 0.1), got ('dense',)."),
    ([("dense", 1.0)], 0, "total must be a positive whole number of steps, got 0."),
    ([("dense", 1.0)], 10.5, "total must be a positive whole number of steps, got 10.5."),
    ([("dense", 1.0)], "ten", "total must be a positive whole number of steps, got 'ten'."),
    (
        [("dense", 0.98), ("sparse", 0.02)],
        20,
        "the sparse phase of share 0.02 has no step in a training of 20 steps: use fewer phases, or 50 steps or more.",
    ),
]


@pytest.mark.parametrize(("phases", "total", "sentence"), WRONG, ids=[f"{each[0]} {each[1]}" for each in WRONG])
def test_wrong_lists_get_a_sentence(phases: Any, total: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        PhaseSchedule.from_list(phases, total)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: PhaseSchedule(()), "a schedule needs at least one phase."),
        (
            lambda: PhaseSchedule((Phase("dense", 0, 5), Phase("sparse", 6, 9))),
            "phases follow each other from step 0 and last one step or more, "
            "got ('sparse', 6, 9) where step 5 comes next.",
        ),
        (
            lambda: PhaseSchedule((Phase("dense", 0, 0),)),
            "phases follow each other from step 0 and last one step or more, "
            "got ('dense', 0, 0) where step 0 comes next.",
        ),
        (lambda: PhaseSchedule((Phase("warm", 0, 5),)), "a phase is one of dense, sparsify, sparse, got 'warm'."),
        (lambda: PhaseSchedule.criteo(100, cycles=0), "cycles must be 1 or more, got 0."),
        (
            lambda: PhaseSchedule.one_shot(10, dense=1.0),
            "dense must be in [0, 1), got 1.0: the other steps are sparse.",
        ),
        (
            lambda: PhaseSchedule.gradual(10, dense=0.4, sparsify=0.6),
            "dense=0.4 and sparsify=0.6 must leave a share for the sparse phase: "
            "choose dense >= 0 and sparsify > 0 with a sum below 1.",
        ),
        (lambda: Exponential(-1.0), "c must be a finite number of at least 0, got -1.0."),
        (lambda: Exponential(math.nan), "c must be a finite number of at least 0, got nan."),
    ],
)
def test_wrong_schedules_get_a_sentence(build: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        build()


@pytest.mark.parametrize("name", BUILDERS)
def test_a_schedule_goes_through_its_list(name: str) -> None:
    schedule = BUILDERS[name](777)
    assert PhaseSchedule.from_list([(kind, length) for kind, length in schedule.to_list()]) == schedule
    assert PhaseSchedule([list(phase) for phase in schedule.phases]) == schedule  # type: ignore[arg-type, misc]
    assert isinstance(PhaseSchedule([["dense", 0, 3]]).phases[0], Phase)  # type: ignore[arg-type, list-item]


# ------------------------------------------------------------------------------------------------ shares and targets

SHARES = [Exponential(), Exponential(0.0), Exponential(1e-9), Exponential(2.0), Exponential(300.0), Cubic(), Linear()]


def share_fault(share: Callable[[float], float]) -> str:
    if share(0.0) != 0.0 or share(1.0) != 1.0:
        return "its ends are not 0 and 1"
    values = [share(i / 1000) for i in range(1001)]
    if any(after < before for before, after in pairwise(values)):
        return "it falls"
    return "" if all(0.0 <= value <= 1.0 for value in values) else "it leaves [0, 1]"


@pytest.mark.parametrize("share", SHARES, ids=repr)
def test_shares_rise_from_0_to_1(share: Callable[[float], float]) -> None:
    assert share_fault(share) == ""


def test_wrong_shares_are_rejected() -> None:
    assert share_fault(lambda t: 1.0 - math.exp(-4.0 * t)) == "its ends are not 0 and 1"
    assert share_fault(lambda t: t + math.sin(2.0 * math.pi * t) * (0.0 < t < 1.0)) == "it falls"


def test_shares_are_their_formulas() -> None:
    assert Exponential()(0.5) == pytest.approx((1.0 - math.exp(-2.0)) / (1.0 - math.exp(-4.0)), rel=1e-15)
    assert round(Exponential(4.0)(0.5), 4) == 0.8808
    assert Exponential(1e-9)(0.25) == pytest.approx(0.25, rel=1e-9)
    assert Exponential(0.0)(0.25) == 0.25
    assert Cubic()(0.5) == 0.875
    assert len({Exponential(), Cubic(), Linear()}) == 3  # all callable, none equal to another
    assert all(SHARES)


def test_targets_follow_the_phases() -> None:
    schedule = PhaseSchedule.from_list([("dense", 2), ("sparsify", 4), ("sparse", 1), ("dense", 1), ("sparse", 2)])
    assert schedule.targets(Linear()) == [0.0, 0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 0.0, 1.0, 1.0]
    assert schedule.targets(Cubic())[3] == Cubic()(0.25)
    assert schedule.targets() == schedule.targets(Exponential(4.0))
    long = PhaseSchedule.imagenet(100_000)
    targets = long.targets()
    assert len(targets) == long.total
    for step in range(0, long.total, 997):
        phase = long.at(step)
        wanted = {"dense": 0.0, "sparse": 1.0, "sparsify": Exponential()(long.progress(step))}[phase.kind]
        assert targets[step] == wanted


def test_steps_after_the_last_belong_to_the_last_phase() -> None:
    schedule = PhaseSchedule.imagenet(90)
    assert schedule.at(89) == schedule.at(90) == schedule.at(10**6) == schedule.phases[-1]
    assert schedule.progress(89) < 1.0
    assert schedule.progress(90) == schedule.progress(10**6) == 1.0
