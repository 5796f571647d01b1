"""Recipes: what is shipped, what a faulty one answers, what overrides and sweeps make of one."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sparseopt.experiments.networks import click_model, resnet20, resnet50
from sparseopt.experiments.training.fields import nearest_key
from sparseopt.experiments.training.overrides import KEYS, VALUES, found_key, lookup
from sparseopt.experiments.training.recipes import (
    ClickData,
    ImageData,
    Model,
    Pruning,
    Recipe,
    RecipeError,
    Training,
    read_recipe,
    shipped,
)
from sparseopt.nn import METHODS, Exponential, plan
from sparseopt.proofs_checks.paper_tables import tables

OURS = "sequential-attention++"
TABLES = {1: "imagenet-table1", 2: "criteo-table2", 3: "imagenet-table3", 4: "imagenet-table4"}
PLAIN = {
    "task": "clicks",
    "data": {"path": "rows"},
    "pruning": {"method": "ac/dc", "sparsity": 0.9, "block": 20},
    "training": {"epochs": 4, "batch": 1024, "lr": 0.001},
}
IMAGES = {**PLAIN, "task": "images", "data": {"path": "images"}, "model": {"name": "resnet50"}}


def with_values(base: dict[str, Any], **values: Any) -> dict[str, Any]:
    """A copy of a mapping of sections with other values, "section__key"."""
    changed = {key: dict(each) if isinstance(each, dict) else each for key, each in base.items()}
    for name, value in values.items():
        section, _, key = name.partition("__")
        if key:
            changed.setdefault(section, {})[key] = value
        else:
            changed[section] = value
    return changed


def told(mapping: Any) -> str:
    """What is wrong with a recipe."""
    with pytest.raises(RecipeError) as error:
        Recipe.from_mapping(mapping)
    return str(error.value)


def require_sentences(text: str) -> None:
    """Every line is a sentence, and none of pydantic's or Python's own words are in it."""
    for line in text.split("\n"):
        assert line[-1:] in (".", "?"), text
        assert line.strip(), text
    for foreign in ("Input should", "type=", "input_value", "pydantic", "Traceback", "<class", "validation error"):
        assert foreign not in text, text


# -- what is shipped ---------------------------------------------------------------------------------------------------


@cache
def the_cells(name: str) -> tuple[Any, ...]:
    return read_recipe(name).cells()


@cache
def network(name: str) -> nn.Module:
    return {"click": lambda: click_model([5] * 39), "resnet20": resnet20, "resnet50": resnet50}[name]()


def place(recipe: Recipe) -> tuple[Any, ...]:
    """(method, whether it sparsifies, c, block, percent, seed) of a cell of the paper's tables."""
    pruning = recipe.pruning
    if pruning is None:
        return ("dense", recipe.training.seed)
    share = pruning.make_method().share
    assert isinstance(share, Exponential)
    phases = recipe.phases(10_000)
    assert phases is not None
    gradual = any(phase.kind == "sparsify" for phase in phases.phases)
    return (
        pruning.method,
        gradual,
        share.c if gradual else None,
        pruning.block,
        round(100 * pruning.sparsity),
        recipe.training.seed,
    )


def places(number: int) -> list[tuple[Any, ...]]:
    """What the paper has in a table, seeds included."""
    rows = tables()[f"table{number}"]["rows"]
    if number == 1:
        pairs = [(row["block"], row["nominal_sparsity"]) for row in rows]
        ours, acdc = ((name, gradual, c) for name, gradual, c in ((OURS, True, 4.0), ("ac/dc", False, None)))
        return [("dense", 0), *((*method, *pair, 0) for method in (ours, acdc) for pair in pairs)]
    if number == 2:
        methods = {
            "magnitude": ("magnitude", False, None),
            "powerpropagation": ("power-propagation", False, None),
            "acdc": ("ac/dc", False, None),
            "sequential_attention_pp": (OURS, True, 4.0),
        }
        return [("dense", seed) for seed in range(3)] + [
            (*methods[column], row["block"], row["sparsity"], seed)
            for row in rows
            for column in methods
            if row[column] is not None
            for seed in range(3)
        ]
    if number == 3:
        return [(OURS, False, None, row["remapped_block"], row["remapped_sparsity"], 0) for row in rows]
    return [(OURS, True, float(row["c"]), row["block"], 90, 0) for row in rows]


@pytest.mark.parametrize("number", TABLES)
def test_every_cell_of_a_table_is_one_cell_of_its_recipe(number: int) -> None:
    assert Counter(place(cell.recipe) for cell in the_cells(TABLES[number])) == Counter(places(number))


