"""Checks of the Triton kernels, in a process of their own: Triton decides how to run a function when it is imported.

    python triton_worker.py interpret FOLDER    on the CPU, in Triton's interpreter: TRITON_INTERPRET=1 must be set
    python triton_worker.py run FOLDER          on the GPU
    python triton_worker.py compile FOLDER      what the compiler makes of the kernels for GPUs that are not here

The first and the last also alter one part of the kernels' text at a time, which the check that is named must reject.
FOLDER/report.json gets {check: "" or what is wrong}.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import torch
from triton_cases import BRAIN, CASES, COMPILED, HALF, SINGLE, Case, Operands

from sparseopt.nn.sparse import triton_kernels

SOURCE = "sparseopt.nn.sparse.triton_source"


def check_case(name: str) -> None:
    """Both products to the accuracy of sums in float32: each of n additions adds at most 2^-24 of the terms' size."""
    operands = Operands(CASES[name])
    y, slope = operands.product(), operands.product_grad()
    terms = (operands.weight[0].numel() + 1, max(operands.grad[..., 0].numel(), 1))
    kinds = (operands.case.dtype, torch.float32)
    for got, want, size, n, kind in zip(
        (y, slope), operands.expected(), operands.expected(absolute=True), terms, kinds, strict=True
    ):
        assert got.dtype == kind, f"{got.dtype} is not {kind}"
        assert got.shape == want.shape, f"{tuple(got.shape)} is not {tuple(want.shape)}"
        assert got.is_contiguous()
        # float32 is counted among the additions; the interpreter cuts bfloat16 off, a GPU rounds it
        rounding = {SINGLE: 0.0, HALF: 2.0**-11, BRAIN: 2.0**-7}[kind] * want.abs()
        error = (got.double() - want).abs() - 1.01 * rounding - n * 2.0**-24 * size - 1e-7
        assert not got.isnan().any(), "NaN"
        assert not (error > 0).any(), f"too far off by {float(error.max()):.2e}"


def no_nan_is_lost() -> None:
    """ReLU lets NaN through, as in torch, and no pixel sees another's."""
    operands = Operands(Case((8, 8), (16, 16), (3,), density=1.0, relu=True))
    operands.kept[:] = True
    operands.x[1] = float("nan")
    y = operands.product()
    assert y[1].isnan().all()
    assert not y[[0, 2]].isnan().any()


def broken_columns_read_as_zero() -> None:
    """Columns that do not exist read as zero, whatever lies behind the image."""
    operands = Operands(Case((8, 8), (8, 16), (3,), density=1.0, bias=False))
    operands.crow, operands.values = operands.crow.clamp(max=1), operands.values[:1]
    for column in (-1, -(2**31), 2, 2**31 - 1):
        operands.col = torch.tensor([column], dtype=torch.int32)
        assert not operands.product().any(), f"column {column} was read"
        assert not operands.product_grad().any(), f"column {column} was read for the gradient"


def broken_rows_end() -> None:
    """Rows end with the blocks, whatever lies behind them."""
    operands = Operands(Case((8, 8), (8, 24), (3,), density=1.0, bias=False))
    behind = operands.col
    operands.values, operands.col = operands.values[:1], behind[:1]
    operands.crow = torch.tensor([0, 1], dtype=torch.int32)
    want = operands.product(), operands.product_grad()
    for rows in ((0, 3), (-5, 1), (-(2**31), 2**31 - 1)):
        operands.crow = torch.tensor(rows, dtype=torch.int32)
        assert torch.equal(operands.product(), want[0]), f"rows {rows}"
        assert torch.equal(operands.product_grad(), want[1]), f"rows {rows} in the gradient"


LAWS = {law.__name__: law for law in (no_nan_is_lost, broken_columns_read_as_zero, broken_rows_end)}

# Which case or law rejects the kernels, if what part of their text becomes what.
ALTERATIONS = (
    ("3 x 3, channels left over", "channel < channels,", "channel <= channels,"),
    ("3 x 3", ".to(tl.uint32) < height", ".to(tl.uint32) <= height"),
    ("2 x 3, stepping and spread", "(position // KERNEL_W) * SPREAD_H", "(position % KERNEL_W) * SPREAD_H"),
    ("2 x 3, stepping and spread", "(position % KERNEL_W) * SPREAD_W", "(position % KERNEL_W)"),
    ("1 x 1, stepping", "(m % out_width) * RIGHT", "(m % out_width)"),
    ("blocks of 8", "block = k // WIDTH", "block = (step + 0 * k) // WIDTH"),
    ("float16", "    weights += DEPTH", "    sums = sums.to(tl.float16).to(tl.float32)\n        weights += DEPTH"),
    ("blocks of 16", "tl.dot(a.to(COMPUTE), b.to(COMPUTE)", "tl.dot(a.to(tl.float16), b.to(tl.float16)"),
    ("blocks of 16", "sums += tl.load(bias", "sums -= tl.load(bias"),
    ("blocks of 10", "if RELU:", "if False:"),
    ("blocks of 16", "step = (piece - tl.load(starts + row)) * DEPTH", "step = 0 * row"),
    ("blocks taller than a tile", "j = (tile % PARTS) * OUTPUTS", "j = (tile % 1) * OUTPUTS"),
    ("several tiles of pixels", "low = tl.program_id(1).to(INDEX) * share", "low = tl.program_id(1).to(INDEX) * 0"),
    ("no_nan_is_lost", "tl.where(sums < 0, 0.0, sums)", "tl.where(sums > 0, sums, 0.0)"),
    ("broken_columns_read_as_zero", "(column < columns)", "(column <= columns)"),
    ("broken_rows_end", "end = tl.minimum(tl.load(crow + row + 1), blocks)", "end = tl.load(crow + row + 1)"),
)


