"""A collection's features: encoded once, loaded whole, and one bad file harms nobody else."""

from __future__ import annotations

import gc
import shutil
import weakref
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.synthetic import tiny_collection
from umscosod.config import DataConfig, FeaturesConfig, PipelineConfig
from umscosod.data.groups import groups_from_folder
from umscosod.data.images import decode_image
from umscosod.errors import CacheError, DataError
from umscosod.features.backbone import BackbonePair
from umscosod.features.cache import Arrays, FeatureCache
from umscosod.features.collection import FeatureCollection, encode_collection
from umscosod.features.embedded import EmbeddedBackbone
from umscosod.features.group import Whitening
from umscosod.types import ByteArray, EncodedImage, GroupFeatures, ImageGroup

SIZE = 64
CONFIG = PipelineConfig(features=FeaturesConfig(size_px=SIZE))


class Counting(EmbeddedBackbone):
    """The real backbone; it also counts the images it encodes."""

    encoded = 0

    def encode(self, images: Sequence[ByteArray]) -> list[EncodedImage]:
        self.encoded += len(images)
        return super().encode(images)


@dataclass
class Setup:
    groups: list[ImageGroup]
    cache: FeatureCache
    pair: BackbonePair = field(default_factory=lambda: BackbonePair(first=Counting(SIZE, 8), second=Counting(SIZE, 16)))

    def load(self, **options: object) -> FeatureCollection:
        return encode_collection(self.groups, self.pair, CONFIG, self.cache, **options)  # type: ignore[arg-type]

    def let_run(self, at_once: int) -> None:
        """Let so many pictures be encoded at once."""
        for backbone in self.pair.both:
            backbone.at_once = at_once  # type: ignore[attr-defined]

    @property
    def encoded(self) -> tuple[int, int]:
        return self.pair.first.encoded, self.pair.second.encoded  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("collection")
    tiny_collection(folder, groups=2, images=3, size=SIZE)
    return folder / "image"


@pytest.fixture
def setup(pictures: Path, tmp_path: Path) -> Setup:
    images = tmp_path / "image"
    shutil.copytree(pictures, images)
    return Setup(groups=list(groups_from_folder(images)), cache=FeatureCache(tmp_path / "cache"))


def bits(features: GroupFeatures) -> list[bytes]:
    first, second = features.first, features.second
    arrays = (first.tokens_NPD, first.keys_NPK, first.attn_NAP, second.tokens_NPD, second.attn_NAP)
    return [array.tobytes() for array in (*arrays, features.saliency_NP, features.pictures_NHW3)]


def test_shapes_ranges_and_what_whitening_and_sharpening_add(setup: Setup) -> None:
    collection = setup.load()
    features = collection[0]
    assert features.group == setup.groups[0]
    assert features.first.grid_hw == (8, 8)
    assert features.second.grid_hw == (4, 4)
    assert features.first.tokens_NPD.shape == (3, 64, 37)  # 36 descriptors and the sharpened map
    assert features.first.keys_NPK.shape == (3, 64, 9)
    assert features.second.tokens_NPD.shape == (3, 16, 36)
    assert features.first.is_centred
    assert features.second.is_centred
    assert features.pictures_NHW3.shape == (3, SIZE, SIZE, 3)
    assert features.sizes_hw == ((64, 64), (48, 64), (64, 48))
    assert features.saliency_NP.min(1).tolist() == [0.0] * 3
    assert features.saliency_NP.max(1).tolist() == [1.0] * 3
    tokens = np.concatenate([one.first.tokens_NPD[..., :36].reshape(-1, 36) for one in collection])
    np.testing.assert_allclose(tokens.mean(0), 0.0, atol=1e-2)
    assert collection.whitenings.keys() == {"first", "second"}
    assert collection.sha256.keys() == {image.id for group in setup.groups for image in group.images}


