"""Values that nobody checked."""

from __future__ import annotations

import pytest

from umscosod.data.masks import describe_value, whole_number


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [nested(100_000), "x" * 10_000_000, 10**5000, -(10**5000), {"a": nested(100_000)}, ["x" * 10**6] * 3, "a\nb\x1b"],
    ids=["deep", "long", "huge", "below", "object", "texts", "control"],
)
def test_a_value_is_described_in_a_few_words_whatever_it_is(value: object) -> None:
    text = describe_value(value)
    assert len(text) < 150
    assert text.isprintable()


@pytest.mark.parametrize("value", [2.0**53, 1e300, float("inf"), "7", None, [], True])
def test_what_may_stand_for_several_integers_or_none_is_no_whole_number(value: object) -> None:
    assert whole_number(value) is None
