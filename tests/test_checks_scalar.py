"""The checks of scalar statements: as predicted, the same for the same seed, and red when the software is wrong.

Every wrong version below is one that a reader could write: a constant, a sign, a root, a rounding.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checking import check, wrong

from sparseopt import Expm1Mask, LambertW, LogSum, Power, TransformedL1
from sparseopt.proofs_checks import (
    lambertw_thresholds,
    mask_facts,
    normalised_softmax,
    paper_tables,
    reverse_maps,
    sequential_attention_recipe,
)
from sparseopt.proofs_checks.evidence import Evidence, Verdict
from sparseopt.proofs_checks.figures import svg
from sparseopt.proofs_checks.running import as_json, statement
from sparseopt.scalar import maximum

pytest.importorskip("flint")
pytest.importorskip("matplotlib")

DETERMINISTIC = ("paper_tables",)
RANDOM = (
    "variational_masks",
    "regularizer_hypotheses",
    "lambertw_thresholds",
    "prox_and_block_functions",
    "expm1_repair",
    "normalised_softmax",
    "reverse_maps",
    "machine_proofs",
    "sequential_attention_recipe",
)


@cache
def found(name: str) -> Evidence:
    """What the right software gives."""
    return check(name)


@pytest.mark.parametrize("name", RANDOM + DETERMINISTIC)
def test_the_evidence_is_as_predicted(name: str) -> None:
    first, other = found(name), check(name, seed=1)
    assert (wrong(first), wrong(other)) == ([], [])
    assert (as_json([first], "small", 0) == as_json([other], "small", 0)) == (name in DETERMINISTIC)
    about = statement(name)
    drawn = svg(about.figure(first), name)
    assert drawn.startswith("<svg")
    assert len(about.caption) > 40
    assert all(callable(condition) for condition in about.hypotheses.values())
    assert any(finding.expected is Verdict.REFUTED for finding in first.findings) or name == "machine_proofs"


# The slower ones are left to `make test-slow`; test_checks_cli.py repeats some in processes of their own each time.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("reverse_maps", "paper_tables") else [pytest.mark.slow])
        for name in RANDOM + DETERMINISTIC
    ],
)
def test_the_same_seed_gives_the_same_evidence(name: str) -> None:
    assert as_json([found(name)], "small", 0) == as_json([check(name)], "small", 0)


# -- printed and corrected ---------------------------------------------------------------------------------------------

CORRECTED = {
    "regularizer_hypotheses": 2,  # Lambert-W, all concave q
    "lambertw_thresholds": 2,  # log-sum, Theorem 1.1
    "expm1_repair": 1,
    "normalised_softmax": 1,
    "sequential_attention_recipe": 1,  # the range of the clip
    "paper_tables": 2,  # the headers of Table 3, the gap that widens
}


@pytest.mark.parametrize("name", CORRECTED)
def test_what_is_refuted_as_printed_comes_with_its_correction(name: str) -> None:
    pairs = [finding for finding in found(name).findings if finding.printed]
    assert len(pairs) == CORRECTED[name]
    for finding in pairs:
        assert finding.verdict is Verdict.REFUTED
        assert finding.corrected
        assert any(character.isdigit() for character in finding.detail)


# -- numbers that the theory states, from here -------------------------------------------------------------------------


def test_the_constants_of_lambert_w() -> None:
    text = " ".join(finding.detail for finding in found("lambertw_thresholds").findings)
    for digits in (
        "1.16582199079856210168176803108",
        "1.93921006421430572651228280808",
        "0.240226506959100712333551263163",
        "0.0948117887135699263313842270657",
        "F(0.820273, 0.289091) = 2.043956",
    ):
        assert digits in text
    assert math.isclose(math.sqrt(math.e / 2.0), 1.16582199079856210168176803108)
    assert math.isclose(0.5 * math.log(2.0) ** 2, 0.240226506959100712333551263163)


def test_the_real_sparsities_of_table_1() -> None:
    percent = [round(paper_tables.real_sparsity(block, s)) for block in (32, 64) for s in (70, 80, 90, 95)]
    assert percent == [68, 78, 88, 92, 58, 66, 74, 79]
    assert len(paper_tables.resnet50()) == 54


def test_the_shapes_are_those_of_torchvision() -> None:
    pytest.importorskip("torch")
    from sparseopt.experiments.images.vision import import_torchvision, prepare_torchvision

    # Beside a CPU build of torch the plain import of torchvision fails.
    if not prepare_torchvision():
        pytest.skip("torchvision is not installed")
    weights = [p for name, p in import_torchvision().models.resnet50(weights=None).named_parameters() if p.ndim > 1]
    shapes = sorted((p[0].numel(), p.shape[0]) for p in weights)
    assert shapes == sorted(paper_tables.resnet50())


# -- wrong software ----------------------------------------------------------------------------------------------------


def patched(monkeypatch: pytest.MonkeyPatch, cls: type, method: str, new: Any) -> None:
    monkeypatch.setattr(cls, method, new)


def test_a_wrong_constant_of_a_mask_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = mask_facts.MASKS["l1"]
    monkeypatch.setitem(mask_facts.MASKS, "l1", replace(mask, value=lambda a: 1.5 * Power(2.0 / 3.0).value(a)))
    assert any("Lemma 2.2" in claim for claim in wrong(check("variational_masks")))


def test_a_wrong_q_of_a_mask_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = mask_facts.MASKS["exp"]
    monkeypatch.setitem(mask_facts.MASKS, "exp", replace(mask, value=lambda a: LambertW().value(a) * (1.0 + 1e-9)))
    assert any("Lemma 2.1" in claim for claim in wrong(check("variational_masks")))


@pytest.mark.parametrize(
    ("cls", "method", "new", "claim"),
    [
        (LambertW, "subadditive", lambda self: True, "LambertW is increasing"),
        (TransformedL1, "slope_at_zero", lambda self: 1.0, "TransformedL1: q(0) = 0"),
        (LogSum, "weak_convexity", lambda self: 1.0 / self.eps, "LogSum: q(0) = 0"),
        (Expm1Mask, "concave", lambda self: False, "Expm1Mask is increasing"),
    ],
)
def test_a_wrong_flag_is_seen(monkeypatch: pytest.MonkeyPatch, cls: type, method: str, new: Any, claim: str) -> None:
    patched(monkeypatch, cls, method, new)
    assert any(broken.startswith(claim) for broken in wrong(check("regularizer_hypotheses", seed=2)))


def test_a_wrong_weak_convexity_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    patched(monkeypatch, LambertW, "weak_convexity", lambda self: 0.0948)
    assert any("weak convexity" in claim for claim in wrong(check("lambertw_thresholds")))


def test_a_wrong_value_breaks_the_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    right = LambertW.value
    patched(monkeypatch, LambertW, "value", lambda self, u: right(self, u) + 0.01 * np.minimum(u, 1.0))
    assert len(wrong(check("lambertw_thresholds"))) >= 1


def test_a_wrong_enclosure_is_not_reached() -> None:
    from sparseopt.certificates.balls import bits

    with bits(256), pytest.raises(ValueError, match="no change of sign"):
        lambertw_thresholds.crossing(lambda a: a - 3, 0.0, 1.0)


WRONG_PROX = {
    "the root without its guard": (LogSum, "prox", lambda self, u, t: maximum(u - t / self.eps, 0.0)),
    "soft instead of hard for large steps": (LogSum, "prox", lambda self, u, t: maximum(u - t / (self.eps + u), 0.0)),
    "half the step": (Power, "prox", None),
    "an inverse of another q": (LogSum, "inverse", lambda self, v: self.eps * v),
    "a slope with a wrong sign of eps": (LogSum, "slope", lambda self, u: 1.0 / (2.0 * self.eps + u)),
    "a block that does not see the others": (Power, "lifted_prox", lambda self, u, t, rest: maximum(u - t, 0.0)),
}


@pytest.mark.parametrize(("cls", "method", "new"), WRONG_PROX.values(), ids=WRONG_PROX)
def test_a_wrong_formula_of_a_regularizer_is_seen(
    monkeypatch: pytest.MonkeyPatch, cls: Any, method: str, new: Any
) -> None:
    right = getattr(cls, method)
    patched(monkeypatch, cls, method, new or (lambda self, u, t: right(self, u, 0.5 * t)))
    evidence = check("prox_and_block_functions")
    assert wrong(evidence)
    details = [finding.detail for finding in evidence.findings if not finding.as_expected]
    assert any("Counterexample" in detail and cls.__name__ in detail for detail in details)


def test_a_wrong_repair_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the Lambert-W q in place of the repaired one Theorem 1.1 fails on the same instances."""
    patched(monkeypatch, Expm1Mask, "value", lambda self, u: LambertW().value(u))
    patched(monkeypatch, Expm1Mask, "inverse", lambda self, v: LambertW().inverse(v))
    claims = wrong(check("expm1_repair"))
    assert any("one-sparse group-lasso minimiser minimises" in claim for claim in claims)
    assert any("formulas in w" in claim for claim in claims)


