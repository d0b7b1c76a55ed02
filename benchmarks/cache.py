"""What the feature cache saves and holds: a collection encoded cold and read warm; bytes an image by stream.

Run ``python -m benchmarks.cache [--weights FILE]``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.rows import BACKBONE_OF_WEIGHTS, Given, Row, scratch_folder, show, without_weights
from umscosod import groups_from_folder, load_config
from umscosod.demo.compose import make_groups
from umscosod.device import resolve_device
from umscosod.features.backbone import build_backbones
from umscosod.features.cache import FeatureCache
from umscosod.features.collection import Encodings, encode_collection
from umscosod.progress import ignore_progress
from umscosod.types import ImageGroup

STREAM_WORDS = {"first": "tokens, keys, attention", "second": "tokens, no keys", "picture": "pixels at network size"}


def rows(given: Given) -> Iterator[Row]:
    """Measure on the demo's pictures."""
    with scratch_folder() as scratch:
        make_groups(scratch / "pictures", seed=0)
        groups = groups_from_folder(scratch / "pictures" / "image")
        groups = groups[:2] if given.is_quick else groups
        yield time_cold_and_warm(groups, scratch / "timed")
        yield from count_bytes(groups, "`embedded`", {"features.backbone": "embedded"}, scratch / "embedded")
        if given.weights is None:
            parts = [*(f"cache, ViT-S, {part}" for part in STREAM_WORDS), "cache, ViT-S, keys of the second stream"]
            yield from without_weights(Row(name=part, unit="kB an image", better="lower") for part in parts)
            return
        settings = {"features.backbone": BACKBONE_OF_WEIGHTS, "features.weights": str(given.weights)}
        few = [replace(groups[0], images=groups[0].images[:2])]
        yield from count_bytes(few, "ViT-S", settings, scratch / "vit")


def time_cold_and_warm(groups: Sequence[ImageGroup], folder: Path) -> Row:
    """Seconds to the features of a collection that was never seen, and of the same one again."""
    config = load_config("fast", overrides={"features.backbone": "embedded"})
    pair, cache = build_backbones(config.features, resolve_device("cpu")), FeatureCache(folder)
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        for features in encode_collection(groups, pair, config, cache):
            assert len(features.sizes_hw) == len(features.group.images)
        seconds.append(time.perf_counter() - start)
    images = sum(len(group.images) for group in groups)
    cold, warm = (value / images for value in seconds)
    return Row(
        name="features of the demo's pictures: cold cache, warm",
        figure=cold / warm,
        detail=f"{cold:.3f} and {warm:.4f} s an image, {images} images",
    )


def count_bytes(groups: Sequence[ImageGroup], words: str, settings: dict[str, object], folder: Path) -> Iterator[Row]:
    """Bytes of the files of an image, by part, and what the second stream stores of keys."""
    config = load_config("fast", overrides=settings)
    cache = FeatureCache(folder)
    encodings = Encodings(build_backbones(config.features, resolve_device("cpu")), config, cache)
    images = [image for group in groups for image in group.images]
    encodings.make(images, ignore_progress)
    for part, holds in STREAM_WORDS.items():
        size = sum(cache.size(encodings.key(image, part)) or 0 for image in images) / len(images)
        name = f"cache, {words}, {part}"
        yield Row(name=name, better="lower", unit="kB an image", figure=size / 1e3, detail=holds)
    second = cache.get(encodings.key(images[0], "second")) or {}
    yield Row(
        name=f"cache, {words}, keys of the second stream",
        target=0,
        better="lower",
        unit="kB an image",
        figure=second["keys"].nbytes / 1e3 if "keys" in second else 0.0,
    )


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path)
    show(rows(Given(images=Path(), weights=parser.parse_args().weights)))


if __name__ == "__main__":
    main()
