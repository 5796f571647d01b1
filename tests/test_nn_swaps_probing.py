"""Growth and swaps: dropped blocks have gradients while they are probed, and never a value."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="networks need torch")

from swap_cases import batches, loss_of, network, phases, sparsifier  # noqa: E402
from torch import nn  # noqa: E402

from sparseopt.nn.blocks import BlockGrid  # noqa: E402
from sparseopt.nn.masking import attach_mask  # noqa: E402
from sparseopt.nn.masks import PHASES, BlockMask  # noqa: E402
from sparseopt.nn.probing import ProbedMask  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def probed_layer(kind: type[BlockMask] = ProbedMask, shape: tuple[int, ...] = (7, 10)) -> tuple[Any, Any, Any]:
    """A layer of ragged blocks, some dropped, and its mask; the plain layer with the weight that it computes with."""
    torch.manual_seed(1)
    layer = (nn.Linear(shape[1], shape[0]) if len(shape) == 2 else nn.Conv2d(shape[1], shape[0], shape[2:])).double()
    plain = copy.deepcopy(layer)
    mask = kind(BlockGrid(shape, (3, 4)))
    attach_mask(layer, "weight", mask)
    mask.mask.copy_(torch.rand(mask.grid.counts) < 0.5)
    mask.phase.fill_(PHASES["sparse"])
    with torch.no_grad():
        plain.weight.mul_(mask.grid.expand(mask.mask.double()))
    return layer, mask, plain


def check_probe(kind: type[BlockMask], shape: tuple[int, ...]) -> None:
    layer, mask, plain = probed_layer(kind, shape)
    x = torch.randn(5, *shape[1:], dtype=torch.float64)
    for phase in PHASES.values():
        for probe in (False, True):
            mask.phase.fill_(phase)
            mask.probe.fill_(probe)
            layer.zero_grad()
            plain.zero_grad()
            out, expected = layer(x), plain(x)
            (out.sin().sum()).backward()
            (expected.sin().sum()).backward()
            gradient = layer.parametrizations.weight.original.grad
            if phase != PHASES["dense"]:
                assert torch.equal(out, expected)
                passed = mask.grid.expand((mask.mask | probe).double())
                assert torch.equal(gradient, plain.weight.grad * passed)
            else:  # all blocks are in use, and have gradients
                assert not torch.equal(out, expected)
                assert bool((gradient != 0.0).all())


@pytest.mark.parametrize("shape", [(7, 10), (8, 6, 3, 2)])
def test_dropped_blocks_have_gradients_while_they_are_probed_and_never_a_value(shape: tuple[int, ...]) -> None:
    check_probe(ProbedMask, shape)


class _Deaf(ProbedMask):
    def forward(self, weight: Any) -> Any:
        return self.grid.scale(weight, self.alive().to(weight.dtype))


class _Leaky(ProbedMask):
    def forward(self, weight: Any) -> Any:
        return self.grid.scale(weight, (self.alive() | self.probe).to(weight.dtype))


@pytest.mark.parametrize("kind", [_Deaf, _Leaky])
def test_masks_that_block_gradients_or_leak_values_are_rejected(kind: type[BlockMask]) -> None:
    with pytest.raises(AssertionError):
        check_probe(kind, (7, 10))


def test_probing_and_phases_are_one_compiled_graph() -> None:
    layer, mask, _ = probed_layer()
    graphs = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend=backend)
    x = torch.randn(5, 10, dtype=torch.float64)
    for phase in PHASES.values():
        for probe in (False, True):
            mask.phase.fill_(phase)
            mask.probe.fill_(probe)
            gradients = []
            for each in (compiled, layer):
                layer.zero_grad()
                each(x).sin().sum().backward()
                gradients.append(layer.parametrizations.weight.original.grad.clone())
            assert torch.equal(*gradients)
    assert len(graphs) == 1


def test_probing_sees_the_gradient_of_the_last_backward_pass_only_when_it_is_needed() -> None:
    s = sparsifier(network(), "ompr", phases(("sparse", 12)), every=4, until=0.7)
    optimizer = torch.optim.SGD(s.model.parameters(), lr=0.1)
    s.attach(optimizer)
    seen: list[bool] = []
    for batch in batches(12):
        optimizer.zero_grad()
        loss_of(s.model, batch).backward()
        dropped = ~s.layers[0].kept
        seen.append(bool((s.layers[0].gradient_norms()[dropped] > 0.0).any()))
        optimizer.step()
    assert [step + 1 for step, probed in enumerate(seen) if probed] == [4, 8]
