"""Trainings by recipes from end to end, through the command line: what they leave behind, and what faulty ones say.

Rows of clicks are made up and converted once; a training takes half a second.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("lightning", reason="training needs lightning")
pytest.importorskip("pydantic", reason="recipes need pydantic")
pytest.importorskip("pyarrow", reason="clicks are converted with pyarrow")

from safetensors.torch import load_file  # noqa: E402
from sklearn.metrics import log_loss, roc_auc_score  # noqa: E402
from training_cases import NAME, STEPS, table, write_recipe, write_rows  # noqa: E402

from sparseopt.cli.prune import describe  # noqa: E402
from sparseopt.experiments.clicks.columns import Columns  # noqa: E402
from sparseopt.experiments.clicks.conversion import convert  # noqa: E402
from sparseopt.experiments.networks import ClickModel, resnet20  # noqa: E402
from sparseopt.experiments.training import engine, launching, sweeping  # noqa: E402
from sparseopt.experiments.training.click_task import ClickTask  # noqa: E402
from sparseopt.experiments.training.recipes import Recipe, read_recipe  # noqa: E402
from sparseopt.experiments.training.running import run_recipe  # noqa: E402
from sparseopt.nn import load  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def columns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted data set."""
    folder = tmp_path_factory.mktemp("clicks")
    raw = write_rows(folder / "raw")
    convert({part: raw / f"{part}.tsv.gz" for part in ("train", "valid")}, folder / "columns", min_count=20)
    return folder / "columns"


@pytest.fixture
def prune(run: Run, columns: Path, tmp_path: Path) -> Run:
    """Write a recipe, and run it in an empty folder: exit status, what was said, and what was complained about."""

    def command(*overrides: str, **sections: dict[str, Any]) -> tuple[int, str, str]:
        file = write_recipe(tmp_path / "recipe.yaml", **sections)
        return run("prune", file, f"data={columns}", *overrides, "--quiet")

    return command


