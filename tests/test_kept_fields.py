"""Fields and units in use: counted by hand, over folders of made-up runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sparseopt.experiments.kept_fields import in_use, main, uses


def write_run(folder: Path, method: str, seed: int, weight: torch.Tensor, loss: float | None = 0.5) -> None:
    run = folder / f"{method.replace('/', '-')}_{seed}"
    run.mkdir(parents=True)
    recipe = {
        "task": "clicks",
        "model": {"embedding": 2},
        "pruning": {"method": method, "block": 2, "sparsity": 0.9},
        "training": {"seed": seed},
    }
    metrics = None if loss is None else {"valid_loss": loss}
    (run / "result.json").write_text(json.dumps({"recipe": recipe, "metrics": metrics}))
    save_file({"dense.0.weight": weight}, run / "model.safetensors")


def weight(*places: tuple[int, int]) -> torch.Tensor:
    found = torch.zeros(6, 8)
    for row, column in places:
        found[row, column] = 1.0
    return found


@pytest.mark.parametrize("width", [1, 2, 5])
def test_counts_are_those_of_a_loop(width: int) -> None:
    generator = torch.Generator().manual_seed(width)
    matrix = torch.rand(7, 6 * width, generator=generator) * (torch.rand(7, 6 * width, generator=generator) < 0.1)
    fields = {j // width for j in range(6 * width) if any(matrix[i, j] != 0 for i in range(7))}
    units = {i for i in range(7) if any(matrix[i, j] != 0 for j in range(6 * width))}
    assert in_use(matrix, width) == (len(fields), len(units))
    assert in_use(matrix.T.contiguous(), 7) != (len(fields), len(units))  # fields are columns


def test_means_over_seeds_of_finished_runs(tmp_path: Path) -> None:
    write_run(tmp_path, "ac/dc", 0, weight((0, 0), (1, 1)), 0.50)  # one field, two units
    write_run(tmp_path, "ac/dc", 1, weight((0, 0), (0, 2), (0, 7)), 0.54)  # three fields, one unit
    write_run(tmp_path, "magnitude", 0, weight((5, 5)), 0.60)
    write_run(tmp_path, "magnitude", 1, weight(), None)  # diverged
    assert [tuple(use) for use in uses(tmp_path)] == [
        ("ac/dc", 2, 0.9, 2, 2.0, 1.5, 0.52),
        ("magnitude", 2, 0.9, 1, 1.0, 1.0, 0.6),
    ]


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, "expm1", 0, weight((2, 3)))
    assert main([str(tmp_path), "--json", str(tmp_path / "out.json")]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["expm1", "2", "90", "%", "1", "1.0", "1.0", "0.5000"]
    (row,) = json.loads((tmp_path / "out.json").read_text())
    assert row["fields"] == 1


def test_a_folder_without_runs_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no finished run of a pruned click model"):
        uses(tmp_path)
