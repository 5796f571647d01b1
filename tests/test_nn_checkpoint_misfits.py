"""Checkpoints that are damaged or of something else are refused and change nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="sparseopt.nn needs torch")

from resumable import OPTIMIZERS, SCHEDULE, Run, leaves, trained, unequal  # noqa: E402
from torch import nn  # noqa: E402

from sparseopt.nn import PhaseSchedule, plan  # noqa: E402
from sparseopt.nn.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from sparseopt.nn.randomness import random_state, set_random_state  # noqa: E402
from sparseopt.nn.wholefile import read_whole  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def other_model() -> Run:
    run = trained(2)
    run.model[1] = nn.BatchNorm2d(8, affine=False)
    return run


def other_shape() -> Run:
    run = trained(2)
    run.model[1].running_mean = torch.zeros(9)
    return run


def other_precision() -> Run:
    run = trained(2)
    run.model.double()
    return run


def other_order() -> Run:
    run = trained(2)
    run.optimizer.param_groups[0]["params"].reverse()
    return run


def other_groups() -> Run:
    run = trained(2)
    group = run.optimizer.param_groups[0]
    run.optimizer.add_param_group({"params": [group["params"].pop()]})
    return run


def other_scheduler() -> Run:
    run = trained(2)
    run.scheduler = torch.optim.lr_scheduler.StepLR(run.optimizer, 3)
    return run


def other_layers() -> Run:
    run = trained(2)
    run.sparsifier.plan = plan(nn.Sequential(nn.Linear(64, 64)), 0.7, block=(2, 4), min_blocks=8)
    return run


def other_schedule() -> PhaseSchedule:
    phases = SCHEDULE.to_list()
    phases[2], phases[3] = ["sparse", 3], ["dense", 5]
    return PhaseSchedule.from_list(phases)


MISFITS: dict[str, tuple[Callable[[], Run], str]] = {
    "model": (other_model, r"the model has 1\.weight there, not here; the model has 1\.bias there, not here"),
    "shape": (other_shape, r"1\.running_mean has the shape \(8,\) there, \(9,\) here"),
    "precision": (other_precision, r"weight\.original is torch\.float32 there, torch\.float64 here"),
    "method": (lambda: trained(2, "ac/dc"), r"method is 'sequential-attention\+\+' there, 'ac/dc' here"),
    "setting": (lambda: trained(2, clip=False), "clip of the method is True there, False here"),
    "updates": (lambda: trained(2, updates=4), "updates of the method is 3 there, 4 here"),
    "sparsity": (lambda: trained(2, sparsity=0.6), "sparsity is 0.7 there, 0.6 here; sparsity of 0.weight is 0.7"),
    "block": (lambda: trained(2, block=4), r"block of 0\.weight is \[2, 4\] there, \[4, 4\] here"),
    "layers": (other_layers, "5.weight is pruned there, not here"),
    "total": (
        lambda: trained(2, schedule=PhaseSchedule.from_list([("dense", 9), ("sparse", 8)])),
        "the schedule has 40 steps there, 17 here",
    ),
    "schedule": (
        lambda: trained(2, schedule=other_schedule()),
        "phase 3 of the schedule is sparse for 4 steps there, sparse for 3 here",
    ),
    "optimizer": (lambda: trained(2, optimizer="adamw"), "the optimizer is SGD there, AdamW here"),
    "order": (other_order, "parameter 0 in group 0 of the optimizer is 0.par.* there, 5.bias here .build it before"),
    "groups": (other_groups, "the optimizer has 2 parameter groups there, 3 here"),
    "scheduler": (other_scheduler, "the scheduler is OneCycleLR there, StepLR here"),
}


def changes_when_refused(run: Run, path: Path, load: Callable[[Run, Path], None], sentence: str) -> list[str]:
    random_before = leaves(random_state())
    before = run.state()
    with pytest.raises((ValueError, RuntimeError), match=sentence):
        load(run, path)
    return unequal(before, run.state()) + unequal(random_before, leaves(random_state()))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "run.pt"
    trained(7).save(path)
    return path


@pytest.mark.parametrize("case", MISFITS)
def test_a_checkpoint_of_something_else_is_refused_with_what_differs_and_changes_nothing(
    case: str, saved: Path
) -> None:
    other, difference = MISFITS[case]
    sentence = rf"^.*run\.pt was made otherwise: .*{difference}.*\.$"
    assert changes_when_refused(other(), saved, Run.load, sentence) == []


def test_a_loader_that_checks_as_it_goes_is_found_out(saved: Path) -> None:
    def load(run: Run, path: Path) -> None:
        content = read_whole(path)
        set_random_state(content["random"])
        run.model.load_state_dict(content["model"])
        run.optimizer.load_state_dict(content["optimizer"])
        run.sparsifier.load_state_dict(content["sparsifier"])

    changed = changes_when_refused(trained(2, updates=4), saved, load, "made otherwise: updates")
    assert any(name.startswith("/model") for name in changed)
    assert any(name.startswith("/optimizer") for name in changed)
    assert any("torch" in name for name in changed)


def test_a_damaged_checkpoint_changes_nothing(saved: Path, tmp_path: Path) -> None:
    data = bytearray(saved.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "damaged.pt").write_bytes(data)
    sentence = r"damaged\.pt is damaged, its contents do not match its checksum: go back to an older file\."
    assert changes_when_refused(trained(2), tmp_path / "damaged.pt", Run.load, sentence) == []


def test_a_scheduler_or_scaler_on_one_side_only_is_mentioned(saved: Path, tmp_path: Path) -> None:
    run = trained(2)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    with pytest.raises(ValueError, match="the training has a scheduler there, and none here"):
        load_checkpoint(saved, run.model, run.optimizer, run.sparsifier)
    with pytest.raises(ValueError, match="the training has a scaler here, and none there"):
        load_checkpoint(saved, *run.parts, scaler)
    save_checkpoint(tmp_path / "scaled.pt", *run.parts, scaler)
    with pytest.raises(ValueError, match="the scaler is enabled there and not here"):
        load_checkpoint(tmp_path / "scaled.pt", *run.parts, torch.amp.GradScaler("cpu", enabled=False))
    other = torch.amp.GradScaler("cpu", init_scale=2.0)
    load_checkpoint(tmp_path / "scaled.pt", *run.parts, other)
    assert other.state_dict() == scaler.state_dict()


def test_functions_among_the_settings_are_known_again_in_another_process(tmp_path: Path) -> None:
    def run() -> Run:
        return trained(6, share=lambda t: t)  # another object each time, at another address

    first, second = run(), run()
    assert first.sparsifier.method != second.sparsifier.method
    first.save(tmp_path / "run.pt")
    second.load(tmp_path / "run.pt")


def test_a_foreign_state_is_no_state_of_a_sparsifier() -> None:
    run = trained(2)
    with pytest.raises(ValueError, match="it has no entry 'plan', so it is no state of a sparsifier"):
        run.sparsifier.load_state_dict(run.optimizer.state_dict())


@pytest.mark.parametrize("missing", ["model", "sparsifier"])
def test_whoever_loads_half_of_a_state_hears_of_it_at_the_next_step(missing: str) -> None:
    first, second = trained(12), trained(2)  # a sparse phase and a dense one
    assert (first.sparsifier.phase.kind, second.sparsifier.phase.kind) == ("sparse", "dense")
    if missing != "model":
        second.model.load_state_dict(first.model.state_dict())
        second.sparsifier.load_state_dict(second.sparsifier.state_dict())
    if missing != "sparsifier":
        second.sparsifier.load_state_dict(first.sparsifier.state_dict())
    with pytest.raises(RuntimeError, match=r"the mask of 0\.weight does not: load the state dicts of the model and of"):
        second.step()


def test_checkpoints_do_not_depend_on_wrappers(tmp_path: Path) -> None:
    run = trained()
    compiled = torch.compile(run.model, backend="eager")
    save_checkpoint(tmp_path / "run.pt", compiled, *run.parts[1:])
    other = Run(1, "sequential-attention++")
    load_checkpoint(tmp_path / "run.pt", nn.DataParallel(other.model), *other.parts[1:])
    other.done = run.done
    assert unequal(run.state(), other.state()) == []


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_optimizer_goes_on_driving_the_sparsifier_after_loading(optimizer: str, tmp_path: Path) -> None:
    run = trained(3, optimizer=optimizer)
    run.save(tmp_path / "run.pt")
    run.step()
    run.load(tmp_path / "run.pt")
    run.finish()
    assert run.sparsifier.step_count == SCHEDULE.total
    assert run.sparsifier.phase.kind == "sparse"
    assert [group["params"][0].requires_grad for group in run.optimizer.param_groups] == [True, True]