def test_a_wrong_softmax_cost_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = normalised_softmax._cost
    monkeypatch.setattr(normalised_softmax, "_cost", lambda a: right(a) * a.size / (a.size - 1.0))
    assert any("least decay" in claim for claim in wrong(check("normalised_softmax")))


def test_a_wrong_threshold_of_the_softmax_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = normalised_softmax._threshold

    def early(problem: Any) -> tuple[float, float, int]:
        lam0, tau, group = right(problem)
        return 1e-3 * lam0, tau, group

    monkeypatch.setattr(normalised_softmax, "_threshold", early)
    assert any("the one group" in claim for claim in wrong(check("normalised_softmax")))


def test_a_wrong_reverse_map_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = mask_facts.MASKS["l1"]
    monkeypatch.setitem(mask_facts.MASKS, "l1", replace(mask, best=lambda a: a ** (2.0 / 3.0)))
    claims = wrong(check("reverse_maps"))
    assert len(claims) == 2
    assert all("decay |w|" in claim for claim in claims)


def test_a_softmax_without_its_mean_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = reverse_maps._softmax_masks
    monkeypatch.setattr(reverse_maps, "_softmax_masks", lambda logits: right(logits) / logits.size)
    assert any("mean 1" in claim for claim in wrong(check("reverse_maps")))


