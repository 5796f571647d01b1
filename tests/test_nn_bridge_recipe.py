"""Networks and the core: the check of the recipe of sequential attention looks at this package, and sees departures."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the bridge to networks needs torch")

from sparseopt.nn import PhaseSchedule  # noqa: E402
from sparseopt.nn.masks import SoftmaxMask  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def recipe() -> Any:
    from sparseopt.proofs_checks.running import run

    (evidence,) = run(["sequential_attention_recipe"], size="small", seed=0, jobs=1)
    return evidence


def about_networks(evidence: Any) -> list[Any]:
    return [finding for finding in evidence.findings if "sparseopt.nn" in finding.claim]


def test_the_check_of_the_recipe_looks_at_this_package() -> None:
    evidence = recipe()
    assert evidence.as_expected
    assert len(about_networks(evidence)) >= 4
    assert all(finding.tried > 0 for finding in about_networks(evidence))


WRONG_RECIPES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "masks": lambda patch: patch.setattr(SoftmaxMask, "attention", lambda self: torch.softmax(self.logits, 1)),
    "schedule": lambda patch: patch.setattr(
        sys.modules["sparseopt.nn.schedule"].Exponential, "__call__", lambda self, t: t
    ),
    "phases": lambda patch: patch.setattr(
        PhaseSchedule, "criteo", classmethod(lambda cls, total, sparsify=True: PhaseSchedule.imagenet(total, False))
    ),
    "choice": lambda patch: patch.setattr(
        sys.modules["sparseopt.nn.methods.method"],
        "choose",
        lambda budget, shares, scores, progress: [each > each.median() for each in scores],
    ),
    "clip": lambda patch: patch.setattr(
        sys.modules["sparseopt.nn.methods.attention"],
        "SoftmaxMask",
        lambda grid, device, dtype, clip, over: SoftmaxMask(grid, device, dtype, None, over),
    ),
}


@pytest.mark.parametrize("name", WRONG_RECIPES)
def test_a_package_that_departs_from_the_recipe_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    WRONG_RECIPES[name](monkeypatch)
    assert not recipe().as_expected


def test_without_torch_the_check_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for module in [module for module in sys.modules if module.startswith("sparseopt.nn")]:
        monkeypatch.delitem(sys.modules, module)
    evidence = recipe()
    assert evidence.as_expected
    (finding,) = about_networks(evidence)
    assert finding.verdict.name == "NOT_APPLICABLE"
    assert "torch is not installed" in finding.detail
    assert "sparseopt.nn" not in sys.modules or sys.modules["sparseopt.nn"] is None
