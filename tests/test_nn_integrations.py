"""Pruning inside the training loops of Lightning, transformers and Accelerate: each equals the loop written out."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="networks need torch")

from torch import nn  # noqa: E402

from sparseopt.nn import PhaseSchedule, Sparsifier, prune  # noqa: E402

# Lightning's own use of torch.
pytestmark = pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning")

SCHEDULE = PhaseSchedule.from_list([("dense", 3), ("sparsify", 4), ("sparse", 3), ("dense", 2), ("sparse", 4)])
STEPS = SCHEDULE.total
BATCH = 4
FOLDER = Path(__file__).parent.parent / "nn" / "integrations"


def needs(name: str) -> ModuleType:
    return pytest.importorskip(name, reason=f"the integration of {name.split('.')[0]} needs it")


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 4))


def pruned(model: nn.Module, method: str = "sequential-attention++", schedule: PhaseSchedule = SCHEDULE) -> Sparsifier:
    return prune(model, None, method, 0.5, 4, schedule=schedule, min_blocks=2)


def adam(model: nn.Module, **settings: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.02, **settings)


def examples(n: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(n, 12, generator=generator)
    return list(zip(x, x.cumsum(1)[:, :4].sin(), strict=True))


def loader(n: int) -> Any:
    return torch.utils.data.DataLoader(examples(n), batch_size=BATCH)


def loss(model: nn.Module, batch: Any) -> torch.Tensor:
    return nn.functional.mse_loss(model(batch[0]), batch[1])


def by_hand(
    model: nn.Module, s: Sparsifier, accumulate: int = 1, skip: tuple[int, ...] = (), steps: int = STEPS
) -> nn.Module:
    """The loop written out; the steps in `skip` find infinite gradients."""
    optimizer = adam(model)
    s.attach(optimizer)
    for n, batch in enumerate(loader(BATCH * steps * accumulate)):
        (loss(model, batch) / accumulate).backward()
        if (n + 1) % accumulate == 0:
            if n // accumulate not in skip:
                optimizer.step()
            optimizer.zero_grad()
    return model


def require_equal(model: nn.Module, expected: nn.Module) -> None:
    state, other = model.state_dict(), expected.state_dict()
    assert list(state) == list(other)
    for name, value in state.items():
        assert torch.equal(value, other[name]), name


def plain_values(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and plain_values(each) for key, each in value.items())
    if isinstance(value, list):
        return all(plain_values(each) for each in value)
    return value is None or isinstance(value, (bool, int, float, str))


def test_states_are_numbers_and_names() -> None:
    s = pruned(network())
    by_hand(s.model, s)
    assert plain_values(s.state_dict())
    assert json.loads(json.dumps(s.state_dict())) == s.state_dict()
    assert not plain_values({"a": [torch.zeros(1)]})
    assert not plain_values({1: 2})


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.stem)
def test_files_are_short(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) < 80


@pytest.mark.parametrize(("name", "hidden"), [("lightning", "lightning pytorch_lightning"), ("transformers",) * 2])
def test_without_the_library_a_sentence_says_so(name: str, hidden: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for library in hidden.split():
        for each in [library, *(each for each in sys.modules if each.startswith(f"{library}."))]:
            monkeypatch.setitem(sys.modules, each, None)
    spec = importlib.util.spec_from_file_location(f"without_{name}", FOLDER / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    with pytest.raises(ImportError, match=rf"needs .*: pip install {name}"):
        found.Pruning(pruned(network()))


# Lightning


@pytest.fixture(scope="module")
def lightning() -> Any:
    """Lightning's Trainer with quiet settings, a module, and the callback."""
    needs("lightning")
    import lightning as library
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.plugins.precision import MixedPrecision

    from sparseopt.nn.integrations.lightning import Pruning

    class Module(library.LightningModule):
        def __init__(self, seed: int = 0, spoil: tuple[int, ...] = (), **settings: Any) -> None:
            super().__init__()
            self.net = network(seed)
            self.spoil = spoil
            self.settings = settings

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            return loss(self.net, batch) * (torch.inf if index in self.spoil else 1.0)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return adam(self, **self.settings)

    def trainer(folder: Path, *callbacks: Any, **settings: Any) -> Any:
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        usual = {"max_epochs": 1, "enable_checkpointing": False, "accelerator": "cpu", "default_root_dir": folder}
        return library.Trainer(callbacks=list(callbacks), **{**quiet, **usual, **settings})

    return SimpleNamespace(
        Module=Module, trainer=trainer, Pruning=Pruning, Saver=ModelCheckpoint, Mixed=MixedPrecision, library=library
    )