def test_a_false_proof_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """A verifier that refuses turns the instance red, and so does a q that is not concave."""
    from sparseopt.certificates import verify

    monkeypatch.setattr(verify, "verify", lambda path: "REFUSED")
    assert any("instance" in claim for claim in wrong(check("machine_proofs")))


def test_a_square_is_not_proved_for_a_superadditive_q() -> None:
    from sparseopt.certificates.balls import bits
    from sparseopt.proofs_checks import machine_proofs

    with bits():
        shown, _ = machine_proofs._square(lambda u: u * u, 0.5, 1.0, limit=300)
    assert not shown


@pytest.mark.parametrize(
    ("name", "new"),
    [
        ("masks", lambda logits: np.exp(logits) / np.exp(logits).max()),
        ("schedule", lambda u, sparsity, c=4.0: sparsity * (1.0 - np.exp(-np.multiply(c, u)))),
    ],
)
def test_a_wrong_recipe_is_seen(monkeypatch: pytest.MonkeyPatch, name: str, new: Any) -> None:
    monkeypatch.setattr(sequential_attention_recipe, name, new)
    assert wrong(check("sequential_attention_recipe"))


def test_wrong_phases_and_shapes_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    phases = dict(sequential_attention_recipe.PHASES)
    phases["Criteo"] = phases["Criteo"][1:]
    monkeypatch.setattr(sequential_attention_recipe, "PHASES", phases)
    assert any("Criteo" in claim for claim in wrong(check("sequential_attention_recipe")))
    monkeypatch.setattr(paper_tables, "_FEWEST", 150)
    assert any("real sparsities" in claim for claim in wrong(check("paper_tables")))


def test_the_tables_travel_with_the_package(root: Path) -> None:
    given = json.loads((root / "proofs_checks" / "paper_tables.json").read_text(encoding="utf-8"))
    assert given == paper_tables.tables()
    assert [len(given[f"table{i}"]["rows"]) for i in (1, 2, 3, 4)] == [16, 15, 16, 12]
