from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.synthetic import tiny_collection
from umscosod.demo.__main__ import main
from umscosod.demo.compose import GROUP_NAMES, compose_image, make_groups, scenes_of
from umscosod.demo.cutouts import BACKDROPS
from umscosod.errors import ConfigError


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The default collection, as a person gets it."""
    return make_groups(tmp_path_factory.mktemp("demo"), seed=0)


def pairs(groups):
    for group in groups:
        for image, mask in zip(group.images, group.masks, strict=True):
            with Image.open(image) as opened_image, Image.open(mask) as opened_mask:
                yield group.name, image, np.array(opened_image), np.array(opened_mask)


def tree(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_default_is_five_groups_of_six_in_a_benchmark_layout(demo):
    assert [group.name for group in demo] == list(GROUP_NAMES)
    assert [len(group.images) for group in demo] == [6] * 5
    for group in demo:
        for image, mask in zip(group.images, group.masks, strict=True):
            assert image.parts[-3:] == ("image", group.name, f"{image.stem}.jpg")
            assert mask.parts[-3:] == ("gt", group.name, f"{image.stem}.png")
            assert image.parents[2] == mask.parents[2]


def test_masks_are_0_or_255_and_as_large_as_their_picture(demo):
    for _, image, picture_HW3, mask_HW in pairs(demo):
        assert picture_HW3.shape == (*mask_HW.shape, 3), image
        assert mask_HW.dtype == np.uint8
        assert np.unique(mask_HW).tolist() == [0, 255], image


def test_sizes_differ_within_a_group(demo):
    for group in demo:
        sizes = {mask_HW.shape for *_, mask_HW in pairs([group])}
        assert sizes == {(320, 320), (240, 320), (320, 240), (304, 400), (224, 224)}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_objects_cover_3_to_60_percent_and_differ_from_what_surrounds_them(tmp_path, seed):
    for name, image, picture_HW3, mask_HW in pairs(make_groups(tmp_path, seed=seed, size=160)):
        inside_HW = mask_HW > 0
        assert 0.03 <= inside_HW.mean() <= 0.60, image
        # In levels of 255. Low on purpose: a red cup on a red table is part of the demo.
        colours = picture_HW3.astype(float)
        away = np.linalg.norm(colours[inside_HW].mean(0) - colours[~inside_HW].mean(0))
        assert away > 8.0, (name, image, away)


def test_a_group_is_neither_one_picture_nor_one_place(demo):
    for group in demo:
        masks = [np.array(Image.fromarray(mask).resize((64, 64))) > 127 for *_, mask in pairs([group])]
        overlaps = [(a & b).sum() / (a | b).sum() for i, a in enumerate(masks) for b in masks[:i]]
        assert np.mean(overlaps) < 0.6, group.name


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path):
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        make_groups(tmp_path / name, seed=seed, images_per_group=2, size=80)
    first, again, other = (tree(tmp_path / name) for name in "abc")
    assert first == again
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first if name.endswith(".jpg"))


def test_a_picture_does_not_depend_on_how_many_are_made(tmp_path):
    make_groups(tmp_path / "few", seed=3, groups=("cat",), images_per_group=1, size=80)
    make_groups(tmp_path / "many", seed=3, groups=("coins", "cat"), images_per_group=3, size=80)
    many = tree(tmp_path / "many")
    assert all(many[name] == data for name, data in tree(tmp_path / "few").items())


def test_a_backdrop_or_distractor_comes_back_only_after_all_others():
    for group in GROUP_NAMES:
        scenes = scenes_of(group, seed=0)
        parts = [scene.backdrop for scene in scenes]
        assert len(set(parts)) == len(parts) >= len(BACKDROPS) - 1
        assert not any(BACKDROPS[part].not_for == group for part in parts)
        assert {scene.distractor for scene in scenes[:4]} == set(GROUP_NAMES) - {group}


def test_the_mask_is_where_the_object_was_pasted():
    # The helmet's owner on a night sky: orange lies inside the mask and nowhere else.
    sky = next(scene for scene in scenes_of("astronaut", 0) if BACKDROPS[scene.backdrop].photo == "camera.png")
    for index in range(4):
        picture_HW3, mask_HW = compose_image("astronaut", index, sky, seed=11, size=160)
        red, green, blue = (picture_HW3[..., channel].astype(int) for channel in range(3))
        orange_HW = (red > 140) & (red - green > 70) & (green - blue > 10)
        assert orange_HW.sum() > 0.1 * (mask_HW > 0).sum()
        assert (orange_HW & (mask_HW > 0)).sum() > 0.6 * orange_HW.sum()


def test_many_pictures_of_one_group_can_be_made(tmp_path):
    (group,) = make_groups(tmp_path, seed=0, groups=("shuttle",), images_per_group=20, size=64)
    assert len(set(group.images)) == 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": ("cat", "dog")}, r"\['dog'\] cannot be made: choose from \['astronaut'"),
        ({"groups": ()}, r"\[\] cannot be made"),
        ({"images_per_group": 0}, "images_per_group is 0"),
        ({"size": 47}, "size is 47 px: it must be at least 48"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        make_groups(tmp_path / "out", seed=0, **changes)
    assert not (tmp_path / "out").exists()


def test_main_says_where_it_wrote(tmp_path, capsys):
    made = main(tmp_path, seed=1)
    said = capsys.readouterr().out
    assert said == f"30 pictures in 5 groups: {tmp_path / 'image'}\nmasks to score against: {tmp_path / 'gt'}\n"
    assert all(path.is_file() for group in made for path in (*group.images, *group.masks))


def test_the_module_runs_as_a_program_without_torch(tmp_path):
    code = (
        "import runpy, sys; sys.argv = ['demo', sys.argv[1], '--seed', '1'];"
        "runpy.run_module('umscosod.demo', run_name='__main__'); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "gt").rglob("*.png"))) == 30


def test_tiny_collection_is_small(tmp_path):
    groups = tiny_collection(tmp_path)
    assert [(group.name, len(group.images)) for group in groups] == [("coffee", 3), ("shuttle", 3)]
    assert max(max(mask_HW.shape) for *_, mask_HW in pairs(groups)) <= 96
