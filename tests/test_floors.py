"""Data flows one way: a file imports only from the floors below its own.

The imports are read, not executed, so those inside functions count as well. Files of one package share a floor and may
use each other; two entries on one floor may not, except for the pairs in SIDEWAYS.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparseopt import _HOMES

# Modules or packages right under `sparseopt`, from the ground up.
FLOORS = (
    ("scalar", "jit", "structs", "vectors", "progress", "console", "threads"),
    ("groups", "designs", "losses", "regularizers", "datasets"),
    ("penalty",),
    ("cardinality",),
    ("problem",),
    ("optimality",),
    ("solution",),
    ("centring",),
    ("solvers", "selection", "certificates", "convex"),
    ("paths", "laws"),
    ("evidence",),
    ("validation",),
    ("estimators", "plotting", "nn"),
    ("proofs_checks", "experiments"),
    ("cli",),
    ("__main__",),
)
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}

# The same inside `sparseopt.nn`.
NN_FLOORS = (
    ("blocks", "schedule", "sharding", "wholefile", "randomness"),
    ("budget", "masks", "optstate", "plaindata"),
    ("weights",),
    ("rules",),
    ("planning",),
    ("layers",),
    ("masking", "penalty", "probing", "events", "agreement", "correspondence"),
    ("methods", "proximal", "reporting"),
    ("identity", "readiness"),
    ("sparsifier",),
    ("pruning", "checkpoint", "logs", "pictures", "integrations"),
    ("sparse",),
)
NN_DOORS = {
    ("schedule", "pictures"): "schedule.plot() draws",
    ("reporting", "pictures"): "report.plot() draws",
}

# The same inside `sparseopt.nn.sparse`.
SPARSE_FLOORS = (
    ("format", "geometry", "tile", "team", "outputs", "triton_source", "vocabulary"),
    ("machine", "triton_kernels", "reference", "literals"),
    ("packing", "standard", "tensorfiles"),
    ("kernels",),
    ("products",),
    ("ops",),
    ("layers", "shrinking"),
    ("wiring", "records"),
    ("densify", "fusing", "removal", "timing", "detection", "calls", "candidates", "choices", "graphs"),
    ("deciding", "rivals", "files", "onnx_export"),
    ("compression", "pretrained"),
    ("benchmark",),
    ("pictures",),
)

# The same inside `sparseopt.experiments`.
EXPERIMENT_FLOORS = (
    ("networks", "cifar", "problems", "planted_groups", "planted_teacher", "group_recovery_report", "tables"),
    ("clicks", "images", "judging", "work", "fine_tuning", "group_recovery_claims", "group_recovery_figures"),
    ("peers", "training", "growth_report"),
    ("serving",),
    ("processes",),
    ("race", "contenders"),
    ("solver_report",),
    ("solver_figures",),
    ("solver_page",),
    ("bench_solvers",),
    ("bench_clicks", "bench_growth", "bench_nn_overhead", "bench_selection"),
    ("prune_cifar", "group_recovery", "tuning", "kept_fields"),
)

INSIDE = {
    "nn": (NN_FLOORS, NN_DOORS),
    "nn.sparse": (SPARSE_FLOORS, {}),
    "experiments": (EXPERIMENT_FLOORS, {}),
}

# (who, whom) on one floor, and why.
SIDEWAYS = {
    (
        "experiments",
        "proofs_checks",
    ): "the figures of the paper's tables have one home, where their arithmetic is checked",
    ("selection", "solvers"): "sequential selection asks penalised problems which group enters next",
    ("vectors", "jit"): "its loops are compiled",
    ("structs", "jit"): "a class whose methods run in kernels is a source of those kernels",
}

# (who, whom): methods that users look for on an object and that lead upwards, imported when called.
DOORS = {
    ("solution", "evidence"): "solution.certify(...) asks solvers for evidence",
}

FOLDERS = {"sparseopt": (), "nn": ("nn",), "proofs_checks": ("proofs_checks",), "experiments": ("experiments",)}


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything a file imports from sparseopt, wherever in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def violations(root: Path) -> list[str]:
    """One sentence per import that does not go down."""
    found = []
    for folder, prefix in FOLDERS.items():
        for file in sorted((root / folder).rglob("*.py")):
            parts = (*prefix, *file.relative_to(root / folder).with_suffix("").parts)
            if parts == ("__init__",):  # the table of public names: tests/test_import.py
                continue
            for line, name in imports(ast.parse(file.read_text(encoding="utf-8"))):
                if name.split(".")[0] == "sparseopt":
                    found += [f"{file.relative_to(root)}:{line}: {why}" for why in _objections(parts[0], name)]
    return found


def _objections(who: str, name: str) -> Iterator[str]:
    parts = name.split(".")[1:]
    whom = _HOMES.get(parts[0], parts[0]).split(".")[0] if parts else ""
    if whom in ("", "__version__"):  # the bare package holds the version and nothing else at import
        return
    if who not in FLOOR or whom not in FLOOR:
        yield f"{who if who not in FLOOR else whom} stands on no floor: add it to FLOORS"
    elif who != whom and (who, whom) not in DOORS:
        if FLOOR[whom] > FLOOR[who]:
            yield f"{who} (floor {FLOOR[who]}) imports {name} (floor {FLOOR[whom]}), which is above"
        elif FLOOR[whom] == FLOOR[who] and (who, whom) not in SIDEWAYS:
            yield f"{who} imports {name} from its own floor {FLOOR[who]}"
        if any(part.startswith("_") and not part.startswith("__") for part in parts):
            yield f"{who} imports {name}, which is private to {whom}"


def test_imports_go_down(root: Path) -> None:
    assert violations(root) == []


def inner_violations(root: Path, inside: str = "nn") -> list[str]:
    """One sentence per import inside `sparseopt.nn`, or another folder of INSIDE, that does not go down."""
    floors, doors = INSIDE[inside]
    floor = {name: number for number, names in enumerate(floors) for name in names}
    package = ["sparseopt", *inside.split(".")]
    folder = root.joinpath(*package[1:])
    found = []
    for file in sorted(folder.rglob("*.py")):
        who = file.relative_to(folder).with_suffix("").parts[0]
        if who == "__init__":
            continue
        for line, name in imports(ast.parse(file.read_text(encoding="utf-8"))):
            parts = name.split(".")
            whom = parts[len(package)] if parts[: len(package)] == package and len(parts) > len(package) else who
            if who not in floor or whom not in floor:
                found.append(f"{file.name}:{line}: {who if who not in floor else whom} stands on no floor")
            elif who != whom and floor[whom] >= floor[who] and (who, whom) not in doors:
                found.append(f"{file.name}:{line}: {who} imports {name}, which is not below")
    return found


@pytest.mark.parametrize("inside", INSIDE)
def test_imports_inside_a_folder_go_down(root: Path, inside: str) -> None:
    assert inner_violations(root, inside) == []


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("nn/masks.py", "from sparseopt.nn.planning import Plan", "not below"),
        ("nn/methods/own.py", "def f():\n    import sparseopt.nn.sparsifier", "not below"),
        ("nn/methods/own.py", "from sparseopt.nn import prune", "no floor"),
        ("nn/manager.py", "from sparseopt.nn.blocks import BlockGrid", "no floor"),
        ("nn/sparse/format.py", "from sparseopt.nn.sparse.ops import linear", "not below"),
        ("nn/sparse/kernels.py", "from sparseopt.nn.sparse import layers", "not below"),
        ("experiments/clicks/raw.py", "from sparseopt.experiments.training import engine", "not below"),
        ("experiments/images/own.py", "from sparseopt.experiments.clicks import raw", "not below"),
        ("experiments/own.py", "from sparseopt.experiments.clicks import raw", "no floor"),
    ],
)
def test_a_wrong_tree_inside_a_folder_is_rejected(tmp_path: Path, file: str, text: str, reason: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(text)
    inside = max((name for name in INSIDE if file.startswith(name.replace(".", "/"))), key=len)
    (objection,) = inner_violations(tmp_path, inside)
    assert reason in objection


def test_every_exception_is_used(root: Path) -> None:
    used = set()
    for who, whom in SIDEWAYS:
        homes = (root / "sparseopt", root) if who in FOLDERS else (root / "sparseopt",)
        for file in [each for home in homes for each in (*home.glob(f"{who}.py"), *(home / who).rglob("*.py"))]:
            names = [name for _, name in imports(ast.parse(file.read_text(encoding="utf-8")))]
            used |= {(who, whom) for name in names if name.startswith(f"sparseopt.{whom}")}
    assert used == set(SIDEWAYS)


WRONG = {
    "upwards": ("sparseopt/problem.py", "from sparseopt.solvers import bcd", "above"),
    "upwards in a function": ("sparseopt/problem.py", "def f():\n    from sparseopt.solvers import bcd", "above"),
    "upwards by a string": ("sparseopt/problem.py", "import_module('sparseopt.paths')", "above"),
    "through the public name": ("sparseopt/designs.py", "from sparseopt import Problem", "above"),
    "upwards from inside a package": ("sparseopt/losses/loss.py", "import sparseopt.solution", "above"),
    "the judge asks the player": ("sparseopt/certificates/gap.py", "from sparseopt.solvers import bcd", "own floor"),
    "sideways": ("sparseopt/losses/loss.py", "from sparseopt.designs import Dense", "own floor"),
    "the core needs torch": ("sparseopt/solvers/bcd.py", "import sparseopt.nn.blocks", "above"),
    "a floor skipped by nn": (
        "nn/methods/iht.py",
        "from sparseopt.estimators import GroupSparseRegressor",
        "own floor",
    ),
    "not public": ("experiments/bench.py", "from sparseopt.solvers._loop import run", "private"),
    "no floor": ("sparseopt/utils.py", "from sparseopt.jit import kernel", "no floor"),
}


@pytest.mark.parametrize(("file", "text", "reason"), WRONG.values(), ids=WRONG)
def test_a_wrong_tree_is_rejected(tmp_path: Path, file: str, text: str, reason: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(text)
    (objection,) = violations(tmp_path)
    assert objection.startswith(f"{file}:")
    assert reason in objection


RIGHT = {
    "downwards": ("sparseopt/problem.py", "from sparseopt.groups import Groups, as_groups\nimport numpy as np"),
    "inside a package": ("sparseopt/solvers/bcd.py", "from sparseopt.solvers._loop import run"),
    "the version": ("sparseopt/solution.py", "from sparseopt import __version__\nimport sparseopt"),
    "public names": ("experiments/bench.py", "from sparseopt import Problem, solve\nfrom sparseopt.nn import blocks"),
}


@pytest.mark.parametrize(("file", "text"), RIGHT.values(), ids=RIGHT)
def test_a_right_tree_is_accepted(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(text)
    assert violations(tmp_path) == []