def result_in(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def network(columns: Path, file: Path) -> ClickModel:
    """A fresh network with the folded weights."""
    model = ClickModel(Columns.open(columns).vocabulary, 4, [32, 16], 0, 0.0)
    model.load_state_dict(load_file(file))
    return model.eval()


def judged(model: torch.nn.Module, columns: Path) -> dict[str, float]:
    """The metrics of a network on the validation rows, by scikit-learn."""
    part = Columns.open(columns).part("valid")
    ids, _, y = part.read(0, part.rows)
    with torch.no_grad():
        z = model(torch.from_numpy(np.ascontiguousarray(ids)).int()).double().numpy()
    return {"valid_loss": log_loss(y, 1.0 / (1.0 + np.exp(-z))), "valid_auc": roc_auc_score(y, z)}


# -- one run -----------------------------------------------------------------------------------------------------------


def test_a_run_and_what_it_leaves_behind(prune: Run, columns: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    more = {"output": {"compress": True, "plots": True}}
    assert prune(**more) == (0, "", "")
    folder = tmp_path / "runs" / NAME
    result = result_in(folder)
    names = {"version", "name", "finished", "recipe", "facts", "processes", "versions", "steps", "seconds", "metrics"}
    assert set(result) == names | {"dropped", "compressed", "curve"}
    assert (result["name"], result["finished"], result["steps"], result["processes"]) == (NAME, True, STEPS, 1)
    assert result["facts"] == {"train_rows": 2000, "valid_rows": 400, "fields": 39, "ids": result["facts"]["ids"]}
    assert set(result["versions"]) == {"sparseopt", "python", "torch", "lightning", "numpy"}

    recipe = Recipe.from_mapping(result["recipe"])
    assert recipe == Recipe.from_yaml((folder / "recipe.yaml").read_text())
    assert recipe == read_recipe(tmp_path / "recipe.yaml", [f"data={columns}"])

    steps, epochs = table(folder, "steps.csv"), table(folder, "epochs.csv")
    assert [int(row["step"]) for row in steps] == [3, 6, 9, 12, 15, 18, 21, 24]
    assert [int(row["step"]) for row in epochs] == [8, 16, 24]
    assert [{key: value if key == "phase" else float(value) for key, value in row.items()} for row in epochs] == result[
        "curve"
    ]
    assert [row["phase"] for row in steps] == ["dense"] + ["sparsify"] * 4 + ["sparse"] * 3  # of the next step
    assert float(steps[-1]["lr"]) == pytest.approx(0.001)
    assert all(0.0 < float(row["loss"]) < 2.0 for row in steps)

    # The folded network: exact zeros, and the metrics that are reported.
    model = network(columns, folder / "model.safetensors")
    weight = model.dense[0].weight
    assert result["dropped"] == float((weight == 0).double().mean())
    assert abs(result["dropped"] - 0.5) < 0.02
    blocks = [block for rows in weight.split(8) for block in rows.split(8, 1)]
    assert {float((block == 0).double().mean()) for block in blocks} == {0.0, 1.0}
    found = judged(model, columns)
    assert {name: result["metrics"][name] for name in found} == pytest.approx(found, rel=1e-5)
    last = result["curve"][-1]
    assert {name: last[name] for name in found} == pytest.approx(found, rel=1e-5)  # folding changes nothing
    assert result["metrics"]["train_loss"] == last["train_loss"]

    # The compressed one says the same.
    fast = load(folder / "fast.safetensors")
    part = Columns.open(columns).part("valid")
    x = torch.from_numpy(np.ascontiguousarray(part.read(0, 100)[0])).int()
    with torch.no_grad():
        torch.testing.assert_close(fast(x), model(x), rtol=1e-5, atol=1e-5)
    assert result["compressed"]["difference"] < 1e-5
    assert result["compressed"]["batch"] == 128
    assert (folder / "compression.txt").read_text().strip()
    for picture in ("training.png", "blocks.png"):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")

    events = [json.loads(line) for line in (folder / "pruning.jsonl").read_text().splitlines()]
    assert events[-1]["phase"] == "sparse"
    assert events[-1]["kept"] == {"dense.0.weight": sum(bool(block.any()) for block in blocks)}
    assert not list(folder.glob("checkpoint-*")) + list(folder.glob("*.tmp"))

    # The same command again finds it finished, and changes nothing.
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir() if file.name != "lock"}
    status, said, _ = prune(**more)
    assert (status, said) == (0, f"runs/{NAME} is finished.\n")
    assert before == {file.name: file.stat().st_mtime_ns for file in folder.iterdir() if file.name != "lock"}


def test_what_is_said(run: Run, columns: Path, tmp_path: Path) -> None:
    file = write_recipe(tmp_path / "recipe.yaml")
    status, said, complaints = run("prune", file, f"data={columns}", "steps=4", "schedule=own", "method=magnitude")
    metrics, share, *_, left = said.splitlines()
    assert status == 0
    assert metrics.startswith("magnitude_b8_s50_seed0: valid loss 0.")
    assert "; 4 steps in " in metrics
    assert re.fullmatch(r"(4[89]|5[012])\.\d % of the weights in the pruned layers are exactly 0", share)
    assert re.match(r"runs/magnitude_b8_s50_seed0 has .*model\.safetensors", left)
    assert "4/4" in complaints  # the bar


METHODS = {
    "dense": {},
    "magnitude": {"schedule": [["dense", 0.5], ["sparse", 0.5]]},
    "power-propagation": {"schedule": [["dense", 0.5], ["sparse", 0.5]]},
    "ac/dc": {"schedule": [["dense", 0.25], ["sparse", 0.25], ["dense", 0.25], ["sparse", 0.25]]},
    "sequential-attention++": {"schedule": [["dense", 0.25], ["sparsify", 0.5], ["sparse", 0.25]]},
    "expm1": {"schedule": [["dense", 0.25], ["sparsify", 0.5], ["sparse", 0.25]]},
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_the_paper(method: str, prune: Run, columns: Path, tmp_path: Path) -> None:
    status, _, complaints = prune("--name", "run", pruning={"method": method, **METHODS[method]})
    assert (status, complaints) == (0, "")
    folder = tmp_path / "runs" / "run"
    result, model = result_in(folder), network(columns, folder / "model.safetensors")
    zeros = float((model.dense[0].weight == 0).double().mean())
    if method == "dense":
        assert (zeros, result["dropped"], result["recipe"]["pruning"]) == (0.0, 0.0, None)
        assert not (folder / "pruning.jsonl").exists()
    else:
        assert zeros == result["dropped"]
        assert abs(zeros - 0.5) < 0.02
    found = judged(model, columns)
    assert {name: result["metrics"][name] for name in found} == pytest.approx(found, rel=1e-5)


def test_a_run_does_not_depend_on_what_the_process_did_before(prune: Run, tmp_path: Path) -> None:
    found = []
    for name in ("first", "second"):
        assert prune("--name", name)[0] == 0
        found.append((tmp_path / "runs" / name / "model.safetensors").read_bytes())
        torch.rand(1000)
    assert found[0] == found[1]
    assert prune("--name", "third", "seed=1")[0] == 0
    assert (tmp_path / "runs" / "third" / "model.safetensors").read_bytes() != found[0]
    # What the recipe set in the process is undone.
    assert torch.get_default_dtype() == torch.float32
    assert not torch.are_deterministic_algorithms_enabled()


# -- laws of the steps -------------------------------------------------------------------------------------------------

EXACT: dict[str, dict[str, Any]] = {
    "hardware": {"precision": "64-true"},
    "model": {"dropout": 0.0},
    "training": {"optimizer": "sgd", "lr": 0.1, "final_lr": 0.01},
}


def losses(folder: Path) -> list[float]:
    return [float(row["loss"]) for row in table(folder, "steps.csv")]


def accumulation_changes_nothing(prune: Run, tmp_path: Path) -> bool:
    """The law: a batch in two parts is the batch."""
    for parts in (1, 2):
        shutil.rmtree(tmp_path / "runs" / f"in{parts}", ignore_errors=True)
        assert prune("--name", f"in{parts}", f"accumulate={parts}", **EXACT)[0] == 0
    one, two = (load_file(tmp_path / "runs" / f"in{parts}" / "model.safetensors") for parts in (1, 2))
    assert all(tensor.dtype == torch.float64 for tensor in one.values())
    close = all(torch.allclose(one[name], two[name], rtol=1e-12, atol=1e-12) for name in one)
    return close and np.allclose(
        losses(tmp_path / "runs" / "in1"), losses(tmp_path / "runs" / "in2"), rtol=1e-12, atol=0
    )


def test_accumulated_gradients_are_those_of_the_batch(
    prune: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert accumulation_changes_nothing(prune, tmp_path)
    split = ClickTask.split

    def first_part_twice(self: ClickTask, batch: Any, parts: int) -> list[Any]:
        return [split(self, batch, parts)[0]] * parts

    monkeypatch.setattr(ClickTask, "split", first_part_twice)
    assert not accumulation_changes_nothing(prune, tmp_path)


@pytest.fixture
def trace(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The parameters before the first step, and after every one."""
    seen: list[dict[str, Any]] = []
    advance = engine.Trainer._advance

    def copy(self: engine.Trainer) -> dict[str, Any]:
        return {name: parameter.detach().clone() for name, parameter in self.plain.named_parameters()}

    def wrapped(self: engine.Trainer, batch: Any) -> None:
        if not seen:
            seen.append(copy(self))
        advance(self, batch)
        seen.append(copy(self))

    monkeypatch.setattr(engine.Trainer, "_advance", wrapped)
    return seen


def test_the_average_of_the_weights_is_what_counts(
    prune: Run, columns: Path, tmp_path: Path, trace: list[dict[str, Any]]
) -> None:
    assert prune("--name", "run", "ema=0.8", "precision=64-true")[0] == 0
    folder = tmp_path / "runs" / "run"
    average = trace[1]
    for after in trace[2:]:
        average = {name: 0.8 * average[name] + 0.2 * after[name] for name in average}
    saved = load_file(folder / "model.safetensors")
    same = [name for name in saved if name in average]
    assert len(same) >= 5
    for name in same:
        torch.testing.assert_close(saved[name], average[name], rtol=1e-12, atol=1e-14)
        assert not torch.equal(saved[name], trace[-1][name])
    model, result = network(columns, folder / "model.safetensors"), result_in(folder)
    assert result["dropped"] == float((saved["dense.0.weight"] == 0).double().mean()) == pytest.approx(0.5, abs=0.02)
    found = judged(model, columns)
    assert {name: result["metrics"][name] for name in found} == pytest.approx(found, rel=1e-5)
    assert {name: result["curve"][-1][name] for name in found} == pytest.approx(found, rel=1e-5)


@pytest.mark.parametrize("clip", ["0.01", "null"])
def test_gradients_are_clipped(clip: str, prune: Run, tmp_path: Path, trace: list[dict[str, Any]]) -> None:
    plain = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "decay": "constant", "warmup": 0.0, "lr": 0.1}
    assert prune("--name", "run", f"clip={clip}", training=plain, pruning={"method": "dense"})[0] == 0
    moves = [
        sum(float((after[name] - before[name]).square().sum()) for name in after) ** 0.5
        for before, after in pairwise(trace)
    ]
    assert min(moves) > 0.0
    assert (max(moves) <= 0.1 * 0.01 * 1.001) is (clip != "null")


def test_a_run_that_diverges_is_recorded_as_such(prune: Run, run: Run, columns: Path, tmp_path: Path) -> None:
    wild = {"optimizer": "sgd", "lr": 1e18, "final_lr": 1e18, "warmup": 0.0}
    status, _, complaints = prune("--name", "run", training=wild)
    assert (status, complaints) == (0, "")
    result = result_in(tmp_path / "runs" / "run")
    assert result["finished"]
    assert result["metrics"] is None
    assert 0 < result["steps"] < STEPS
    assert "nan" in result["diverged"] or "inf" in result["diverged"]
    (line,) = describe(result)
    assert line == f"run diverged: {result['diverged']}"
    assert not (tmp_path / "runs" / "run" / "model.safetensors").exists()


def test_numbers_that_json_has_not_are_told() -> None:
    first = {
        "name": "run",
        "metrics": {"valid_auc": None},
        "steps": 3,
        "seconds": 0.5,
        "dropped": 0.0,
        "compressed": None,
    }
    assert next(iter(describe(first))) == "run: valid auc nan; 3 steps in 0 s"


def test_the_holdout_takes_the_place_of_the_validation_rows(prune: Run, tmp_path: Path) -> None:
    assert prune("--name", "run", "holdout=0.1", "steps=2", "schedule=own", "method=dense")[0] == 0
    facts = result_in(tmp_path / "runs" / "run")["facts"]
    assert (facts["train_rows"], facts["valid_rows"]) == (1800, 200)


# -- what is refused ---------------------------------------------------------------------------------------------------


def refused(answer: tuple[int, str, str]) -> str:
    """The one sentence of a command that ended with status 2."""
    status, said, complaint = answer
    assert (status, said) == (2, "")
    assert complaint.startswith("sparseopt: ")
    assert complaint.count("\n") == 1
    assert complaint.endswith((".\n", "?\n"))
    assert "Traceback" not in complaint
    return complaint.removeprefix("sparseopt: ").strip()


def test_refused_in_one_sentence(prune: Run, columns: Path, tmp_path: Path) -> None:
    assert refused(prune("data=nowhere")) == "there is nothing at nowhere: give the data by data=PATH."
    assert "'magnitud" in refused(prune("method=magnitud"))
    assert "training.accumulate 3" in refused(prune("accumulate=3"))
    assert refused(prune("batch=5000")).startswith("batch is 5000, there are 2000 rows")
    assert "matches no layer" in refused(prune("include=[dens]"))
    assert "is several" in refused(prune("seed=[0, 1]")) or "2 trainings" in refused(prune("seed=[0, 1]"))
    assert "cannot share equally" not in refused(prune("bach=64"))
    (tmp_path / "raw").mkdir()
    assert "has no file train.tsv.gz" in refused(prune(f"data={tmp_path / 'raw'}"))
    # None of them is in the way of the right command.
    assert prune("steps=2", "schedule=own", "method=dense") == (0, "", "")


def test_processes_need_equal_shares_of_a_batch(columns: Path, tmp_path: Path) -> None:
    recipe = read_recipe(write_recipe(tmp_path / "recipe.yaml"), [f"data={columns}", "batch=90", "accumulate=2"])
    fabric = launching.make_fabric(recipe.hardware)
    world = type("Fabric", (), {"world_size": 4, "device": fabric.device})()
    with pytest.raises(ValueError, match=r"training\.batch is 90, which 4 processes .* take a multiple of 8\."):
        engine.Trainer(recipe, None, world, None)  # type: ignore[arg-type]


def test_one_folder_is_for_one_recipe(prune: Run, tmp_path: Path) -> None:
    short = ("--name", "run", "steps=4", "method=magnitude", "schedule=own")
    assert prune(*short)[0] == 0
    sentence = refused(prune(*short, "lr=0.02"))
    assert sentence == (
        "runs/run was begun with another recipe (training.lr was 0.01 and is 0.02 now): choose another output.folder, "
        "or --resume never to start anew."
    )
    before = (tmp_path / "runs" / "run" / "model.safetensors").read_bytes()
    assert prune(*short, "threads=1", "log_steps=1", "precision=64-true")[0] == 0  # these do not decide the result
    (tmp_path / "runs" / "run" / "notes.txt").write_text("mine")
    assert prune(*short, "lr=0.02", "--resume", "never") == (0, "", "")
    again = (tmp_path / "runs" / "run" / "model.safetensors").read_bytes()
    assert again != before
    assert (tmp_path / "runs" / "run" / "notes.txt").exists()
    assert prune("--name", "fresh", *short[2:], "lr=0.02")[0] == 0
    assert (tmp_path / "runs" / "fresh" / "model.safetensors").read_bytes() == again


# -- sweeps ------------------------------------------------------------------------------------------------------------


def test_a_sweep_skips_what_is_finished_and_goes_on_after_a_failure(
    run: Run, prune: Run, columns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = {"steps": 4}
    own = {"method": "magnitude", "schedule": "own"}
    assert prune("--name", "magnitude_b8_s50_batch64_seed0", "batch=64", training=short, pruning=own)[0] == 0
    done = tmp_path / "runs" / "magnitude_b8_s50_batch64_seed0"
    before = (done / "result.json").stat().st_mtime_ns
    file = write_recipe(tmp_path / "recipe.yaml", training=short, pruning=own, hardware={"threads": None})
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    arguments = ("sweep", file, f"data={columns}", "batch=[64, 5000, 128]")
    status, said, _ = run(*arguments, "--list")
    names = [f"magnitude_b8_s50_batch{size}_seed0" for size in (64, 5000, 128)]
    assert (status, said.split()) == (0, names)
    status, said, complaints = run(*arguments, "--jobs", "2")
    assert status == 1
    assert complaints == ""
    first, *others = said.splitlines()
    assert first.startswith(f"[1/3] {names[0]}: valid loss 0.")
    assert sorted(line.partition("] ")[2].partition(":")[0] for line in others) == sorted(names[1:])
    assert sum("batch is 5000, there are 2000 rows" in line for line in others) == 1
    assert (done / "result.json").stat().st_mtime_ns == before
    assert result_in(tmp_path / "runs" / names[2])["finished"]


def test_runs_with_several_processes_get_a_command_each(
    columns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands are not really started here: what they would do is done in this process."""
    monkeypatch.chdir(tmp_path)
    file = write_recipe(
        tmp_path / "recipe.yaml", training={"steps": 2}, pruning={"method": "magnitude", "schedule": "own"}
    )
    recipe = read_recipe(file, [f"data={columns}", "lr=[0.01, 0.02]", "devices=2"])
    started = []

    def command(arguments: list[str], check: bool) -> Any:
        started.append(arguments)
        if len(started) == 1:
            return type("Done", (), {"returncode": 7})()
        mapping = yaml.safe_load(Path(arguments[4]).read_text())
        mapping["hardware"]["devices"] = 1
        run_recipe(Recipe.from_mapping(mapping), arguments[6], progress=False, say=lambda sentence: None)
        return type("Done", (), {"returncode": 0})()

    monkeypatch.setattr(sweeping.subprocess, "run", command)
    failed, done = sweeping.run_sweep(recipe.cells())
    assert [arguments[6] for arguments in started] == [failed.name, done.name]
    assert failed.name != done.name  # by the learning rate, which is not in the recipe's own name
    assert failed.failure == "the command ended with status 7"
    assert done.result is not None
    assert done.result["name"] == done.name
    assert [outcome.name for outcome in sweeping.run_sweep(recipe.cells()[1:])] == [done.name]  # and not started again
    assert len(started) == 2


# -- images ------------------------------------------------------------------------------------------------------------


def image_recipe(file: Path, data: dict[str, Any], **training: Any) -> Path:
    recipe = {
        "task": "images",
        "data": {"workers": 0, **data},
        "model": {"name": "resnet20"},
        "pruning": {
            "method": "magnitude",
            "sparsity": 0.5,
            "block": 8,
            "min_blocks": 4,
            "exclude": ["conv1", "linear"],
        },
        "training": {"batch": 8, "optimizer": "sgd", "lr": 0.05, "decay": "cosine", "label_smoothing": 0.1, **training},
        "hardware": {"accelerator": "cpu"},
        "output": {"compress": False, "plots": False, "tensorboard": False, "log_steps": 1},
    }
    file.write_text(yaml.safe_dump(recipe))
    return file


def test_a_training_on_images(run: Run, tmp_path: Path) -> None:
    home = tmp_path / "images" / "cifar-10-batches-bin"
    home.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name, rows in [*((f"data_batch_{i}.bin", 4) for i in range(1, 6)), ("test_batch.bin", 10)]:
        records = generator.integers(0, 256, (rows, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        records.tofile(home / name)
    data = {"path": str(tmp_path / "images"), "kind": "cifar"}
    file = image_recipe(tmp_path / "recipe.yaml", data, epochs=2, recalibrate=2, accumulate=2)
    status, said, complaints = run("prune", file, "--quiet")
    assert (status, said, complaints) == (0, "", "")
    folder = tmp_path / "runs" / "magnitude_b8_s50_seed0"
    result = result_in(folder)
    assert result["steps"] == 4  # two batches of 8 of 20 images
    assert result["facts"] == {"train_images": 20, "valid_images": 10}
    assert set(result["metrics"]) == {"valid_accuracy", "valid_top5", "valid_loss", "train_loss"}
    assert 0.0 <= result["metrics"]["valid_accuracy"] <= result["metrics"]["valid_top5"] <= 1.0
    model = resnet20(10)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    weights = [module.weight for name, module in model.named_modules() if isinstance(module, torch.nn.Conv2d)][1:]
    zeros = sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)
    assert zeros == result["dropped"] == pytest.approx(0.5, abs=0.02)


def test_a_training_on_folders_of_images(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("torchvision", reason="folders of images are read with torchvision")
    from PIL import Image

    generator = np.random.default_rng(0)
    for part, each in (("train", 4), ("val", 2)):
        for name in ("cat", "dog"):
            (tmp_path / "images" / part / name).mkdir(parents=True)
            for i in range(each):
                pixels = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / part / name / f"{i}.png")
    data = {"path": str(tmp_path / "images"), "kind": "folder", "size": 32, "resize": 36}
    file = image_recipe(tmp_path / "recipe.yaml", data, steps=3, ema=0.5, batch=4)
    status, said, complaints = run("prune", file, "precision=64-true", "--quiet")
    assert (status, said, complaints) == (0, "", "")
    result = result_in(tmp_path / "runs" / "magnitude_b8_s50_seed0")
    assert result["facts"] == {"train_images": 8, "valid_images": 4}
    assert result["metrics"]["valid_top5"] == 1.0  # of two classes
    assert "no folder" in refused(run("prune", file, "--name", "other", "data=nowhere", "--quiet"))
