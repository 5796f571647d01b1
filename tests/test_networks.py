"""The click model: what its inputs are, and that dropout and numbers change neither names nor what was there before."""

from __future__ import annotations

import copy
import pickle

import pytest

torch = pytest.importorskip("torch", reason="the networks are modules of torch")

from torch import nn  # noqa: E402

from sparseopt.experiments.networks import ClickModel, click_model  # noqa: E402

VOCABULARY = (5, 1, 7)


def rows(n: int, kind: torch.dtype = torch.int64) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.stack([torch.randint(0, size, (n,), generator=draw) for size in VOCABULARY], 1).to(kind)


def test_the_output_by_hand() -> None:
    model = ClickModel(VOCABULARY, 2, (4,), numbers=2)
    ids, numbers = rows(6), torch.randn(6, 2)
    weights = model.embedding.weight
    parts = [weights[ids[:, 0]], weights[5 + ids[:, 1]], weights[6 + ids[:, 2]], numbers]
    hidden = torch.relu(model.dense[0](torch.cat(parts, 1)))
    torch.testing.assert_close(model(ids, numbers), model.dense[2](hidden)[:, 0])


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("numbers", [0, 3])
def test_sizes_and_names(numbers: int, dropout: float) -> None:
    model = ClickModel(VOCABULARY, 10, (8, 6), numbers, dropout)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert shapes == {
        "embedding.weight": (13, 10),
        "dense.0.weight": (8, 30 + numbers),
        "dense.0.bias": (8,),
        "dense.2.weight": (6, 8),
        "dense.2.bias": (6,),
        "dense.4.weight": (1, 6),
        "dense.4.bias": (1,),
    }


def test_ids_of_int32_are_ids_of_int64() -> None:
    model = click_model(VOCABULARY)
    assert torch.equal(model(rows(9)), model(rows(9, torch.int32)))


def test_without_dropout_the_network_is_as_before() -> None:
    torch.manual_seed(0)
    plain = click_model(VOCABULARY)
    assert [type(layer) for layer in plain.dense] == [nn.Linear, nn.ReLU] * 3 + [nn.Linear]
    torch.manual_seed(0)
    dropping = click_model(VOCABULARY, dropout=0.5)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), dropping.parameters(), strict=True))
    plain.load_state_dict(dropping.state_dict())
    assert torch.equal(plain.eval()(rows(9)), dropping.eval()(rows(9)))


def test_dropout_drops_in_training_only() -> None:
    model = ClickModel((50,), 10, (1000,), dropout=0.25)
    dropped: list[torch.Tensor] = []
    model.dense[1].register_forward_hook(lambda layer, given, made: dropped.append(made))
    ids = torch.arange(50)[:, None]
    for mode in (True, False):
        model.train(mode)(ids)
    before = torch.relu(model.dense[0](model.embedding(ids[:, 0])))
    torch.testing.assert_close(dropped[1], before)
    active = before > 0
    share = (dropped[0][active] == 0).float().mean().item()
    assert abs(share - 0.25) < 5 * (0.25 * 0.75 / active.sum().item()) ** 0.5
    kept = active & (dropped[0] != 0)
    torch.testing.assert_close(dropped[0][kept], before[kept] / 0.75)


def test_numbers_matter_and_must_be_given() -> None:
    model = click_model(VOCABULARY, numbers=2)
    zero, one = model(rows(4), torch.zeros(4, 2)), model(rows(4), torch.ones(4, 2))
    assert not torch.allclose(zero, one)
    with pytest.raises(TypeError, match="numbers"):
        model(rows(4))
    with pytest.raises(TypeError, match="positional arguments"):
        click_model(VOCABULARY)(rows(4), torch.zeros(4, 2))


@pytest.mark.parametrize("numbers", [0, 2])
def test_copies_and_pickles_are_the_same_network(numbers: int) -> None:
    model = click_model(VOCABULARY, numbers=numbers)
    given = (rows(4), torch.ones(4, 2))[: 1 + (numbers > 0)]
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert isinstance(twin, ClickModel)
        assert type(twin) is type(model)
        assert torch.equal(twin(*given), model(*given))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"numbers": -1}, "numbers is -1: give at least 0."),
        ({"dropout": 1.0}, "dropout is 1.0: give at least 0 and less than 1."),
        ({"dropout": -0.1}, "dropout is -0.1: give at least 0 and less than 1."),
        ({"dropout": float("nan")}, "dropout is nan: give at least 0 and less than 1."),
    ],
)
def test_wrong_arguments(options: dict[str, float], told: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the whole message is compared
        ClickModel(VOCABULARY, **options)  # type: ignore[arg-type]
    assert str(caught.value) == told


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("numbers", [0, 3])
def test_the_first_layer_is_pruned_compressed_and_fused(numbers: int, dropout: float) -> None:
    from sparseopt.nn import plan
    from sparseopt.nn.sparse import compress

    model = click_model([5] * 39, numbers=numbers, dropout=dropout).eval()
    assert "dense.0.weight" in {entry.name for entry in plan(model, 0.9, 20).layers}
    with torch.no_grad():
        model.dense[0].weight[:, 20:] = 0.0
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 5, (64, 39), generator=draw), torch.randn(64, numbers, generator=draw)
    given = inputs if numbers else inputs[:1]
    small = compress(model, "sparse", given)
    torch.testing.assert_close(small(*given), model(*given), rtol=1e-5, atol=1e-6)
    assert type(small.get_submodule("dense.0")) is not nn.Linear
    # the network was traced, and the first ReLU went into the layer
    active = small.get_submodule("dense.1")
    assert not any(isinstance(each, nn.ReLU) for each in active.modules())
