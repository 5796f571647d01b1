"""The parts of a training against others' implementations and hand computations: learning rates against torch's
schedulers, metrics against scikit-learn, the folder of a run against another process."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("lightning", reason="training needs lightning")
pytest.importorskip("pydantic", reason="recipes need pydantic")
pytest.importorskip("pyarrow", reason="clicks are converted with pyarrow")

from sklearn.metrics import log_loss, roc_auc_score, top_k_accuracy_score  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.optim import lr_scheduler  # noqa: E402

from sparseopt.experiments.clicks.batches import Batch  # noqa: E402
from sparseopt.experiments.networks import ClickModel  # noqa: E402
from sparseopt.experiments.training import launching  # noqa: E402
from sparseopt.experiments.training.click_task import ClickTask  # noqa: E402
from sparseopt.experiments.training.finishing import recalibrate, zeros  # noqa: E402
from sparseopt.experiments.training.image_task import ImageTask  # noqa: E402
from sparseopt.experiments.training.optimizers import learning_rate, make_optimizer  # noqa: E402
from sparseopt.experiments.training.run_folder import RunFolder  # noqa: E402
from sparseopt.experiments.training.sections import Training  # noqa: E402
from sparseopt.experiments.training.tasks import at_least_float, mean_loss  # noqa: E402
from sparseopt.nn import plan, prune  # noqa: E402

# -- learning rates ----------------------------------------------------------------------------------------------------

STEPS = 50


def training(**values: Any) -> Training:
    return Training(**{"steps": STEPS, "batch": 8, "lr": 0.1, **values})


def rates(make: Callable[[torch.optim.Optimizer], Any], steps: int = STEPS) -> list[float]:
    """The learning rates of a scheduler of torch."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler, found = make(optimizer), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def ours(values: dict[str, Any], steps_per_epoch: int = 10) -> list[float]:
    factor = learning_rate(training(**values), STEPS, steps_per_epoch)
    return [0.1 * factor(n) for n in range(STEPS)]


DECAYS: dict[str, tuple[dict[str, Any], Callable[[int], Callable[[Any], Any]]]] = {
    "cosine": (
        {"decay": "cosine", "final_lr": 0.002},
        lambda steps: lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, steps, 0.002),
    ),
    "cosine to 0": (
        {"decay": "cosine"},
        lambda steps: lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, steps),
    ),
    "exponential": (
        {"decay": "exponential", "final_lr": 0.001},
        lambda steps: lambda optimizer: lr_scheduler.ExponentialLR(optimizer, 0.01 ** (1.0 / steps)),
    ),
    "constant": ({"decay": "constant"}, lambda steps: lambda optimizer: lr_scheduler.ConstantLR(optimizer, 1.0)),
}


@pytest.mark.parametrize("decay", DECAYS)
def test_rates_are_those_of_torch(decay: str) -> None:
    values, theirs = DECAYS[decay]
    np.testing.assert_allclose(ours(values), rates(theirs(STEPS)), rtol=1e-9)


@pytest.mark.parametrize("decay", DECAYS)
def test_warm_up_comes_before_the_decay(decay: str) -> None:
    values, theirs = DECAYS[decay]
    found = ours({**values, "warmup": 1.2})  # of 10 steps
    rising = rates(lambda optimizer: lr_scheduler.LinearLR(optimizer, 1.0 / 12, 1.0, 11), 12)
    np.testing.assert_allclose(found[:12], rising, rtol=1e-9)
    np.testing.assert_allclose(found[12:], rates(theirs(STEPS - 12), STEPS - 12), rtol=1e-9)


def test_rates_at_known_steps() -> None:
    assert ours({"decay": "cosine", "final_lr": 0.02})[25] == pytest.approx(0.06)  # half way, the mean of both ends
    assert ours({"decay": "exponential", "final_lr": 0.001})[25] == pytest.approx(0.01)  # the geometric mean
    last = learning_rate(training(decay="cosine", final_lr=0.02), STEPS, 10)
    assert last(STEPS) == last(STEPS + 7) == pytest.approx(0.2)
    assert learning_rate(training(), 1, 10)(0) == 1.0
    assert learning_rate(training(warmup=100.0), STEPS, 10)(STEPS - 1) == STEPS / 1000  # a warm-up without an end


# -- optimizers --------------------------------------------------------------------------------------------------------


def click_model() -> ClickModel:
    return ClickModel([5, 7], 4, [16, 8], 0, 0.0)


