"""The end of a run: fold, judge, save, compress, compare.

    masks folded   ->  plain network with exact zeros      model.safetensors
    compressed     ->  block-sparse where that is faster   fast.safetensors
    judged         ->  metrics of both on the same validation examples, which must agree

All processes judge the folded network together; the first one does the rest.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save as tensor_bytes
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from sparseopt.experiments.training.launching import agree
from sparseopt.experiments.training.run_pictures import draw_run
from sparseopt.nn import Plan, compress, fold
from sparseopt.nn import save as save_network
from sparseopt.nn.wholefile import replacing

if TYPE_CHECKING:
    from sparseopt.experiments.training.engine import Trainer

__all__ = ["finish", "recalibrate", "zeros"]


def finish(run: Trainer) -> dict[str, Any]:
    """Fold the network of a run that took all its steps; what `result.json` says of it."""
    s = run.sparsifier
    layers = None if s is None else s.plan
    network = _folded(run)
    _agree_on_buffers(run, network)
    if run.recipe.training.recalibrate:
        recalibrate(run, network, run.recipe.training.recalibrate)
    found = run.evaluate(network)
    result: dict[str, Any] = {
        "steps": run.step,
        "seconds": round(run.seconds, 1),
        "metrics": {f"valid_{name}": value for name, value in found.items()},
        "dropped": 0.0 if layers is None else zeros(network, layers),
        "compressed": None,
    }
    plain = _whole(run, network)
    failure: Exception | None = None
    if run.fabric.is_global_zero:
        try:
            with run.folder.writing():
                result["compressed"] = _written(run, plain, layers, found)
        except Exception as error:  # the others wait
            failure = error
    agree(run.fabric, failure)
    return result


def _written(run: Trainer, plain: nn.Module, layers: Plan | None, found: dict[str, float]) -> dict[str, Any] | None:
    """Write all that is made of the network; what there is to say of the compressed one."""
    with replacing(run.folder.path / "model.safetensors") as file:
        # In torch's usual order of memory, and one copy each where layers share a tensor.
        whole = {name: tensor.contiguous().clone() for name, tensor in plain.state_dict().items()}
        file.write(tensor_bytes(whole))
    if run.recipe.output.plots:
        draw_run(run, plain)
    if layers is None or not run.recipe.output.compress:
        return None
    return _compressed(run, plain, layers, found)


def zeros(network: nn.Module, layers: Plan) -> float:
    """The share of exact zeros in the weights of a plan.

    >>> from sparseopt.nn import plan
    >>> model = nn.Sequential(nn.Linear(8, 8))
    >>> layers = plan(model, 0.5, block=4, min_blocks=1)
    >>> with torch.no_grad():
    ...     model[0].weight[:4] = 0.0
    >>> zeros(model, layers)
    0.5
    """
    state: dict[str, Any] = get_model_state_dict(network, options=StateDictOptions(full_state_dict=True))
    weights = [state[layer.name] for layer in layers.layers]
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


@torch.no_grad()
def recalibrate(run: Trainer, network: nn.Module, batches: int) -> None:
    """Take the statistics of all batch norms anew, as means over training batches.

    Those that training left behind are of networks before the last steps, and of other blocks. All else is as it is
    when the network is used: nothing is dropped at random.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    norms = [module for module in norms if module.running_mean is not None]
    momenta = [module.momentum for module in norms]
    for module in norms:
        module.reset_running_stats()
        module.momentum = None  # the mean over all batches, instead of one that forgets
    network.eval()
    for module in norms:
        module.train()
    for batch in islice(run.feed.epoch(0), batches):
        with run.fabric.autocast():
            network(*run.inputs(run.fabric.to_device(batch)))
    for module, momentum in zip(norms, momenta, strict=True):
        module.momentum = momentum
        for statistic in (module.running_mean, module.running_var):
            assert statistic is not None
            statistic.copy_(run.fabric.all_reduce(statistic, reduce_op="mean"))
    network.eval()


def _agree_on_buffers(run: Trainer, network: nn.Module) -> None:
    """Statistics of batch norms are of each process's own examples; those of the first process count."""
    if run.fabric.world_size > 1:
        for buffer in network.buffers():
            buffer.copy_(run.fabric.broadcast(buffer))


def _folded(run: Trainer) -> nn.Module:
    if run.sparsifier is not None:
        run.sparsifier.fold()
        if run.average is not None:
            fold(run.average.module)
    return run.plain if run.average is None else run.average.module


def _whole(run: Trainer, network: nn.Module) -> nn.Module:
    """The network in evaluation mode, with whole tensors."""
    if run.recipe.hardware.strategy != "fsdp":
        return network.eval()
    state = get_model_state_dict(network, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    plain = run.task.network()
    if run.fabric.is_global_zero:  # the others get nothing
        plain.load_state_dict(state)
    return plain.to(run.fabric.device).eval()


def _compressed(run: Trainer, plain: nn.Module, layers: Plan, found: dict[str, float]) -> dict[str, Any]:
    feed = run.task.feed("valid", min(run.recipe.training.batch, 1024), 0, 1)
    batch = run.fabric.to_device(next(iter(feed.epoch(0))))
    inputs = run.inputs(batch)
    try:
        fast = compress(plain, example_input=inputs, plan=layers)
        save_network(fast, run.folder.path / "fast.safetensors")
    except (ValueError, TypeError, RuntimeError) as error:  # the trained network is saved, whatever becomes of this
        return {"failed": f"{type(error).__name__}: {error}"}
    compression: Any = fast.compression
    run.folder.write("compression.txt", f"{compression}\n")
    alone = run.evaluate(fast, feed=feed, alone=True)
    return {
        "batch": len(inputs[0]),
        "dense_ms": compression.dense_ms,
        "fast_ms": compression.compressed_ms,
        "difference": max(abs(alone[name] - found[name]) for name in found),
    }
