"""Recipes: their hash, their differences, and the refusal of unlike ones."""

import pytest

from stages.errors import InputError
from stages.metrics.recipe import Recipe, differences, hash_of, require_alike

RECIPE = {"resize": "tf", "count": 1000, "kid": {"subset": 200, "subsets": 50}, "beside": {"torch": "2.14"}}


def test_the_hash_is_of_what_is_compared_in_any_order():
    turned = dict(reversed(list(RECIPE.items())))
    assert hash_of(RECIPE) == hash_of(turned) == hash_of({**RECIPE, "beside": {"torch": "3"}, "hash": "old"})
    assert hash_of(RECIPE) != hash_of({**RECIPE, "resize": "clean"})
    assert hash_of(RECIPE) != hash_of({**RECIPE, "kid": {"subset": 200, "subsets": 51}})
    assert hash_of(RECIPE) != hash_of({**RECIPE, "dtype": None})


def test_a_sealed_recipe_carries_its_hash_and_keeps_it():
    sealed = Recipe(RECIPE).sealed()
    assert sealed["hash"] == Recipe(RECIPE).hash == hash_of(sealed)
    assert Recipe(sealed).sealed() == sealed


def test_differences_are_named_by_their_path_with_both_values():
    other = {"resize": "tf", "count": 500, "kid": {"subset": 100, "subsets": 50}, "seed": 0}
    assert differences(RECIPE, RECIPE) == {}
    assert differences(RECIPE, other) == {"count": (1000, 500), "kid.subset": (200, 100), "seed": ("absent", 0)}


def test_what_json_makes_of_a_recipe_is_still_alike():
    assert differences({"mean": (1, 2), "x": {}}, {"mean": [1, 2], "x": {}}) == {}
    assert differences({"kid": {}}, {"kid": {"subset": 2}}) == {"kid": ({}, "absent"), "kid.subset": ("absent", 2)}


def test_unlike_recipes_are_refused_in_one_line_that_names_every_difference():
    require_alike(RECIPE, {**RECIPE, "hash": "x"}, "A and B")
    with pytest.raises(InputError) as raised:
        require_alike(RECIPE, {**RECIPE, "resize": "clean", "count": 64}, "A and B")
    assert str(raised.value) == (
        "A and B cannot be compared: count is 1000 and 64; resize is tf and clean; score both with the same recipe"
    )