def test_every_parameter_is_in_one_group_but_the_logits() -> None:
    model = click_model()
    s = prune(model, method="sequential-attention++", sparsity=0.5, block=4, min_blocks=1, total_steps=100)
    logits = [parameter for _, parameter in s.new_parameters()]
    optimizer = make_optimizer(model, training(weight_decay=0.1, embedding_weight_decay=0.0), logits)
    first, tables = optimizer.param_groups
    everything = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert len(set(everything)) == len(everything)
    assert sorted(everything + [id(p) for p in logits]) == sorted(id(p) for p in model.parameters())
    of_embeddings = [
        p for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag)) for p in m.parameters()
    ]
    assert of_embeddings
    assert [id(p) for p in tables["params"]] == [id(p) for p in of_embeddings]
    assert (first["weight_decay"], tables["weight_decay"]) == (0.1, 0.0)
    s.add_to(optimizer, 10.0, 0.3)
    added = optimizer.param_groups[2]
    assert {id(p) for p in added["params"]} == {id(p) for p in logits}
    assert added["lr"] == pytest.approx(1.0)
    assert added["weight_decay"] == 0.3


def test_one_group_is_enough_without_a_weight_decay_of_its_own() -> None:
    (group,) = make_optimizer(click_model(), training(weight_decay=0.1)).param_groups
    assert group["weight_decay"] == 0.1


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    (group,) = make_optimizer(model, training()).param_groups
    assert [id(p) for p in group["params"]] == [id(model.weight)]


@pytest.mark.parametrize(
    ("values", "theirs"),
    [
        ({"optimizer": "adam", "weight_decay": 0.1}, lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.1)),
        ({"optimizer": "adamw", "weight_decay": 0.1}, lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.1)),
        (
            {"optimizer": "sgd", "weight_decay": 0.1, "momentum": 0.8, "nesterov": True},
            lambda p: torch.optim.SGD(p, 0.1, momentum=0.8, nesterov=True, weight_decay=0.1),
        ),
        ({"optimizer": "sgd", "momentum": 0.0}, lambda p: torch.optim.SGD(p, 0.1)),
    ],
)
def test_steps_are_those_of_torch(values: dict[str, Any], theirs: Callable[[Any], torch.optim.Optimizer]) -> None:
    found = []
    for make in (lambda model: make_optimizer(model, training(**values)), lambda model: theirs(model.parameters())):
        torch.manual_seed(0)
        model = nn.Linear(4, 3).double()
        optimizer = make(model)
        for n in range(3):
            optimizer.zero_grad()
            model(torch.full((2, 4), n + 1.0, dtype=torch.float64)).square().sum().backward()
            optimizer.step()
        found.append(model.weight.detach())
    torch.testing.assert_close(*found, rtol=1e-12, atol=0.0)


# -- the folder of a run -----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def test_tables_go_back_to_a_step(folder: RunFolder) -> None:
    for step in (5, 10, 15):
        folder.add("steps.csv", {"step": step, "phase": "dense, first", "loss": 1.0 / 3.0})
        folder.add("epochs.csv", {"step": step, "valid_auc": float("nan")})
    text = (folder.path / "steps.csv").read_text()
    folder.rewind(10)
    assert [row["step"] for row in folder.table("steps.csv")] == ["5", "10"]
    assert folder.table("steps.csv")[0] == {"step": "5", "phase": "dense, first", "loss": repr(1.0 / 3.0)}
    assert [row["step"] for row in folder.table("epochs.csv")] == ["5", "10"]
    folder.add("steps.csv", {"loss": 1.0 / 3.0, "step": 15, "phase": "dense, first"})  # in the order of the columns
    assert (folder.path / "steps.csv").read_text() == text
    folder.rewind(0)
    assert not (folder.path / "steps.csv").exists()
    assert folder.table("steps.csv") == []


@pytest.mark.parametrize("cut", [1, 3, 7])
def test_half_lines_are_dropped(folder: RunFolder, cut: int) -> None:
    folder.add("steps.csv", {"step": 5, "loss": 0.5})
    folder.add("steps.csv", {"step": 10, "loss": 0.25})
    file = folder.path / "steps.csv"
    file.write_text(file.read_text()[:-cut])
    assert [row["step"] for row in folder.table("steps.csv")] == ["5"]
    folder.rewind(10)
    assert [row["step"] for row in folder.table("steps.csv")] == ["5"]
    folder.add("steps.csv", {"step": 10, "loss": 0.25})
    assert file.read_text() == "step,loss\n5,0.5\n10,0.25\n"


