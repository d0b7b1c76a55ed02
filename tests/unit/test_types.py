"""Every check that the data make of themselves at construction."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from umscosod.errors import DataError
from umscosod.types import (
    EncodedImage,
    GroupFeatures,
    GroupTokens,
    ImageGroup,
    ImageRef,
    Labelled,
    PseudoLabel,
    Status,
    check_relative,
)

BAD_NAMES = ["", "/etc/passwd", "../x", "a/../b", "a\\b", "a\x00b", "..", "//x"]
GRID = (2, 3)


def ref(name: str = "cat/1.jpg") -> ImageRef:
    return ImageRef(id=name, path=Path(name), output=name)


def tokens(images: int = 2) -> GroupTokens:
    return GroupTokens(
        tokens_NPD=np.zeros((images, 6, 4), np.float16),
        keys_NPK=np.zeros((images, 6, 5), np.float16),
        attn_NAP=np.zeros((images, 1, 6), np.float16),
        grid_hw=GRID,
        backbone_id="test",
    )


def features() -> GroupFeatures:
    return GroupFeatures(
        group=ImageGroup(name="cat", images=(ref("a"), ref("b"))),
        first=tokens(),
        second=tokens(),
        saliency_NP=np.zeros((2, 6), np.float32),
        pictures_NHW3=np.zeros((2, 8, 8, 3), np.uint8),
        sizes_hw=((8, 8), (9, 9)),
    )


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_could_leave_the_output_folder_are_refused(name: str) -> None:
    with pytest.raises(DataError, match=r"group name .* must be a plain relative name"):
        check_relative(name, "group name")
    with pytest.raises(DataError, match="image id"):
        ImageRef(id=name, path=Path("x"), output="x")
    with pytest.raises(DataError, match="output name"):
        ImageRef(id="x", path=Path("x"), output=name)
    with pytest.raises(DataError, match="group name"):
        ImageGroup(name=name, images=(ref(),))


@pytest.mark.parametrize("name", ["a", "a/b.jpg", "...", "..a", "a..b/c", ".hidden", "Katze 1/ä é.jpg", "a:b"])
def test_plain_names_pass(name: str) -> None:
    assert ImageGroup(name=name, images=(ref(name),)).images[0].id == name


def test_a_group_needs_images_and_lists_each_once() -> None:
    with pytest.raises(DataError, match="group 'cat' has no images"):
        ImageGroup(name="cat", images=())
    with pytest.raises(DataError, match="group 'cat' lists an image twice"):
        ImageGroup(name="cat", images=(ref(), ref("b"), ref()))


@pytest.mark.parametrize(
    "change",
    [
        {"tokens_PD": np.zeros((5, 4))},
        {"tokens_PD": np.zeros(6)},
        {"keys_PK": np.zeros((7, 4))},
        {"keys_PK": np.zeros((6, 4, 1))},
        {"attn_AP": np.zeros((1, 5))},
        {"attn_AP": np.zeros(6)},
        {"grid_hw": (3, 3)},
    ],
)
def test_encoded_images_whose_shapes_disagree_are_refused(change: dict[str, Any]) -> None:
    good: dict[str, Any] = {
        "tokens_PD": np.zeros((6, 4)),
        "keys_PK": np.zeros((6, 5)),
        "attn_AP": np.zeros((1, 6)),
        "grid_hw": GRID,
    }
    assert EncodedImage(**good).grid_hw == GRID
    with pytest.raises(DataError, match=r"encoded image: expected . patches"):
        EncodedImage(**good | change)


@pytest.mark.parametrize(
    "change",
    [
        {"tokens_NPD": np.zeros((2, 5, 4))},
        {"tokens_NPD": np.zeros((1, 6, 4))},
        {"tokens_NPD": np.zeros((2, 6))},
        {"tokens_NPD": np.zeros(())},
        {"keys_NPK": np.zeros((2, 7, 4))},
        {"keys_NPK": np.zeros((2, 6, 4, 1))},
        {"attn_NAP": np.zeros((2, 6))},
        {"attn_NAP": np.zeros((2, 1, 5))},
        {"attn_NAP": np.zeros((3, 1, 6))},
        {"attn_NAP": np.zeros((2, 1, 6, 1))},
        {"grid_hw": (3, 3)},
    ],
)
def test_group_tokens_whose_shapes_disagree_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="group tokens: expected"):
        replace(tokens(), **change)


@pytest.mark.parametrize(
    "change",
    [
        {"first": tokens(3)},
        {"second": tokens(1)},
        {"saliency_NP": np.zeros((3, 6), np.float32)},
        {"pictures_NHW3": np.zeros((1, 8, 8, 3), np.uint8)},
        {"sizes_hw": ((8, 8),)},
        {"group": ImageGroup(name="cat", images=(ref(),))},
    ],
)
def test_group_features_need_every_image_in_every_stream(change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"group 'cat': expected [12] images in each stream"):
        replace(features(), **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"map_hw": np.zeros(4), "mask_hw": np.zeros(4, bool)}, "map must be 2-D"),
        ({"mask_hw": np.zeros((2, 3), bool)}, "differ in shape"),
        ({"confidence": -0.1}, r"confidence -0.1 is not in \[0, 1\]"),
        ({"confidence": 1.01}, "confidence 1.01"),
        ({"confidence": float("nan")}, "confidence nan"),
    ],
)
def test_pseudo_labels_check_themselves(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "image_id": "cat/1.jpg",
        "map_hw": np.zeros((2, 2)),
        "mask_hw": np.zeros((2, 2), bool),
        "confidence": 1.0,
        "source": "hac",
    }
    assert PseudoLabel(**good).details == {}
    with pytest.raises(DataError, match=f"^cat/1.jpg: .*{message}"):
        PseudoLabel(**good | change)


def test_data_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        ref().id = "x"  # type: ignore[misc]


def test_a_status_is_its_own_text() -> None:
    row = Labelled(image_id="a", group="g", output="a.png", status=Status("labelled"))
    assert row.status == "labelled"
    assert [str(status) for status in Status] == ["labelled", "empty", "failed", "skipped"]