def test_no_training_is_in_two_tables_but_that_with_c_4() -> None:
    found: dict[tuple[Any, ...], list[int]] = {}
    for number, name in TABLES.items():
        for cell in the_cells(name):
            found.setdefault((cell.recipe.task, *place(cell.recipe)), []).append(number)
    twice = {where: numbers for where, numbers in found.items() if len(numbers) > 1}
    assert set(twice) == {("images", OURS, True, 4.0, block, 90, 0) for block in (8, 16, 32, 64)}
    assert all(numbers == [1, 4] for numbers in twice.values())


def test_criteo_recipes_are_pruned_as_the_paper_says() -> None:
    for cell in the_cells("criteo-table2"):
        recipe = cell.recipe
        assert (recipe.training.batch, recipe.training.epochs, recipe.training.optimizer) == (32768, 25, "adam")
        assert (recipe.training.lr, recipe.training.final_lr, recipe.training.decay) == (0.02, 0.0003, "exponential")
        if recipe.pruning is None:
            continue
        assert recipe.pruning.settings == ({"zero": False} if recipe.pruning.method == "ac/dc" else {})
        phases = recipe.phases(1000)
        assert phases is not None
        kinds = [phase.kind for phase in phases.phases]
        if recipe.pruning.method in ("magnitude", "power-propagation"):
            assert phases.to_list() == [["dense", 800], ["sparse", 200]]
        else:
            assert phases.to_list()[0] == ["dense", 200]
            assert phases.to_list()[-1] == ["sparse", 200]
            assert kinds.count("dense") == 11 - (recipe.pruning.method == OURS)


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_recipe_says_what_it_is(name: str, root: Path) -> None:
    recipe = read_recipe(name)
    assert f"\nsparseopt {'sweep' if recipe.sweep else 'prune'} {name} data=DIR" in recipe.about
    assert "\nCost" in recipe.about
    assert "arXiv 2402.17902" in recipe.about
    text = (root / "experiments" / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("name", shipped())
def test_commands_in_shipped_recipes_work(name: str) -> None:
    for line in read_recipe(name).about.splitlines():
        if not line.startswith("sparseopt "):
            continue
        words = line.split("  ")[0].split()
        changes = [word for word in words[3:] if "=" in word]
        recipe = read_recipe(words[2], changes)
        assert words[1] == "sweep" or recipe.single().name
        assert lookup(recipe.to_mapping(), "data.path").startswith("DIR")


@pytest.mark.parametrize("name", shipped())
def test_the_pruning_of_a_shipped_recipe_fits_its_network(name: str) -> None:
    seen = set()
    for cell in the_cells(name):
        pruning = cell.recipe.pruning
        if pruning is None:
            continue
        options = pruning.plan_options(network(cell.recipe.model.name))
        if repr(options) not in seen:
            seen.add(repr(options))
            found = plan(network(cell.recipe.model.name), **options)
            if cell.recipe.task == "clicks":
                assert [layer.name for layer in found.layers] == ["dense.0.weight"]
            else:
                assert all(layer.grid.n_blocks >= pruning.min_blocks for layer in found.layers)
                assert not any(layer.name.startswith(tuple(pruning.exclude) or ("-",)) for layer in found.layers)
        # Shortest trainings of the recipes: 60 steps, and 4 epochs of 108.
        total = cell.recipe.training.steps or 432
        phases = cell.recipe.phases(total) or pruning.make_method().schedule(total)
        assert phases.total == total
        assert phases.phases[-1].kind == "sparse"


def test_real_sparsities_of_table_1_are_the_papers() -> None:
    real = {(row["block"], row["nominal_sparsity"]): row["real_sparsity"] for row in tables()["table1"]["rows"]}
    for cell in the_cells("imagenet-table1"):
        if (pruning := cell.recipe.pruning) is not None and pruning.method == OURS:
            found = plan(network("resnet50"), **pruning.plan_options(network("resnet50")))
            assert round(100 * found.real_sparsity) == real[place(cell.recipe)[3:5]]


@pytest.mark.parametrize("name", shipped())
def test_shipped_recipes_are_the_same_after_writing(name: str) -> None:
    recipe = read_recipe(name)
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    for cell in the_cells(name)[::11]:
        again = Recipe.from_yaml(cell.recipe.to_yaml())
        assert again == cell.recipe
        assert again.single().recipe == again
        assert again.to_yaml() == cell.recipe.to_yaml()


@pytest.mark.parametrize("name", ["criteo-laptop", "cifar-laptop"])
def test_a_laptop_sweep_has_the_single_training_in_it(name: str) -> None:
    def decisive(recipe: Recipe) -> dict[str, Any]:
        return {key: each for key, each in recipe.to_mapping().items() if key not in ("about", "hardware", "output")}

    single = read_recipe(name).single()
    inside = [cell for cell in the_cells(f"{name}-sweep") if cell.name == single.name]
    assert [decisive(cell.recipe) for cell in inside] == [decisive(single.recipe)]


# -- valid recipes -----------------------------------------------------------------------------------------------------

SHARES = st.floats(0.01, 0.99)
POSITIVE = st.floats(1e-6, 1e6)
WORDS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=12).filter(
    str.strip
)


