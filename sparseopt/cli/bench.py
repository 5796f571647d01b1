"""The command `nn bench`: how much faster block-sparse networks and layers run here than dense ones."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparseopt.cli.figures import check_figure_file
from sparseopt.console import Parser, positive_integer

if TYPE_CHECKING:  # torch takes a second to import, and other commands do without
    from sparseopt.nn.sparse.benchmark import Result

__all__ = ["add_nn", "run_nn"]

_EPILOG = """\
models:
  resnet50    ResNet-50, images of 224 x 224          resnet20    ResNet-20, images of 32 x 32
  mlp         1024-2048-2048-1000                     click       embeddings of 39 fields, then 390-400-400-400-1
  FILE        a compressed network, saved by sparseopt.nn.sparse; --input gives the shape of one item

Blocks are dropped at random: times depend on how many are left, not on which. Dense is the fastest of what torch offers
for the batch size: channels first or last, MKL or oneDNN, weights packed once or at every call. All run in turns.

examples:
  sparseopt nn bench                                                      ResNet-50, 90 %, blocks of 32 x 32
  sparseopt nn bench --model click --block 16 --sparsity .95 --batch 1 64 4096
  sparseopt nn bench --linear 1024x1024 2048x2048 --plot linear.png --json linear.json
  sparseopt nn bench --model small.safetensors --input 3x224x224 --threads 1
