"""Cleaning of a whole collection: which settings do what, how much is drawn, and that groups speak for each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest

from tests.unit.pseudo.groups import box, make_features, paint
from umscosod.config import PipelineConfig, PseudoConfig
from umscosod.pseudo import cleaning as module
from umscosod.pseudo.cleaning import ProbeSample, clean_collection, clean_labels, compute_maps
from umscosod.types import GroupFeatures, PseudoLabel

GRID = 8
TRUTH = box(GRID, 2, 2, 6, 6)
STRIP = box(GRID, 0, 0, 1, GRID)


def config_of(probe: Literal["linear", "none"] = "linear", seed: int = 0) -> PipelineConfig:
    return PipelineConfig(pseudo=PseudoConfig(clean="none", probe=probe), seed=seed)


def group_of(name: str, axis: int, count: int = 3) -> GroupFeatures:
    """An object along an axis of its own, on ground (axis 0) under a strip of sky (axis 5)."""
    rng = np.random.default_rng(axis)
    scene = paint(GRID, {(2, 2, 6, 6): axis, (0, 0, 1, GRID): 5})
    scenes = [scene + 0.02 * rng.standard_normal(scene.shape) for _ in range(count)]
    names = [f"{name}/{index}.jpg" for index in range(count)]
    features = make_features(scenes, [np.zeros((GRID, GRID))] * count, names=names)
    return replace(features, group=replace(features.group, name=name))


def labels_of(features: GroupFeatures, mask: npt.NDArray[np.bool_] = TRUTH) -> dict[str, PseudoLabel]:
    return {
        image.id: PseudoLabel(
            image_id=image.id, map_hw=mask.astype(np.float32), mask_hw=mask, confidence=0.8, source="hac"
        )
        for image in features.group.images
    }


def are_equal(first: dict[str, PseudoLabel], second: dict[str, PseudoLabel]) -> bool:
    return first.keys() == second.keys() and all(
        first[name].map_hw.tobytes() == second[name].map_hw.tobytes() for name in first
    )


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred patches of the collection."""
    monkeypatch.setattr(module, "PROBE_PATCHES", 100)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[ProbeSample]:
    """What the probe of `clean_collection` is fitted on."""
    seen: list[ProbeSample] = []
    fit = module.fit_probe

    def spy(samples: list[ProbeSample]) -> object:
        seen.extend(samples)
        return fit(samples)

    monkeypatch.setattr(module, "fit_probe", spy)
    return seen


def test_what_one_group_takes_along_the_others_know_as_background() -> None:
    collection = [group_of("cat", 1), group_of("cow", 2, 5), group_of("dog", 3, 5)]
    labels = labels_of(collection[0], TRUTH | STRIP) | labels_of(collection[1]) | labels_of(collection[2])
    cleaned = clean_collection(collection, labels, config_of())[0]
    assert cleaned.keys() == labels.keys()
    for one in cleaned.values():
        assert np.array_equal(one.mask_hw, TRUTH)
    alone = clean_collection(collection[:1], labels, config_of())[0]
    assert list(alone) == [image.id for image in collection[0].group.images]
    for one in alone.values():
        assert np.array_equal(one.mask_hw, TRUTH | STRIP)


@pytest.mark.parametrize("clean", ["none", "prototype"])
def test_without_probe_the_labels_cleaned_by_group_are_left(clean: Literal["none", "prototype"]) -> None:
    collection = [group_of("cat", 1), group_of("cow", 2)]
    labels = labels_of(collection[0]) | labels_of(collection[1])
    config = config_of("none")
    config = replace(config, pseudo=replace(config.pseudo, clean=clean))
    expected = {}
    for features in collection:
        expected |= clean_labels(features, labels, config.pseudo)
    cleaned = clean_collection(collection, labels, config)
    assert are_equal(cleaned[0], expected)
    assert cleaned[1] is None


def test_the_probe_learns_from_labels_cleaned_by_group(drawn: list[ProbeSample]) -> None:
    features = group_of("cat", 1)
    labels = labels_of(features, TRUTH | box(GRID, 4, 0, 5, 8))
    config = config_of()
    config = replace(config, pseudo=replace(config.pseudo, clean="prototype"))
    own = clean_labels(features, labels, config.pseudo)
    clean_collection([features], labels, config)
    expected = np.concatenate([label.map_hw.ravel() for label in own.values()])
    assert np.array_equal(np.sort(drawn[0].targets_M), np.sort(expected))


@pytest.mark.parametrize("fill", [True, False])
def test_labels_that_tell_nothing_are_left(fill: bool) -> None:
    features = group_of("cat", 1)
    labels = labels_of(features, np.full((GRID, GRID), fill))
    cleaned = clean_collection([features], labels, config_of())[0]
    assert all(cleaned[name] is labels[name] for name in labels)
    assert cleaned.keys() == labels.keys()


def test_patches_all_alike_leave_labels_alone() -> None:
    features = make_features([np.ones((GRID, GRID, 6))] * 2, [np.zeros((GRID, GRID))] * 2)
    labels = labels_of(features)
    cleaned = clean_collection([features], labels, config_of())[0]
    assert all(cleaned[name] is labels[name] for name in labels)