def some(values: dict[str, st.SearchStrategy[Any]], **needed: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(needed, optional=values)


def schedules() -> st.SearchStrategy[Any]:
    lengths = st.lists(st.integers(1, 20), min_size=1, max_size=5)
    shares = lengths.map(lambda counts: [["dense", n / sum(counts)] for n in counts])
    return st.sampled_from(["own", "imagenet", "criteo"]) | shares


CLICKS = some(
    {
        "protocol": st.sampled_from(["files", "x1", "x4", "time"]),
        "train": WORDS | st.none(),
        "min_count": st.integers(1, 100),
        "hash_bins": st.none() | st.integers(1, 10**6),
        "numbers": st.sampled_from(["buckets", "values"]),
        "holdout": st.just(0) | SHARES,
    },
    path=WORDS,
)
PICTURES = some({"kind": st.sampled_from(["folder", "cifar"]), "size": st.integers(1, 500)}, path=WORDS)
PRUNING = some(
    {
        "block": st.integers(1, 64) | st.tuples(st.integers(1, 9), st.none() | st.integers(1, 9)),
        "min_blocks": st.integers(0, 100),
        "include": st.lists(WORDS, max_size=2),
        "exclude": WORDS,
        "budget": st.sampled_from(["uniform", "global", "erk", "flops"]),
        "schedule": schedules(),
        "sparsify": st.booleans() | st.none(),
        "logit_weight_decay": st.none() | st.floats(0, 1),
        "settings": some(
            {"c": st.floats(0, 10), "reset": st.sampled_from(["layers", "all"]), "updates": st.just("1e2")}
        ),
    },
    method=st.sampled_from([*METHODS, "sa++", "ACDC", "l1"]),
    sparsity=SHARES,
)
TRAINING = some(
    {
        "optimizer": st.sampled_from(["adam", "adamw", "sgd"]),
        "final_lr": st.floats(0, 1),
        "decay": st.sampled_from(["cosine", "constant"]),
        "weight_decay": st.sampled_from([0, "1e-4", 1e-4]),
        "ema": st.none() | SHARES,
        "seed": st.integers(0, 2**40),
        "deterministic": st.booleans(),
    },
    epochs=st.integers(1, 100) | st.floats(0.1, 9.0),
    batch=st.integers(1, 10**5),
    lr=POSITIVE | st.just("1e-3"),
)
REST = {
    "about": st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp")) | st.just("\n"), max_size=40),
    "hardware": some({"devices": st.just("auto") | st.integers(1, 8), "threads": st.none() | st.integers(1, 8)}),
    "output": some({"folder": WORDS, "tensorboard": st.sampled_from(["auto", True, False])}),
    "sweep": some(
        {
            "pruning.method": st.lists(st.sampled_from(["dense", "ac/dc", OURS]), min_size=1, max_size=3),
            "pruning.block": st.lists(st.integers(1, 9) | st.just([4, None]), min_size=1, max_size=3),
            "training.seed": st.lists(st.integers(0, 9), min_size=1, max_size=3),
            "output.folder": st.lists(WORDS, min_size=1, max_size=2),
        }
    ),
    "variants": some(
        {
            "pruning.block": st.dictionaries(st.integers(1, 9), some({"training.lr": POSITIVE}), max_size=2),
            "pruning.method": st.just({"ac/dc": {"pruning.settings.zero": False, "schedule": "own"}}),
        }
    ),
}
RECIPES = some({"pruning": PRUNING, **REST}, task=st.just("clicks"), data=CLICKS, training=TRAINING) | some(
    {"pruning": st.none() | PRUNING, **REST},
    task=st.just("images"),
    data=PICTURES,
    model=st.just({"name": "resnet20"}),
    training=TRAINING,
)


def without_settings_of_others(mapping: dict[str, Any]) -> dict[str, Any]:
    """A pruning of nothing cannot be swept; settings are left out where methods change, since not all have them."""
    if mapping.get("pruning") is None:
        mapping["sweep"] = {key: each for key, each in mapping.get("sweep", {}).items() if key[:8] != "pruning."}
    return mapping


@given(RECIPES.map(without_settings_of_others))
def test_what_is_written_is_read_as_the_same(mapping: dict[str, Any]) -> None:
    recipe = Recipe.from_mapping(mapping)
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    assert Recipe.from_mapping(recipe.to_mapping()) == recipe
    cells = recipe.cells()
    assert len({cell.name.lower() for cell in cells}) == len(cells)
    for cell in cells:
        assert re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,130}", cell.name)
        assert Recipe.from_yaml(cell.recipe.to_yaml()) == cell.recipe
        assert not cell.recipe.sweep
        assert not cell.recipe.variants