"""

LAYER = {"sparsity": (0.7, 0.9, 0.95), "block": (8, 16, 32, 64), "batch": tuple(4**k for k in range(7)), "seconds": 5.0}
NETWORK = {"sparsity": (0.9,), "block": (32,), "batch": (1, 4, 16, 64), "seconds": 10.0}


def add_nn(command: argparse.ArgumentParser) -> None:
    """Give the command `nn` its commands, and those their options."""
    commands = command.add_subparsers(dest="subcommand", required=True, metavar="COMMAND", parser_class=Parser)
    bench = commands.add_parser(
        "bench",
        help="time networks and layers, dense against block-sparse",
        description="Latency and throughput of a network, or of single linear layers, dense against block-sparse.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = bench.add_argument
    what = bench.add_mutually_exclusive_group()
    what.add_argument("--model", metavar="NAME", default="resnet50", help="see below (resnet50)")
    what.add_argument("--linear", metavar="OUTxIN", nargs="+", type=_layer, help="single layers, such as 1024x1024")
    add("--sparsity", metavar="S", nargs="+", type=_share, help="shares of blocks to drop (.9; layers .7 .9 .95)")
    add("--block", metavar="B", nargs="+", type=positive_integer, help="sides of blocks (32; layers 8 16 32 64)")
    add("--batch", metavar="N", nargs="+", type=positive_integer, help="items at a time (1 4 16 64; layers to 4096)")
    add("--min-blocks", metavar="N", type=positive_integer, default=100, help="smaller layers stay dense (100)")
    add("--input", metavar="SHAPE", type=_shape, help="of one item, such as 3x224x224, for a FILE")
    add("--threads", metavar="N", type=positive_integer, help="threads of torch (its default)")
    add("--seconds", metavar="S", type=_seconds, help="time for each batch size (10; layers 5)")
    add("--json", metavar="FILE", help="write all times, and what they were taken on")
    add("--plot", metavar="FILE", help="draw speed-up against batch size: .png, .pdf or .svg")


def run_nn(args: argparse.Namespace) -> Iterator[str]:
    """The lines that `sparseopt nn bench` prints, as times become known."""
    if find_spec("torch") is None:
        raise ValueError('PyTorch, which runs networks, is not installed: pip install "sparseopt[nn]".')
    _require_sense(args)
    for name, value in (LAYER if args.linear else NETWORK).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(args.threads or threads)
    try:
        yield from _bench(args)
    finally:
        torch.set_num_threads(threads)


def _require_sense(args: argparse.Namespace) -> None:
    """Refuse before minutes of measuring what could not be written or meant afterwards."""
    saved = not args.linear and args.model.endswith(".safetensors")
    if saved and (args.sparsity or args.block):
        raise ValueError(f"{args.model} has blocks of its own: leave out --sparsity and --block.")
    if args.input and not saved:
        raise ValueError("--input is for a FILE.safetensors alone, other networks know it: leave it out.")
    if args.json and not Path(args.json).absolute().parent.is_dir():
        raise ValueError(f"The folder of {args.json!r} does not exist: create it first.")
    if args.plot:
        check_figure_file(args.plot)


def _bench(args: argparse.Namespace) -> Iterator[str]:
    from sparseopt.nn.sparse.benchmark import environment

    about = environment()
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    load = "" if about["load"] is None else f"; load average {about['load']:.2f} at the start"
    yield f"{about['cpu']}, {about['threads']} threads, {about['capability']}; {versions}{load}"
    results: list[Result] = []
    yield from _layers(args, results) if args.linear else _network(args, results)
    if args.json:
        content = {"environment": about, "results": [result.to_dict() for result in results]}
        Path(args.json).write_text(json.dumps(content, indent=1), encoding="utf-8")
        yield f"Wrote the times to {args.json}."
    if args.plot:
        yield f"Drew {', '.join(map(str, _draw(results, Path(args.plot))))}."


# -- networks ----------------------------------------------------------------------------------------------------------


def _network(args: argparse.Namespace, results: list[Result]) -> Iterator[str]:
    from sparseopt.cli.bench_networks import dropped, saved

    if args.model.endswith(".safetensors"):
        networks = saved(args.model, args.input)
    else:
        networks = dropped(args.model, args.sparsity, args.block, args.min_blocks)
    for network in networks:
        yield ""
        yield f"{args.model}, {network.about}"
        heading = [f"{'batch':>6}", f"{'dense ms':>9}", f"{'items/s':>8}"]
        heading += [f"{name + ' ms':>9}  {'items/s':>8}  {'faster':>6}" for name in network.ways]
        yield "  ".join([*heading, "dense is"])
        for result in network.bench(Path(args.model).name, args.batch, args.seconds):
            results.append(result)
            best = result.rival
            cells = [f"{result.batch:>6}", f"{result.dense[best]:>9.3g}", f"{_rate(result, best):>8}"]
            for name, ms in result.sparse.items():
                cells += [f"{ms:>9.3g}", f"{_rate(result, name):>8}", f"{result.speed_up(name):>6.2f}"]
            yield "  ".join([*cells, best])


# -- layers ------------------------------------------------------------------------------------------------------------


def _layers(args: argparse.Namespace, results: list[Result]) -> Iterator[str]:
    from sparseopt.nn.sparse.benchmark import bench_linear

    for outputs, inputs in args.linear:
        yield ""
        yield f"{outputs} x {inputs}, times faster than dense, by the share of dropped blocks and their side B"
        columns = [(sparsity, (block, block)) for sparsity in args.sparsity for block in args.block]
        yield "  ".join([f"{'':>6}", f"{'dense ms':>9}", *(f"{100 * sparsity:>4g} %" for sparsity, _ in columns)])
        yield "  ".join(
            [f"{'batch':>6}", f"{'':>9}", *(f"{'B=' + str(block):>6}" for _, (block, _) in columns), "dense is"]
        )
        row: list[Result] = []
        for result in bench_linear(outputs, inputs, args.block, args.sparsity, args.batch, args.seconds):
            results.append(result)
            row.append(result)
            if len(row) == len(columns):
                found = {(each.sparsity, each.block): each for each in row}
                cells = [f"{found[column].speed_up('sparse'):>6.2f}" for column in columns]
                yield "  ".join([f"{result.batch:>6}", f"{result.dense[result.rival]:>9.3g}", *cells, result.rival])
                row = []
        limits = {(each.sparsity, each.block): each.limit for each in results[-len(columns) :]}
        yield "  ".join([f"{'limit':>6}", f"{'':>9}", *(f"{limits[column]:>6.2f}" for column in columns)])


# -- pictures and options ----------------------------------------------------------------------------------------------


def _rate(result: Result, name: str) -> str:
    rate = result.throughput(name)
    return f"{rate:,.0f}" if rate >= 100.0 else f"{rate:.3g}"


def _draw(results: Sequence[Result], file: Path) -> list[Path]:
    """One picture for every case; where there are several, their names end in the case."""
    from matplotlib.figure import Figure

    from sparseopt.nn.sparse.pictures import plot_speed_up

    cases = list(dict.fromkeys(result.case for result in results))
    files = []
    for case in cases:
        shown = [result for result in results if result.case == case]
        panels = len({result.sparsity for result in shown})
        figure: Any = Figure(figsize=(1.2 + 4.4 * panels, 4.2), layout="constrained")
        plot_speed_up(shown, figure)
        files.append(file if len(cases) == 1 else file.with_stem(f"{file.stem}_{case}"))
        figure.savefig(files[-1], dpi=130)
    return files


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is no share in [0, 1), such as 0.9")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds > 0")
    return value


def _shape(text: str) -> tuple[int, ...]:
    sides = text.split("x")
    if not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise argparse.ArgumentTypeError(f"{text!r} is no shape, such as 3x224x224")
    return tuple(map(int, sides))


def _layer(text: str) -> tuple[int, int]:
    sides = _shape(text)
    if len(sides) != 2:
        raise argparse.ArgumentTypeError(f"{text!r} is no size of a layer: write OUTPUTSxINPUTS, such as 1024x1024")
    return sides[0], sides[1]
