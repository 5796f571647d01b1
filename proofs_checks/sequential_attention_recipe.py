"""The recipe of SequentialAttention++: masks of mean 1, a schedule of densities, phases, and the range of the clip.

    A = N softmax(logits)                                     mean 1
    s(u) = s (1 - e^-cu) / (1 - e^-c), c = 4                  from 0 to s over a sparsification phase, u in [0, 1]
    k = blocks that stay, nested from step to step

The paper clips the masks to [N rho, N / rho] with rho the density. With masks of mean 1 at most 1 / rho of them can lie
above N rho, so nearly all become equal and the ranking of the rho N blocks to keep is lost; [rho, 1 / rho] contains
what k equal survivors have, N / k = 1 / rho.

The formulas are written down here and tried on numbers; where torch is installed, `sparseopt.nn` is held against them.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from sparseopt.proofs_checks.evidence import Evidence, Finding, Statement, Verdict, control, holds
from sparseopt.proofs_checks.figures import COLOURS, INK, axes, legend

__all__ = ["PHASES", "STATEMENT", "masks", "schedule"]

_COUNTS = {"small": 200, "medium": 2000, "large": 20_000}

# Fractions of training, in order: (kind, share). Where the paper is silent a cycle is cut into equal parts.
PHASES: dict[str, tuple[tuple[str, Fraction], ...]] = {
    "ImageNet, AC/DC": (
        ("dense", Fraction(10, 100)),
        *(("sparse", Fraction(5, 100)), ("dense", Fraction(5, 100))) * 6,
        ("sparse", Fraction(5, 100)),
        ("dense", Fraction(10, 100)),
        ("sparse", Fraction(15, 100)),
    ),
    "ImageNet, SA++": (
        ("dense", Fraction(10, 100)),
        *(("sparsify", Fraction(1, 30)), ("sparse", Fraction(1, 30)), ("dense", Fraction(1, 30))) * 6,
        ("sparsify", Fraction(15, 100)),
        ("sparse", Fraction(15, 100)),
    ),
    "Criteo": (
        ("dense", Fraction(20, 100)),
        *(("sparse", Fraction(3, 100)), ("dense", Fraction(3, 100))) * 10,
        ("sparse", Fraction(20, 100)),
    ),
}
_EPOCHS = {"ImageNet, AC/DC": 90, "ImageNet, SA++": 90, "Criteo": 25}


def masks(logits: Any) -> Any:
    """N softmax(logits), with mean 1."""
    e = np.exp(logits - logits.max())
    return e.size * e / e.sum()


def schedule(u: Any, sparsity: Any, c: Any = 4.0) -> Any:
    """s (1 - e^-cu) / (1 - e^-c): the share of blocks that are gone after a fraction u of the phase."""
    return sparsity * np.expm1(-np.multiply(c, u)) / np.expm1(-c)


def check(rng: np.random.Generator, size: str) -> Evidence:
    """Masks, schedule, phases, and the two clips."""
    count = _COUNTS[size]
    findings = [*_masks(rng, count), *_schedule(rng, count), *_phases(), *_clip(rng, count), _divisible()]
    findings += _package(rng, count)
    u = np.linspace(0.0, 1.0, 200)
    series = {f"c = {c:g}": np.array([u, schedule(u, 0.9, c)]) for c in (2.0, 4.0, 8.0)}
    a = np.sort(masks(np.random.default_rng(0).normal(size=1000)))[::-1]
    rho = 0.1
    series["masks"] = np.array([a, np.clip(a, 1000 * rho, 1000 / rho), np.clip(a, rho, 1 / rho)])
    return Evidence("sequential_attention_recipe", tuple(findings), series)


def _masks(rng: np.random.Generator, count: int) -> list[Finding]:
    mean, invariant = [], []
    for _ in range(count):
        logits = rng.normal(size=int(rng.integers(2, 2000))) * 10.0 ** rng.uniform(-2.0, 1.5)
        a = masks(logits)
        mean.append(abs(a.mean() - 1.0))
        invariant.append(float(np.abs(masks(logits + 100.0 * rng.normal()) / np.maximum(a, 1e-300) - 1.0)[a > 0].max()))
    return [
        holds("The masks N softmax(ℓ) have mean 1", mean, 1e-12, "2 to 2000 blocks, logits of spread 0.01 to 30."),
        holds("A constant added to all logits changes nothing", invariant, 1e-11, "Relative."),
    ]


def _schedule(rng: np.random.Generator, count: int) -> list[Finding]:
    s, c = rng.uniform(0.5, 0.99, count), rng.uniform(0.5, 10.0, count)
    ends = np.abs([schedule(0.0, s, c), schedule(1.0, s, c) - s])
    half = float(schedule(0.5, 1.0))
    exact = 1.0 / (1.0 + np.exp(-2.0))  # (1 - e^-2) / (1 - e^-4)
    wrong = []
    for _ in range(max(count // 10, 20)):
        n, sparsity = int(rng.integers(50, 500)), float(rng.choice([0.7, 0.8, 0.9, 0.95]))
        alive = np.arange(n)
        for u in np.linspace(0.0, 1.0, 12):
            keep = max(round((1.0 - float(schedule(u, sparsity))) * n), 1)
            score = rng.normal(size=alive.size)
            before = set(alive.tolist())
            alive = alive[np.argsort(-score)[:keep]]
            wrong.append(0.0 if set(alive.tolist()) <= before and alive.size <= keep else 1.0)
        wrong.append(0.0 if alive.size == max(round((1.0 - sparsity) * n), 1) else 1.0)
    return [
        holds("s(0) = 0 and s(1) = s for every exponent c", ends, 1e-15, "Random s and c."),
        holds("With c = 4 half of the phase removes 88 % of what is to go", [abs(half - exact)], 1e-15,
              f"s(1/2) = {half:.10f} s = s / (1 + e⁻²)."),
        holds("Choosing among survivors nests the sets and ends with round((1 − s) N) blocks", wrong, 0.0,
              "Twelve steps with scores that change at every step."),
    ]  # fmt: skip


def _phases() -> list[Finding]:
    findings = []
    for name, phases in PHASES.items():
        total = sum((share for _, share in phases), Fraction(0))
        epochs = [float(share * _EPOCHS[name]) for _, share in phases]
        text = ", ".join(f"{kind} {length:g}" for (kind, _), length in zip(phases, epochs, strict=True))
        findings.append(
            holds(f"The phases of {name} add up to the whole training", abs(float(total - 1)), 0.0,
                  f"In epochs of {_EPOCHS[name]}: {text}.")
        )  # fmt: skip
    return findings


def _clip(rng: np.random.Generator, count: int) -> list[Finding]:
    """How many masks stay apart under either clip, and whether the k largest are still told apart from the rest."""
    above, mean, lost, top, kept, ranked = [], [], [], [], [], []
    for _ in range(count):
        n, rho = int(rng.integers(200, 4000)), float(rng.choice([0.05, 0.1, 0.2, 0.3]))
        k = round(rho * n)
        a = masks(rng.normal(size=n) * 10.0 ** rng.uniform(-1.0, 0.7))
        printed, corrected = np.clip(a, n * rho, n / rho), np.clip(a, rho, 1.0 / rho)
        above.append(float((a > n * rho).sum()) - 1.0 / rho)
        mean.append(float(printed.mean()))
        lost.append(np.sort(printed)[-k] == np.sort(printed)[-k - 1])
        # Strictly fewer than N rho masks exceed 1 / rho, so a tie at the upper end lies among the kept.
        top.append(float((a > 1.0 / rho).sum()) - n * rho)
        kept.append(np.sort(corrected)[-k] == np.sort(corrected)[-k - 1])
        ranked.append(float(corrected[0] != a[0]))
    uniform = np.clip(masks(np.zeros(1000)), 100.0, 10_000.0)
    return [
        control(
            "Masks clipped to [N ρ, N/ρ] keep mean 1 and the ranking of the ρN blocks to keep",
            min(min(mean) - 1.0, float(np.mean(lost))),
            0.5,
            f"On {count} random masks the mean becomes {min(mean):.4g} or more, and in {np.mean(lost):.0%} of them "
            "the last block kept ties with the first one dropped. For N = 1000, ρ = 0.1 equal masks 1 become "
            f"{uniform[0]:g}.",
            printed="Algorithm 1 normalises the masks to mean 1; they are clipped to [n · density, n / density].",
            corrected="[density, 1/density]: density · n equal survivors have masks 1/density, and 1 lies inside.",
        ),
        holds("At most 1/ρ masks of mean 1 exceed N ρ", above, 0.0, "Markov's inequality: all others become equal."),
        holds("Clipped to [ρ, 1/ρ], ties at the upper end are among the ρN kept blocks", top, 0.0,
              f"At most N ρ masks reach 1/ρ. In {np.mean(kept):.0%} of the instances, those with the widest logits, "
              "fewer than ρN masks exceed ρ and the rest of the choice is a tie."),
    ]  # fmt: skip


def _divisible() -> Finding:
    rows, block = 390, 20
    return control(
        "Blocks of 20 × 20 tile the 390 × 400 layer of the Criteo experiments",
        rows % block / block,
        0.1,
        f"390 / 20 = {rows / block}: ten rows are left over, the paper does not say what becomes of them.",
    )


def _package(rng: np.random.Generator, count: int) -> list[Finding]:
    """The same formulas as `sparseopt.nn` has them."""
    try:
        import torch  # noqa: F401
    except ImportError:
        apart = Verdict.NOT_APPLICABLE
        detail = "torch is not installed: the findings above are about the formulas, not about the package."
        return [Finding("sparseopt.nn follows the recipe", apart, apart, 0, detail=detail)]
    return [*_package_masks(rng, count), *_package_schedules(rng, count), _package_choice(rng, count), _package_edges()]


def _package_masks(rng: np.random.Generator, count: int) -> list[Finding]:
    import torch

    from sparseopt.nn import BlockGrid, LayerPlan, SequentialAttention

    plain: list[float] = []
    clipped: list[float] = []
    for _ in range(max(count // 4, 20)):
        n, sparsity = int(rng.integers(20, 2000)), float(rng.choice([0.7, 0.8, 0.9, 0.95]))
        layer = LayerPlan("weight", BlockGrid((n, 1), (1, 1)), sparsity)
        rho = layer.kept / n
        logits = rng.normal(size=n) * 10.0 ** rng.uniform(-2.0, 0.7)
        expected = masks(logits)
        for clip, errors, target in (
            (False, plain, expected),
            (True, clipped, np.clip(expected, rho, 1.0 / rho)),
        ):
            mask = SequentialAttention(clip=clip).mask(layer, torch.zeros(n, 1, dtype=torch.float64))
            assert mask.logits is not None
            mask.logits.data.copy_(torch.as_tensor(logits).view(n, 1))
            found = mask.factors(torch.zeros(n, 1, dtype=torch.float64)).detach().numpy().ravel()
            errors.append(float(np.abs(found / target - 1.0).max()))
    return [
        holds("sparseopt.nn: the masks are N softmax(ℓ)", plain, 1e-11, "Relative, 20 to 2000 blocks."),
        holds("sparseopt.nn: the clip is [ρ, 1/ρ] with the density ρ of the layer", clipped, 1e-11, "Relative."),
    ]


def _package_schedules(rng: np.random.Generator, count: int) -> list[Finding]:
    from sparseopt.nn import Exponential, PhaseSchedule, SequentialAttention

    u, s, c = rng.random(count), rng.uniform(0.5, 0.99, count), rng.uniform(0.5, 10.0, count)
    rows = list(zip(u, s, c, strict=True))
    errors = [abs(b * Exponential(d)(a) - float(schedule(a, b, d))) for a, b, d in rows]
    errors += [abs(b * SequentialAttention().share(a) - float(schedule(a, b))) for a, b, _ in rows]
    total = 3000
    made = {
        "ImageNet, AC/DC": PhaseSchedule.imagenet(total, sparsify=False),
        "ImageNet, SA++": PhaseSchedule.imagenet(total),
        "Criteo": PhaseSchedule.criteo(total, sparsify=False),
    }
    wrong = []
    for name, phases in PHASES.items():
        steps = [[kind, int(share * total)] for kind, share in phases]
        wrong.append(0.0 if made[name].to_list() == steps else 1.0)
    return [
        holds("sparseopt.nn: the share s(u), with c = 4 unless said otherwise", errors, 1e-15, "Random u, s and c."),
        holds("sparseopt.nn: the phases of the three trainings", wrong, 0.0, f"In a training of {total} steps."),
    ]


def _package_choice(rng: np.random.Generator, count: int) -> Finding:
    """Logits that change at every step, and the engine itself: 24 steps of sparsification, 12 choices."""
    import torch

    from sparseopt.nn import PhaseSchedule, Sparsifier, plan

    wrong = []
    for _ in range(max(count // 100, 4)):
        sparsity = float(rng.choice([0.7, 0.8, 0.9, 0.95]))
        model = torch.nn.Linear(26, 22, bias=False)
        phases = PhaseSchedule.from_list([("dense", 1), ("sparsify", 24), ("sparse", 2)])
        engine = Sparsifier(model, plan(model, sparsity, block=2), updates=12, schedule=phases)
        (layer,) = engine.layers
        n = layer.grid.n_blocks
        before = np.ones(layer.grid.counts, dtype=bool)
        for step in range(26):
            assert layer.logits is not None
            layer.logits.data.copy_(torch.as_tensor(rng.normal(size=layer.grid.counts)))
            engine.step()
            now = layer.kept.numpy().copy()
            progress = min(step // 2 / 12, 1.0)
            target = int(np.floor((1.0 - float(schedule(progress, sparsity))) * n + 1e-9))
            wrong.append(0.0 if not (now & ~before).any() and now.sum() == max(target, 1) else 1.0)
            before = now
        wrong.append(0.0 if layer.kept.sum() == max(int(np.floor((1.0 - sparsity) * n + 1e-9)), 1) else 1.0)
    return holds(
        "sparseopt.nn: survivors nest, floor((1 − s(u)) N) of them at progress u", wrong, 0.0,
        "Downwards, as the real sparsities of Table 1 demand; 12 choices while the logits change at every step.",
    )  # fmt: skip


def _package_edges() -> Finding:
    from sparseopt.nn import BlockGrid

    grid = BlockGrid((400, 390), (20, 20))
    sizes = grid.sizes().numpy()
    wrong = [abs(float(sizes.sum()) - 400 * 390), float((sizes[:, -1] != 200).sum())]
    return holds("sparseopt.nn: what is left over at the edge of the Criteo layer is a column of smaller blocks", wrong,
                 0.0, f"{grid.counts[0]} x {grid.counts[1]} blocks, the last ones 20 x 10.")  # fmt: skip


def figure(evidence: Evidence) -> Any:
    """The schedule for three exponents, and sorted masks under both clips."""
    drawing, (left, right) = axes(2, height=3.3)
    for colour, c in zip(COLOURS, (2.0, 4.0, 8.0), strict=False):
        u, s = evidence.series[f"c = {c:g}"]
        left.plot(u, s, color=colour, label=f"c = {c:g}")
    left.axhline(0.9, color="#888888", linewidth=0.8, linestyle=":")
    left.set_xlabel("progress u of the phase")
    left.set_ylabel("share of blocks removed")
    legend(left, loc="lower right")
    a, printed, corrected = evidence.series["masks"]
    rank = np.arange(1, a.size + 1)
    right.plot(rank, printed, color=COLOURS[1], label="clipped to [Nρ, N/ρ]")
    right.plot(rank, a, color="#888888", linewidth=3.0, alpha=0.5, label="masks")
    right.plot(rank, corrected, color=COLOURS[0], linewidth=1.2, label="clipped to [ρ, 1/ρ]")
    right.axvline(100, color="#888888", linewidth=0.8, linestyle=":")
    right.text(110, 2000.0, "k = ρN", color=INK, fontsize=9)
    right.set_yscale("log")
    right.set_ylim(0.02, 5000.0)
    right.set_xlabel("rank of the block")
    right.set_ylabel("mask")
    legend(right, loc="center right", bbox_to_anchor=(1.0, 0.56))
    return drawing


STATEMENT = Statement(
    name="sequential_attention_recipe",
    number="Algorithm 1",
    title="masks, schedule and phases of SequentialAttention++",
    source="arXiv 2402.17902 v1, Algorithm 1 and the appendix on the experiments",
    text="""
The masks of N blocks are A = N softmax(ℓ), with mean 1. Over a sparsification phase
    s(u) = s (1 − e^{−cu}) / (1 − e^{−c}),  c = 4,
of the blocks are gone at the fraction u of the phase; those that stay are chosen among those that stayed. At density ρ
the masks of k = ρN equal survivors are N/k = 1/ρ, which a clip has to allow.
""",
    hypotheses={},
    check=check,
    figure=figure,
    caption="Left: the schedule towards 90 %. Right: 1000 masks, sorted, ρ = 0.1; the printed range makes all of them "
    "equal to 100, the corrected one cuts the two ends only.",
)