def test_numbers_may_be_written_without_a_point() -> None:
    text = yaml.safe_dump(PLAIN).replace("0.001", "1e-3").replace("1024", "1e3")
    training = Recipe.from_yaml(text).training
    assert (training.lr, training.batch) == (0.001, 1000)
    assert type(training.batch) is int


def test_sections_can_be_made_by_themselves() -> None:
    training = Training(epochs=2, batch=8, lr=0.1)
    recipe = Recipe(task="clicks", data=ClickData(path="rows"), training=training, sweep={"training.seed": [0, 1]})
    assert [cell.name for cell in recipe.cells()] == ["dense_seed0", "dense_seed1"]
    assert recipe.training.lr == 0.1
    assert (
        Recipe(task="images", data=ImageData(path="x"), model=Model(name="vit_b_16"), training=training).phases(9)
        is None
    )


def test_recipes_cannot_be_changed() -> None:
    recipe = Recipe.from_mapping(PLAIN)
    with pytest.raises(ValueError, match="frozen"):
        recipe.training.lr = 1.0


# -- faults ------------------------------------------------------------------------------------------------------------

FAULTS = [
    ({"training__lr": "fast"}, "training.lr must be a number above 0, got 'fast'."),
    ({"training__lr": 0}, "training.lr must be a number above 0, got 0."),
    ({"training__lr": float("inf")}, "training.lr must be a number above 0, got inf."),
    ({"training__lr": float("nan")}, "training.lr must be a number above 0, got nan."),
    ({"training__lr": True}, "training.lr must be a number above 0, got true."),
    ({"training__batch": -1}, "training.batch must be a whole number of at least 1, got -1."),
    ({"training__batch": 2.5}, "training.batch must be a whole number of at least 1, got 2.5."),
    ({"training__batch": None}, "training.batch must be a whole number of at least 1, got null."),
    ({"training__accumulate": 3}, "training.batch is 1024 and training.accumulate 3, which does not divide it."),
    ({"training__optimizer": "adm"}, "training.optimizer must be 'adam', 'adamw' or 'sgd', got 'adm': did you"),
    ({"training__bacth": 8}, "training.bacth is no key of a recipe: did you mean 'training.batch'?"),
    ({"lr": 1}, "lr is no key of a recipe: did you mean 'training.lr'?"),
    ({"trainig": {}}, "trainig is no key of a recipe: did you mean 'training'?"),
    ({"training": 3}, "training must be a mapping of keys to values, got 3."),
    ({"training": {"batch": 8, "epochs": 1}}, "training.lr is missing."),
    ({"training__steps": 5}, "training.epochs and training.steps are 4 and 5: give one of them"),
    ({"training__epochs": None}, "training.epochs and training.steps are both missing: give one"),
    ({"training__decay": "exponential"}, "training.decay is exponential and never reaches 0: set"),
    ({"training__warmup": 4}, "training.warmup is 4 epochs of 4: leave some for the rest."),
    ({"training__nesterov": True}, "training.nesterov is true, which needs training.optimizer sgd"),
    ({"training__deterministic": 1}, "training.deterministic must be true or false, got 1."),
    ({"training__label_smoothing": 0.1}, "training.label_smoothing is not for the task 'clicks': leave it out."),
    ({"data__size": 3}, "data.size is not for the task 'clicks': it takes path,"),
    ({"data__pat": 3}, "data.pat is no key of a recipe: did you mean 'data.path'?"),
    ({"data": {}}, "data.path is missing."),
    ({"data__path": 3}, "data.path must be text, got 3."),
    ({"about": 3}, "about must be text, got 3."),
    ({"about": "\x85"}, "about must be text without control characters, got '\\x85'."),
    ({"data__path": "\0"}, "data.path must be text without control characters, got '\\x00'."),
    ({"data__path": " "}, "data.path must be text, got ' '."),
    ({"training__lr": "5_"}, "training.lr must be a number above 0, got '5_'."),
    ({"task": "click"}, "task must be 'clicks' or 'images', got 'click': did you mean 'clicks'?"),
    ({"model": {"weights": "x"}}, "model.weights is not for the task 'clicks': leave it out."),
    ({"model": {"name": "resnet50"}}, "model.name is 'resnet50', and the task 'clicks': choose click."),
    ({"model": {"hidden": 400}}, "model.hidden must be a list, got 400."),
    ({"model": {"hidden": [400, -4]}}, "model.hidden.1 must be a whole number of at least 1, got -4."),
    ({"pruning__sparsity": 1}, "pruning.sparsity must be a number between 0 and 1, both excluded, got 1."),
    ({"pruning__sparsity": 90}, "pruning.sparsity must be a number between 0 and 1, both excluded, got 90."),
    ({"pruning__block": 0}, "pruning.block must be a whole number of at least 1, or two"),
    ({"pruning__block": [None, None]}, "pruning.block must be a whole number of at least 1, or two"),
    ({"pruning__block": [4, 4, 4]}, "pruning.block must be a whole number of at least 1, or two"),
    ({"pruning__method": "acd"}, "pruning.method 'acd' is not known: did you mean 'ac/dc'?"),
    ({"pruning__method": "dens"}, "pruning.method 'dens' is not known: did you mean 'dense'?"),
    ({"pruning__method": None}, "pruning.method must be text, got null."),
    ({"pruning": {"method": "ac/dc"}}, "pruning.sparsity is missing."),
    ({"pruning__settings": {"zer": 1}}, "pruning.settings: method 'ac/dc' has no setting 'zer': did you mean 'zero'?"),
    ({"pruning__settings": {"zero": 2}}, "pruning.settings: zero must be True or False, got 2."),
    ({"pruning__settings": {"c": -1}}, "pruning.settings: c must be a finite number of at least 0, got -1.0."),
    ({"pruning__settings": {"c": 4, "share": "cubic"}}, "pruning.settings: c is the exponent of the share exponential"),
    ({"pruning__settings": {"share": "cubi"}}, "pruning.settings: share must be exponential, cubic, linear, got"),
    ({"pruning__settings": {"zero": {}}}, "pruning.settings.zero must be text, a number, true, false, null, or a list"),
    ({"pruning__schedule": "cifar"}, "pruning.schedule must be own, imagenet, criteo, or a list such as"),
    ({"pruning__schedule": [["dense", 0.2], ["sparse", 0.7]]}, "pruning.schedule: the shares of the phases must"),
    ({"pruning__schedule": [["dens", 0.2], ["sparse", 0.8]]}, "pruning.schedule: a phase is one of dense"),
    ({"hardware": {"devices": 0}}, "hardware.devices must be a whole number of at least 1, or auto, got 0."),
    ({"hardware": {"precision": "bf16"}}, "hardware.precision must be"),
    ({"output": {"tensorboard": "yes"}}, "output.tensorboard must be true, false or auto, got 'yes'."),
    ({"sweep": 3}, "sweep must be a mapping of keys to lists of values, got 3."),
    ({"sweep": {"training.seed": 3}}, "sweep.training.seed must be a list of values, got 3."),
    ({"sweep": {"training.seed": []}}, "sweep.training.seed must be a list of values, got []."),
    ({"sweep": {"training.sed": [3]}}, "sweep: 'training.sed' is no key of a recipe: did you mean 'training.seed'?"),
    ({"sweep": {"seed": [0], "training.seed": [1]}}, "sweep has training.seed twice: join the two lists."),
    ({"sweep": {"training.seed": [0, -1]}}, "in the cell training.seed=-1: training.seed must be a whole number"),
    ({"sweep": {"training.seed": [{}]}}, "sweep.training.seed must be text, a number, true, false, null, or a list"),
    ({"sweep": {"training.seed": [*range(200)], "pruning.block": [*range(1, 200)]}}, "sweep has 39,800 combinations"),
    ({"pruning": None, "sweep": {"pruning.block": []}}, "sweep.pruning.block must be a list of values, got []."),
    ({"variants": 3}, "variants must be a mapping, key: {value: {key: value}}, got 3."),
    ({"variants": {"pruning.block": {20: 3}}}, "variants.pruning.block must be a mapping, value: {key: value}, got"),
    ({"variants": {"pruning.block": {20: {"lrr": 3}}}}, "variants.pruning.block: 'lrr' is no key of a recipe"),
    ({"variants": {"pruning.block": {20: {"lr": "x"}}}}, "training.lr must be a number above 0, got 'x'."),
    (
        {"sweep": {"training.lr": [1, 2]}, "variants": {"pruning.block": {20: {"lr": 1}}}},
        "variants.pruning.block sets training.lr, which the sweep varies: keep one of the two.",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("values", "sentence"), FAULTS, ids=[str(each[0])[:50] for each in FAULTS])
def test_a_fault_is_told_in_one_sentence(values: dict[str, Any], sentence: str) -> None:
    said = told(with_values(PLAIN, **values))
    require_sentences(said)
    assert "\n" not in said
    assert said.startswith(sentence)


def test_faults_of_images_are_told_too() -> None:
    assert told(with_values(IMAGES, model={"name": "click"})).startswith("model.name is 'click', and the task 'images'")
    assert told(with_values(IMAGES, model__dropout=0.1)) == "model.dropout is not for the task 'images': leave it out."
    assert told(with_values(IMAGES, data__protocol="x1")).startswith("data.protocol is not for the task 'images'")


def test_every_fault_has_its_sentence() -> None:
    lines = told(with_values(PLAIN, training__lr="x", training__batch=0, data__path=3, nothing=1)).split("\n")
    assert [line.split()[0] for line in lines] == ["data.path", "training.batch", "training.lr", "nothing"]
    assert told({}).split("\n") == ["task is missing.", "data is missing.", "training is missing."]


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=5,
)