COMPILED_ALTERATIONS = (
    ("blocks of 24", "begin = tl.multiple_of(begin, RUN)", "begin += 0"),
    ("blocks of 24", "place = tl.max_constancy(tl.multiple_of(place, [1, RUN]), [1, RUN])", "place += 0"),
    ("blocks of 64", ".to(COMPUTE)", ".to(tl.float32)"),
)


def alter(folder: Path, old: str, new: str) -> None:
    """Run the kernels with every `old` in their text replaced by `new` from now on."""
    sys.modules.pop(SOURCE, None)
    found = importlib.util.find_spec(SOURCE)
    assert found is not None
    assert found.origin is not None
    text = Path(found.origin).read_text(encoding="utf-8")
    assert old in text, f"{old!r} stands nowhere in the kernels"
    file = folder / f"altered_{len(list(folder.glob('altered_*.py')))}.py"
    file.write_text(text.replace(old, new), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(SOURCE, file)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[SOURCE] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[SOURCE])


def failure(name: str) -> str:
    """What a case or a law has to complain about."""
    triton_kernels._MANY = 0 if "64 bits" in name else 2**30
    try:
        if name in LAWS:
            LAWS[name]()
        else:
            check_case(name)
    except AssertionError as error:
        return str(error) or repr(error)
    return ""


def true_bfloat16() -> None:
    """Triton's interpreter multiplies the bits of bfloat16 as whole numbers; give it their values."""
    from triton.runtime import interpreter

    dot = interpreter.InterpreterBuilder.create_dot

    def values(handle: Any) -> Any:
        if not handle.dtype.scalar.is_bf16():
            return handle
        bits = handle.data.astype("uint32") << 16
        return interpreter.TensorHandle(bits.view("float32"), interpreter.tl.float32)

    interpreter.InterpreterBuilder.create_dot = lambda self, a, b, *rest: dot(self, values(a), values(b), *rest)


class Absent:
    """What Triton asks of a driver before it compiles, for a GPU that is not here."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_device(self) -> int:
        return self.capability

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, 32)


def lacking(capability: int, name: str) -> str:
    """What is wrong with the machine code of a case.

    Its operands must be copied 16 bytes at a time while the products run, and half precision must be multiplied on
    tensor cores.
    """
    from triton.runtime import driver

    wrong = []

    def launch(kernel: Any, grid: tuple[int, ...], *operands: Any, **constants: Any) -> None:
        made = kernel.warmup(*operands, grid=grid, **constants)
        assert made.asm["cubin"]
        text, exact = made.asm["ptx"], operands[0].dtype == SINGLE
        for what, wanted in (
            ("cp.async.cg.shared.global", True),
            ("ld.global.b16", False),
            ("mma", not exact),
            ("fma.rn.f32", exact),
        ):
            if (what in text) != wanted:
                wrong.append(f"{kernel.__name__} {'lacks' if wanted else 'has'} {what}")

    triton_kernels._launch = launch
    driver.set_active(Absent(capability))
    operands = Operands(COMPILED[name][1])
    operands.product()
    operands.product_grad()
    return ", ".join(wrong)


def main(mode: str, folder: Path) -> None:
    if mode == "compile":
        report = {name: lacking(capability, name) for name, (capability, _) in COMPILED.items()}
        for name, old, new in COMPILED_ALTERATIONS:
            alter(folder, old, new)
            report[f"{name}, altered: {new}"] = lacking(COMPILED[name][0], name)
    else:
        if mode == "interpret":
            true_bfloat16()
        else:
            torch.set_default_device("cuda")
        report = {name: failure(name) for name in (*CASES, *LAWS)}
        if mode == "interpret":
            for name, old, new in ALTERATIONS:
                alter(folder, old, new)
                report[f"{name}, altered: {new}"] = failure(name)
    (folder / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