@pytest.mark.parametrize("method", ["sequential-attention++", "ac/dc", "rigl"])
def test_lightning_trains_as_the_loop_written_out(lightning: Any, tmp_path: Path, method: str) -> None:
    module = lightning.Module()
    s = pruned(module.net, method)
    lightning.trainer(tmp_path, lightning.Pruning(s)).fit(module, loader(BATCH * STEPS))
    assert s.step_count == STEPS
    assert s.optimizer is None
    expected = pruned(network(), method)
    require_equal(module.net, by_hand(expected.model, expected))
    assert s.history == expected.history


def test_lightning_counts_steps_and_not_batches(lightning: Any, tmp_path: Path) -> None:
    def run(callback: type) -> tuple[Sparsifier, nn.Module]:
        module = lightning.Module()
        s = pruned(module.net)
        lightning.trainer(tmp_path, callback(s), accumulate_grad_batches=3).fit(module, loader(3 * BATCH * STEPS))
        return s, module.net

    s, model = run(lightning.Pruning)
    assert s.step_count == STEPS
    expected = pruned(network())
    require_equal(model, by_hand(expected.model, expected, accumulate=3))

    class CountsBatches(lightning.Pruning):
        def on_train_batch_end(self, trainer: Any, *others: Any) -> None:
            if self.sparsifier.optimizer is not None:
                self.sparsifier.detach()
            self.sparsifier.step(trainer.optimizers[0])

    assert run(CountsBatches)[0].step_count > STEPS


@pytest.mark.parametrize("fused", [False, True])
def test_lightning_does_not_count_skipped_steps(lightning: Any, tmp_path: Path, fused: bool) -> None:
    module = lightning.Module(spoil=(2, 3, 11), fused=fused)
    s = pruned(module.net)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    plugin = lightning.Mixed("16-mixed", "cpu", scaler)
    lightning.trainer(tmp_path, lightning.Pruning(s), plugins=plugin).fit(module, loader(BATCH * STEPS))
    assert s.step_count == STEPS - 3
    assert [event.step for event in s.history if event.what == "enter"] == [phase.start for phase in SCHEDULE.phases]
    assert scaler.get_scale() == 0.5


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning")
@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_lightning_resumes_exactly(lightning: Any, tmp_path: Path, epoch: int) -> None:
    """Four epochs of four steps: a checkpoint in a sparsify and in a sparse phase, and at a change of phase."""

    def run(callback: type, seed: int = 0, **resume: Any) -> tuple[Sparsifier, Any]:
        module = lightning.Module(seed)
        s = pruned(module.net)
        saver = lightning.Saver(tmp_path, "{epoch}", save_top_k=-1)
        trainer = lightning.trainer(tmp_path, callback(s), saver, max_epochs=4, enable_checkpointing=True)
        trainer.fit(module, loader(BATCH * 4), **resume)
        return s, module

    s, module = run(lightning.Pruning)
    file = tmp_path / f"epoch={epoch - 1}.ckpt"
    torch.load(file, weights_only=True)
    t, again = run(lightning.Pruning, 1, ckpt_path=file)
    require_equal(again, module)
    assert t.history == s.history
    assert t.step_count == STEPS

    class Forgets(lightning.Pruning):
        state_key = "Pruning"

        def load_state_dict(self, state_dict: Any) -> None:
            """Does not."""

    if epoch == 1:
        with pytest.raises(RuntimeError, match="load the state dicts of the model and of the sparsifier"):
            run(Forgets, 1, ckpt_path=file)


