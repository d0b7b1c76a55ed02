"""How often a whole job reads an image's features from the cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest

from umscosod.config import PipelineConfig
from umscosod.features import collection
from umscosod.features import group as assembly
from umscosod.features.cache import Arrays, FeatureCache
from umscosod.pipeline import label_groups

IMAGES, GROUPS = 6, 2
ONCE = {"tokens": 2 * IMAGES, "keys": IMAGES, "attn": IMAGES, "picture": IMAGES, "size": IMAGES}
"""Arrays of all images: tokens of two streams, keys and attention of the first alone."""


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Arrays read from the cache by name, and ``sharpened`` groups."""
    seen: Counter[str] = Counter()
    get, sharpen = FeatureCache.get, assembly.sharpen_saliency

    def counting(cache: FeatureCache, key: str, names: Collection[str] | None = None) -> Arrays | None:
        arrays = get(cache, key, names)
        seen.update(list(arrays or ()))
        return arrays

    def sharpening(*args):  # type: ignore[no-untyped-def]
        seen["sharpened"] += 1
        return sharpen(*args)

    monkeypatch.setattr(FeatureCache, "get", counting)
    monkeypatch.setattr(assembly, "sharpen_saliency", sharpening)
    return seen


def label(images: Path, out: Path, config: PipelineConfig, epochs: int) -> None:
    train = replace(config.train, epochs=max(1, epochs), min_steps=1, batch_images=2)
    label_groups(images, out, replace(config, train=train), train=epochs > 0)


@pytest.mark.parametrize("epochs", [0, 2])
def test_a_job_reads_each_array_once_and_sharpens_each_group_once(
    images: Path, config: PipelineConfig, tmp_path: Path, reads: Counter[str], epochs: int
) -> None:
    label(images, tmp_path / "out", config, epochs)
    assert reads == {**ONCE, "sharpened": GROUPS}


def test_without_memory_a_step_reads_the_images_it_draws(
    images: Path, config: PipelineConfig, tmp_path: Path, reads: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collection, "_REMEMBERED_BYTES", 0)
    label(images, tmp_path / "short", config, epochs=1)
    short = Counter(reads)
    reads.clear()
    label(images, tmp_path / "long", config, epochs=3)
    drawn = 2 * GROUPS * 2  # two epochs more, of two images a group
    more = {name: reads[name] - short[name] for name in reads}
    assert more == {"tokens": 2 * drawn, "picture": more["picture"], "keys": 0, "attn": 0, "size": 0, "sharpened": 0}
    assert more["picture"] <= 2 * drawn