def require_answer(read: Any) -> None:
    """A recipe, or a ValueError in sentences."""
    try:
        recipe = read()
    except ValueError as error:
        kind, words = type(error), str(error)
    else:
        assert Recipe.from_yaml(recipe.to_yaml()) == recipe
        return
    assert kind in (RecipeError, ValueError)
    require_sentences(words)


@given(st.sampled_from([PLAIN, IMAGES]), st.sampled_from(KEYS), JUNK)
def test_any_value_of_any_key_is_taken_or_told(base: dict[str, Any], key: str, value: Any) -> None:
    mapping = with_values(base)
    *sections, last = key.split(".")
    inner: Any = mapping
    for section in sections:
        inner = inner.setdefault(section, {})
    inner[last] = value
    require_answer(lambda: Recipe.from_mapping(mapping))


@given(st.sampled_from(VALUES), st.lists(JUNK, max_size=3), JUNK)
def test_any_sweep_and_any_variant_is_taken_or_told(key: str, values: list[Any], other: Any) -> None:
    require_answer(lambda: Recipe.from_mapping({**PLAIN, "sweep": {key: values}}))
    require_answer(lambda: Recipe.from_mapping({**PLAIN, "variants": {key: other}}))
    require_answer(lambda: Recipe.from_mapping({**PLAIN, "variants": {"training.seed": {0: {key: other}}}}))


