"""Register tiles of block-sparse products, written in LLVM's vector language inside Numba intrinsics.

`product_tile` computes a few rows of y for one row of blocks and keeps them in registers until the last block is done:

    y[n, j] = activation(bias[j] + added[n, j] + sum over blocks t, over i:  x[n, off[t] + i] values[t, i, j])

for n < rows and j < height, `added` being another layer's output or nothing.

A vector register holds outputs, an input is repeated over its lanes. A block of 8 outputs would leave half of 16 lanes
idle, so `group` = g consecutive inputs share a register: lane j g + q collects the inputs i with i mod g = q, and one
addition of neighbours at the end gives y[n, j]. The input then arrives as g numbers repeated, which costs no more than
one number repeated. So values lie as (input // g, output, input mod g), with zeros for the outputs that fill up the
last register. With few rows, `splits` sums run side by side, or every sum would wait for the one before.

`gradient_tile` adds over rows the products of a few inputs and the outputs' gradients:

    out[i, j] += sum over n:  x[n, off + i] grad[n, j],    i < inputs, j < height.

Everything is generic LLVM: the same text becomes AVX-512, AVX2 or NEON code, whatever the host has. Addresses are
integers, sizes are constants. Nothing checks bounds here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils

__all__ = ["copy_floats", "fetch_add", "gradient_tile", "peek", "poke", "product_tile", "stack"]

_intrinsic: Any = extending.intrinsic  # what it makes is called inside kernels only, with other arguments
_BYTE, _SHORT, _INT, _LONG, _FLOAT = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
_UNROLLED = 512  # multiplications in the unrolled loop over the inputs of a block, at most: its code fits the cache


@_intrinsic(prefer_literal=True)
def product_tile(
    typing,
    rows,
    off,
    blocks,
    tail,
    values,
    bias,
    added,
    y,
    ldy,
    relu,
    n_rows,
    height,
    width,
    group,
    lanes,
    splits,
    half,
):
    """Addresses: of those of the rows of x, of int32 offsets into them, of values, bias, added (or 0) and y.

    After `blocks` whole blocks comes one of `tail` groups of inputs, if that is not 0. `ldy` numbers lie between two
    rows of y, and of `added`. The numbers from `n_rows` on are constants.
    """
    constants = (n_rows, height, width, group, lanes, splits, half)
    if not all(isinstance(each, types.IntegerLiteral) for each in constants):
        return None
    signature = types.void(*[types.int64] * 10, *constants)
    sizes = [each.literal_value for each in constants]

    def generate(context, builder, _signature, arguments):
        _product(builder, arguments[:10], *sizes)
        return context.get_dummy_value()

    return signature, generate


@_intrinsic(prefer_literal=True)
def gradient_tile(typing, rows, n_rows, off, grad, ldg, out, inputs, height, lanes, pitch):
    """Addresses of the addresses of the rows of x and their number, elements to skip in them, grad and out.

    Of the constants, `pitch` is the distance from out[i, j] to out[i + 1, j].
    """
    constants = (inputs, height, lanes, pitch)
    if not all(isinstance(each, types.IntegerLiteral) for each in constants):
        return None
    signature = types.void(*[types.int64] * 6, *constants)
    sizes = [each.literal_value for each in constants]

    def generate(context, builder, _signature, arguments):
        _gradient(builder, arguments[:6], *sizes)
        return context.get_dummy_value()

    return signature, generate


@_intrinsic
def peek(typing, address, index):
    """The int64 number `index` from `address` on."""

    def generate(context, builder, signature, arguments):
        return builder.load(builder.gep(builder.inttoptr(arguments[0], _LONG.as_pointer()), [arguments[1]]))

    return types.int64(types.int64, types.int64), generate


@_intrinsic
def poke(typing, address, index, number):
    """Store an int64."""

    def generate(context, builder, signature, arguments):
        place = builder.gep(builder.inttoptr(arguments[0], _LONG.as_pointer()), [arguments[1]])
        builder.store(arguments[2], place)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@_intrinsic
def fetch_add(typing, address, number):
    """Add to an int64 that threads share, and return what it was."""

    def generate(context, builder, signature, arguments):
        place = builder.inttoptr(arguments[0], _LONG.as_pointer())
        return builder.atomic_rmw("add", place, arguments[1], "monotonic")

    return types.int64(types.int64, types.int64), generate


@_intrinsic
def copy_floats(typing, to, source, count):
    """Copy `count` float32 numbers between places that do not overlap."""

    def generate(context, builder, signature, arguments):
        to, source = (builder.inttoptr(each, _BYTE.as_pointer()) for each in arguments[:2])
        cgutils.raw_memcpy(builder, to, source, arguments[2], 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@_intrinsic(prefer_literal=True)
def stack(typing, count):
    """The address of `count` int64 on the stack of the calling function."""
    if not isinstance(count, types.IntegerLiteral):
        return None

    def generate(context, builder, signature, arguments):
        return builder.ptrtoint(cgutils.alloca_once(builder, _LONG, size=count.literal_value), _LONG)

    return types.int64(count), generate


def _product(
    b: Any, arguments: Any, rows: int, height: int, width: int, group: int, lanes: int, splits: int, half: int
) -> None:
    table, off, blocks, tail, values, bias, added, y, ldy, relu = arguments
    vector = ir.VectorType(_FLOAT, lanes)
    registers = -(-height * group // lanes)
    steps = width // group
    unrolled = _unrolled(steps, registers * rows)
    zero = ir.Constant(vector, [0.0] * lanes)
    element = _SHORT if half else _FLOAT
    fma = _fma(b, vector)
    starts = [_load_row(b, table, n) for n in range(rows)]
    off, values = b.inttoptr(off, _INT.as_pointer()), b.inttoptr(values, element.as_pointer())

    def step(sums: list[Any], xs: list[Any], at: Any, u: int) -> list[Any]:
        """The sums after the inputs u g to u g + g - 1 from `xs` on, with the values from `at` on."""
        sums = list(sums)
        stored = [_load(b, b.gep(at, [_long((u * registers + v) * lanes)]), lanes) for v in range(registers)]
        if half:
            stored = [_widened(b, each) for each in stored]
        for n in range(rows):
            repeated = _repeated(b, b.gep(xs[n], [_long(u * group)]), group, lanes)
            for v in range(registers):
                s = ((u % splits) * rows + n) * registers + v
                sums[s] = b.call(fma, [repeated, stored[v], sums[s]])
        return sums

    def begin(t: Any) -> tuple[list[Any], Any]:
        """Where block t meets each row of x, and its values."""
        skip = b.sext(b.load(b.gep(off, [t])), _LONG)
        return [b.gep(start, [skip]) for start in starts], b.gep(values, [b.mul(t, _long(steps * registers * lanes))])

    def block(sums: list[Any], t: Any) -> list[Any]:
        xs, at = begin(t)

        def inputs(sums: list[Any], k: Any) -> list[Any]:
            here = b.gep(at, [b.mul(k, _long(unrolled * registers * lanes))])
            inner = [b.gep(x, [b.mul(k, _long(unrolled * group))]) for x in xs]
            for u in range(unrolled):
                sums = step(sums, inner, here, u)
            return sums

        return _loop(b, _long(steps // unrolled), sums, inputs)

    def last(sums: list[Any], _t: Any) -> list[Any]:
        xs, at = begin(blocks)

        def inputs(sums: list[Any], k: Any) -> list[Any]:
            inner = [b.gep(x, [b.mul(k, _long(group))]) for x in xs]
            return step(sums, inner, b.gep(at, [b.mul(k, _long(registers * lanes))]), 0)

        return _loop(b, tail, sums, inputs)

    sums = _loop(b, blocks, [zero] * (splits * rows * registers), block)
    sums = _loop(b, b.zext(b.icmp_signed(">", tail, _long(0)), _LONG), sums, last)
    for split in range(1, splits):
        part = sums[split * rows * registers : (split + 1) * rows * registers]
        sums[: rows * registers] = [b.fadd(a, p) for a, p in zip(sums, part, strict=False)]
    sums, pitch = _neighbours_added(b, sums[: rows * registers], group), registers * lanes // group
    with b.if_else(b.icmp_signed("!=", added, _long(0))) as (something, nothing):
        for branch, other in ((something, added), (nothing, None)):
            with branch:
                _finish(b, sums, bias, other, y, ldy, relu, rows, height, pitch)


def _neighbours_added(b: Any, sums: list[Any], group: int) -> list[Any]:
    """Every `group` lanes in a row added up, the registers read as one long row."""
    lanes = sums[0].type.count
    while group > 1:
        pairs = [(sums[i], sums[i + 1] if i + 1 < len(sums) else None) for i in range(0, len(sums), 2)]
        even, odd = list(range(0, 2 * lanes, 2)), list(range(1, 2 * lanes, 2))
        sums = [b.fadd(_shuffled(b, *pair, even), _shuffled(b, *pair, odd)) for pair in pairs]
        group //= 2
    return sums


def _finish(
    b: Any, sums: list[Any], bias: Any, added: Any, y: Any, ldy: Any, relu: Any, rows: int, height: int, pitch: int
) -> None:
    """The `height` outputs of each row, with what is to be added, to memory; row n begins at lane n * pitch."""
    lanes = sums[0].type.count
    bias, y = b.inttoptr(bias, _FLOAT.as_pointer()), b.inttoptr(y, _FLOAT.as_pointer())
    clipped = b.icmp_signed("!=", relu, _long(0))
    for n in range(rows):
        j = 0
        while j < height:
            lane = (n * pitch + j) % lanes
            count = min(height - j, lanes - lane)
            place = b.add(b.mul(_long(n), ldy), _long(j))
            part = _shuffled(b, sums[(n * pitch + j) // lanes], None, list(range(lane, lane + count)))
            part = b.fadd(part, _load(b, b.gep(bias, [_long(j)]), count))
            if added is not None:
                part = b.fadd(part, _load(b, b.gep(b.inttoptr(added, _FLOAT.as_pointer()), [place]), count))
            zero = ir.Constant(part.type, [0.0] * count)
            negative = b.fcmp_ordered("<", part, zero)  # false for NaN, which stays
            part = b.select(clipped, b.select(negative, zero, part), part)
            b.store(part, b.bitcast(b.gep(y, [place]), part.type.as_pointer()), align=4)
            j += count


def _gradient(b: Any, arguments: Any, inputs: int, height: int, lanes: int, pitch: int) -> None:
    table, n_rows, off, grad, ldg, out = arguments
    vector = ir.VectorType(_FLOAT, lanes)
    counts = [min(lanes, height - j) for j in range(0, height, lanes)]
    fma = _fma(b, vector)
    table = b.inttoptr(table, _LONG.as_pointer())
    grad, out = b.inttoptr(grad, _FLOAT.as_pointer()), b.inttoptr(out, _FLOAT.as_pointer())

    def places(start: Any, i: int = 0) -> list[Any]:
        return [b.gep(start, [_long(i * pitch + v * lanes)]) for v in range(len(counts))]

    def padded(start: Any, count: int) -> Any:
        return _shuffled(b, _load(b, start, count), None, [min(lane, count - 1) for lane in range(lanes)])

    def row(sums: list[Any], n: Any) -> list[Any]:
        x = b.gep(b.inttoptr(b.load(b.gep(table, [n])), _FLOAT.as_pointer()), [off])
        here = places(b.gep(grad, [b.mul(n, ldg)]))
        columns = [padded(place, count) for place, count in zip(here, counts, strict=True)]
        new: list[Any] = []
        for i in range(inputs):
            repeated = _repeated(b, b.gep(x, [_long(i)]), 1, lanes)
            new += [b.call(fma, [repeated, column, sums[len(new) + v]]) for v, column in enumerate(columns)]
        return new

    begin = [padded(place, count) for i in range(inputs) for place, count in zip(places(out, i), counts, strict=True)]
    sums = _loop(b, n_rows, begin, row)
    ends = [(place, count) for i in range(inputs) for place, count in zip(places(out, i), counts, strict=True)]
    for total, (place, count) in zip(sums, ends, strict=True):
        part = _shuffled(b, total, None, list(range(count)))
        b.store(part, b.bitcast(place, part.type.as_pointer()), align=4)


def _loop(b: Any, count: Any, begin: list[Any], body: Any) -> list[Any]:
    """`state = body(state, k)` for k = 0, ..., count - 1, the state in registers; no loop where the count is 1."""
    if isinstance(count, ir.Constant) and count.constant == 1:
        return body(begin, _long(0))
    before, loop, after = b.block, b.append_basic_block("loop"), b.append_basic_block("after")
    b.cbranch(b.icmp_signed(">", count, _long(0)), loop, after)
    b.position_at_end(loop)
    k = b.phi(_LONG)
    state = [b.phi(each.type) for each in begin]
    end = body(state, k)
    following = b.add(k, _long(1))
    for phi, first, then in zip([k, *state], [_long(0), *begin], [following, *end], strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(then, b.block)
    last = b.block
    b.cbranch(b.icmp_signed("<", following, count), loop, after)
    b.position_at_end(after)
    results = [b.phi(each.type) for each in begin]
    for phi, first, then in zip(results, begin, end, strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(then, last)
    return results


def _unrolled(steps: int, work: int) -> int:
    """The largest divisor of `steps` whose code is not too long."""
    return max(d for d in range(1, steps + 1) if steps % d == 0 and (d == 1 or d * work <= _UNROLLED))


def _long(number: int) -> ir.Constant:
    return ir.Constant(_LONG, number)


def _load_row(b: Any, table: Any, n: int) -> Any:
    return b.inttoptr(b.load(b.gep(b.inttoptr(table, _LONG.as_pointer()), [_long(n)])), _FLOAT.as_pointer())


def _load(b: Any, place: Any, count: int) -> Any:
    """`count` numbers from `place` on, as a vector."""
    vector = ir.VectorType(place.type.pointee, count)
    return b.load(b.bitcast(place, vector.as_pointer()), align=2 if vector.element is _SHORT else 4)


def _repeated(b: Any, place: Any, count: int, lanes: int) -> Any:
    """`count` numbers from `place` on, again and again until all lanes are filled."""
    if count > 1:
        return _shuffled(b, _load(b, place, count), None, [lane % count for lane in range(lanes)])
    # One number is loaded as such: as a vector of one it would not become an operand of the multiplication.
    vector = ir.VectorType(place.type.pointee, lanes)
    first = b.insert_element(ir.Constant(vector, ir.Undefined), b.load(place), ir.Constant(_INT, 0))
    return _shuffled(b, first, None, [0] * lanes)


def _widened(b: Any, half: Any) -> Any:
    """bfloat16 is the upper half of float32."""
    whole = ir.VectorType(_INT, half.type.count)
    upper = b.shl(b.zext(half, whole), ir.Constant(whole, [16] * whole.count))
    return b.bitcast(upper, ir.VectorType(_FLOAT, whole.count))


def _shuffled(b: Any, first: Any, second: Any, lanes: Sequence[int]) -> Any:
    if second is None:
        if list(lanes) == list(range(first.type.count)):
            return first
        second = ir.Constant(first.type, ir.Undefined)
    return b.shuffle_vector(first, second, ir.Constant(ir.VectorType(_INT, len(lanes)), list(lanes)))


def _fma(b: Any, vector: Any) -> Any:
    name = f"llvm.fmuladd.v{vector.count}f32"
    return cgutils.get_or_insert_function(b.module, ir.FunctionType(vector, [vector] * 3), name)
