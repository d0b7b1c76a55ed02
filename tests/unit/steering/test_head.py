"""Steering in memory: what is shown is learnt, what is wrongly there goes, and nothing shown changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.pseudo.groups import box, make_features, paint
from umscosod.data.resize import resize_centred
from umscosod.errors import DataError
from umscosod.steering.examples import Box, Example, Point, to_patches
from umscosod.steering.head import ALONE, MIXTURE, UNCHANGED, mask_iou, sample_examples, steer_maps
from umscosod.types import BoolArray, FloatArray, GroupFeatures

GRID, SIZE = 8, 64
BALL, PLAYER = (1, 1, 3, 3), (4, 3, 8, 7)


def scenes(count: int = 6) -> GroupFeatures:
    """A small ball (axis 1) and a large player (axis 2) on grass (axis 0)."""
    rng = np.random.default_rng(0)
    painted = [paint(GRID, {BALL: 1, PLAYER: 2}) + 0.05 * rng.standard_normal((GRID, GRID, 6)) for _ in range(count)]
    return make_features(painted, [np.zeros((GRID, GRID))] * count)


def full(mask_hw: BoolArray) -> BoolArray:
    """A mask of the grid at the size of the image."""
    return np.repeat(np.repeat(mask_hw, SIZE // GRID, 0), SIZE // GRID, 1)


def maps_of(features: GroupFeatures, mask_hw: BoolArray) -> FloatArray:
    """Soft maps that take a mask for the object."""
    soft_HW = resize_centred(np.where(mask_hw, 0.9, 0.1).astype(np.float32), features.size_hw)
    return np.stack([soft_HW] * len(features.group.images))


@pytest.fixture
def features() -> GroupFeatures:
    return scenes()


@pytest.fixture
def base(features: GroupFeatures) -> FloatArray:
    """What stands out was found, not what is wanted: the player."""
    return maps_of(features, box(GRID, *PLAYER))


def found(maps_NHW: FloatArray, index: int, mask_hw: BoolArray) -> float:
    truth_HW = resize_centred(mask_hw.astype(np.float32), maps_NHW.shape[1:]) >= 0.5
    return mask_iou(maps_NHW[index] >= 0.5, truth_HW)


def names(features: GroupFeatures) -> list[str]:
    return [image.id for image in features.group.images]


def test_nothing_shown_changes_nothing(features: GroupFeatures, base: FloatArray) -> None:
    steered = steer_maps(features, base, {})
    assert steered.choice == UNCHANGED
    assert steered.maps_NHW is base


def test_three_masks_find_the_ball_and_not_the_player(features: GroupFeatures, base: FloatArray) -> None:
    ball = box(GRID, *BALL)
    shown = {name: Example(mask_HW=full(ball)) for name in names(features)[:3]}
    steered = steer_maps(features, base, shown)
    assert steered.choice == ALONE  # the maps that were there would pull back
    assert found(base, 4, ball) == 0.0
    assert found(steered.maps_NHW, 4, ball) > 0.6
    assert found(steered.maps_NHW, 4, box(GRID, *PLAYER)) < 0.2


def test_one_mask_stays_near_the_maps_that_were_there(features: GroupFeatures, base: FloatArray) -> None:
    (first, *_) = names(features)
    steered = steer_maps(features, base, {first: Example(mask_HW=full(box(GRID, *PLAYER)))})
    assert steered.choice == MIXTURE
    assert found(steered.maps_NHW, 3, box(GRID, *PLAYER)) > 0.8


def test_what_is_not_the_object_goes_from_every_image(features: GroupFeatures) -> None:
    both = maps_of(features, box(GRID, *PLAYER) | box(GRID, *BALL))
    (first, *_) = names(features)
    steered = steer_maps(features, both, {first: Example(not_HW=full(box(GRID, *PLAYER)))})
    player_HW = resize_centred(box(GRID, *PLAYER).astype(np.float32), features.size_hw) >= 0.5
    for index in range(1, len(both)):
        assert steered.maps_NHW[index][player_HW].mean() < both[index][player_HW].mean()


def test_two_masks_that_say_what_was_found_leave_it(features: GroupFeatures, base: FloatArray) -> None:
    shown = {name: Example(mask_HW=full(box(GRID, *PLAYER))) for name in names(features)[:2]}
    steered = steer_maps(features, base, shown)
    assert found(steered.maps_NHW, 5, box(GRID, *PLAYER)) >= found(base, 5, box(GRID, *PLAYER)) - 1e-6


def test_equal_examples_give_equal_bits(features: GroupFeatures, base: FloatArray) -> None:
    shown = {name: Example(mask_HW=full(box(GRID, *BALL))) for name in names(features)[:2]}
    first, second = (steer_maps(features, base, shown).maps_NHW for _ in range(2))
    assert np.array_equal(first, second)


def test_examples_of_another_group_serve(features: GroupFeatures, base: FloatArray) -> None:
    other = scenes(4)
    ball = box(GRID, *BALL)
    shown = {name: Example(mask_HW=full(ball)) for name in names(other)[:3]}
    foreign = sample_examples(other, base[:4], shown)
    assert len(foreign) == 3
    steered = steer_maps(features, base, {}, foreign)
    assert steered.maps_NHW[0][1:3, 1:3].mean() > base[0][1:3, 1:3].mean()


def test_points_and_boxes_on_the_grid() -> None:
    flat_P = np.full(GRID * GRID, 0.5)
    said = to_patches(
        Example(points=(Point(x=0.99, y=0.0), Point(x=0.0, y=1.0, is_object=False))), (GRID, GRID), flat_P
    )
    assert said.weights_P.reshape(GRID, GRID).sum() == 2.0
    assert (said.targets_P.reshape(GRID, GRID)[0, -1], said.targets_P.reshape(GRID, GRID)[-1, 0]) == (1.0, 0.0)
    said = to_patches(Example(boxes=(Box(x=0.25, y=0.5, width=0.5, height=0.25),)), (GRID, GRID), flat_P)
    assert said.weights_P.min() == 1.0
    inside = said.targets_P.reshape(GRID, GRID)
    assert inside[4:6, 2:6].min() == 1.0
    assert inside.sum() == 8.0


@pytest.mark.parametrize("place", [(-0.1, 0.5), (0.5, 1.2)])
def test_a_place_outside_its_image_is_refused(place: tuple[float, float]) -> None:
    with pytest.raises(DataError, match="shares of its width and height"):
        Point(x=place[0], y=place[1])
    with pytest.raises(DataError, match="empty or lies outside"):
        Box(x=place[0], y=place[1], width=0.1, height=0.1)
