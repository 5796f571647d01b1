"""Compressing: what stays dense and why, and wrong arguments, in sentences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="compressing changes networks of torch")

from compressed_cases import batch, chosen, clicks, clock, drop_blocks, mlp, report_of  # noqa: E402
from torch import nn  # noqa: E402

from sparseopt.nn import plan, prune  # noqa: E402
from sparseopt.nn.sparse.calls import difference, run  # noqa: E402
from sparseopt.nn.sparse.compression import compress  # noqa: E402

torch.set_num_threads(1)


# Layers that stay dense.


class Custom(nn.Linear):
    def forward(self, x: Any) -> Any:
        return super().forward(x) * 2


class Uses(nn.Module):
    """Reads a weight without calling its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.other = nn.Linear(32, 32), nn.Linear(32, 32)

    def forward(self, x: Any) -> Any:
        return nn.functional.linear(x, self.layer.weight) + self.other(x)


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32))
    model[1].weight = model[0].weight
    return model


def hooked() -> nn.Module:
    model = nn.Sequential(nn.Linear(32, 32))
    model[0].register_forward_hook(lambda m, args, y: y + 1)
    return model


DENSE: dict[str, tuple[Callable[[], nn.Module], Any, str]] = {
    "groups": (lambda: nn.Conv2d(32, 32, 3, groups=2), (2, 32, 5, 5), "groups=2"),
    "padding mode": (lambda: nn.Conv2d(32, 32, 3, padding=1, padding_mode="reflect"), (2, 32, 5, 5), "'reflect'"),
    "even and same": (lambda: nn.Conv1d(32, 32, 2, padding="same"), (2, 32, 5), "padding='same' of an even kernel"),
    "transposed": (lambda: nn.ConvTranspose2d(32, 32, 3), (2, 32, 5, 5), "transposed"),
    "three dimensions": (lambda: nn.Conv3d(32, 32, 1), (2, 32, 2, 2, 2), "three dimensions"),
    "without a batch": (lambda: nn.Conv2d(32, 32, 3), (32, 5, 5), "no batch dimension"),
    "tied": (tied, (2, 32), "tied to"),
    "subclass": (lambda: Custom(32, 32), (2, 32), "Custom may compute something else"),
    "another parametrization": (
        lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(32, 32)),
        (2, 32),
        "it has another parametrization",
    ),
    "hooks": (hooked, (2, 32), "it has hooks"),
    "full": (lambda: nn.Linear(32, 32), (2, 32), "no block is zero"),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", DENSE)
def test_some_layers_stay_dense_and_say_why(name: str) -> None:
    make, shape, reason = DENSE[name]
    torch.manual_seed(0)
    model = make().eval()
    for parameter in model.parameters():
        if parameter.ndim > 1 and name != "full":
            parameter.data[:16] = 0.0
    fast = compress(model, example_input=batch(*shape), timer=clock())
    assert all(reason in layer.reason for layer in report_of(fast).layers)
    assert set(chosen(fast).values()) == {"dense"}
    assert difference(run(model, batch(*shape)), run(fast, batch(*shape))) == 0.0


def test_a_weight_that_is_read_elsewhere_stays() -> None:
    model = Uses().eval()
    model.layer.weight.data[:16] = model.other.weight.data[:16] = 0.0
    fast = compress(model, "sparse", batch(2, 32))
    assert chosen(fast) == {"layer.weight": "dense", "other.weight": "sparse"}
    assert report_of(fast).layers[0].reason == "other code reads its weight"


def test_embeddings_and_unreached_layers_stay() -> None:
    model, rows = clicks()
    model.spare = drop_blocks(nn.Linear(32, 32))
    fast = compress(model, example_input=rows, timer=clock())
    reasons = {layer.name: layer.reason for layer in report_of(fast).layers}
    assert reasons["embedding.weight"] == "a look-up multiplies nothing"
    assert reasons["spare.weight"] == "example_input does not reach it"


# Errors.


def pruned() -> nn.Module:
    model = nn.Sequential(nn.Linear(32, 32))
    prune(model, torch.optim.SGD(model.parameters(), lr=0.1), sparsity=0.5, block=8, min_blocks=2, total_steps=100)
    return model


class Counting(nn.Module):
    """Its results depend on how often any copy of it was called."""

    count = 0

    def __init__(self) -> None:
        super().__init__()
        self.layer = drop_blocks(nn.Linear(32, 32))

    def forward(self, x: Any) -> Any:
        Counting.count += 1
        return self.layer(x) * Counting.count


def named_compression() -> nn.Module:
    model = nn.Sequential(nn.Linear(8, 8))
    model.compression = nn.Linear(8, 8)
    return model


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (mlp, {}, "pass a typical batch, or backend='sparse'"),
        (mlp, {"backend": "fast"}, "backend must be one of auto, sparse, dense, got 'fast'"),
        (mlp, {"backend": "sparse", "block": 0}, "block must be a positive whole number"),
        (mlp, {"backend": "sparse", "min_speedup": 0.0}, "min_speedup must be a positive number, got 0.0"),
        (mlp, {"backend": "sparse", "exclude": ["head"]}, "'head' matches no layer"),
        (lambda: (pruned(), None), {"backend": "sparse"}, "0.weight still has its mask: call s.fold"),
        (lambda: (nn.ReLU(), None), {"backend": "sparse"}, "nothing to compress"),
        (lambda: (nn.LazyLinear(3), None), {"backend": "dense", "example_input": batch(2, 3)}, "lazy layers"),
        (
            lambda: (Counting(), None),
            {"backend": "sparse", "example_input": batch(2, 32)},
            "differs from the given one",
        ),
        (lambda: (named_compression(), None), {"backend": "sparse"}, "'compression' of its own"),
        (mlp, {"backend": "sparse", "plan": plan(nn.Linear(8, 8), 0.5, 4, 2)}, "the plan has weight with the shape"),
        (mlp, {"backend": "sparse", "plan": plan(nn.Linear(8, 8), 0.5, 4, 2), "block": 4}, "plan and block are both"),
    ],
)
def test_errors_are_sentences(make: Any, settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        compress(make()[0], **settings)
    assert str(error.value).endswith(".")
    assert "\n" not in str(error.value)


def test_only_modules_and_plans() -> None:
    with pytest.raises(TypeError, match=r"pass the nn\.Module"):
        compress("model", "sparse")
    with pytest.raises(TypeError, match=r"plan must be a Plan, such as s\.plan, got int"):
        compress(nn.Linear(8, 8), "sparse", plan=3)
