"""Memory for large results: used again when nothing looks at it any more, and never before."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="results are tensors of torch")

from torch import Tensor, nn  # noqa: E402

from sparseopt.nn.sparse import outputs  # noqa: E402
from sparseopt.nn.sparse.layers import BlockSparseLinear  # noqa: E402

LENGTH = 1024  # of a large result here: 4 KB


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts as large is small, and nothing waits from before."""
    monkeypatch.setattr(outputs, "LARGE", 4 * LENGTH)
    monkeypatch.setattr(outputs, "IDLE", 16 * LENGTH)
    monkeypatch.setattr(outputs, "_waiting", [])


KEEPERS: dict[str, Callable[[Tensor], Any]] = {
    "the tensor": lambda y: y,
    "a view": lambda y: y[5:9],
    "an alias": lambda y: y.detach(),
    "an array": lambda y: y.numpy(),
    "a view of an array": lambda y: y.numpy()[::2],
    "its storage": lambda y: y.untyped_storage(),
    "DLPack": lambda y: torch.from_dlpack(y),
    "autograd": lambda y: (y * torch.ones((), requires_grad=True)).grad_fn,
    "a parameter": lambda y: nn.Parameter(y),
}


def law_of_reuse(keeper: str) -> None:
    """While something can see a result, another result lies elsewhere; afterwards it may lie there."""
    first = outputs.empty((LENGTH,)).fill_(1.0)
    place = first.data_ptr()
    kept = KEEPERS[keeper](first)
    del first
    gc.collect()
    second = outputs.empty((LENGTH,)).fill_(2.0)
    assert second.data_ptr() != place
    del kept
    gc.collect()
    assert outputs.empty((LENGTH,)).data_ptr() == place
    assert bool((second == 2.0).all())


@pytest.mark.parametrize("keeper", KEEPERS)
def test_memory_is_used_again_when_nothing_looks_at_it(keeper: str) -> None:
    law_of_reuse(keeper)


@pytest.mark.parametrize("keeper", KEEPERS)
def test_memory_given_back_too_early_is_found_out(keeper: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = outputs._taken

    def early(size: int) -> Any:
        memory = given(size)
        outputs._waiting.append(memory)
        return memory

    monkeypatch.setattr(outputs, "_taken", early)
    with pytest.raises(AssertionError):
        law_of_reuse(keeper)


def test_small_results_are_torchs_own() -> None:
    assert outputs.empty((LENGTH - 1,)).shape == (LENGTH - 1,)
    gc.collect()
    assert outputs._waiting == []
    assert outputs.empty((0, 7)).shape == (0, 7)


def test_little_waits() -> None:
    held = [outputs.empty((LENGTH,)) for _ in range(6)]
    held.clear()
    gc.collect()
    assert len(outputs._waiting) == 4


def test_memory_fits() -> None:
    large = outputs.empty((4, LENGTH)).data_ptr()
    gc.collect()
    assert outputs.empty((LENGTH,)).data_ptr() != large  # most of it would lie idle
    gc.collect()
    assert outputs.empty((3, LENGTH)).data_ptr() == large


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks")
def test_a_forked_process_writes_into_memory_of_its_own() -> None:
    y = outputs.empty((LENGTH,)).fill_(1.0)
    child = os.fork()
    if child == 0:
        y.numpy()[:] = 2.0
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert bool((y == 1.0).all())


def test_threads_do_not_get_the_same_memory() -> None:
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(200):
            y = outputs.empty((LENGTH,)).fill_(float(number))
            if not bool((y == number).all()):
                wrong.append(number)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(before)
    assert wrong == []


def test_layers_write_there() -> None:
    layer = BlockSparseLinear.from_dense(nn.Linear(32, 64), 16)
    x = torch.randn(40, 32)
    with torch.inference_mode():
        place = layer(x).data_ptr()
        gc.collect()
        assert [len(memory) for memory in outputs._waiting] == [4 * 40 * 64]
        assert layer(x).data_ptr() == place
        assert torch.allclose(layer(x), layer.to_dense()(x), atol=1e-5)
