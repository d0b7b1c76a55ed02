"""The form of `label` offers every method of the setting, and passes the choice on."""

from __future__ import annotations

from types import SimpleNamespace

from fiftyone.operators import types

from plugin.forms import METHODS, add_method_choice, read_config


def test_every_method_is_offered_in_the_words_of_its_setting() -> None:
    inputs = types.Object()
    add_method_choice(inputs)
    field = inputs.to_json()["properties"]["method"]
    assert field["type"]["values"] == list(METHODS)
    assert field["default"] == "ums"
    assert "method of others" in field["view"]["description"]


def test_the_choice_reaches_the_settings() -> None:
    assert read_config(SimpleNamespace(params={"method": "tokencut"})).method == "tokencut"
    assert read_config(SimpleNamespace(params={})).method == "ums"