def test_lightning_refuses_a_checkpoint_of_another_pruning(lightning: Any, tmp_path: Path) -> None:
    module = lightning.Module()
    trainer = lightning.trainer(tmp_path, lightning.Pruning(pruned(module.net)))
    trainer.fit(module, loader(BATCH * STEPS))
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    module = lightning.Module()
    other = lightning.Pruning(pruned(module.net, schedule=PhaseSchedule.one_shot(STEPS)))
    with pytest.raises(ValueError, match="this state was made otherwise: phase 1 of the schedule"):
        lightning.trainer(tmp_path, other).fit(module, loader(BATCH * STEPS), ckpt_path=tmp_path / "one.ckpt")


def test_lightning_folds_and_saves_plain_weights(lightning: Any, tmp_path: Path) -> None:
    module = lightning.Module()
    names = list(module.state_dict())
    s = pruned(module.net)
    trainer = lightning.trainer(tmp_path, lightning.Pruning(s, fold=True))
    trainer.fit(module, loader(BATCH * STEPS))
    assert type(module.net[0]) is nn.Linear
    assert (module.net[0].weight == 0).float().mean() == 0.5
    trainer.save_checkpoint(tmp_path / "plain.ckpt")
    saved = torch.load(tmp_path / "plain.ckpt", weights_only=True)
    assert list(saved["state_dict"]) == names
    expected = pruned(network())
    by_hand(expected.model, expected)
    require_equal(module.net, expected.fold())


def test_lightning_finds_the_optimizer_of_the_pruned_layers(lightning: Any, tmp_path: Path) -> None:
    class Two(lightning.Module):
        def __init__(self) -> None:
            super().__init__()
            self.other = nn.Linear(2, 2)
            self.automatic_optimization = False

        def configure_optimizers(self) -> Any:
            return [adam(self.other), adam(self.net)]

        def training_step(self, batch: Any, index: int) -> None:
            for optimizer in self.optimizers():
                optimizer.zero_grad()
                self.manual_backward(loss(self.net, batch) + self.other.weight.sum())
                optimizer.step()

    module = Two()
    s = pruned(module.net)
    lightning.trainer(tmp_path, lightning.Pruning(s)).fit(module, loader(BATCH * STEPS))
    assert s.step_count == STEPS


def test_lightning_says_when_training_is_shorter_than_the_schedule(lightning: Any, tmp_path: Path) -> None:
    module = lightning.Module()
    s = pruned(module.net)
    with pytest.warns(UserWarning, match="takes 5 steps, and the last phase begins after 12: prune with total_steps=5"):
        lightning.trainer(tmp_path, lightning.Pruning(s)).fit(module, loader(BATCH * 5))


