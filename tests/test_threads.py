"""Work in parts: the parts make the whole, errors come through, and a forked process has threads of its own."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import numba
import numpy as np
import pytest

from sparseopt import as_design, threads
from sparseopt.designs.products import all_dots, some_dots
from sparseopt.threads import WORTH, at_once, in_parts, one_blas_thread


@pytest.fixture
def three_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 3)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("size", [1, 2, 3, 10, 1000])
def test_parts_make_the_whole(size: int) -> None:
    done: list[tuple[int, int]] = []
    in_parts(lambda lo, hi: done.append((lo, hi)), size, 10 * WORTH)
    assert sorted(i for lo, hi in done for i in range(lo, hi)) == list(range(size))
    assert len(done) == min(size, 3)


@pytest.mark.usefixtures("three_threads")
def test_little_work_stays_in_one_part() -> None:
    done: list[tuple[int, int, int]] = []
    in_parts(lambda lo, hi: done.append((lo, hi, threading.get_ident())), 100, WORTH)
    assert done == [(0, 100, threading.get_ident())]


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("part", [0, 50, 99])
def test_an_error_of_any_part_is_raised_when_all_have_ended(part: int) -> None:
    ended = []

    def work(lo: int, hi: int) -> None:
        ended.append(lo)
        if lo <= part < hi:
            raise KeyError(part)

    with pytest.raises(KeyError, match=str(part)):
        in_parts(work, 100, 10 * WORTH)
    assert len(ended) == 3


@pytest.mark.usefixtures("three_threads")
def test_the_number_of_threads_changes_no_digit() -> None:
    rng = np.random.default_rng(0)
    design = as_design(np.asfortranarray(rng.standard_normal((700, 5003)), dtype=np.float32))
    assert design.nbytes > 3 * WORTH
    rows = rng.standard_normal((2, 700))
    by_three, by_one = np.empty((5003, 2)), np.empty((5003, 2))
    all_dots(design, rows, by_three)
    some_dots(design, np.arange(5003), rows, 0, 5003, by_one)
    np.testing.assert_array_equal(by_three, by_one)
    np.testing.assert_allclose(by_one, design.columns.astype(np.float64) @ rows.T, rtol=1e-9, atol=1e-9)


def test_two_at_once_are_in_two_threads_and_are_not_split_further() -> None:
    meeting = threading.Barrier(2, timeout=30.0)  # passed only if both run at the same time

    def work(stopped: Callable[[], bool]) -> tuple[int, int, bool]:
        meeting.wait()
        parts: list[tuple[int, int]] = []
        in_parts(lambda lo, hi: parts.append((lo, hi)), 100, 10 * WORTH)
        return threading.get_ident(), len(parts), stopped()

    first, second = at_once(work, work)
    assert first[0] == threading.get_ident() != second[0]
    assert first[1:] == second[1:] == (1, False)


@pytest.mark.usefixtures("three_threads")
def test_afterwards_work_is_split_again() -> None:
    at_once(lambda stopped: None, lambda stopped: None)
    parts: list[tuple[int, int]] = []
    in_parts(lambda lo, hi: parts.append((lo, hi)), 100, 10 * WORTH)
    assert len(parts) == 3


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_in_one_of_two_stops_the_other(failing: int) -> None:
    def fails(stopped: Callable[[], bool]) -> None:
        raise KeyError("lost")

    def waits(stopped: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30.0
        while not stopped():
            assert time.monotonic() < deadline
            time.sleep(0.001)

    with pytest.raises(KeyError, match="lost"):
        at_once(*((fails, waits) if failing == 0 else (waits, fails)))


@pytest.mark.usefixtures("three_threads")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*use of fork\\(\\) may lead to deadlocks:DeprecationWarning")
def blas_threads() -> int:
    return max(each["num_threads"] for each in threads._blas().info() if each["user_api"] == "blas")


def overlapping(one_thread: Callable[[], AbstractContextManager[None]]) -> tuple[list[int], int]:
    """BLAS threads while two blocks overlap that end in the order they began, and afterwards; before there are two."""
    first, second = one_thread(), one_thread()
    with threads._blas().limit(limits=2, user_api="blas"):
        seen = []
        for step in (first.__enter__, second.__enter__, lambda: first.__exit__(None, None, None)):
            step()
            seen.append(blas_threads())
        second.__exit__(None, None, None)
        return seen, blas_threads()


@pytest.mark.usefixtures("three_threads")
def test_blas_gets_its_threads_back_when_the_last_has_left() -> None:
    assert overlapping(one_blas_thread) == ([1, 1, 1], 2)


@pytest.mark.usefixtures("three_threads")
def test_limits_that_do_not_know_of_each_other_are_rejected() -> None:
    assert overlapping(lambda: threads._blas().limit(limits=1, user_api="blas")) != ([1, 1, 1], 2)


@pytest.mark.usefixtures("three_threads")
def test_blas_gets_its_threads_back_after_an_error() -> None:
    def fail() -> None:
        with one_blas_thread():
            raise KeyError(blas_threads())

    before = blas_threads()
    with pytest.raises(KeyError, match=r"^1$"):
        fail()
    assert blas_threads() == before


def test_a_forked_process_does_not_wait_for_threads_of_its_parent() -> None:
    in_parts(lambda lo, hi: None, 100, 10 * WORTH)
    child = os.fork()
    if not child:
        done: list[int] = []
        in_parts(lambda lo, hi: done.extend(range(lo, hi)), 100, 10 * WORTH)
        os._exit(0 if sorted(done) == list(range(100)) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
