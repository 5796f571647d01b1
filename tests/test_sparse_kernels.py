"""The kernels themselves: tiles for machines other than this one, tasks, threads, the cache on disk."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from llvmlite import ir
from torch import Tensor, nn

from sparseopt.nn.sparse import kernels, machine, packing, reference, team, tile
from sparseopt.nn.sparse.format import BlockSparse
from sparseopt.nn.sparse.geometry import LINEAR
from sparseopt.nn.sparse.layers import BlockSparseLinear

# lanes and registers of AVX-512, AVX2, NEON and SSE
MACHINES = {"avx512": (16, 32), "avx2": (8, 16), "neon": (4, 32), "sse": (4, 16)}
BLOCKS = [(1, 1), (1, 16), (4, 4), (5, 5), (8, 8), (10, 10), (16, 16), (20, 20), (32, 32), (64, 64), (67, 3), (128, 24)]
ONE = (1, 1)


@pytest.fixture(params=MACHINES)
def other_machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Kernels are cut for the registers of another machine; LLVM makes them run on this one all the same."""
    monkeypatch.setattr(machine, "_vectors", lambda: MACHINES[request.param])
    return request.param


def slow(block: tuple[int, int]) -> Any:
    return pytest.param(block, marks=pytest.mark.slow)


def weight_of(out: int, inputs: int, block: tuple[int, int], density: float = 0.4, seed: int = 0) -> BlockSparse:
    generator = torch.Generator().manual_seed(seed)
    rows, cols = -(-out // block[0]), -(-inputs // block[1])
    mask = torch.rand(rows, cols, generator=generator) < density
    mask[rows // 2] = False
    return BlockSparse.from_dense(torch.randn(out, inputs, generator=generator), block, mask)


def multiplied(x: Tensor, weight: BlockSparse, bias: Tensor | None, relu: bool = False) -> Tensor:
    parts = (weight.values, weight.crow, weight.col, bias, weight.shape[0])
    return kernels.product(x[:, None, None], *parts, LINEAR, relu)[:, 0, 0]


# Every block is compiled for every machine: one of whole registers and one of none are tried each time.
@pytest.mark.parametrize("block", [(8, 8), (67, 3), *(slow((b, b)) for b in (5, 16, 20))], ids=str)
def test_kernels_cut_for_other_machines_are_right(block: tuple[int, int], other_machine: str) -> None:
    weight = weight_of(3 * block[0] - 1, 4 * block[1], block)
    x, bias = torch.randn(29, weight.shape[1]), torch.randn(weight.shape[0])
    exact = torch.nn.functional.linear(x.double(), weight.to_dense().double(), bias.double()).relu()
    assert (multiplied(x, weight, bias, relu=True) - exact).abs().max() <= 1e-5 * exact.abs().max()
    grad = torch.randn(29, 1, 1, weight.shape[0])
    arguments = (x[:, None, None], grad, weight.crow, weight.col, block, LINEAR)
    exact = reference.product_grad(x[:, None, None].double(), grad.double(), *arguments[2:])
    assert (kernels.product_grad(*arguments) - exact).abs().max() <= 1e-5 * exact.abs().max()


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_tiles_stay_in_registers(block: tuple[int, int], half: bool, other_machine: str) -> None:
    lanes, registers = MACHINES[other_machine]
    shape = machine.tile_for(*block, half)
    used = shape.pitch * shape.group // lanes
    assert shape.rows * used <= registers - 4  # what is left holds values and an input
    assert shape.rows >= shape.few >= 1
    assert shape.width % shape.group == 0
    assert shape.pitch >= shape.height
    assert (shape.pitch * shape.group) % lanes == 0
    parts = -(-block[0] // shape.height)
    assert parts * shape.height - block[0] < parts  # no more idle outputs than parts
    gradient = machine.gradient_for(*block)
    assert gradient.inputs * -(-gradient.height // lanes) <= registers - 4
    assert (block[0] % gradient.height, block[1] % gradient.inputs) == (0, 0)


def test_blocks_of_8_fill_registers_of_16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_vectors", lambda: MACHINES["avx512"])
    shapes = {side: machine.tile_for(side, side, False) for side in (4, 8, 16, 20, 32, 64, 128)}
    assert {side: shape.group for side, shape in shapes.items()} == {4: 4, 8: 2, 16: 1, 20: 4, 32: 1, 64: 1, 128: 1}
    assert all(shape.pitch == shape.height for shape in shapes.values())


TARGETS = {
    "aarch64": ("aarch64-unknown-linux-gnu", "", "+neon", (4, 32), "fmla"),
    "avx512": ("x86_64-unknown-linux-gnu", "x86-64-v4", "", (16, 32), "vfmadd"),
    "avx2": ("x86_64-unknown-linux-gnu", "x86-64-v3", "", (8, 16), "vfmadd"),
    "sse": ("x86_64-unknown-linux-gnu", "x86-64", "", (4, 16), "mulps"),
}


def assembly(target: str, block: int, monkeypatch: pytest.MonkeyPatch, emit: Any = tile._product) -> str:
    triple, cpu, features, vectors, _ = TARGETS[target]
    monkeypatch.setattr(machine, "_vectors", lambda: vectors)
    rows, _, height, width, group, lanes, half = machine.tile_for(block, block, False)
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * 10), "tile")
    builder = ir.IRBuilder(function.append_basic_block())
    emit(builder, function.args, rows, height, width, group, lanes, 1, half)
    builder.ret_void()
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    machine_ = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features, opt=3)
    passes = llvm.create_pass_builder(machine_, llvm.PipelineTuningOptions(speed_level=3))
    passes.getModulePassManager().run(parsed, passes)
    return machine_.emit_assembly(parsed)


@pytest.mark.parametrize("block", [8, 16, 32])
@pytest.mark.parametrize("target", TARGETS)
def test_the_same_text_becomes_vector_code_for_every_machine(
    target: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many fused operations as there are sums in a step, in a loop, and no call of a library for any of them."""
    text = assembly(target, block, monkeypatch)
    shape = machine.tile_for(block, block, False)
    assert "call" not in text.replace(".cfi_", "")
    assert "\tbl\t" not in text
    assert text.count(TARGETS[target][4]) >= shape.rows * (shape.pitch * shape.group // shape.lanes)


def test_a_fused_operation_that_the_machine_lacks_would_be_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """llvm.fma must be exact, so that it is a function of the C library where no instruction does it."""

    def exact(builder: Any, vector: Any) -> Any:
        kind = ir.FunctionType(vector, [vector] * 3)
        return tile.cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{vector.count}f32")

    monkeypatch.setattr(tile, "_fma", exact)
    assert "fmaf" in assembly("sse", 16, monkeypatch)


def law_of_tasks(n: int, counts: list[int], threads: int, block: tuple[int, int]) -> None:
    """Tasks cover every row of y and every row of blocks once, in whole tiles, with all threads or with one."""
    crow = torch.tensor([0, *np.cumsum(counts)], dtype=torch.int32)
    col = torch.cat([torch.arange(count, dtype=torch.int32) for count in counts])
    packed = packing._pack(torch.zeros(len(col), block[1], block[0]), crow, col, len(counts) * block[0], 0)
    bounds, groups, span, used = packed._cut(n, threads)
    assert bounds[0] == 0
    assert bounds[-1] == len(packed.heights)
    assert (np.diff(bounds) >= 0).all()
    assert used in {1, threads}
    assert (groups - 1) * span < n <= groups * span
    assert span % packed.tile.rows == 0
    assert sum(packed.heights) == len(counts) * block[0]
    assert packed.crow[-1] == len(col) * -(-block[0] // packed.tile.height)


@given(
    n=st.integers(1, 3000),
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=40),
    threads=st.integers(1, 9),
    block=st.sampled_from([(8, 8), (32, 32), (5, 5), (100, 4)]),
)
def test_tasks_cover_all_rows_and_blocks_once(n: int, counts: list[int], threads: int, block: tuple[int, int]) -> None:
    law_of_tasks(n, counts, threads, block)


WRONG_CUTS = {
    "the last rows are left out": lambda bounds, groups, span, used: (bounds, groups - 1, span, used),
    "a group too many": lambda bounds, groups, span, used: (bounds, groups + 1, span, used),
    "the last blocks are left out": lambda bounds, groups, span, used: (bounds[:-1], groups, span, used),
    "the first blocks are left out": lambda bounds, groups, span, used: (bounds[1:], groups, span, used),
    "tiles are cut": lambda bounds, groups, span, used: (bounds, groups, span + 1, used),
    "too many threads": lambda bounds, groups, span, used: (bounds, groups, span, used + 1),
    "no thread": lambda bounds, groups, span, used: (bounds, groups, span, 0),
}


@pytest.mark.parametrize("wrong", WRONG_CUTS)
def test_wrong_tasks_are_rejected(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = packing.Packed._cut
    arguments: dict[str, Any] = {"n": 3000, "counts": [40] * 40, "threads": 4, "block": (32, 32)}
    law_of_tasks(**arguments)
    monkeypatch.setattr(packing.Packed, "_cut", lambda self, n, threads: WRONG_CUTS[wrong](*right(self, n, threads)))
    with pytest.raises(AssertionError):
        law_of_tasks(**arguments)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_python_threads_stand_in_for_openmp(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = weight_of(256, 256, (16, 16))
    x = torch.randn(512, 256)
    expected = multiplied(x, weight, None)
    calls: list[int] = []
    pool = team._python_threads()

    def counted(function: Any, job: int, threads: int) -> None:
        calls.append(threads)
        pool(function, job, threads)

    monkeypatch.setattr(team, "_team", counted)
    assert torch.equal(multiplied(x, weight, None), expected)
    assert calls == [2]


@pytest.mark.skipif(sys.platform != "linux", reason="torch brings GNU's OpenMP on Linux")
def test_torch_lends_its_threads() -> None:
    assert team._openmp() is not None


@pytest.mark.usefixtures("two_threads")
def test_every_thread_of_a_team_is_called() -> None:
    seen: list[int] = []

    @ctypes.CFUNCTYPE(None, ctypes.c_int64)
    def function(job: int) -> None:
        seen.append(job)

    team.run(function, 7, 2)
    assert seen == [7, 7]
    team.run(function, 8, 1)
    assert seen == [7, 7, 8]


def test_weights_changed_behind_the_version_counter_are_packed_again() -> None:
    layer = BlockSparseLinear(weight_of(64, 64, (8, 8)))  # blocks of 8 are copied into another order
    x = torch.randn(4, 64)
    with torch.no_grad():
        before = layer(x)
        version = layer.values._version
        layer.values.data.mul_(2)
        assert layer.values._version == version
        assert torch.allclose(layer(x), 2 * before, rtol=1e-5)


def test_a_copy_without_a_probe_would_go_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing._Probe, "agrees", lambda self: True)
    layer = BlockSparseLinear(weight_of(64, 64, (8, 8)))
    x = torch.randn(4, 64)
    with torch.no_grad():
        before = layer(x)
        layer.values.data.mul_(2)
        assert torch.equal(layer(x), before)


def test_packed_weights_are_forgotten_with_their_tensors() -> None:
    layer = BlockSparseLinear(weight_of(64, 64, (8, 8)))
    known = len(packing._known)
    with torch.no_grad():
        layer(torch.randn(2, 64))
    assert len(packing._known) == known + 1
    del layer
    assert len(packing._known) == known


def test_sizes_that_change_with_every_call_are_not_kept() -> None:
    layer = BlockSparseLinear(weight_of(64, 64, (8, 8)))
    with torch.no_grad():
        for n in range(1, 40):
            layer(torch.randn(n, 64))
    packed = packing.packed(layer.values, layer.crow, layer.col, 64, 64)
    assert len(packed._jobs) <= 16


HOSTILE = {
    "a column beyond the last": lambda crow, col: (crow, col.fill_(10**6)),
    "a negative column": lambda crow, col: (crow, col.fill_(-3)),
    "rows that go back": lambda crow, col: (crow.flip(0), col),
    "rows that end too late": lambda crow, col: (crow + (torch.arange(len(crow)) == len(crow) - 1).int() * 99, col),
    "too few rows": lambda crow, col: (crow[:-1], col),
    "too few columns": lambda crow, col: (crow, col[:-1]),
    "numbers of 64 bits": lambda crow, col: (crow.long(), col.long()),
}


@pytest.mark.parametrize("damage", HOSTILE)
def test_a_hostile_structure_reaches_no_kernel(damage: str) -> None:
    weight = weight_of(64, 64, (8, 8))
    crow, col = HOSTILE[damage](weight.crow.clone(), weight.col.clone())
    x, grad = torch.randn(3, 1, 1, 64), torch.randn(3, 1, 1, 64)
    with pytest.raises((ValueError, TypeError)):
        torch.ops.sparseopt.block_product(x, weight.values, crow, col, None, 64, ONE, ONE, (0, 0), ONE, False)
    with pytest.raises((ValueError, TypeError)):
        torch.ops.sparseopt.block_product_grad(x, grad, crow, col, (8, 8), ONE, ONE, (0, 0), ONE)


@pytest.mark.parametrize(
    ("stride", "padding", "dilation"),
    [((0, 1), (0, 0), ONE), (ONE, (-1, 0), ONE), (ONE, (0, 0), (-2, 1)), ((1,), (0, 0), ONE)],
)
def test_geometry_that_leads_outside_is_refused(stride: Any, padding: Any, dilation: Any) -> None:
    weight = weight_of(64, 64, (8, 8))
    parts = (weight.values, weight.crow, weight.col)
    with pytest.raises(ValueError, match=r"two numbers each|must be positive"):
        torch.ops.sparseopt.block_product(
            torch.randn(3, 4, 4, 64), *parts, None, 64, ONE, stride, padding, dilation, False
        )


def test_a_second_process_finds_the_kernels_on_disk() -> None:
    """Both processes compile or load the same two kernels; the second only loads."""
    script = """
import json, torch
from sparseopt.nn.sparse import machine
from sparseopt.nn.sparse.layers import BlockSparseLinear
for side in (24, 12):
    layer = BlockSparseLinear.from_dense(torch.nn.Linear(96, 96), side)
    layer(torch.randn(3, 96)).sum().backward()
print(json.dumps([each.cache_hits for each in machine._alive]))
"""

    def hits() -> list[int]:
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    assert len(hits()) == 4
    assert hits() == [1, 1, 1, 1]


def test_a_change_of_the_tiles_makes_kernels_stale() -> None:
    names = {path.name for path in machine._SOURCES}
    imported = {Path(sys.modules[module].__file__ or "").name for module in (tile.__name__, machine.__name__)}
    assert names == imported


def test_bfloat16_weights_are_widened_without_loss() -> None:
    weight = weight_of(48, 80, (16, 16)).to(torch.bfloat16)
    x = torch.randn(9, 80)
    exact = x.double() @ weight.to_dense().double().T
    assert (multiplied(x, weight, None) - exact).abs().max() <= 1e-6 * exact.abs().max()


def test_a_layer_is_as_good_with_or_without_the_dispatcher() -> None:
    layer = BlockSparseLinear.from_dense(nn.Linear(64, 48), (8, 16))
    x = torch.randn(7, 64)
    with torch.no_grad():
        plain = layer(x)
    assert torch.equal(layer(x).detach(), plain)
