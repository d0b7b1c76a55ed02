"""Making a collection's encodings: in batches, decoded ahead, and each image as if it were alone."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.synthetic import tiny_collection
from umscosod.config import FeaturesConfig, PipelineConfig
from umscosod.data.groups import groups_from_folder
from umscosod.data.images import decode_image
from umscosod.errors import CacheError, Cancelled, DataError
from umscosod.features import collection as module
from umscosod.features.backbone import BackbonePair
from umscosod.features.cache import FeatureCache, Memory
from umscosod.features.collection import Encodings, encode_collection
from umscosod.features.embedded import EmbeddedBackbone
from umscosod.progress import ignore_progress
from umscosod.types import ByteArray, EncodedImage, ImageGroup, ImageRef

SIZE = 64
CONFIG = PipelineConfig(features=FeaturesConfig(size_px=SIZE))


class Batching(EmbeddedBackbone):
    """The real backbone, which takes four images a pass and notes how many came; one colour it refuses."""

    batch_size = 4

    def __init__(self, cell_px: int) -> None:
        super().__init__(SIZE, cell_px)
        self.batches: list[int] = []

    def encode(self, images: Sequence[ByteArray]) -> list[EncodedImage]:
        self.batches.append(len(images))
        if any(not np.ptp(image, axis=(0, 1)).any() for image in images):
            raise DataError("an image of one colour")
        return super().encode(images)


@pytest.fixture
def images(tmp_path: Path) -> list[ImageRef]:
    tiny_collection(tmp_path / "data", groups=2, images=5, size=SIZE)
    return [image for group in groups_from_folder(tmp_path / "data" / "image") for image in group.images]


def make(images: Sequence[ImageRef], root: Path, progress=ignore_progress) -> Encodings:  # type: ignore[no-untyped-def]
    made = Encodings(BackbonePair(first=Batching(8), second=Batching(16)), CONFIG, FeatureCache(root))
    made.make(images, progress)
    return made


def batches(made: Encodings) -> list[int]:
    assert isinstance(made.pair.first, Batching)
    return made.pair.first.batches


def content(root: Path) -> dict[str, dict[str, bytes]]:
    """Arrays of all entries; the order of their metadata is not fixed."""
    return {
        path.name: {name: array.tobytes() for name, array in load_file(path).items()}
        for path in root.rglob("*.safetensors")
    }


def test_missing_images_are_encoded_in_batches_after_the_first(images: list[ImageRef], tmp_path: Path) -> None:
    made = make(images, tmp_path / "cache")
    assert batches(made) == [1, 4, 4, 1]
    assert made.failures == {}


def test_the_others_of_a_batch_go_together_without_one_that_cannot_be_decoded(
    images: list[ImageRef], tmp_path: Path
) -> None:
    images[2].path.write_bytes(b"no picture")
    made = make(images, tmp_path / "cache")
    assert batches(made) == [1, 3, 4, 1]
    assert made.failures.keys() == {images[2].id}


def test_bits_do_not_depend_on_what_the_cache_held(images: list[ImageRef], tmp_path: Path) -> None:
    make(images, tmp_path / "whole")
    make(images[3:6], tmp_path / "parts")
    assert batches(make(images, tmp_path / "parts")) == [1, 4, 2]
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_one_bad_image_of_a_batch_costs_none_of_the_others(images: list[ImageRef], tmp_path: Path) -> None:
    from PIL import Image

    refused, broken = images[2], images[3]
    Image.new("RGB", (40, 30), (90, 120, 30)).save(refused.path)
    broken.path.write_bytes(broken.path.read_bytes()[:100])
    made = make(images, tmp_path / "cache")
    assert made.failures.keys() == {refused.id, broken.id}
    assert made.failures[refused.id] == "an image of one colour"
    assert not any(image.id in made.failures for image in images[4:])
    assert {made.read(image, "first", "tokens").shape for image in images[4:]} == {(64, 36)}


def test_equal_files_are_encoded_once(images: list[ImageRef], tmp_path: Path) -> None:
    shutil.copyfile(images[1].path, images[2].path)
    made = make(images, tmp_path / "cache")
    assert sum(batches(made)) == 9
    assert not made.failures


def test_large_pictures_make_small_batches(
    images: list[ImageRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("umscosod.data.images._MOST_PIXELS", 2 * SIZE * SIZE)
    waiting, most = [0], [0]

    def decode(path: Path, **limits: int) -> ByteArray:
        waiting[0] += 1
        most[0] = max(most[0], waiting[0])
        return decode_image(path, **limits)

    monkeypatch.setattr(module, "decode_image", decode)

    def count(done: int, total: int, stage: str) -> None:
        waiting[0] -= bool(done)

    made = make(images, tmp_path / "cache", count)
    assert max(batches(made)) == 2
    assert most[0] <= 4  # the batch at work, and the one decoded ahead


def test_pictures_are_decoded_in_other_threads(
    images: list[ImageRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()

    def decode(path: Path, **limits: int) -> ByteArray:
        seen.add(threading.current_thread().name)
        return decode_image(path, **limits)

    monkeypatch.setattr(module, "decode_image", decode)
    make(images, tmp_path / "cache")
    assert threading.current_thread().name not in seen


def test_a_cancelled_job_leaves_no_thread_behind(images: list[ImageRef], tmp_path: Path) -> None:
    def cancel(done: int, total: int, stage: str) -> None:
        if done == 5:
            raise Cancelled("enough")

    before = threading.active_count()
    with pytest.raises(Cancelled):
        make(images, tmp_path / "cache", cancel)
    assert threading.active_count() == before


def test_memory_keeps_what_came_first_within_its_limit() -> None:
    memory, made = Memory(20), []

    def ask(key: str, size: int) -> bytes:
        return memory.get(key, lambda: made.append(key) or np.full(size, ord(key), np.uint8)).tobytes()

    assert [ask(key, size) for key, size in (("a", 10), ("b", 11), ("c", 10))] == [b"a" * 10, b"b" * 11, b"c" * 10]
    assert [ask(key, size) for key, size in (("a", 10), ("b", 11), ("c", 10))] == [b"a" * 10, b"b" * 11, b"c" * 10]
    assert made == ["a", "b", "c", "b"]


def test_many_images_are_encoded_in_processes_to_the_same_bits(
    images: list[ImageRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    images[2].path.write_bytes(images[2].path.read_bytes()[:100])  # known only when it is decoded
    images[3].path.write_bytes(b"")  # known at once
    pair = BackbonePair(first=EmbeddedBackbone(SIZE, 8), second=EmbeddedBackbone(SIZE, 16))
    alone = Encodings(pair, CONFIG, FeatureCache(tmp_path / "alone"))
    alone.make(images, ignore_progress)
    monkeypatch.setattr("umscosod.workers._LEAST_IMAGES", 2)
    monkeypatch.setattr(module, "_CHUNK", 3)
    monkeypatch.setattr("umscosod.workers.count_cores", lambda: 2)
    together = Encodings(pair, CONFIG, FeatureCache(tmp_path / "together"))
    together.make(images[:1], ignore_progress)  # one was there before
    caplog.clear()
    seen: list[tuple[int, int]] = []
    together.make(images, lambda done, total, stage: seen.append((done, total)))
    assert content(tmp_path / "together") == content(tmp_path / "alone")
    assert (together.hashes, together.failures) == (alone.hashes, alone.failures)
    assert together.failures.keys() == {images[2].id, images[3].id}
    assert seen == [(done, 10) for done in range(2, 11)]
    assert [record.message.split(":")[0] for record in caplog.records] == [images[3].id, images[2].id]


class InThisProcess:
    """An engine that does its work at once."""

    def network_device(self, here: str) -> str:
        return here

    def map(self, work, items, *, network_on: str = ""):  # type: ignore[no-untyped-def]
        return map(work, items)


def test_a_full_disk_is_no_matter_to_an_engine_that_finds_all_in_the_cache(
    images: list[ImageRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(cache: FeatureCache, wanted: int) -> None:
        raise CacheError("full")

    group = ImageGroup(name="all", images=tuple(images))
    pair = BackbonePair(first=EmbeddedBackbone(SIZE, 8), second=EmbeddedBackbone(SIZE, 16))
    cache = FeatureCache(tmp_path / "cache")
    encode_collection([group], pair, CONFIG, cache)
    monkeypatch.setattr(FeatureCache, "check_free", refuse)
    assert not encode_collection([group], pair, CONFIG, cache, engine=InThisProcess()).failures
    with pytest.raises(CacheError, match="full"):
        encode_collection([group], pair, CONFIG, FeatureCache(tmp_path / "other"))
