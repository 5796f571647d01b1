"""What a faulty recipe answers: one sentence for each fault, whatever is in the file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from recipe_cases import IMAGES, PLAIN, require_sentences, told, with_values

from sparseopt.experiments.training.overrides import KEYS, VALUES
from sparseopt.experiments.training.recipes import (
    Recipe,
    RecipeError,
    read_recipe,
)

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