def test_of_the_second_stream_no_keys_are_stored_unless_the_first_is_the_same(setup: Setup) -> None:
    def stored(pair: BackbonePair, cache: FeatureCache) -> list[list[str]]:
        encode_collection(setup.groups, pair, CONFIG, cache)
        return sorted(sorted(load_file(path)) for path in cache.root.rglob("*.safetensors"))

    first = setup.pair.first
    whole = [["picture", "size"], ["attn", "keys", "tokens"]] * 6
    cache = setup.cache.root
    assert stored(setup.pair, FeatureCache(cache / "two")) == sorted([*whole, *[["attn", "tokens"]] * 6])
    same = BackbonePair(first=first, second=first)
    before = setup.encoded[0]
    assert stored(same, FeatureCache(cache / "same")) == sorted(whole)
    assert setup.encoded[0] == before + 6  # each picture once
    features = encode_collection(setup.groups, same, CONFIG, FeatureCache(cache / "same"))[0]
    assert features.second.attn_NAP.tobytes() == features.first.attn_NAP.tobytes()


def test_a_second_construction_encodes_nothing_and_loads_equal_bits(setup: Setup) -> None:
    first = setup.load()
    assert setup.encoded == (6, 6)
    before = [bits(features) for features in first]
    again = setup.load()
    assert [bits(features) for features in again] == before
    assert setup.encoded == (6, 6)


def test_what_was_encoded_in_another_arithmetic_is_not_taken_from_the_cache(setup: Setup) -> None:
    setup.load()
    setup.pair.first.precision = "bfloat16"  # type: ignore[attr-defined]
    setup.load()
    assert setup.encoded == (12, 6)
    setup.load()
    assert setup.encoded == (12, 6)


@pytest.mark.parametrize("at_once", [1, 3])
def test_two_caches_give_equal_bits(setup: Setup, tmp_path: Path, at_once: int) -> None:
    setup.let_run(at_once)
    other = encode_collection(setup.groups, setup.pair, CONFIG, FeatureCache(tmp_path / "other"))
    setup.let_run(1)
    assert [bits(one) for one in other] == [bits(one) for one in setup.load()]


def test_it_is_a_sequence(setup: Setup) -> None:
    collection = setup.load()
    assert len(collection) == 2
    assert [features.group.name for features in collection] == [group.name for group in setup.groups]
    assert [features.group.name for features in reversed(collection)] == [group.name for group in setup.groups[::-1]]
    assert collection[-1].group == setup.groups[1]
    assert [features.group for features in collection[1:]] == setup.groups[1:]
    assert collection[2:] == []
    with pytest.raises(IndexError):
        collection[2]


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_corrupt_image_is_a_named_failure_and_the_rest_goes_on(
    setup: Setup, caplog: pytest.LogCaptureFixture, at_once: int
) -> None:
    setup.let_run(at_once)
    bad = setup.groups[0].images[1]
    bad.path.write_bytes(b"no picture")
    collection = setup.load()
    assert collection.failures.keys() == {bad.id}
    assert str(bad.path) in collection.failures[bad.id]
    assert bad.id in caplog.text
    assert bad.id not in collection.sha256
    assert [len(features.group.images) for features in collection] == [2, 3]
    assert bad not in collection[0].group.images


def test_a_group_without_a_usable_image_is_left_out(setup: Setup) -> None:
    for image in setup.groups[0].images:
        image.path.unlink()
    collection = setup.load()
    assert [group.name for group in collection.groups] == [setup.groups[1].name]
    assert len(collection.failures) == 3


def test_nothing_usable_gives_an_empty_collection(setup: Setup) -> None:
    for group in setup.groups:
        for image in group.images:
            image.path.write_bytes(b"")
    collection = setup.load()
    assert len(collection) == 0
    assert list(collection) == []
    assert collection.whitenings == {}
    assert len(collection.failures) == 6


