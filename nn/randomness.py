"""The random numbers of a process as data: the global generators of torch, CUDA, NumPy and Python.

A generator that someone made for himself (a data loader's, a `numpy.random.Generator`) is not among them.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

__all__ = ["random_state", "set_random_state"]


def random_state() -> dict[str, Any]:
    """The states of all global generators: tensors, numbers and strings.

    >>> before = random_state()
    >>> first = torch.rand(2), random.random()
    >>> set_random_state(before)
    >>> torch.equal(torch.rand(2), first[0]), random.random() == first[1]
    (True, True)
    """
    # The generator behind numpy.random.rand and its like; user code draws from it, so it is saved.
    state: Any = np.random.get_state()  # noqa: NPY002
    kind, words, position, has_gauss, gauss = state
    version, numbers, following = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        # Asking a device that nobody uses would reserve memory on it.
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": [str(kind), torch.from_numpy(words.astype(np.int64)), int(position), int(has_gauss), float(gauss)],
        "python": [version, torch.tensor(numbers), following],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Draw from now on what followed `random_state()`.

    Warns
    -----
    UserWarning
        When there are states of CUDA devices that are not here.
    """
    torch.set_rng_state(state["torch"])
    kind, words, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, words.numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    version, numbers, following = state["python"]
    random.setstate((version, tuple(numbers.tolist()), following))
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for device, each in enumerate(state["cuda"][:devices]):
        torch.cuda.set_rng_state(each, device)
    if len(state["cuda"]) > devices:
        warnings.warn(
            f"there are random states of {len(state['cuda'])} CUDA devices, and {devices} devices are here: what is "
            "drawn on devices (dropout) will differ from the uninterrupted run.",
            stacklevel=3,
        )