@given(st.text(max_size=60) | JUNK.map(lambda value: repr(value)))
def test_any_text_is_taken_or_told(text: str) -> None:
    require_answer(lambda: Recipe.from_yaml(text))
    require_answer(lambda: Recipe.from_mapping(PLAIN).override([text]))
    require_answer(lambda: Recipe.from_mapping(PLAIN).override([f"training.lr={text}"]))


TEXTS = [
    ("task: [", "the recipe is not YAML in line 1, column 8: "),
    ("a: 1\na: 2", "the recipe is not YAML in line 2, column 1: the key a stands twice."),
    ("a: &x [1]\nb: *x", "the recipe is not YAML in line 2, column 4: aliases are not for recipes."),
    ("a: 2001-99-99", "the recipe is not YAML: month must be in 1..12."),
    ("a: !!python/object:os.system x", "the recipe is not YAML in line 1, column 4: could not determine a constructor"),
    ("a: !!bool maybe", "the recipe is not YAML: 'maybe'."),
    ("- 1", "a recipe must be a mapping of keys to values, got [1]."),
    ("", "a recipe must be a mapping of keys to values, got null."),
    ("[" * 5000, "the recipe is not YAML: "),
]


@pytest.mark.parametrize(("text", "sentence"), TEXTS, ids=[text[:20] for text, _ in TEXTS])
def test_what_is_no_recipe_is_told(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(sentence)) as error:
        Recipe.from_yaml(text)
    require_sentences(str(error.value))


def test_recipes_are_found_by_path_and_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(PLAIN), encoding="utf-8")
    assert read_recipe(file) == read_recipe(str(file)) == Recipe.from_mapping(PLAIN)
    assert read_recipe("criteo-laptop") == read_recipe("criteo-laptop.yaml")
    monkeypatch.chdir(tmp_path)
    Path("criteo-laptop").mkdir()  # the folder of a run does not hide a recipe
    assert read_recipe("criteo-laptop").pruning is not None
    for wrong, sentence in (
        ("criteo-labtop", "there is no recipe 'criteo-labtop': did you mean 'criteo-laptop'?"),
        ("their.yaml", "there is no recipe 'their.yaml': neither a file, nor one of cifar-laptop, "),
        ("no\0name", "there is no recipe "),
    ):
        with pytest.raises(ValueError, match="^" + re.escape(sentence)):
            read_recipe(wrong)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"mine\.yaml is not text in UTF-8\.$"):
        read_recipe(file)


# -- keys and overrides ------------------------------------------------------------------------------------------------


def test_the_end_of_a_key_is_enough() -> None:
    for key in VALUES:
        assert found_key(key, "override") == key
    assert found_key("seed", "override") == "training.seed"
    assert found_key("settings.seed", "override") == "pruning.settings.seed"
    with pytest.raises(ValueError, match=r"^override: 'x' can be a\.x or b\.x: write more of it\.$"):
        found_key("x", "override", ["a.x", "b.x", "c.d.x"])
    with pytest.raises(ValueError, match=r"^override: 'blok' is no key of a recipe: did you mean 'pruning\.block'\?$"):
        found_key("blok", "override")
    assert nearest_key("zzzzzz", ["a.x", "b.y"]) == "choose one of a.x, b.y."


