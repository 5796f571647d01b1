"""Pruning the CIFAR network: images are read right, every method has the same budget, and the table adds up.

Small sheets, streams and a network file in the formats of the real data are made here. Oracles: pixels drawn by hand,
crops by slicing, means by hand.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the study trains a network in torch")
pytest.importorskip("PIL", reason="images are read by pillow, which matplotlib brings")

from sparseopt.experiments import fine_tuning, prune_cifar  # noqa: E402
from sparseopt.experiments.cifar import (  # noqa: E402
    Images,
    augmented,
    load_test_jpeg,
    load_test_lossless,
    load_train,
    normalised,
)
from sparseopt.experiments.fine_tuning import (  # noqa: E402
    CANDIDATES,
    Budget,
    Candidate,
    accuracy,
    dropped,
    fine_tune,
    pretrained,
)
from sparseopt.experiments.networks import resnet20  # noqa: E402
from sparseopt.experiments.prune_cifar import Data, Runs, best, rows_of, table, tune  # noqa: E402
from sparseopt.nn import METHODS, get_method, plan  # noqa: E402

TINY = Budget(steps=2, batch=4)
SHORT = Candidate("dense 50 %")


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Twelve images of smooth colours, all different."""
    y, x = np.mgrid[0:32, 0:32]
    return np.stack([np.stack([8 * y * (i % 3) // 3, 8 * x, 0 * x + 20 * i], -1) for i in range(12)]).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, pixels: np.ndarray) -> Path:
    """A data folder with two sheets of 2 x 3 images, twelve test images in both encodings, and a network."""
    from PIL import Image

    home = tmp_path_factory.mktemp("data")
    sheets = home / "cifar10" / "train_webp90"
    sheets.mkdir(parents=True)
    labels = np.arange(12) % 10
    np.save(home / "cifar10" / "train_labels.npy", labels.astype(np.uint8))
    for number, part in enumerate((pixels[:6], pixels[6:])):
        sheet = np.concatenate([np.concatenate(list(row), 1) for row in part.reshape(2, 3, 32, 32, 3)], 0)
        Image.fromarray(sheet).save(sheets / f"batch_{number:02d}.webp", lossless=True)
    np.savez(home / "cifar10" / "cifar10_lossless_small.npz", X_test=pixels, y_test=labels.astype(np.uint8))
    streams = []
    for image in pixels:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=75)
        streams.append(buffer.getvalue())
    offsets = np.cumsum([0, *(len(stream) for stream in streams)])
    jpeg = np.frombuffer(b"".join(streams), np.uint8)
    np.savez(home / "cifar10" / "cifar10_test_jpeg75.npz", jpeg=jpeg, offsets=offsets, labels=labels.astype(np.uint8))
    torch.manual_seed(0)
    state = {f"module.{name}": tensor for name, tensor in resnet20().state_dict().items()}
    (home / "pretrained").mkdir()
    torch.save({"state_dict": state, "best_prec1": 10.0}, home / fine_tuning.WEIGHTS)
    return home


# -- reading -----------------------------------------------------------------------------------------------------------


def test_sheets_become_images_in_order(folder: Path, pixels: np.ndarray) -> None:
    train = load_train(folder)
    np.testing.assert_array_equal(train.pixels, pixels)
    np.testing.assert_array_equal(train.labels, np.arange(12) % 10)
    assert train.labels.dtype == np.int64
    taken = train.take(np.array([5, 1]))
    np.testing.assert_array_equal(taken.pixels, pixels[[5, 1]])
    np.testing.assert_array_equal(taken.labels, [5, 1])


def test_decoded_images_are_kept_in_a_cache(folder: Path, pixels: np.ndarray, tmp_path: Path) -> None:
    cache = tmp_path / "new" / "train.npy"
    load_train(folder, cache)
    assert [file.name for file in cache.parent.iterdir()] == ["train.npy"]
    np.save(cache, 255 - pixels)
    np.testing.assert_array_equal(load_train(folder, cache).pixels, 255 - pixels)  # read, not decoded again
    np.save(cache, pixels[:7])
    with pytest.raises(ValueError, match=r"train\.npy has images of shape \(7, 32, 32, 3\) and uint8 for 12 labels"):
        load_train(folder, cache)


def test_both_encodings_of_the_test_images_are_read(folder: Path, pixels: np.ndarray) -> None:
    np.testing.assert_array_equal(load_test_lossless(folder).pixels, pixels)
    jpeg = load_test_jpeg(folder)
    np.testing.assert_array_equal(jpeg.labels, np.arange(12) % 10)
    distance = np.abs(jpeg.pixels[:, None].astype(int) - pixels[None].astype(int)).mean((2, 3, 4))
    assert (distance.argmin(1) == np.arange(12)).all()  # lossy, but each is the image that it was
    assert 0.0 < distance.diagonal().max() < 10.0


def test_a_folder_without_sheets_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "cifar10").mkdir()
    np.save(tmp_path / "cifar10" / "train_labels.npy", np.zeros(3, np.uint8))
    with pytest.raises(FileNotFoundError, match="give the data folder by --data"):
        load_train(tmp_path)


def test_pixels_are_scaled_by_channel(pixels: np.ndarray) -> None:
    x = normalised(pixels)
    assert x.shape == (12, 3, 32, 32)
    expected = (pixels[7, 3, 9].astype(np.float64) / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(x[7, :, 3, 9].numpy(), expected, rtol=1e-5, atol=1e-6)


# -- augmentation ------------------------------------------------------------------------------------------------------


def moves_are_right(augment: Callable[..., torch.Tensor]) -> bool:
    """Whether every image is one of the 162 crops and reflections of what it was, and not always the same one."""
    x = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    y = augment(x, torch.Generator().manual_seed(2))
    padded = torch.zeros(40, 3, 16, 16)
    padded[:, :, 4:12, 4:12] = x
    seen = set()
    for i in range(40):
        crops = {(a, b): padded[i, :, a : a + 8, b : b + 8] for a in range(9) for b in range(9)}
        fits = [(a, b, f) for (a, b), c in crops.items() for f in (0, 1) if torch.equal(c.flip(2) if f else c, y[i])]
        if len(fits) != 1:
            return False
        seen |= set(fits)
    down, right, reflected = (len({fit[k] for fit in seen}) for k in range(3))
    return down >= 7 and right >= 7 and reflected == 2


def _rolled(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Wrong on purpose: what leaves on one side comes back on the other."""
    return torch.stack(
        [image.roll(int(shift), 2) for image, shift in zip(x, torch.randint(-4, 5, (len(x),)), strict=True)]
    )


WRONG_MOVES = {
    "rolled": _rolled,
    "never moved": lambda x, generator: x,
    "one move for all": lambda x, generator: torch.nn.functional.pad(x, (4, 4, 4, 4))[:, :, 2:10, 3:11],
    "upside down": lambda x, generator: augmented(x, generator).flip(2),
    "two pixels": lambda x, generator: augmented(x, generator, pad=2),
}


def test_images_are_cropped_and_reflected() -> None:
    assert moves_are_right(augmented)
    x = torch.randn(5, 3, 8, 8)
    first, again, other = (augmented(x, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("augment", WRONG_MOVES.values(), ids=WRONG_MOVES)
def test_wrong_augmentations_are_rejected(augment: Callable[..., torch.Tensor]) -> None:
    assert not moves_are_right(augment)


# -- budgets and candidates --------------------------------------------------------------------------------------------


def test_the_learning_rate_rises_to_its_peak_and_falls_to_zero() -> None:
    rates = [Budget().rate(step) for step in range(Budget().steps)]
    peak = rates.index(1.0)
    assert peak == 15
    assert all(np.diff(rates[:16]) > 0.0)
    assert all(np.diff(rates[16:]) < 0.0)
    assert 0.0 < rates[-1] < 1e-3
    assert [Budget(steps=1).rate(0), *(Budget(steps=2).rate(step) for step in (0, 1))] == [1.0, 1.0, 1.0]


def test_batches_hold_every_image_once_per_round() -> None:
    budget = Budget(steps=5, batch=4)
    drawn = list(fine_tuning._batches(10, budget, torch.Generator().manual_seed(0)))
    assert [len(rows) for rows in drawn] == [4] * 5
    for first in (0, 2):
        assert len(set(np.concatenate(drawn[first : first + 2]).tolist())) == 8
    again = list(fine_tuning._batches(10, budget, torch.Generator().manual_seed(0)))
    np.testing.assert_array_equal(drawn, again)


def test_every_method_has_as_many_candidates_as_the_others() -> None:
    assert set(METHODS) == set(CANDIDATES) - {"dense"}
    counts = {method: len({str(each) for each in tried}) for method, tried in CANDIDATES.items() if method != "dense"}
    assert set(counts.values()) == {4}, counts
    steps = Budget().steps
    for method, tried in CANDIDATES.items():
        for candidate in tried if method != "dense" else ():
            schedule = candidate.schedule(steps) or get_method(method, **candidate.settings).schedule(steps)
            assert schedule.total == steps
            assert schedule.phases[-1].kind == "sparse"
            assert schedule.phases[-1].stop - schedule.phases[-1].start >= steps // 10


def test_all_convolutions_of_the_stages_are_pruned() -> None:
    names = [layer.name for layer in plan(resnet20(), 0.8, fine_tuning.BLOCK, fine_tuning.MIN_BLOCKS).layers]
    assert names == [f"layer{stage}.{i}.conv{k}.weight" for stage in (1, 2, 3) for i in range(3) for k in (1, 2)]


# -- runs --------------------------------------------------------------------------------------------------------------


def test_the_network_is_read_with_its_names(folder: Path) -> None:
    torch.manual_seed(0)
    expected = resnet20().state_dict()
    state = pretrained(folder).state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in state)


def keeps_its_plan(model: torch.nn.Module, sparsity: float) -> bool:
    """Whether every layer has at least one block and no more than planned, under the names of the plain network."""
    layers = plan(resnet20(), sparsity, fine_tuning.BLOCK, fine_tuning.MIN_BLOCKS).layers
    if list(model.state_dict()) != list(resnet20().state_dict()):
        return False
    kept = [int((each.grid.norms(model.get_parameter(each.name).detach()) > 0.0).sum()) for each in layers]
    return all(1 <= n <= each.kept for n, each in zip(kept, layers, strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_leaves_the_blocks_of_its_plan(method: str, folder: Path) -> None:
    model = fine_tune(pretrained(folder), load_train(folder), method, SHORT, 0.8, 0, TINY)
    assert keeps_its_plan(model, 0.8)
    assert dropped(model) >= 0.8


def test_networks_with_other_blocks_are_rejected(folder: Path) -> None:
    images = load_train(folder)
    assert not keeps_its_plan(pretrained(folder), 0.8)
    assert not keeps_its_plan(fine_tune(pretrained(folder), images, "magnitude", SHORT, 0.75, 0, TINY), 0.8)
    empty = fine_tune(pretrained(folder), images, "magnitude", SHORT, 0.8, 0, TINY)
    torch.nn.init.zeros_(empty.layer2[1].conv1.weight)
    assert not keeps_its_plan(empty, 0.8)


def test_the_dense_network_is_trained_and_not_pruned(folder: Path) -> None:
    before = pretrained(folder)
    model = fine_tune(pretrained(folder), load_train(folder), "dense", Candidate(), 0.0, 0, TINY)
    assert dropped(model) == 0.0
    assert not torch.equal(model.linear.weight, before.linear.weight)


def test_equal_seeds_give_equal_networks(folder: Path) -> None:
    images = load_train(folder)
    first, again, other = (
        fine_tune(pretrained(folder), images, "magnitude", SHORT, 0.8, seed, TINY).linear.weight for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_diverging_run_stops_with_its_settings(folder: Path) -> None:
    model = pretrained(folder)
    torch.nn.init.constant_(model.linear.bias, float("nan"))
    with pytest.raises(FloatingPointError, match=r"magnitude \(dense 50 % phases\): the loss is nan"):
        fine_tune(model, load_train(folder), "magnitude", SHORT, 0.8, 0, TINY)


def test_accuracy_counts_right_answers_in_all_batches() -> None:
    class Brightest(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3))

    chosen = np.arange(11) % 3
    pixels = np.zeros((11, 32, 32, 3), np.uint8)
    pixels[np.arange(11), :, :, chosen] = 255
    labels = chosen.copy()
    labels[[0, 4, 10]] = 7
    for batch in (3, 11, 50):
        assert accuracy(Brightest(), Images(pixels, labels), batch=batch) == 8 / 11


# -- tuning ------------------------------------------------------------------------------------------------------------


def test_tuning_sees_no_image_that_it_is_judged_by(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    train = load_train(folder)
    data = Data(folder, train, load_test_lossless(folder), load_test_jpeg(folder))
    seen: dict[str, list[int]] = {"trained": [], "judged": []}

    def fake_training(model: object, images: Images, *rest: object) -> object:
        seen["trained"] += images.pixels[:, 0, 0, 2].tolist()
        return model

    def fake_accuracy(model: object, images: Images, *rest: object) -> float:
        seen["judged"] += images.pixels[:, 0, 0, 2].tolist()
        return 0.5

    monkeypatch.setattr(prune_cifar, "fine_tune", fake_training)
    monkeypatch.setattr(prune_cifar, "accuracy", fake_accuracy)
    records = tune("magnitude", data, TINY, Runs(tmp_path / "runs.jsonl"))
    assert [record["candidate"] for record in records] == [str(each) for each in CANDIDATES["magnitude"]]
    trained, judged = set(seen["trained"]), set(seen["judged"])
    assert not trained & judged
    assert trained | judged == set(train.pixels[:, 0, 0, 2].tolist())
    assert len(judged) == 1


def test_the_best_candidate_is_the_first_with_the_highest_validation() -> None:
    names = [str(each) for each in CANDIDATES["magnitude"]]
    scores = [0.3, 0.6, 0.6, 0.5]
    tuned = [{"candidate": name, "validation": score} for name, score in zip(names, scores, strict=True)]
    assert best("magnitude", tuned) is CANDIDATES["magnitude"][1]
    assert best("magnitude", tuned[2:]) is CANDIDATES["magnitude"][2]
    assert (
        best("magnitude", [{"candidate": names[0], "failed": "ValueError: no"}, tuned[3]]) is CANDIDATES["magnitude"][3]
    )
    assert best("magnitude", [{"candidate": names[0], "failed": "ValueError: no"}]) is None


# -- the table ---------------------------------------------------------------------------------------------------------


def record(part: str, candidate: Candidate, seed: int = 0, budget: Budget = TINY, **found: float) -> dict[str, object]:
    asked = {"part": part, "method": "magnitude", "candidate": str(candidate), "sparsity": 0.8, "seed": seed}
    return {**asked, "budget": asdict(budget), "dropped": 0.81, **found}


def test_rows_are_means_and_standard_errors_of_the_tuned_candidate() -> None:
    poor, good = CANDIDATES["magnitude"][:2]
    records = [
        record("tuning", poor, validation=0.3),
        record("tuning", good, validation=0.4),
        record("test", good, 0, lossless=0.5, jpeg=0.4),
        record("test", good, 1, lossless=0.6, jpeg=0.4),
        record("test", good, 2, lossless=0.7, jpeg=0.4),
        record("test", poor, 0, lossless=0.9, jpeg=0.9),
        record("test", good, 3, Budget(steps=3, batch=4), lossless=0.1, jpeg=0.1),
    ]
    (row,) = rows_of(records, TINY)
    assert (row.method, row.sparsity, row.seeds, row.candidate) == ("magnitude", 0.8, 3, str(good))
    assert row.lossless == pytest.approx(60.0)
    assert row.lossless_error == pytest.approx(10.0 / np.sqrt(3.0))  # deviations 10, 0, 10: s = 10
    assert (row.jpeg, row.jpeg_error, row.validation) == (pytest.approx(40.0), pytest.approx(0.0, abs=1e-12), 0.4)
    printed = table([row]).splitlines()[1]
    assert printed.split()[:4] == ["magnitude", "0.80", "0.810", "3"]
    assert "60.00 +- 5.77" in printed
    assert "40.00 +- 0.00" in printed
    assert printed.endswith(str(good))


def test_methods_are_ranked_within_each_sparsity() -> None:
    candidate = CANDIDATES["magnitude"][0]
    low, high = record("test", candidate, lossless=0.5, jpeg=0.4), record("test", candidate, lossless=0.6, jpeg=0.3)
    other = {**high, "method": "ac/dc", "candidate": str(CANDIDATES["ac/dc"][0])}
    easy = {**low, "sparsity": 0.7}
    rows = rows_of([low, other, easy], TINY)
    assert [(row.method, row.sparsity) for row in rows] == [("magnitude", 0.7), ("ac/dc", 0.8), ("magnitude", 0.8)]
    assert np.isnan(rows[0].lossless_error)


# -- the file of runs --------------------------------------------------------------------------------------------------


def test_finished_runs_are_not_repeated_and_failed_ones_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new" / "runs.jsonl"
    asked = {"part": "test", "method": "m", "candidate": "c", "sparsity": 0.8, "seed": 0, "budget": {"steps": 2}}

    def failing() -> dict[str, float]:
        raise FloatingPointError("the loss is nan")

    assert Runs(file).get(failing, **asked)["failed"] == "FloatingPointError: the loss is nan"
    assert not file.exists()
    assert "the loss is nan" in capsys.readouterr().err
    made = Runs(file).get(lambda: {"lossless": 0.5}, **asked)
    assert made["seconds"] >= 0.0
    assert Runs(file).get(failing, **asked) == made
    assert Runs(file).find(**{**asked, "seed": 1}) is None
    assert Runs(file).find(**{**asked, "budget": {"steps": 3}}) is None


def test_a_line_that_was_cut_off_is_ignored(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    asked = {"part": "test", "method": "m", "candidate": "c", "sparsity": 0.8, "seed": 0, "budget": {"steps": 2}}
    whole = json.dumps({**asked, "lossless": 0.5})
    for cut in (whole[:20], whole[: whole.index("}") + 1]):
        file.write_text(f"{whole}\n{cut}", encoding="utf-8")
        Runs(file).get(lambda: {"lossless": 0.7}, **{**asked, "seed": 1})
        assert [each["lossless"] for each in Runs(file).records] == [0.5, 0.7]


def test_a_whole_study_stops_and_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short = {"dense": (Candidate(),), "magnitude": (SHORT, Candidate("dense 50 %", settings={"updates": 7}))}
    monkeypatch.setattr(fine_tuning, "CANDIDATES", short)
    runs, result, picture = (tmp_path / name for name in ("runs.jsonl", "table.json", "table.png"))
    threads = str(torch.get_num_threads())
    arguments = ["--data", str(folder), "--runs", str(runs), "--steps", "2", "--batch", "4", "--threads", threads]
    arguments += ["--methods", "dense", "magnitude", "--sparsities", "0.8", "--seeds", "2", "--bfloat16"]
    assert prune_cifar.main(arguments) == 0
    assert "the pretrained network: " in capsys.readouterr().out
    lines = runs.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2 + 2 * 2  # tuning; two networks and two seeds
    runs.write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
    trained = []

    def counted(*asked: object) -> object:
        trained.append(asked[2:])
        return fine_tune(*asked)  # type: ignore[arg-type]

    monkeypatch.setattr(prune_cifar, "fine_tune", counted)
    assert prune_cifar.main([*arguments, "--json", str(result), "--figure", str(picture)]) == 0
    assert len(trained) == 1
    repeated = json.loads(runs.read_text(encoding="utf-8").splitlines()[-1])
    before = json.loads(lines[-1])
    assert {**repeated, "seconds": 0} == {**before, "seconds": 0}
    rows = json.loads(result.read_text(encoding="utf-8"))["rows"]
    assert [(row["method"], row["sparsity"], row["seeds"]) for row in rows] == [
        ("dense", 0.0, 2),
        ("magnitude", 0.8, 2),
    ]
    assert rows[1]["dropped"] > 0.8
    assert picture.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    monkeypatch.setattr(prune_cifar, "_study", None)  # --table runs nothing
    assert prune_cifar.main([*arguments, "--table"]) == 0
    assert capsys.readouterr().out.splitlines() == printed.splitlines()[-3:]


# -- real data ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_real_network_is_as_good_as_it_was(shared_data: Path) -> None:
    # 915 of 1,000, exactly; one image may fall the other way where kernels add in another order.
    assert accuracy(pretrained(shared_data), load_test_lossless(shared_data)) == pytest.approx(0.915, abs=0.0011)


@pytest.mark.slow
def test_the_real_images_belong_to_their_labels(shared_data: Path) -> None:
    train, jpeg = load_train(shared_data), load_test_jpeg(shared_data)
    assert np.bincount(train.labels).tolist() == [5000] * 10
    assert np.bincount(jpeg.labels).tolist() == [1000] * 10
    # Lossy by our own doing: near what the network knows by heart. Shuffled labels would give 0.1.
    assert accuracy(pretrained(shared_data), train.take(np.arange(1000))) > 0.95