def test_a_group_of_one_and_a_picture_of_one_colour(setup: Setup) -> None:
    from PIL import Image

    image = setup.groups[0].images[0]
    Image.new("RGB", (40, 30), (90, 120, 30)).save(image.path)
    setup.groups[:] = [replace(setup.groups[0], images=(image,))]
    (features,) = setup.load()
    assert features.sizes_hw == ((30, 40),)
    assert not features.saliency_NP.any()
    assert all(np.isfinite(one.tokens_NPD).all() and np.isfinite(one.attn_NAP).all()
               for one in (features.first, features.second))  # fmt: skip


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that was read stays in memory."""
    monkeypatch.setattr("umscosod.features.collection._REMEMBERED_BYTES", 0)
    monkeypatch.setattr("umscosod.features.collection._REMEMBERED_BYTES", 0)


@pytest.mark.usefixtures("forgetful")
def test_pruned_entries_are_made_again(setup: Setup) -> None:
    collection = setup.load()
    before = bits(collection[0])
    setup.cache.prune(0)
    assert bits(collection[0]) == before
    assert setup.encoded == (9, 9)  # the three images of the group that was asked for, once more
    assert bits(collection[0]) == before
    assert setup.encoded == (9, 9)


@pytest.mark.usefixtures("forgetful")
def test_a_pruned_entry_of_a_file_that_changed_is_refused_not_mixed_up(setup: Setup) -> None:
    collection = setup.load()
    image, other = setup.groups[0].images[:2]
    setup.cache.prune(0)
    shutil.copyfile(other.path, image.path)
    with pytest.raises(DataError, match=r"was changed while it was in use"):
        bits(collection[0])


def overwrite_when_decoded(monkeypatch: pytest.MonkeyPatch, image: Path, content: bytes, *, before: bool) -> None:
    """Let another program overwrite an image while its turn to be encoded has come."""

    def decode(path: Path, **limits: int) -> ByteArray:
        if path == image and before:
            image.write_bytes(content)
        picture_HW3 = decode_image(path, **limits)
        if path == image and not before:
            image.write_bytes(content)
        return picture_HW3

    monkeypatch.setattr("umscosod.features.collection.decode_image", decode)


@pytest.mark.parametrize("before", [True, False])
def test_an_image_overwritten_while_features_are_made_is_a_failed_row_and_poisons_nothing(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    image, other = setup.groups[0].images[:2]
    original = image.path.read_bytes()
    overwrite_when_decoded(monkeypatch, image.path, other.path.read_bytes(), before=before)
    collection = setup.load()
    assert collection.failures == {image.id: f"{image.path}: the file was changed while it was in use; run again"}
    assert image.id not in collection.sha256
    assert [len(features.group.images) for features in collection] == [2, 3]
    monkeypatch.undo()
    image.path.write_bytes(original)
    clean = encode_collection(setup.groups, setup.pair, CONFIG, FeatureCache(tmp_path / "clean"))
    assert [bits(one) for one in setup.load()] == [bits(one) for one in clean]


def test_an_image_caught_half_written_is_told_as_changed(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    image = setup.groups[0].images[0]
    overwrite_when_decoded(monkeypatch, image.path, image.path.read_bytes()[:100], before=True)
    assert "was changed while it was in use" in setup.load().failures[image.id]


def test_swapped_entries_are_made_again(setup: Setup) -> None:
    before = [bits(features) for features in setup.load()]
    files = sorted(setup.cache.root.glob("??/*.safetensors"))
    for first, second in zip(files[::2], files[1::2], strict=True):
        data = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(data)
    assert [bits(features) for features in setup.load()] == before


@pytest.mark.usefixtures("forgetful")
def test_a_pruned_entry_of_a_file_that_is_gone_names_the_file(setup: Setup) -> None:
    collection = setup.load()
    image = setup.groups[0].images[0]
    setup.cache.prune(0)
    image.path.unlink()
    with pytest.raises(DataError, match=image.path.name):
        bits(collection[0])


@dataclass
class Reads:
    """What a collection asks of its cache."""

    arrays: list[str] = field(default_factory=list)

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> Reads:
        get = FeatureCache.get

        def counting(cache: FeatureCache, key: str, names: Collection[str] | None = None) -> Arrays | None:
            arrays = get(cache, key, names)
            self.arrays += arrays or ()
            return arrays

        monkeypatch.setattr(FeatureCache, "get", counting)
        return self


@pytest.mark.usefixtures("forgetful")
def test_only_what_is_looked_at_is_read(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = setup.load()
    reads = Reads().watch(monkeypatch)
    features = collection[0]
    assert reads.arrays == []
    assert features.second.tokens_NPD is features.second.tokens_NPD
    assert reads.arrays == ["tokens"] * 3
    assert features.take((1, 2)).pictures_NHW3.shape == (2, SIZE, SIZE, 3)
    assert reads.arrays == ["tokens"] * 3 + ["picture"] * 2
    assert features.size_hw == (SIZE, SIZE)
    assert reads.arrays == ["tokens"] * 3 + ["picture"] * 3


def test_what_was_read_is_remembered_and_the_agreed_saliency_too(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = setup.load()
    before = bits(collection[0])
    reads = Reads().watch(monkeypatch)
    monkeypatch.setattr("umscosod.features.group.sharpen_saliency", None)
    assert bits(collection[0]) == before
    assert reads.arrays == []


@pytest.mark.parametrize("needs_whitening", [True, False])
def test_images_taken_from_a_group_have_the_bits_they_have_in_it(setup: Setup, needs_whitening: bool) -> None:
    for backbone in (setup.pair.first, setup.pair.second):
        backbone.needs_whitening, backbone.has_attention = needs_whitening, not needs_whitening
    whole = setup.load()[0]
    part = whole.take((2, 0))
    assert part.group.images == (whole.group.images[2], whole.group.images[0])
    assert part.sizes_hw == (whole.sizes_hw[2], whole.sizes_hw[0])
    assert bits(part) == bits(GroupFeatures.take(whole, (2, 0)))


def test_a_group_is_freed_as_soon_as_nobody_holds_it(setup: Setup) -> None:
    features = setup.load()[0]
    bits(features)
    bits(features.take((0,)))
    gc.disable()
    try:
        alive = weakref.ref(features)
        del features
        assert alive() is None
    finally:
        gc.enable()


def test_whitenings_passed_in_are_used(setup: Setup) -> None:
    mine = Whitening(mean_D=np.zeros(36), matrix_DD=2.0 * np.eye(36))
    collection = setup.load(whitenings={"first": mine})
    assert collection.whitenings["first"] is mine
    assert "second" in collection.whitenings
    raw = EmbeddedBackbone(SIZE, 8).encode([_decoded(setup)])[0].tokens_PD
    np.testing.assert_allclose(collection[0].first.tokens_NPD[0, :, :36], 2.0 * raw.astype(np.float32), rtol=1e-6)


def _decoded(setup: Setup) -> ByteArray:
    return decode_image(setup.groups[0].images[0].path)


def test_a_backbone_that_needs_no_whitening_gets_none(setup: Setup) -> None:
    for backbone in (setup.pair.first, setup.pair.second):
        backbone.needs_whitening, backbone.has_attention = False, True
    mine = Whitening(mean_D=np.zeros(36), matrix_DD=2.0 * np.eye(36))
    collection = setup.load(whitenings={"first": mine})
    assert collection.whitenings == {}
    first = collection[0].first
    assert not first.is_centred
    assert first.tokens_NPD.shape == (3, 64, 36)
    assert first.tokens_NPD.dtype == np.float16


def test_a_warm_cache_does_not_let_a_refused_picture_in(setup: Setup) -> None:
    setup.load()
    strict = encode_collection(setup.groups, setup.pair, replace(CONFIG, data=DataConfig(min_side_px=65)), setup.cache)
    assert len(strict.failures) == 6


def test_progress_counts_images(setup: Setup) -> None:
    seen: list[tuple[int, int, str]] = []
    setup.load(progress=lambda *report: seen.append(report))
    assert seen == [(done, 6, "features") for done in range(7)]


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_disk_too_small_is_refused_after_the_first_image(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    setup.let_run(at_once)
    monkeypatch.setattr(FeatureCache, "free_bytes", lambda _: 100)
    with pytest.raises(CacheError, match=r"are needed.*features prune --max-gb"):
        setup.load()
    assert setup.encoded == (1, 1) if at_once == 1 else max(setup.encoded) < 6


def test_a_full_disk_does_not_matter_where_nothing_is_left_to_encode(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup.load()
    monkeypatch.setattr(FeatureCache, "free_bytes", lambda _: 100)
    assert len(setup.load()) == 2