def changed(*changes: str, base: dict[str, Any] = PLAIN) -> Recipe:
    return Recipe.from_mapping(base).override(changes)


def test_overrides_change_values() -> None:
    recipe = changed("lr=1e-4", "block=[8, 16]", "method=sa++", "settings.c=2", "data=there", "schedule=[[sparse, 1]]")
    assert recipe.pruning == Pruning(
        method=OURS, sparsity=0.9, block=(8, 16), settings={"c": 2}, schedule=(("sparse", 1.0),)
    )
    assert (recipe.training.lr, recipe.data.path) == (0.0001, "there")
    assert changed("method=dense").pruning is changed("pruning=null").pruning is None
    assert changed("pruning=null", "method=ac/dc", "sparsity=.5").pruning == Pruning(method="ac/dc", sparsity=0.5)
    assert (changed("steps=7").training.steps, changed("steps=7").training.epochs) == (7, None)
    assert changed("steps=7", "epochs=2").training == changed("epochs=2").training
    assert changed("output.folder=a=b").output.folder == "a=b"
    assert changed() == Recipe.from_mapping(PLAIN)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("lr", "an override is written key=value, such as training.seed=1, got 'lr'."),
        ("=3", "an override is written key=value, such as training.seed=1, got '=3'."),
        ("learning_rate=3", "override: 'learning_rate' is no key of a recipe: "),
        ("lr=fast", "training.lr must be a number above 0, got 'fast'."),
        ("lr=[", "the value of lr is not YAML in line 1, column 2: "),
        ("training=3", "training must be a mapping of keys to values, got 3."),
        ("sweep=3", "sweep must be a mapping of keys to lists of values, got 3."),
        ("sweep.seed=3", "sweep.training.seed must be a list of values, got 3."),
    ],
)
def test_a_faulty_override_is_told(change: str, sentence: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(sentence)) as error:
        changed(change)
    require_sentences(str(error.value))


SWEPT = {
    **PLAIN,
    "pruning": {"sparsity": 0.5},
    "sweep": {"method": ["dense", "acdc", "magnitude"], "block": [5, 10], "sparsity": [0.9, 0.975], "seed": [0, 1]},
    "variants": {
        "method": {"acdc": {"settings.zero": False, "lr": 0.5}, "dense": {"lr": 2}},
        "block": {10: {"clip": 1}},
    },
}


def names(recipe: Recipe) -> list[str]:
    return [cell.name for cell in recipe.cells()]


def test_a_sweep_has_all_combinations_once() -> None:
    recipe = Recipe.from_mapping(SWEPT)
    expected = [f"dense_seed{n}" for n in range(2)] + [
        f"{method}_b{block}_s{share}_seed{seed}"
        for method in ("ac-dc", "magnitude")
        for block in (5, 10)
        for share in ("90", "97p5")
        for seed in range(2)
    ]
    assert names(recipe) == expected
    assert recipe.pruning is not None
    assert recipe.pruning.method == "ac/dc"  # the first that prunes


def test_variants_come_after_the_sweep_and_before_overrides() -> None:
    cells = {cell.name: cell.recipe for cell in Recipe.from_mapping(SWEPT).cells()}
    assert {cells[name].training.lr for name in cells if name.startswith("ac-dc")} == {0.5}
    assert {cells[name].training.lr for name in cells if name.startswith("magnitude")} == {0.001}
    assert {cells[name].training.lr for name in cells if name.startswith("dense")} == {2.0}
    assert {cells[name].training.clip for name in cells if "_b10_" in name} == {1.0}
    assert {cells[name].training.clip for name in cells if "_b10_" not in name} == {None}
    pruning = cells["ac-dc_b5_s90_seed0"].pruning
    assert pruning is not None
    assert pruning.settings == {"zero": False}
    for cell in changed("lr=0.25", base=SWEPT).cells():
        assert cell.recipe.training.lr == 0.25
    # a fixed value has its variants as well
    single = changed("method=ac/dc", "block=10", "sparsity=.9", "seed=1", base=SWEPT).single()
    assert single.name == "ac-dc_b10_s90_seed1"
    assert single.recipe == cells[single.name]