def test_lightning_keeps_the_last_good_checkpoint(lightning: Any, tmp_path: Path) -> None:
    module = lightning.Module(spoil=(2,))
    saver = lightning.Saver(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    trainer = lightning.trainer(tmp_path, lightning.Pruning(pruned(module.net)), saver, enable_checkpointing=True)
    with pytest.raises(FloatingPointError, match=r"the weights of 0.weight are not finite after 3 steps"):
        trainer.fit(module, loader(BATCH * STEPS))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["step=1.ckpt", "step=2.ckpt"]


# The Trainer of transformers


@pytest.fixture(scope="module")
def transformers() -> Any:
    """The Trainer with quiet settings, two models, and the callback."""
    needs("transformers")
    needs("accelerate")
    import transformers as library

    from sparseopt.nn.integrations.transformers import Pruning

    class Plain(nn.Module):
        def __init__(self, seed: int = 0) -> None:
            super().__init__()
            self.net = network(seed)

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": loss(self.net, (x, labels))}

    def bert(seed: int = 0) -> Any:
        torch.manual_seed(seed)
        sizes = {"vocab_size": 20, "hidden_size": 16, "intermediate_size": 32, "max_position_embeddings": 8}
        config = library.BertConfig(**sizes, num_hidden_layers=1, num_attention_heads=2, num_labels=3)
        return library.BertForSequenceClassification(config)

    generator = torch.Generator().manual_seed(3)
    words = torch.randint(0, 20, (BATCH * STEPS, 6), generator=generator)
    sentences = [{"input_ids": row, "labels": row.sum() % 3} for row in words]
    numbers = [{"x": x, "labels": y} for x, y in examples(3 * BATCH * STEPS)]

    def trainer(model: Any, folder: Path, *callbacks: Any, **settings: Any) -> Any:
        quiet = {"report_to": "none", "disable_tqdm": True, "logging_strategy": "no", "log_level": "error"}
        usual = {"per_device_train_batch_size": BATCH, "use_cpu": True, "dataloader_pin_memory": False}
        usual |= {"max_steps": STEPS, "save_strategy": "no", "learning_rate": 0.02, "output_dir": str(folder)}
        return library.Trainer(
            model,
            library.TrainingArguments(**{**quiet, **usual, **settings}),
            train_dataset=numbers if isinstance(model, Plain) else sentences,
            callbacks=list(callbacks),
        )

    return SimpleNamespace(Plain=Plain, bert=bert, trainer=trainer, Pruning=Pruning, library=library, numbers=numbers)


def test_transformers_trains_as_the_loop_written_out(transformers: Any, tmp_path: Path) -> None:
    model = transformers.Plain()
    s = pruned(model.net)
    settings = {"gradient_accumulation_steps": 3, "max_grad_norm": 0.0, "lr_scheduler_type": "constant", "seed": 5}
    trainer = transformers.trainer(model, tmp_path, transformers.Pruning(s), **settings)
    batches = list(trainer.get_train_dataloader())
    trainer.train()
    assert s.step_count == STEPS
    assert s.optimizer is None

    expected = transformers.Plain()
    t = pruned(expected.net)
    optimizer = transformers.trainer(expected, tmp_path, **settings).create_optimizer()
    t.attach(optimizer)
    for n, batch in enumerate(batches):
        (expected(**batch)["loss"] / 3).backward()
        if n % 3 == 2:
            optimizer.step()
            optimizer.zero_grad()
    for value, other in zip(model.state_dict().values(), expected.state_dict().values(), strict=True):
        assert torch.allclose(value, other, rtol=0.0, atol=1e-4)
    assert t.history == s.history


@pytest.mark.parametrize("kind", ["Plain", "bert"])
@pytest.mark.parametrize("at", [5, 12])
def test_transformers_resumes_exactly(transformers: Any, tmp_path: Path, kind: str, at: int) -> None:
    def run(folder: Path, seed: int = 0, resume: Any = None, callback: Any = None) -> tuple[Sparsifier, Any]:
        model = getattr(transformers, kind)(seed)
        s = pruned(model)
        callback = callback or transformers.Pruning
        trainer = transformers.trainer(model, folder, callback(s), save_strategy="steps", save_steps=at)
        trainer.train(resume_from_checkpoint=resume)
        return s, model

    s, model = run(tmp_path / "whole")
    checkpoint = tmp_path / "whole" / f"checkpoint-{at}"
    assert plain_values(json.loads((checkpoint / "trainer_state.json").read_text())["stateful_callbacks"]["Pruning"])
    t, again = run(tmp_path / "rest", 1, str(checkpoint))
    require_equal(again, model)
    assert t.history == s.history
    assert t.step_count == STEPS
    assert any(key.endswith("mask") for key in again.state_dict())

    class Pruning(transformers.Pruning):
        """Forgets what was saved."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            state.stateful_callbacks["Pruning"]["sparsifier"] = self.sparsifier.state_dict()
            super().on_train_begin(args, state, control, **others)

    if at == 5:
        with pytest.raises(RuntimeError, match="load the state dicts of the model and of the sparsifier"):
            run(tmp_path / "forgotten", 1, str(checkpoint), Pruning)


def test_transformers_folds_and_saves_plain_weights(transformers: Any, tmp_path: Path) -> None:
    model = transformers.bert()
    names = list(model.state_dict())
    s = pruned(model)
    trainer = transformers.trainer(model, tmp_path, transformers.Pruning(s, fold=True))
    trainer.train()
    trainer.save_model(tmp_path / "plain")
    loaded = transformers.library.BertForSequenceClassification.from_pretrained(tmp_path / "plain")
    assert list(loaded.state_dict()) == names
    require_equal(loaded, model)
    assert all((model.get_parameter(entry.name) == 0).float().mean() > 0.4 for entry in s.plan.layers)


def test_transformers_refuses_what_it_cannot_resume(transformers: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"result of prune\(...\): .* restore_callback_states_from_checkpoint"):
        transformers.Pruning()
    plain = transformers.Plain()
    transformers.trainer(plain, tmp_path, save_strategy="steps", save_steps=STEPS).train()
    model = transformers.Plain()
    trainer = transformers.trainer(model, tmp_path, transformers.Pruning(pruned(model, "ac/dc")), max_steps=20)
    with pytest.raises(ValueError, match="written without pruning"):
        trainer.train(resume_from_checkpoint=True)


def test_transformers_says_when_training_is_shorter_than_the_schedule(transformers: Any, tmp_path: Path) -> None:
    model = transformers.Plain()
    trainer = transformers.trainer(model, tmp_path, transformers.Pruning(pruned(model)), max_steps=5)
    with pytest.warns(UserWarning, match="takes 5 steps, and the last phase begins after 12: prune with total_steps=5"):
        trainer.train()


def test_transformers_writes_no_checkpoint_of_infinite_weights(transformers: Any, tmp_path: Path) -> None:
    class Spoils(transformers.library.TrainerCallback):
        def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **others: Any) -> None:
            if state.global_step == 2:
                with torch.no_grad():
                    s.layers[0].stored[0, 0] = torch.nan

    model = transformers.Plain()
    s = pruned(model, schedule=PhaseSchedule.one_shot(STEPS))
    callbacks = (transformers.Pruning(s), Spoils())
    trainer = transformers.trainer(model, tmp_path, *callbacks, save_strategy="steps", save_steps=1)
    with pytest.raises(FloatingPointError, match=r"the weights of net.0.weight are not finite after 3 steps"):
        trainer.train()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["checkpoint-1", "checkpoint-2"]


# Accelerate


@pytest.fixture
def accelerate() -> Any:
    """Accelerator and attach; the library's state, one for the whole process, is made anew."""
    needs("accelerate")
    import accelerate as library
    from accelerate.optimizer import AcceleratedOptimizer

    from sparseopt.nn.integrations.accelerate import attach

    def reset() -> None:
        library.state.AcceleratorState._reset_state(True)
        library.state.GradientState._reset_state()

    reset()
    yield SimpleNamespace(Accelerator=library.Accelerator, attach=attach, Optimizer=AcceleratedOptimizer)
    reset()


def accelerated(accelerate: Any, model: nn.Module, s: Sparsifier, accumulate: int = 1) -> tuple[Any, Any, Any]:
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    model, optimizer = accelerator.prepare(model, adam(model))
    accelerate.attach(accelerator, s, optimizer)
    return accelerator, model, optimizer


def run_accelerated(accelerator: Any, model: Any, optimizer: Any, batches: list[Any]) -> None:
    for batch in batches:
        with accelerator.accumulate(model):
            accelerator.backward(loss(model, batch))
            optimizer.step()
            optimizer.zero_grad()


@pytest.mark.parametrize("accumulate", [1, 3])
def test_accelerate_trains_as_the_loop_written_out(accelerate: Any, accumulate: int) -> None:
    model = network()
    s = pruned(model)
    batches = list(loader(BATCH * STEPS * accumulate))
    run_accelerated(*accelerated(accelerate, model, s, accumulate), batches)
    assert s.step_count == STEPS
    expected = pruned(network())
    require_equal(model, by_hand(expected.model, expected, accumulate))

    # Whoever counts calls of the outer optimizer counts batches.
    t = pruned(network())
    loop = accelerated(accelerate, t.model, t, accumulate)
    t.detach()
    inner = loop[2].step
    loop[2].step = lambda: (inner(), t.step())
    run_accelerated(*loop, batches)
    assert t.step_count == STEPS * accumulate


@pytest.mark.parametrize("fused", [False, True])
def test_accelerate_does_not_count_skipped_steps(accelerate: Any, fused: bool) -> None:
    accelerator = accelerate.Accelerator(cpu=True)
    model = network()
    s = pruned(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    optimizer = accelerate.Optimizer(adam(model, fused=fused), scaler=scaler)
    accelerate.attach(accelerator, s, optimizer)
    skipped = []
    for n, batch in enumerate(loader(BATCH * STEPS)):
        scaler.scale(loss(model, batch) * (torch.inf if n in (2, 3, 11) else 1.0)).backward()
        optimizer.step()
        optimizer.zero_grad()
        if optimizer.step_was_skipped:
            skipped.append(n)
    assert s.step_count == STEPS - 3
    assert skipped == ([] if fused else [2, 3, 11])
    assert scaler.get_scale() == 0.5


@pytest.mark.parametrize("at", [5, 12])
def test_accelerate_resumes_exactly(accelerate: Any, tmp_path: Path, at: int) -> None:
    batches = list(loader(BATCH * STEPS))
    model = network()
    s = pruned(model)
    loop = accelerated(accelerate, model, s)
    run_accelerated(*loop, batches[:at])
    loop[0].save_state(tmp_path / "half")
    run_accelerated(*loop, batches[at:])

    again = network(1)
    t = pruned(again)
    loop = accelerated(accelerate, again, t)
    loop[0].load_state(tmp_path / "half")
    assert t.step_count == at
    run_accelerated(*loop, batches[at:])
    require_equal(again, model)
    assert t.history == s.history

    folded = t.fold()
    loop[0].save_state(tmp_path / "folded")
    assert "sparsifier.pt" not in {file.name for file in (tmp_path / "folded").iterdir()}
    assert (folded[0].weight == 0).float().mean() == 0.5


def test_accelerate_keeps_the_last_good_checkpoint(accelerate: Any, tmp_path: Path) -> None:
    s = pruned(network())
    accelerator, model, optimizer = accelerated(accelerate, s.model, s)
    run_accelerated(accelerator, model, optimizer, list(loader(BATCH)))
    accelerator.save_state(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with torch.no_grad():
        s.layers[0].stored[0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="not finite after 1 steps"):
        accelerator.save_state(tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    accelerator.load_state(tmp_path)
    assert bool(torch.isfinite(s.layers[0].stored).all())


def test_accelerate_says_what_is_wrong(accelerate: Any, tmp_path: Path) -> None:
    s = pruned(network())
    accelerator, _, optimizer = accelerated(accelerate, s.model, s)
    with pytest.raises(ValueError, match="attached to an optimizer already"):
        accelerate.attach(accelerator, s, optimizer)
    accelerator.save_state(tmp_path)
    (tmp_path / "sparsifier.pt").write_bytes((tmp_path / "sparsifier.pt").read_bytes()[:-7])
    with pytest.raises(ValueError, match="no whole checkpoint"):
        accelerator.load_state(tmp_path)
    t = pruned(network())
    with pytest.raises(ValueError, match=r"the optimizer does not train 0.weight"):
        accelerate.attach(accelerator, t, accelerator.prepare(adam(network(1))))
