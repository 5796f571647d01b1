"""Pruning finds a teacher's blocks: SequentialAttention++ at least as many as AC/DC, and AC/DC as many as magnitude."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean

import pytest

torch = pytest.importorskip("torch", reason="networks need torch")

from sparseopt.experiments import planted_teacher  # noqa: E402
from sparseopt.experiments.planted_teacher import Row, main, table, teacher, train, tune  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

IN_ORDER = ("magnitude", "ac/dc", "sequential-attention++")
# What `tune` chose for each at 80, 90 and 95 %.
CHOSEN = {
    "magnitude": {0.8: 3e-3, 0.9: 3e-3, 0.95: 1e-2},
    "ac/dc": {0.8: 3e-3, 0.9: 1e-2, 0.95: 3e-3},
    "sequential-attention++": {0.8: 3e-3, 0.9: 3e-3, 0.95: 3e-3},
}


def found(method: str, sparsity: float, seeds: range) -> float:
    setting = {"lr": CHOSEN[method][sparsity]} | ({"logit_lr": 10.0} if method.startswith("sequential") else {})
    return round(mean(train(method, seed, sparsity, setting)[0] for seed in seeds), 6)


def test_blocks_found_at_90_percent() -> None:
    shares = [found(method, 0.9, range(3)) for method in IN_ORDER]
    assert shares == sorted(shares)
    assert shares[0] > 0.3  # chance finds a tenth
    assert shares[2] > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("sparsity", [0.8, 0.95])
def test_blocks_found_at_other_sparsities(sparsity: float) -> None:
    shares = [found(method, sparsity, range(10)) for method in IN_ORDER]
    assert shares == sorted(shares)


def test_the_worst_blocks_are_not_the_true_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    from sparseopt.nn import Magnitude

    right = Magnitude.scores
    monkeypatch.setattr(Magnitude, "scores", lambda self, layer: -right(self, layer))
    assert train("magnitude", 0, 0.9, {"lr": 1e-2}, steps=200)[0] < 0.1


def test_a_teacher_is_what_it_says() -> None:
    one, same, other = teacher(0, 0.8), teacher(0, 0.8), teacher(1, 0.8)
    assert torch.equal(one.y, same.y)
    assert not torch.equal(one.y, other.y)
    assert int(one.blocks.sum()) == 51
    assert one.x.shape == (500, 256)
    assert one.y_fresh.shape == (1000, 16)


def test_tuning_takes_the_smallest_loss_and_survives_divergence(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = {3e-3: 0.5, 1e-2: 0.2}

    def run(method: str, seed: int, sparsity: float, setting: dict[str, float], steps: int) -> tuple[float, float]:
        if setting["lr"] not in losses:
            raise FloatingPointError("diverged")
        return 1.0, losses[setting["lr"]]

    monkeypatch.setattr(planted_teacher, "train", run)
    assert tune("magnitude", 0.9, range(2)) == {"lr": 1e-2}
    losses.clear()
    with pytest.raises(FloatingPointError, match="diverges with each"):
        tune("magnitude", 0.9, range(2))


def test_the_table_says_what_was_not_run() -> None:
    rows = [Row("a", 0.9, {"lr": 0.1}, 0.5, 0.01, 0.25), Row("b", 0.8, {"lr": 0.1}, 1.0, 0.0, 0.125)]
    lines = table(rows).splitlines()
    assert lines[0].split() == ["80", "%:", "found", "loss", "90", "%:", "found", "loss"]
    assert lines[1].split() == ["a", "not", "run", "0.500", "±", "0.010", "0.250"]
    assert lines[2].split() == ["b", "1.000", "±", "0.000", "0.125", "not", "run"]


def test_the_command_writes_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(planted_teacher, "compare", lambda *args: Row(args[0], args[1], {"lr": 0.01}, 1.0, 0.0, 0.01))
    assert main(["--quick", "--sparsities", "0.9", "--json", str(tmp_path / "rows.json")]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["method"] for row in rows] == list(IN_ORDER)
    assert "1.000 ± 0.000" in capsys.readouterr().out