def test_a_table_is_rewritten_in_one_step(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (5, 10, 15):
        folder.add("steps.csv", {"step": step})
    before = (folder.path / "steps.csv").read_bytes()

    def fails(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fails)
        with pytest.raises(KeyboardInterrupt):
            folder.rewind(10)
    assert (folder.path / "steps.csv").read_bytes() == before


def test_json_is_whole_or_not_there(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert folder.read_json("result.json") is None
    folder.write_json("result.json", {"a": [1.0, float("nan"), {"b": float("inf")}], "c": (1, "x"), "d": None})
    assert folder.read_json("result.json") == {"a": [1.0, None, {"b": None}], "c": [1, "x"], "d": None}
    with pytest.raises(TypeError):
        folder.write_json("result.json", {"a": object()})

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            OSError, match=r"run cannot be written to \(No space left on device\): make room; .*\."
        ) as caught:
            folder.write_json("result.json", {"a": 2})
    assert caught.value.errno is None  # a sentence, which is told as it is
    assert folder.read_json("result.json")["c"] == [1, "x"]
    assert sorted(file.name for file in folder.path.iterdir()) == ["result.json"]


def test_clear_leaves_what_is_not_of_a_run(folder: RunFolder) -> None:
    names = ("checkpoint-000000005.pt", "checkpoint-000000010.pt.tmp", "steps.csv", "pruning.jsonl", "result.json")
    for name in (*names, "model.safetensors", "blocks.png", "compression.txt", "notes.txt"):
        (folder.path / name).write_text("x")
    (folder.path / "tensorboard").mkdir()
    (folder.path / "tensorboard" / "events").write_text("x")
    folder.clear()
    assert [file.name for file in folder.path.iterdir()] == ["notes.txt"]


def test_the_two_newest_checkpoints_are_kept(folder: RunFolder) -> None:
    for step in (5, 10, 100_000, 20):
        folder.checkpoint(step).write_text("x")
    (folder.path / "checkpoint-5.pt.tmp").write_text("x")
    folder.forget_old_checkpoints()
    assert folder.checkpoints() == [folder.checkpoint(100_000), folder.checkpoint(20)]
    folder.forget_old_checkpoints(0)
    assert folder.checkpoints() == []


# It knows nothing of sparseopt: what it sees of the lock is what any process sees.
OTHER = """
import fcntl, sys, time
file = open(sys.argv[1], "a")
try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("taken", flush=True)
else:
    print("free", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no locks")
def test_one_process_owns_the_folder(folder: RunFolder) -> None:
    lock = str(folder.path / "lock")

    def seen() -> str:
        return subprocess.run([sys.executable, "-c", OTHER, lock, "0"], capture_output=True, text=True).stdout.strip()

    with folder.owned():
        assert seen() == "taken"
        with pytest.raises(ValueError, match=r"another process is training in .*run: wait for it"), folder.owned():
            pass
    assert seen() == "free"
    with subprocess.Popen([sys.executable, "-c", OTHER, lock, "600"], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == "free"
        with pytest.raises(ValueError, match="another process is training"), folder.owned():
            pass
        other.send_signal(signal.SIGKILL)
        other.wait()
        with folder.owned():  # the lock of a killed process is gone with it
            pass


# -- metrics -----------------------------------------------------------------------------------------------------------

Gather = Callable[[Tensor], Tensor]


class Ranks:
    """`gather` for processes that are threads."""

    def __init__(self, world: int) -> None:
        self.world, self.barrier, self.parts = world, threading.Barrier(world, timeout=60), [torch.zeros(0)] * world

    def gather(self, rank: int, tensor: Tensor) -> Tensor:
        self.parts[rank] = tensor
        self.barrier.wait()
        whole = torch.cat(self.parts)
        self.barrier.wait()
        return whole

    def run(self, measure: Callable[[int, Gather], Any]) -> list[Any]:
        found: list[Any] = [None] * self.world

        def work(rank: int) -> None:
            found[rank] = measure(rank, lambda tensor: self.gather(rank, tensor))

        threads = [threading.Thread(target=work, args=(rank,)) for rank in range(self.world)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found


def clicks(n: int = 301, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits with ties, and labels."""
    generator = torch.Generator().manual_seed(seed)
    z = (4.0 * torch.randn(n, generator=generator)).round(decimals=1)
    y = (torch.rand(n, generator=generator) < torch.sigmoid(0.5 * z)).float()
    return z, y


def click_outputs(z: Tensor, y: Tensor, batch: int = 64) -> Iterator[tuple[Tensor, Batch]]:
    for start in range(0, max(1, len(z)), batch):
        rows = slice(start, start + batch)
        yield z[rows], Batch(torch.zeros(len(z[rows]), 2, dtype=torch.int32), None, y[rows])


def click_metrics(outputs: Iterator[tuple[Tensor, Any]], gather: Gather) -> dict[str, float]:
    return ClickTask.metrics(object.__new__(ClickTask), outputs, gather)


def image_metrics(outputs: Iterator[tuple[Tensor, Any]], gather: Gather) -> dict[str, float]:
    return ImageTask.metrics(object.__new__(ImageTask), outputs, gather)


def itself(tensor: Tensor) -> Tensor:
    return tensor


def test_click_metrics_are_those_of_scikit_learn() -> None:
    z, y = clicks()
    found = click_metrics(click_outputs(z, y), itself)
    p = 1.0 / (1.0 + np.exp(-z.double().numpy()))
    assert found["loss"] == pytest.approx(log_loss(y.numpy(), p), rel=1e-12)
    assert found["auc"] == pytest.approx(roc_auc_score(y.numpy(), p), rel=1e-12)


def test_clicks_of_one_kind_have_no_auc() -> None:
    z, _ = clicks(20)
    found = click_metrics(click_outputs(z, torch.ones(20)), itself)
    assert math.isnan(found["auc"])
    assert found["loss"] == pytest.approx(float(nn.functional.softplus(-z.double()).mean()), rel=1e-12)
    assert math.isnan(
        click_metrics(click_outputs(torch.full((4,), torch.nan), torch.tensor([0.0, 1, 0, 1])), itself)["auc"]
    )


Metrics = Callable[[Iterator[tuple[Tensor, Any]], Gather], dict[str, float]]


def split_is_whole(metrics: Metrics, outputs: Callable[..., Iterator[Any]], examples: tuple[Tensor, Tensor]) -> bool:
    """The law: whatever process has which examples, and were it none, all find what one finds."""
    whole = metrics(outputs(*examples), itself)
    for cuts in ([0, 100, 301], [0, 0, 301], [0, 7, 150, 301]):
        parts = [tuple(each[a:b] for each in examples) for a, b in pairwise(cuts)]
        found = Ranks(len(parts)).run(lambda rank, gather, parts=parts: metrics(outputs(*parts[rank]), gather))
        for each in found:
            if each is None or any(abs(each[key] - whole[key]) > 1e-12 for key in whole):
                return False
    return True


def pictures(classes: int = 10, n: int = 301) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    y = torch.randint(classes, (n,), generator=generator)
    return torch.randn(n, classes, generator=generator) + 1.5 * nn.functional.one_hot(y, classes), y


def picture_outputs(z: Tensor, y: Tensor, batch: int = 64) -> Iterator[tuple[Tensor, Any]]:
    for start in range(0, max(1, len(z)), batch):
        rows = slice(start, start + batch)
        yield z[rows], (torch.zeros(len(z[rows]), 3, 2, 2), y[rows])


def test_image_metrics_are_those_of_scikit_learn() -> None:
    z, y = pictures()
    found = image_metrics(picture_outputs(z, y), itself)
    assert found["accuracy"] == pytest.approx(top_k_accuracy_score(y, z, k=1), rel=1e-12)
    assert found["top5"] == pytest.approx(top_k_accuracy_score(y, z, k=5), rel=1e-12)
    assert found["loss"] == pytest.approx(log_loss(y, torch.softmax(z.double(), 1)), rel=1e-12)


def test_three_classes_have_a_top_three() -> None:
    z, y = pictures(3)
    found = image_metrics(picture_outputs(z, y), itself)
    assert found["top5"] == 1.0
    assert 0.0 < found["accuracy"] < 1.0


def test_examples_may_be_spread_over_processes() -> None:
    assert split_is_whole(click_metrics, click_outputs, clicks())
    assert split_is_whole(image_metrics, picture_outputs, pictures())


def test_means_of_the_means_of_processes_are_noticed() -> None:
    def mean_of_means(outputs: Iterator[tuple[Tensor, Any]], gather: Gather) -> dict[str, float]:
        z, y = (torch.cat(each) for each in zip(*((z, batch.labels) for z, batch in outputs), strict=True))
        loss = nn.functional.binary_cross_entropy_with_logits(z.double(), y.double())
        return {"loss": float(gather(loss[None]).nanmean())}

    def own_auc(outputs: Iterator[tuple[Tensor, Any]], gather: Gather) -> dict[str, float]:
        found = click_metrics(outputs, itself)
        return {"auc": float(gather(torch.tensor([found["auc"]])).nanmean())}

    assert not split_is_whole(mean_of_means, click_outputs, clicks())
    assert not split_is_whole(own_auc, click_outputs, clicks())


def test_a_mean_of_nothing() -> None:
    nothing = torch.zeros((), dtype=torch.float64)
    assert math.isnan(mean_loss(nothing, nothing, itself))


def test_losses_are_computed_in_float32_at_least() -> None:
    assert at_least_float(torch.zeros(1, dtype=torch.bfloat16)).dtype == torch.float32
    assert at_least_float(torch.zeros(1)).dtype == torch.float32
    assert at_least_float(torch.zeros(1, dtype=torch.float64)).dtype == torch.float64


# -- errors of one process ---------------------------------------------------------------------------------------------


def test_one_process_agrees_with_itself() -> None:
    fabric: Any = SimpleNamespace(world_size=1, is_global_zero=True)
    launching.agree(fabric, None)
    error = ValueError("wrong.")
    with pytest.raises(ValueError, match="wrong") as caught:
        launching.agree(fabric, error)
    assert caught.value is error


def test_lost_processes_are_known_by_their_errors() -> None:
    assert launching.is_lost(torch.distributed.DistBackendError("NCCL communicator was aborted"))
    assert launching.is_lost(
        RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer")
    )
    assert not launching.is_lost(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not launching.is_lost(ValueError("Connection closed by peer"))


# -- the end of a run --------------------------------------------------------------------------------------------------


class Feed:
    def __init__(self, batches: list[Tensor]) -> None:
        self.batches = batches

    def epoch(self, number: int, start: int = 0) -> Iterator[Tensor]:
        assert (number, start) == (0, 0)
        return iter(self.batches)


def test_batch_norms_are_recalibrated() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(3, 4),
        nn.Dropout(0.5),
        nn.BatchNorm1d(4, momentum=0.3),
        nn.Linear(4, 2),
        nn.BatchNorm1d(2, track_running_stats=False),
    ).double()
    norm = network[2]
    norm.running_mean += 7.0
    batches = [torch.randn(n, 3, dtype=torch.float64) for n in (8, 8, 5, 8)]
    fabric = launching.make_fabric(
        SimpleNamespace(accelerator="cpu", devices=1, nodes=1, strategy="auto", precision="32-true")
    )
    run: Any = SimpleNamespace(fabric=fabric, feed=Feed(batches), inputs=lambda batch: (batch,))
    weights = {name: parameter.clone() for name, parameter in network.named_parameters()}
    recalibrate(run, network, 3)
    with torch.no_grad():
        seen = [network[0](batch) for batch in batches[:3]]  # as it is used: without dropout
    torch.testing.assert_close(norm.running_mean, torch.stack([z.mean(0) for z in seen]).mean(0), rtol=1e-12, atol=0.0)
    torch.testing.assert_close(norm.running_var, torch.stack([z.var(0) for z in seen]).mean(0), rtol=1e-12, atol=0.0)
    assert norm.momentum == 0.3
    assert not any(module.training for module in network.modules())
    assert all(torch.equal(weights[name], parameter) for name, parameter in network.named_parameters())


def test_zeros_are_counted_in_the_weights_of_the_plan() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4), nn.Linear(4, 4))
    layers = plan(model, 0.5, block=4, min_blocks=1, exclude=["2"])
    with torch.no_grad():
        model[0].weight[:4] = 0.0
        model[1].weight[:, 3] = -0.0
        model[2].weight.zero_()
        model[0].weight[7, 7] = 1e-45  # the smallest number that is none
    assert zeros(model, layers) == (32 + 4) / (64 + 32)


def test_json_of_a_folder_is_plain(folder: RunFolder) -> None:
    folder.write_json("result.json", {"seconds": 0.5})
    assert json.loads((folder.path / "result.json").read_text()) == {"seconds": 0.5}
