"""Plans: how often a network multiplies, by PyTorch's own counter, and counting that leaves no trace."""

from __future__ import annotations

import copy
from collections import UserDict
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="plans are made for networks")

from torch import Tensor, nn  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from sparseopt.experiments.networks import click_model, resnet20, resnet50  # noqa: E402
from sparseopt.nn import plan  # noqa: E402
from sparseopt.nn.weights import count_uses, weights_of  # noqa: E402


@pytest.fixture(scope="module")
def meta_resnet50() -> nn.Module:
    with torch.device("meta"):
        return resnet50()


def multiplications(model: nn.Module, example: Any) -> float:
    uses = count_uses(model, example)
    return sum(uses[weight.name] * weight.tensor.numel() for weight in weights_of(model))


def test_resnet50_multiplies_as_often_as_published(meta_resnet50: nn.Module) -> None:
    with torch.device("meta"):
        assert multiplications(meta_resnet50, torch.zeros(2, 3, 224, 224)) == 4_089_184_256
        assert multiplications(resnet20(), torch.zeros(2, 3, 32, 32)) == 40_551_040


class Tokens(nn.Module):
    """Linear layers on tokens, 1-D convolutions with stride and groups, and a layer that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 12)
        self.conv = nn.Conv1d(12, 8, 3, stride=2, padding=1, groups=4)
        self.twice = nn.Linear(8, 8)
        self.head = nn.Linear(8, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(self.words(x).transpose(1, 2)).transpose(1, 2)
        return self.head(self.twice(self.twice(y)).mean(1))


COUNTED: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
    "tokens": (Tokens, lambda: torch.zeros(4, 14, dtype=torch.int64)),
    "resnet20": (resnet20, lambda: torch.zeros(2, 3, 32, 32)),
    "3d": (
        lambda: nn.Sequential(nn.Conv3d(2, 4, 3, dilation=2), nn.Conv3d(4, 4, 1)),
        lambda: torch.zeros(3, 2, 7, 6, 5),
    ),
    "click": (lambda: click_model([4] * 5), lambda: torch.zeros(7, 5, dtype=torch.int64)),
    "encoder": (
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 24, batch_first=True), 2),
        lambda: torch.ones(3, 6, 16),
    ),
    "decoder": (
        lambda: nn.TransformerDecoderLayer(16, 2, 24, batch_first=True),
        lambda: (torch.ones(3, 6, 16), torch.ones(3, 11, 16)),
    ),
    "other sizes": (
        lambda: nn.MultiheadAttention(16, 2, kdim=10, vdim=6, batch_first=True),
        lambda: (torch.ones(3, 6, 16), torch.ones(3, 9, 10), torch.ones(3, 9, 6)),
    ),
    "attention by keywords": (
        lambda: nn.MultiheadAttention(16, 2, batch_first=True),
        lambda: {"query": torch.ones(3, 6, 16), "key": torch.ones(3, 9, 16), "value": torch.ones(3, 9, 16)},
    ),
}


def flop_counter(model: nn.Module, example: Any) -> float:
    """Multiplications with weights per example, by PyTorch's own counter; attention itself has no weights."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            if isinstance(example, dict):
                model.eval()(**example)
            else:
                model.eval()(*(example if isinstance(example, tuple) else (example,)))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    first = next(iter(example.values())) if isinstance(example, dict) else example
    batch = len(first[0] if isinstance(first, tuple) else first)
    operations = counter.get_flop_counts()["Global"]
    weights = (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.convolution)
    return sum(number for operation, number in operations.items() if operation in weights) / 2 / batch


def wrongly_counted(count: Callable[[nn.Module, Any], float]) -> list[str]:
    found = []
    with torch.device("meta"):
        for name, (model, example) in COUNTED.items():
            network = model()
            if round(count(network, example())) != round(flop_counter(network, example())):
                found.append(name)
    return found


def test_multiplications_are_those_of_pytorchs_counter() -> None:
    assert wrongly_counted(multiplications) == []


def test_wrong_counts_are_rejected() -> None:
    def once(model: nn.Module, example: Any) -> float:
        return sum(weight.tensor.numel() for weight in weights_of(model))

    def per_batch(model: nn.Module, example: Any) -> float:
        return 2.0 * multiplications(model, example)

    assert set(wrongly_counted(once)) == set(wrongly_counted(per_batch)) == set(COUNTED)


def test_padded_batches_of_a_transformer_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 24, batch_first=True), 2)
    padding = torch.zeros(3, 6, dtype=torch.bool)
    padding[0, 4:] = True
    uses = count_uses(model, {"src": torch.ones(3, 6, 16), "src_key_padding_mask": padding})
    assert len(uses) == 8
    assert set(uses.values()) == {6.0}
    monkeypatch.setattr("torch.backends.mha.set_fastpath_enabled", lambda enabled: None)
    with pytest.raises((RuntimeError, UserWarning)):
        count_uses(model, {"src": torch.ones(3, 6, 16), "src_key_padding_mask": padding})


def test_examples_come_in_many_forms_and_sizes() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 4)

        def forward(self, x: Tensor, y: Tensor, flag: bool = True) -> Tensor:
            return self.b(self.a(x)) + (self.b(y) if flag else 0.0)

    wanted = {"a.weight": 5.0, "b.weight": 10.0}
    for n in (1, 3):
        x, y = torch.zeros(n, 5, 4), torch.zeros(n, 5, 6)
        named = {"flag": True, "x": x, "y": y}
        for example in ((x, y), [x, y], (x, y, True), named, UserDict(named)):
            assert count_uses(Two(), example) == wanted
    assert count_uses(Two(), None) == {}
    assert count_uses(nn.Sequential(nn.Linear(4, 6)), torch.zeros(2, 5, 4)) == {"0.weight": 5.0}


def test_counting_leaves_modes_hooks_and_statistics_as_they_were() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Conv2d(4, 4, 3))
    model.train()
    model[1].eval()
    before = copy.deepcopy(model.state_dict())
    fast = torch.backends.mha.get_fastpath_enabled()
    for example, fails in ((torch.randn(2, 3, 8, 8), False), (torch.randn(2, 5, 8, 8), True)):
        if fails:
            with pytest.raises(RuntimeError, match="channels"):
                count_uses(model, example)
        else:
            count_uses(model, example)
        assert [module.training for module in model.modules()] == [True, True, False, True, True]
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
        assert torch.backends.mha.get_fastpath_enabled() == fast
        assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_lazy_models_are_not_run() -> None:
    for model in (
        nn.Sequential(nn.Linear(4, 4), nn.LazyLinear(8)),
        nn.Sequential(nn.Linear(4, 4), nn.LazyBatchNorm1d(affine=False)),
    ):
        with pytest.raises(ValueError, match=r"^the model has lazy layers without shapes: run one batch through it"):
            plan(model, 0.5, 2, min_blocks=2, example_input=torch.zeros(2, 4))
        assert type(model[1]).__name__.startswith("Lazy")
