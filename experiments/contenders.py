"""The selectors of `bench_selection`, each behind one call, their problems, and the processes they run in.

`prepare(instance, sizes)` returns `choose()`, the part whose time counts: from arrays to the numbers of the groups
chosen. One size is a size that is given; of several the selector takes one by its criterion. Nobody fits an intercept.

What one has to know of the packages, as of the versions named:

    abess 0.4.11   its default criterion, "ebic", wants much evidence for a group, so "bic" is tried as well
    skscope 0.1.8  objectives in JAX, float32 by default, compiled in every call; X and y go to JAX once, in the time
                   that counts: handed over as NumPy arrays they would be converted at every evaluation
"""

from __future__ import annotations

import gc
import os
import time
import warnings
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, TimeoutError
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from multiprocessing import get_context
from signal import SIGTERM
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sparseopt.datasets import simulated
from sparseopt.experiments.problems import Instance
from sparseopt.experiments.processes import STARTUP

__all__ = ["CASES", "SELECTORS", "Case", "Choice", "Contender", "Selector"]

Choice: TypeAlias = "NDArray[np.int64]"
Prepare: TypeAlias = "Callable[[Instance, list[int]], Callable[[], Choice]]"


class Case(NamedTuple):
    """`active` of n_groups groups of 5 consecutive columns matter; columns and response as in `simulated`."""

    n: int
    n_groups: int = 200
    active: int = 5
    rho: float = 0.5
    snr: float = 3.0
    loss: str = "squares"

    def quick(self) -> Case:
        """Half of the samples, a quarter of the groups."""
        return self._replace(n=self.n // 2, n_groups=self.n_groups // 4)

    def sizes(self, task: str) -> list[int]:
        """The true size if it is "given"; 0, 1, ..., twice as many if it is "chosen"; 1, ..., 30 for "range".

        A range ends earlier where 30 groups would leave no degree of freedom.

        >>> Case(100, 200).sizes("range")[-1], Case(500, 200).sizes("range")[-1]
        (19, 30)
        """
        if task == "range":
            return list(range(1, min(30, self.n_groups, (self.n - 1) // 5) + 1))
        return [self.active] if task == "given" else list(range(2 * self.active + 1))

    def make(self, seed: int) -> tuple[Instance, Choice]:
        """A problem and the groups that matter in it.

        Examples
        --------
        >>> instance, truth = Case(50, 20, active=2).make(seed=0)
        >>> instance.X.shape, len(truth)
        ((50, 100), 2)
        """
        made = simulated(
            self.n,
            self.n_groups,
            active=self.active,
            rho=self.rho,
            snr=self.snr,
            loss=self.loss,
            equal_norms=True,
            seed=seed,
        )
        Y = np.asfortranarray(made.y[:, None], dtype=np.float64)
        instance = Instance(self.loss, np.asfortranarray(made.X), Y, np.bincount(made.groups), self.loss)
        return instance, np.unique(made.groups[made.w != 0.0])


CASES: dict[str, Case] = {
    "easy": Case(500, rho=0.0),
    "mid": Case(200),
    "lown": Case(100),
    "lowsnr": Case(500, snr=0.5),
    "corr9": Case(300, rho=0.9),
    "logistic": Case(500, loss="logistic"),
    "large": Case(1000, n_groups=2000, active=20),
}


class Selector(NamedTuple):
    """A way to choose groups. package: the module to import; tasks: see `Case.sizes`."""

    package: str
    tasks: tuple[str, ...]
    prepare: Prepare


# -- this project ------------------------------------------------------------------------------------------------------


def _sparseopt(method: str, criterion: str = "bic", **options: Any) -> Prepare:
    def prepare(instance: Instance, sizes: list[int]) -> Callable[[], Choice]:
        from sparseopt import Groups, Problem
        from sparseopt.selection import select, select_path

        def choose() -> Choice:
            groups = Groups.from_sizes(instance.sizes)
            problem = Problem.build(instance.X, instance.y, groups, loss=instance.loss, intercept=False)
            if len(sizes) == 1:
                return select(problem, sizes[0], method, **options).support
            return select_path(problem, sizes, method, progress=False, **options).best(criterion).support

        return choose

    return prepare


# -- peers -------------------------------------------------------------------------------------------------------------


def _abess(**criterion: str) -> Prepare:
    def prepare(instance: Instance, sizes: list[int]) -> Callable[[], Choice]:
        linear = import_module("abess.linear")
        model = linear.LogisticRegression if instance.loss == "logistic" else linear.LinearRegression
        labels = np.repeat(np.arange(len(instance.sizes)), instance.sizes)

        def choose() -> Choice:
            how: dict[str, Any] = {"support_size": sizes, "group": labels, "fit_intercept": False}
            fitted = model(**how, **criterion).fit(instance.X, instance.y)
            return np.unique(labels[np.ravel(fitted.coef_) != 0.0])

        return choose

    return prepare


def _skscope(solver: str) -> Prepare:
    def prepare(instance: Instance, sizes: list[int]) -> Callable[[], Choice]:
        jnp, skscope = import_module("jax.numpy"), import_module("skscope")
        n, p = instance.X.shape
        labels = np.repeat(np.arange(len(instance.sizes)), instance.sizes)

        one = len(sizes) == 1

        def objective(w: Any, data: Any) -> Any:  # the mean, or the sum that the criteria of skscope are made for
            z, y = data[0] @ w, data[1]
            losses = jnp.logaddexp(0.0, z) - y * z if instance.loss == "logistic" else (z - y) ** 2
            return 0.5 * jnp.mean(losses) if one else jnp.sum(losses)

        def choose() -> Choice:
            data = jnp.asarray(instance.X), jnp.asarray(instance.y)
            how: dict[str, Any] = {"sparsity": sizes, "sample_size": n, "group": labels}
            if not one:
                how["ic_method"] = getattr(skscope.utilities, "SIC" if instance.loss == "logistic" else "LinearSIC")
            w = getattr(skscope, solver)(p, **how).solve(objective, data, jit=True)
            return np.unique(labels[np.asarray(w) != 0.0])

        return choose

    return prepare


_CHOOSE = ("chosen", "range")

SELECTORS: dict[str, Selector] = {
    "splicing": Selector("sparseopt", ("given",), _sparseopt("splicing")),
    "splicing-bic": Selector("sparseopt", _CHOOSE, _sparseopt("splicing", "bic")),
    "splicing-ebic": Selector("sparseopt", _CHOOSE, _sparseopt("splicing", "ebic")),
    "splicing-bonferroni": Selector("sparseopt", _CHOOSE, _sparseopt("splicing", "bonferroni")),
    "splicing-gap": Selector("sparseopt", _CHOOSE, _sparseopt("splicing", "gap")),
    "omp": Selector("sparseopt", ("given",), _sparseopt("omp")),
    "omp-gain": Selector("sparseopt", ("given",), _sparseopt("omp", by="gain")),
    "ompr": Selector("sparseopt", ("given",), _sparseopt("ompr")),
    "iht": Selector("sparseopt", ("given",), _sparseopt("iht")),
    "forward-backward": Selector("sparseopt", ("given",), _sparseopt("forward-backward")),
    "abess": Selector("abess", ("given", *_CHOOSE), _abess()),
    "abess-bic": Selector("abess", _CHOOSE, _abess(ic_type="bic")),
    "skscope-scope": Selector("skscope", ("given", "chosen"), _skscope("ScopeSolver")),
    "skscope-omp": Selector("skscope", ("given",), _skscope("OMPSolver")),
    "skscope-grasp": Selector("skscope", ("given",), _skscope("GraspSolver")),
    "skscope-htp": Selector("skscope", ("given",), _skscope("HTPSolver")),
}


# -- the process -------------------------------------------------------------------------------------------------------


@dataclass
class Contender:
    """A selector on one case, in a process of its own: its choices, and the times of its calls, by seed."""

    name: str
    case: Case
    task: str
    budget: float
    choices: dict[int, Choice] = field(default_factory=dict)
    times: dict[int, list[float]] = field(default_factory=dict)
    first: float | None = None
    trouble: str = ""

    def __post_init__(self) -> None:
        self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_silence)

    @property
    def left(self) -> float:
        """Seconds of its budget."""
        return self.budget - sum(sum(times) for times in self.times.values())

    def ask(self, seed: int) -> None:
        """One call. The first call of all is kept apart and asked again, so that times are warm."""
        if self.trouble:
            return
        if self.first is None:
            answer = self._call(seed, STARTUP)
            if answer is None:
                return
            self.first = answer[0]
        answer = self._call(seed, self.budget)
        if answer is not None:
            self.times.setdefault(seed, []).append(answer[0])
            self.choices.setdefault(seed, answer[1])

    def stop(self) -> None:
        """End the process."""
        self._pool.shutdown()

    def _call(self, seed: int, limit: float) -> tuple[float, Choice] | None:
        """Seconds and choice, None if there was trouble."""
        try:
            process = self._pool.submit(os.getpid).result(STARTUP)
            future = self._pool.submit(_answer, self.name, self.case, self.task, seed)
            try:
                return future.result(limit)
            except TimeoutError:
                self.trouble = "over budget"
                os.kill(process, SIGTERM)
        except BrokenExecutor:
            self.trouble = "failed: the process died"
        except Exception as error:  # whatever a package raises is a result of the benchmark
            self.trouble = f"failed: {type(error).__name__}: {error}".splitlines()[0]
        return None


def _silence() -> None:
    """Keep a process from printing: some packages do so from C, and warn at every call."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    warnings.simplefilter("ignore")


def _answer(name: str, case: Case, task: str, seed: int) -> tuple[float, Choice]:
    """Seconds and choice of a selector; in the first call of a process the seconds include the import."""
    instance = _made(case, seed)
    gc.collect()
    began = time.perf_counter()
    choose = SELECTORS[name].prepare(instance, case.sizes(task))
    if name in _imported:
        began = time.perf_counter()
    chosen = choose()
    seconds = time.perf_counter() - began
    _imported.add(name)
    return seconds, chosen


_imported: set[str] = set()


@lru_cache(maxsize=1)
def _made(case: Case, seed: int) -> Instance:
    return case.make(seed)[0]
