"""What the feature cache saves: encoding a collection cold and warm, in one run.

Run ``python benchmarks/cache.py``.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from umscosod.config.io import load_config
from umscosod.data.groups import groups_from_folder
from umscosod.demo.compose import make_groups
from umscosod.device import resolve_device
from umscosod.features.backbone import build_backbones
from umscosod.features.cache import FeatureCache
from umscosod.features.collection import encode_collection


def main() -> None:
    """Encode the demo pictures twice with the weight-free backbone."""
    config = load_config("fast", overrides={"features.backbone": "embedded"})
    pair = build_backbones(config.features, resolve_device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        make_groups(Path(folder) / "pictures", seed=0)
        groups = groups_from_folder(Path(folder) / "pictures" / "image")
        cache = FeatureCache(Path(folder) / "cache")
        seconds = []
        for _ in range(2):
            start = time.perf_counter()
            collection = encode_collection(groups, pair, config, cache)
            for features in collection:
                assert len(features.sizes_hw) == len(features.group.images)
            seconds.append(time.perf_counter() - start)
        images = sum(len(group.images) for group in groups)
        stats = cache.stats()
    cold, warm = seconds
    print(f"{images} images: cold {cold / images:.3f} s, warm {warm / images:.4f} s an image: {cold / warm:.0f} times")
    print(f"on disk: {stats.bytes / images / 1e6:.2f} MB an image")


if __name__ == "__main__":
    main()