def test_no_groups_and_no_labels() -> None:
    assert clean_collection([], {}, config_of()) == ({}, None)
    assert clean_collection([group_of("cat", 1)], {}, config_of()) == ({}, None)


def test_a_persons_label_stays_and_images_without_stay_without() -> None:
    collection = [group_of("cat", 1), group_of("cow", 2), group_of("dog", 3)]
    labels = labels_of(collection[0]) | labels_of(collection[1])  # none for a whole group
    person, without = (image.id for image in collection[0].group.images[:2])
    labels[person] = replace(labels[person], source="human", mask_hw=~TRUTH)
    del labels[without]
    cleaned = clean_collection(collection, labels, config_of())[0]
    assert cleaned.keys() == labels.keys()
    assert cleaned[person] is labels[person]
    assert all(one.is_map for name, one in cleaned.items() if name != person)


def test_the_sample_is_bounded_and_shared_out_by_images(
    drawn: list[ProbeSample], few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = [group_of("cat", 1, 2), group_of("cow", 2, 6)]
    labels = labels_of(collection[0]) | labels_of(collection[1])
    clean_collection(collection, labels, config_of())
    assert [len(sample.targets_M) for sample in drawn] == [25, 75]
    drawn.clear()
    monkeypatch.setattr(module, "PROBE_PATCHES", 15_000)
    clean_collection(collection, labels, config_of())
    assert [len(sample.targets_M) for sample in drawn] == [2 * GRID**2, 6 * GRID**2]


@pytest.mark.usefixtures("few")
def test_each_labelled_group_has_a_say(drawn: list[ProbeSample]) -> None:
    collection = [group_of(f"group {index}", 1 + index % 3, 1) for index in range(150)] + [group_of("empty", 1)]
    labels = {name: label for features in collection[:-1] for name, label in labels_of(features).items()}
    clean_collection(collection, labels, config_of())
    assert [len(sample.targets_M) for sample in drawn] == [1] * 150


@pytest.mark.usefixtures("few")
def test_one_seed_gives_the_same_bits_another_draws_others(drawn: list[ProbeSample]) -> None:
    collection = [group_of("cat", 1, 4), group_of("cow", 2, 4)]
    labels = labels_of(collection[0]) | labels_of(collection[1])
    first, second, other = (clean_collection(collection, labels, config_of(seed=s))[0] for s in (1, 1, 2))
    assert are_equal(first, second)
    assert drawn[0].patches_MF.tobytes() == drawn[2].patches_MF.tobytes()
    assert drawn[0].patches_MF.tobytes() != drawn[4].patches_MF.tobytes()
    assert not are_equal(first, other)


@pytest.mark.usefixtures("few")
def test_groups_draw_patches_of_their_own_whatever_comes_before(drawn: list[ProbeSample]) -> None:
    collection = [group_of("cat", 1, 4), group_of("cow", 2, 4)]
    labels = labels_of(collection[0]) | labels_of(collection[1])
    straight = clean_collection(collection, labels, config_of())[0]
    turned = clean_collection(collection[::-1], labels, config_of())[0]
    assert drawn[0].patches_MF.tobytes() == drawn[3].patches_MF.tobytes()
    assert drawn[1].patches_MF.tobytes() == drawn[2].patches_MF.tobytes()
    for name in labels:  # sums of another order: rounding only
        np.testing.assert_allclose(straight[name].map_hw, turned[name].map_hw, atol=1e-4)


def test_the_probe_that_made_the_labels_comes_along() -> None:
    collection = [group_of("cat", 1), group_of("cow", 2)]
    labels = labels_of(collection[0]) | labels_of(collection[1])
    config = config_of()
    cleaned = clean_collection(collection, labels, config)
    assert cleaned[1] is not None
    for features in collection:
        made = compute_maps(features, cleaned[1])
        for image, map_hw in zip(features.group.images, made, strict=True):
            assert np.array_equal(cleaned[0][image.id].map_hw, map_hw)


class Counting(Sequence[GroupFeatures]):
    """Groups as a collection on disk gives them: loaded at each access."""

    def __init__(self, groups: Sequence[GroupFeatures]) -> None:
        self.groups = groups
        self.loaded: list[str] = []

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index):  # type: ignore[no-untyped-def, override]
        features = self.groups[index]
        self.loaded.append(features.group.name)
        return features

    def __iter__(self) -> Iterator[GroupFeatures]:
        return (self[index] for index in range(len(self)))


@pytest.mark.parametrize(("probe", "times"), [("linear", 2), ("none", 1)])
def test_groups_are_read_one_after_the_other(probe: Literal["linear", "none"], times: int) -> None:
    collection = Counting([group_of("cat", 1), group_of("cow", 2)])
    labels = labels_of(collection.groups[0]) | labels_of(collection.groups[1])
    clean_collection(collection, labels, config_of(probe))
    assert collection.loaded == ["cat", "cow"] * times
