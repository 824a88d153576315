"""The same recipe has the same hash everywhere, and every other one has another."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fruits_assets.lake.lake import Lake
from fruits_assets.lake.recipe import Recipe
from fruits_assets_tests.lake.versions import again, publish

RECIPE = Recipe("featurize", "1", {"size": 96, "alpha": 0.35}, {"raw_images": "a", "weights": "b"})


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.at(str(tmp_path / "lake"))


def test_the_same_recipe_has_the_same_address_everywhere() -> None:
    assert RECIPE.version == "76d83ecb1f346b9c"


@pytest.mark.parametrize(
    "other",
    [
        {"transform": "ingest"},
        {"code_version": "2"},
        {"params": {"size": 96, "alpha": 0.5}},
        {"params": {"size": 96}},
        {"params": {}},
        {"inputs": {"raw_images": "a", "weights": "c"}},
        {"inputs": {"raw_images": "b", "weights": "a"}},
        {"inputs": {"raw_images": "a"}},
        {"salt": "run"},
        {"params": RECIPE.inputs, "inputs": RECIPE.params},
    ],
)
def test_another_recipe_has_another_address(other: dict[str, Any]) -> None:
    assert replace(RECIPE, **other).version != RECIPE.version


def test_the_order_of_params_and_inputs_does_not_matter() -> None:
    params = {"nested": {"a": 1, "b": 2}, "size": 96}
    inputs = {"raw_images": "a", "weights": "b"}
    turned = {"size": 96, "nested": {"b": 2, "a": 1}}
    assert (
        Recipe("t", "1", params, inputs).version
        == Recipe("t", "1", turned, dict(reversed(inputs.items()))).version
    )


def test_a_recipe_holds_the_versions_of_its_inputs(lake: Lake) -> None:
    first, second = publish(lake, "raw", 1), publish(lake, "weights", 1)
    recipe = Recipe.of("featurize", "1", [first, second], params={"size": 96})
    assert recipe.inputs == {"raw": first.version, "weights": second.version}
    assert recipe.numbers == {"raw": 0, "weights": 0}
    assert recipe == Recipe.of("featurize", "1", [second, first], params=recipe.params)


def test_a_version_that_is_published_again_makes_nothing_new(lake: Lake) -> None:
    """It has another number then, which is not part of the hash."""
    first = publish(lake, "raw", 1)
    publish(lake, "raw", 2)
    later = lake.publish(again(lake, first))
    assert later.number == 2
    one, other = (Recipe.of("featurize", "1", [raw]) for raw in (first, later))
    assert (one.numbers, other.numbers) == ({"raw": 0}, {"raw": 2})
    assert one == other
    assert one.version == other.version


@pytest.mark.parametrize(
    ("other", "is_the_same"),
    [
        ({"inputs": {"raw_images": "grown", "weights": "b"}}, True),
        ({"inputs": {"raw_images": "a", "weights": "other"}}, False),
        ({"params": {}}, False),
        ({"code_version": "2"}, False),
    ],
)
def test_a_question_leaves_one_input_open(other: dict[str, Any], *, is_the_same: bool) -> None:
    changed = replace(RECIPE, **other)
    assert (RECIPE.question("raw_images") == changed.question("raw_images")) == is_the_same
    assert RECIPE.question() != changed.question()


def test_a_question_can_leave_several_inputs_open() -> None:
    names = list(RECIPE.inputs)
    other = replace(RECIPE, inputs=dict.fromkeys(names, "another"))
    assert RECIPE.question(*names) == other.question(*names)
    assert RECIPE.question(names[0]) != RECIPE.question(*names)
