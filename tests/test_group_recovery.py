"""Planted groups: the generator is what it says, the judge counts right, and the report says what the rows say.

Oracles: moments of large samples, sets in plain Python, all supports of a small problem, SciPy's Wilson interval,
`Path.criterion` for EBIC. Laws: the true support is recovered always, a random one at the chance level; wrong measures
are rejected.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sparseopt import REGULARIZERS, select_path
from sparseopt.experiments import group_recovery
from sparseopt.experiments.group_recovery import main, outcomes, panels
from sparseopt.experiments.group_recovery_claims import Claim, claims, conclusions, strongest
from sparseopt.experiments.group_recovery_report import (
    Row,
    ceiling,
    half,
    needed,
    paired,
    read_rows,
    table,
    tables,
    wilson,
)
from sparseopt.experiments.planted_groups import (
    METHODS,
    RULES,
    STEPS,
    Planted,
    Refits,
    Setting,
    judge,
    largest_size,
    measure,
    planted,
)
from sparseopt.selection import METHODS as SELECTORS

SMALL = Setting(n=40, n_groups=6, size=2, active=2, snr=4.0)


def columns(made: Planted) -> NDArray[np.float64]:
    return np.asarray(made.problem.design.columns).T  # stored column by column


# -- the generator -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_the_truth_has_k_groups_of_norm_one(seed: int) -> None:
    made = planted(Setting(n=30, n_groups=9, size=3, active=4), seed)
    norms = np.linalg.norm(made.w.reshape(9, 3), axis=1)
    assert len(made.truth) == 4
    np.testing.assert_array_equal(np.flatnonzero(norms), made.truth)
    np.testing.assert_allclose(norms[made.truth], 1.0)
    assert columns(made).shape == made.X_fresh.shape == (30, 27)
    assert not made.problem.intercept
    np.testing.assert_array_equal(made.problem.groups.weights, 1.0)


def test_equal_seeds_give_equal_problems_and_others_do_not() -> None:
    a, b, c = planted(SMALL, 1), planted(SMALL, 1), planted(SMALL, 2)
    np.testing.assert_array_equal(columns(a), columns(b))
    np.testing.assert_array_equal(a.y_fresh, b.y_fresh)
    assert np.abs(columns(a) - columns(c)).max() > 0.1


@pytest.mark.parametrize("snr", [0.5, 8.0])
def test_the_noise_has_the_ratio_asked_for(snr: float) -> None:
    made = planted(SMALL._replace(n=20_000, snr=snr), 0)
    z = columns(made) @ made.w
    noise = made.problem.loss.y[:, 0] - z
    # Variances of 20 000 normal numbers: 1 % each, so 5 % is more than three standard errors of the ratio.
    assert z.var() / noise.var() == pytest.approx(snr, rel=0.05)
    assert abs(np.corrcoef(z, noise)[0, 1]) < 0.03
    fresh = made.y_fresh - made.X_fresh @ made.w
    assert fresh.var() == pytest.approx(noise.var(), rel=0.05)
    assert abs(np.corrcoef(fresh, noise)[0, 1]) < 0.03


@pytest.mark.parametrize(("within", "between"), [(0.0, 0.0), (0.7, 0.0), (0.0, 0.8), (0.5, 0.6)])
def test_columns_have_the_correlations_of_the_formula(within: float, between: float) -> None:
    made = planted(Setting(n=40_000, n_groups=4, size=3, active=1, within=within, between=between), 0)
    wanted = np.empty((12, 12))
    for (g, i), (h, j) in itertools.product(itertools.product(range(4), range(3)), repeat=2):
        wanted[3 * g + i, 3 * h + j] = between ** abs(g - h) * (within + (1.0 - within) * (i == j))
    np.testing.assert_allclose(np.cov(columns(made).T), wanted, atol=0.04)  # 5 standard errors of a variance: .035


# -- the measure, and the laws -----------------------------------------------------------------------------------------

Measure = Callable[[Any, Any, int], tuple[bool, float, float]]


def brute(chosen: Any, truth: Any, n_groups: int) -> tuple[bool, float, float]:
    """Group by group."""
    status = [(g in set(chosen), g in set(truth)) for g in range(n_groups)]
    true = sum(a and b for a, b in status) / max(sum(b for _, b in status), 1)
    false = sum(a and not b for a, b in status) / max(sum(not b for _, b in status), 1)
    return all(a == b for a, b in status), true, false


def check_measure(tried: Measure) -> None:
    """Laws: brute force on every pair of sets of five groups; the oracle; chance."""
    sets = [s for size in range(6) for s in itertools.combinations(range(5), size)]
    for chosen, truth in itertools.product(sets, sets):
        assert tried(chosen, truth, 5) == pytest.approx(brute(chosen, truth, 5), abs=1e-15)
        assert tried(chosen[::-1], truth, 5) == tried(chosen, truth, 5)
    for p, k in ((7, 3), (8, 1), (6, 5)):
        found = np.array([tried(chosen, range(k), p) for chosen in itertools.combinations(range(p), k)], dtype=float)
        np.testing.assert_allclose(found.mean(axis=0), (1.0 / math.comb(p, k), k / p, k / p), rtol=1e-12)
        assert tried(range(k), range(k), p) == (True, 1.0, 0.0)


def test_the_measure_obeys_its_laws() -> None:
    check_measure(measure)


WRONG: dict[str, Measure] = {
    "more is enough": lambda a, b, p: (set(b) <= set(a), *brute(a, b, p)[1:]),
    "as many is enough": lambda a, b, p: (len(a) == len(b), *brute(a, b, p)[1:]),
    "order counts": lambda a, b, p: (list(a) == list(b), *brute(a, b, p)[1:]),
    "shares of the chosen": lambda a, b, p: (set(a) == set(b), len({*a} & {*b}) / max(len(a), 1), brute(a, b, p)[2]),
    "wrong among all groups": lambda a, b, p: (*brute(a, b, p)[:2], len({*a} - {*b}) / p),
    "sides swapped": lambda a, b, p: brute(b, a, p),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_measure_is_rejected(name: str) -> None:
    with pytest.raises(AssertionError):
        check_measure(WRONG[name])


def on_support(made: Planted, chosen: Any) -> NDArray[np.float64]:
    """The least squares fit on these groups, by NumPy."""
    w = np.zeros_like(made.w)
    features = made.problem.groups.expand(np.isin(np.arange(len(made.problem.groups)), chosen))
    w[features] = np.linalg.lstsq(columns(made)[:, features], made.problem.loss.y[:, 0], rcond=None)[0]
    return w


def test_an_oracle_recovers_always_and_a_random_selector_by_chance() -> None:
    made = planted(SMALL, 3)
    refits = Refits(made.problem)
    for score in judge(made, on_support(made, made.truth)[None], refits).values():
        assert score[1:5] == (True, 1.0, 0.0, False)
        assert score.error == pytest.approx(score.refitted, rel=1e-9)
    # One solution alone: every rule has to take it, whatever its support is.
    supports = list(itertools.combinations(range(6), 2))
    scores = [judge(made, on_support(made, chosen)[None], refits) for chosen in supports]
    for rule in RULES:
        mine = [score[rule] for score in scores]
        assert np.mean([s.exact for s in mine]) == pytest.approx(1.0 / 15.0)
        assert np.mean([s.true for s in mine]) == pytest.approx(2.0 / 6.0)
        assert np.mean([s.false for s in mine]) == pytest.approx(2.0 / 6.0)


# -- the rules ---------------------------------------------------------------------------------------------------------


def path_of(made: Planted, *supports: tuple[int, ...]) -> NDArray[np.float64]:
    """Solutions whose group g has the norm 1 + (its place in the support), so that the last are the largest."""
    out = np.zeros((len(supports), len(made.problem.groups), SMALL.size))
    for w, chosen in zip(out, supports, strict=True):
        for place, g in enumerate(chosen):
            w[g, 0] = 1.0 + place
    return out.reshape(len(supports), -1)


def test_first_takes_k_groups_or_the_largest_of_more() -> None:
    made = planted(SMALL, 0)
    refits = Refits(made.problem)
    for supports, taken in (
        (((), (3,), (3, 1), (0, 1)), [1, 3]),
        (((), (0, 1, 2), (4, 5)), [4, 5]),  # exactly k comes before more than k, wherever it stands
        (((), (3,), (5, 0, 4), (1, 2, 3)), [0, 4]),  # the path jumps over k
        (((), (3,)), [3]),  # too short
    ):
        chosen = judge(made, path_of(made, *supports), refits)["first"].support
        np.testing.assert_array_equal(chosen, taken)


def loss_on(made: Planted, chosen: Any) -> float:
    return 0.5 * float(np.mean((columns(made) @ on_support(made, chosen) - made.problem.loss.y[:, 0]) ** 2))


def test_best_takes_the_k_groups_that_fit_best() -> None:
    made = planted(SMALL, 0)
    supports = [(0,), (0, 1), (4, 2, 3), (1, 5), (3, 2, 0, 5)]
    pool = [(0, 1), (2, 3), (1, 5), (0, 5)]
    score = judge(made, path_of(made, *supports), Refits(made.problem))["best"]
    assert tuple(score.support) == min(pool, key=lambda chosen: loss_on(made, chosen))
    w = path_of(made, *supports)[[1, 2, 3, 4][[tuple(sorted(s)) for s in pool].index(tuple(score.support))]]
    kept = w * np.repeat(np.isin(range(6), score.support), 2)
    scale = np.linalg.norm(made.w)
    assert score.error == pytest.approx(np.linalg.norm(kept - made.w) / scale)
    assert score.refitted == pytest.approx(np.linalg.norm(on_support(made, score.support) - made.w) / scale)


def test_better_is_said_of_wrong_groups_that_fit_as_well() -> None:
    seen = set()
    for seed in range(6):
        made = planted(SMALL._replace(n=12, snr=0.3), seed)
        for chosen in itertools.combinations(range(6), 2):
            score = judge(made, on_support(made, chosen)[None], Refits(made.problem))["first"]
            wrong = chosen != tuple(made.truth)
            assert score.better == (wrong and loss_on(made, chosen) <= loss_on(made, made.truth))
            seen.add(score.better)
    assert seen == {True, False}


@pytest.mark.parametrize("seed", range(4))
def test_ebic_is_that_of_the_package(seed: int) -> None:
    made = planted(Setting(n=48, n_groups=12, size=2, active=3), seed)
    solutions = select_path(made.problem, range(largest_size(made.problem) + 1), "omp", progress=False)
    refits = Refits(made.problem)
    mine = [refits.ebic(np.flatnonzero(norms)) for norms in solutions.group_norms]
    np.testing.assert_allclose(mine, solutions.criterion("ebic"), rtol=1e-9)
    chosen = judge(made, solutions.coefs, refits)["ebic"].support
    np.testing.assert_array_equal(chosen, solutions.best("ebic").support)


def test_ebic_sees_no_solution_beyond_its_cap() -> None:
    made = planted(SMALL._replace(n=9), 0)
    assert largest_size(made.problem) == 2
    scores = judge(made, path_of(made, (), (1,), (0, 1, 2, 3)), Refits(made.problem))
    assert len(scores["ebic"].support) < 2


def test_validation_takes_the_coefficients_that_predict_best() -> None:
    made = planted(SMALL, 0)
    coefs = np.stack([0.0 * made.w, 0.5 * made.w, 0.9 * made.w, 2.0 * made.w])
    score = judge(made, coefs, Refits(made.problem))["validation"]
    squares = [np.sum((made.y_fresh - made.X_fresh @ w) ** 2) for w in coefs]
    assert int(np.argmin(squares)) == 2
    assert score.error == pytest.approx(0.1)


# -- the methods -------------------------------------------------------------------------------------------------------


def test_every_regularizer_and_every_selector_is_there() -> None:
    assert {m.name for m in METHODS.values() if m.family == "penalty"} == set(REGULARIZERS)
    assert {m.name for m in METHODS.values() if m.family == "selector"} == set(SELECTORS)
    composite = {m.name for m in METHODS.values() if m.family == "composite"}
    assert composite == {
        name
        for name, q in REGULARIZERS.items()
        if name != "l2" and q.inverse(q.value(0.7)) == pytest.approx(0.7) and q.increasing()
    }
    run = {name for panel in panels() for name in panel.methods}
    assert run == set(METHODS)


@pytest.mark.parametrize("name", ["l2", "mcp", "composite-log", "omp", "sequential-softmax", "ompr-q", "exact"])
def test_methods_find_what_is_easy_to_find(name: str) -> None:
    setting = Setting(n=120, n_groups=10, size=2, active=2, snr=50.0)
    found = outcomes(setting, 0, [name])[name]
    assert found.scores["best"].exact
    assert not found.short
    assert found.inaccurate == 0
    assert found.scores["best"].refitted < 0.1


def test_regularizers_have_one_step_from_lam_to_lam() -> None:
    made = planted(Setting(n=30, n_groups=8, size=2, active=2), 0)
    for name, decades in (("l2", 2), ("mcp", 2), ("composite-log", 4)):
        lams = METHODS[name].trace(made.problem, []).lams
        np.testing.assert_allclose(lams[1:] / lams[:-1], 0.01 ** (1.0 / STEPS))
        assert lams[-1] / lams[0] == pytest.approx(10.0**-decades)


@pytest.mark.slow  # where no kernel is compiled yet
def test_every_path_reaches_what_ebic_may_choose() -> None:
    # A path that ends at k groups would tell ebic the answer. Only problem (1) with a bounded q may be cut: k groups of
    # norm one cost k q(1), which must stay below the ceiling.
    setting = Setting(n=48, n_groups=20, size=3, active=3)
    names = [name for name, method in METHODS.items() if method.family != "selector"]
    names = [name for name in names if name not in ("composite-lambertw", "composite-expm1")]
    for name, found in outcomes(setting, 0, names).items():
        q = REGULARIZERS[METHODS[name].name]
        if METHODS[name].family == "composite" and 3 * q.value(1.0) > q.ceiling():
            assert found.cut
        else:
            assert not found.cut, name


# -- statistics and the report -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("successes", "n"), [(0, 20), (7, 32), (16, 16), (1, 2)])
def test_wilson_is_that_of_scipy(successes: int, n: int) -> None:
    from scipy.stats import binomtest

    theirs = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose(wilson(successes, n, 1.959963984540054), theirs, atol=1e-12)


def test_half_reads_the_curve() -> None:
    assert half([10, 20, 40], [0.1, 0.5, 0.2]) == 20.0
    assert half([10, 20, 40], [0.1, 0.3, 0.7]) == pytest.approx(30.0)
    assert half([10, 20], [0.6, 0.9]) == -math.inf
    assert half([10, 20], [0.0, 0.4]) == math.inf


def test_paired_is_the_root_of_mcnemars_statistic() -> None:
    assert paired("111100", "000110") == (3, 1, 1.0)
    assert paired("10", "10") == (0, 0, 0.0)


def row(method: str, rule: str, n: int, exact: str, **other: Any) -> Row:
    family = "selector" if method in SELECTORS else "penalty"
    setting = Setting(n=n)._asdict()
    blank = Row(
        "n", setting, method, family, rule, exact, "0" * len(exact), (1.0, 0.0), (0.0, 0.0), (5.0, 0.1), (0.5, 0.01),
        (0.2, 0.01), len(exact), 0, 0, 0, 0, 0.1,
    )  # fmt: skip
    return replace(blank, **other)


def two_methods(lasso: str = "0001", splicing: str = "1111") -> list[Row]:
    made = []
    for rule in RULES:
        for n, exact in ((40, "0000"), (60, lasso)):
            made.append(row("l2", rule, n, exact))
        for n, exact in ((40, "0000"), (60, splicing)):
            made.append(row("splicing", rule, n, exact))
    return made


def test_conclusions_are_made_from_the_numbers() -> None:
    text = {claim.kind: claim.text for claim in claims(two_methods())}
    assert "splicing needs n = 50 for" in text["transition"]
    assert "the group lasso >60: over all n 50 % against 12 %; solved by splicing alone: 3," in text["transition"]
    turned = {claim.kind: claim.text for claim in claims(two_methods(lasso="1111", splicing="1000"))}
    assert "splicing needs n = >60 for" in turned["transition"]
    assert "50: over all n 12 % against 50 %; solved by splicing alone: 0," in turned["transition"]


def test_failures_are_told_apart() -> None:
    rows = [replace(each, better="1110" if each.setting["n"] == 40 else "1000") for each in two_methods(lasso="0111")]
    found = [c.text for c in claims(rows) if c.kind == "failures" and "l2" in c.text]
    assert len(found) == 1
    assert "80 % of 5 failures: too few samples" in found[0]


def test_the_ceiling_counts_problems_in_which_any_method_found_something_better() -> None:
    rows = [row("l2", "best", 40, "0000", better="1000"), row("omp", "best", 40, "0100", better="1010")]
    assert ceiling(rows) == 0.5
    assert ceiling([row("l2", "best", 40, "0000")]) == 1.0
    exact = {seed: outcomes(SMALL._replace(n=12, snr=0.5), seed, ["l2", "omp", "exact"]) for seed in range(8)}
    for found in exact.values():  # the bound holds for the search that it is about
        if any(found[name].scores[rule].better for name in ("l2", "omp") for rule in RULES):
            assert not found["exact"].scores["first"].exact


def test_the_strongest_of_every_kind_come_first() -> None:
    found = [Claim("a", f"m{weight:g}", weight, f"a{weight:g}") for weight in (1.0, 9.0, 8.0)]
    found += [Claim("b", "x", 0.5, "b0.5"), *(Claim("c", f"o{w:g}", w, f"c{w:g}") for w in (2.0, 3.0))]
    assert [claim.text for claim in strongest(found, share=1.0)] == ["a9", "c3", "b0.5", "a8", "c2", "a1"]
    assert [claim.text for claim in strongest(found, share=0.2)] == ["a9", "c3"]
    assert strongest([]) == []
    # A second sentence about one method counts half.
    found = [Claim("a", "m", 9.0, "a9"), Claim("b", "m", 8.0, "b8"), Claim("b", "x", 5.0, "b5")]
    assert [claim.text for claim in strongest(found, share=0.5)] == ["a9", "b5"]


def test_the_table_and_rows_read_back() -> None:
    rows = two_methods()
    assert table(rows, "best").splitlines()[1].split() == ["splicing", "0", "100"]
    assert [line.split() for line in needed(rows, "best").splitlines()] == [["k=5"], ["splicing", "50"], ["l2", ">60"]]
    again = [Row.of(json.loads(json.dumps(each.__dict__))) for each in rows]
    assert again == rows
    assert (tables(again), conclusions(again)) == (tables(rows), conclusions(rows))


# -- whole runs --------------------------------------------------------------------------------------------------------


def test_a_quick_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    for panel in panels(quick=True):  # kernels compile, or come from the cache
        outcomes(panel.settings[0], 0, panel.methods)
    began = time.process_time()
    file = tmp_path / "rows.json"
    assert main(["--quick", "--json", str(file), "--figures", str(tmp_path / "a")]) == 0
    assert time.process_time() - began < 20.0
    printed = capsys.readouterr().out
    assert "The strongest" in printed
    stored = json.loads(file.read_text(encoding="utf-8"))
    rows = read_rows(stored)
    quick = panels(quick=True)
    assert {each.panel for each in rows} == {panel.name for panel in quick}
    assert {each.method for each in rows} == {name for panel in quick for name in panel.methods}
    for each in rows:
        assert each.seeds == next(panel.seeds for panel in quick if panel.name == each.panel)
        assert each.better.count("1") <= each.exact.count("0")
        assert 0.0 <= each.true[0] <= 1.0
    names = ["group-recovery-correlation.png", "group-recovery-map.png", "group-recovery.png"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == names
    assert main(["--from", str(file), "--figures", str(tmp_path / "b")]) == 0
    again = capsys.readouterr().out
    assert again.split("Drew")[0].strip() in printed
    for name in names:
        assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "a" / name).read_bytes()


def test_seeds_decide_and_methods_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = tuple(panel._replace(settings=panel.settings[:1]) for panel in panels(quick=True)[:1])
    monkeypatch.setattr(group_recovery, "panels", lambda quick: small)
    rows = []
    for name in ("a", "b"):
        file = tmp_path / f"{name}.json"
        assert main(["--methods", "omp", "l2", "--seeds", "3", "--json", str(file)]) == 0
        stored = json.loads(file.read_text(encoding="utf-8"))["rows"]
        rows.append([{key: value for key, value in each.items() if key != "seconds"} for each in stored])
    assert rows[0] == rows[1]
    assert {each["method"] for each in rows[0]} == {"omp", "l2"}
    assert {len(each["exact"]) for each in rows[0]} == {3}