def test_overrides_fix_and_change_sweeps() -> None:
    assert names(changed("method=ac/dc", "block=10", "seed=0", base=SWEPT)) == [
        "ac-dc_b10_s90_seed0",
        "ac-dc_b10_s97p5_seed0",
    ]
    assert (
        names(changed("method=dense", base=SWEPT))
        == names(changed("pruning=null", base=SWEPT))
        == names(changed("method=[dense]", base=SWEPT))
        == ["dense_seed0", "dense_seed1"]
    )
    assert names(changed("seed=[3]", "block=[[4, null], 5]", "method=[ac/dc]", "sparsity=.9", base=SWEPT)) == [
        "ac-dc_b4xnull_s90_seed3",
        "ac-dc_b5_s90_seed3",
    ]
    assert names(changed("seed=[0, 1]", "lr=[1e-3, 1e-2]")) == [
        f"ac-dc_b20_s90_lr0p0{end}_seed{seed}" for seed in (0, 1) for end in ("01", "1")
    ]
    assert names(changed("sweep=null", base=SWEPT)) == ["ac-dc_b5_s50_seed0"]
    assert names(changed("sweep.seed=[7]", "method=[acdc]", "block=5", "sparsity=.9", base=SWEPT)) == [
        "ac-dc_b5_s90_seed7"
    ]


def test_one_training_is_a_single_one() -> None:
    recipe = Recipe.from_mapping(PLAIN)
    assert recipe.single().recipe == recipe
    assert recipe.single().name == "ac-dc_b20_s90_seed0"
    assert changed("seed=[3]").single().name == "ac-dc_b20_s90_seed3"
    with pytest.raises(
        ValueError, match=r"^the recipe is 2 trainings: use `sparseopt sweep`, or give a value for training\.seed\.$"
    ):
        changed("seed=[3, 4]").single()


@given(st.permutations(["method", "block", "sparsity", "seed"]), st.integers(0, 3))
def test_names_do_not_depend_on_what_else_is_swept(order: list[str], dropped: int) -> None:
    recipe = Recipe.from_mapping(SWEPT)
    values = {key: recipe.sweep[found_key(key, "test")] for key in order}
    turned = Recipe.from_mapping({**recipe.to_mapping(), "sweep": values})
    assert set(names(turned)) == set(names(recipe))
    by_name = {cell.name: cell.recipe for cell in recipe.cells()}
    fewer = {key: each[-1:] if key == order[dropped] else each for key, each in values.items()}
    for cell in Recipe.from_mapping({**recipe.to_mapping(), "sweep": fewer}).cells():
        assert by_name[cell.name] == cell.recipe


def test_names_are_told_apart() -> None:
    recipe = changed(
        "sweep.folder=[a/b, a-b, A B, ü, é]", "sweep.hidden=[[1], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]]"
    )
    assert len({*names(recipe)}) == 10
    assert all(re.fullmatch("[a-z0-9_-]+", name) for name in names(recipe))
    long = {f"training.{key}": [1, 2] for key in ("clip", "warmup", "recalibrate", "embedding_weight_decay", "lr")}
    long |= {
        "output.checkpoint_minutes": [1e-5, 2e-5],
        "output.evaluate_steps": [10**9, 10**10],
        "model.embedding": [9, 8],
    }
    found = names(Recipe.from_mapping({**PLAIN, "sweep": long}))
    assert len({*found}) == 2**8
    assert max(map(len, found)) <= 130


# -- pruning -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_every_method_can_be_in_a_recipe(name: str) -> None:
    pruning = Pruning(method=name, sparsity=0.9, settings={"c": 2})
    assert pruning.method == name
    assert pruning.make_method().share == Exponential(2.0)
    phases = Pruning(method=name, sparsity=0.9, schedule="criteo").phases(1000)
    own = pruning.make_method().schedule(1000)
    assert phases is not None
    assert {"sparsify"} & {phase.kind for phase in phases.phases} == {"sparsify"} & {phase.kind for phase in own.phases}


def test_whether_a_schedule_sparsifies_can_be_said() -> None:
    for schedule in ("imagenet", "criteo"):
        for sparsify in (True, False):
            pruning = Pruning(method="ac/dc", sparsity=0.9, schedule=schedule, sparsify=sparsify)
            phases = pruning.phases(1000)
            assert phases is not None
            assert any(phase.kind == "sparsify" for phase in phases.phases) is sparsify
    assert Pruning(method="ac/dc", sparsity=0.9).phases(1000) is None


def test_layers_are_included_by_name() -> None:
    model = network("click")
    for include, expected in (
        ((), {"dense.0.weight", "dense.2.weight", "dense.4.weight"}),
        (("dense.0",), {"dense.0.weight"}),
        (("dense.[24]",), {"dense.2.weight", "dense.4.weight"}),
        (("dense.0.weight", "dense.2"), {"dense.0.weight", "dense.2.weight"}),
    ):
        options = Pruning(method="ac/dc", sparsity=0.9, block=20, include=include).plan_options(model)
        assert {layer.name for layer in plan(model, **options).layers} == expected
    wrong = Pruning(method="ac/dc", sparsity=0.9, include=("dense.7",))
    with pytest.raises(ValueError, match=r"^pruning\.include: 'dense\.7' matches no layer: did you mean 'dense\."):
        wrong.plan_options(model)
