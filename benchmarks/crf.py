"""DenseCRF: process pool against one process, full size against half size, soft against hard start.

    python -m benchmarks.crf [--images DIR --masks DIR] [--count N] [--workers W] [--rounds R] [--out FILE]
                             [--device cuda] [--size PX]

Ratios of one run: read them, not the seconds. Masks are coarsened to the 28 x 28 token grid first, as maps come; such
maps are unsure at borders only, which real ones are not: they tell little of the soft start's worth.
With --device the form in torch is timed on that device against the pool, and its masks are compared; nothing else is.
Without --images the photographs that come with scikit-image are cropped, and Otsu's threshold stands in for masks.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import skimage.data
import skimage.filters

from benchmarks.rows import Given, Row
from umscosod.config import CrfConfig
from umscosod.data.images import open_picture
from umscosod.data.resize import resize_centred, resize_mask, resize_picture
from umscosod.refine.crf import CrfInput
from umscosod.refine.crf_pool import open_pool, refine_masks
from umscosod.refine.crf_torch import TorchCrf
from umscosod.types import BoolArray, ByteArray

Masks = list[BoolArray]
Starts = list[CrfInput]

GRID = 28
SCOSPARC: dict[str, Any] = {
    **{"unary": "hard", "confidence": 0.995, "half_size": False, "iterations": 10},
    **{"gaussian_xy_px": 10.0, "gaussian_compat": 10.0},
    **{"bilateral_xy_px": 10.0, "bilateral_rgb": 3.0, "bilateral_compat": 10.0},
}
FULL_SIZE = {"half_size": False, "iterations": 20}
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


def crops() -> Iterator[tuple[ByteArray, BoolArray]]:
    """Seeded random crops of scikit-image's photographs with Otsu masks, without end."""
    rng = np.random.default_rng(0)
    for name in itertools.cycle(PHOTOGRAPHS):
        photograph = getattr(skimage.data, name)()
        height, width = photograph.shape[:2]
        side = int(rng.integers(200, min(height, width) + 1))
        top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        picture = photograph[top : top + side, left : left + side]
        grey = cv2.GaussianBlur(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (0, 0), 4)
        yield picture, grey > skimage.filters.threshold_otsu(grey)


def files(images: Path, masks: Path) -> Iterator[tuple[ByteArray, BoolArray]]:
    """Pictures and true masks of two trees with the same names."""
    for mask_path in sorted(masks.rglob("*.png")):
        found = sorted((images / mask_path.relative_to(masks).parent).glob(f"{mask_path.stem}.*"))
        if found:
            picture = np.asarray(open_picture(found[0]).convert("RGB"))
            truth = np.asarray(open_picture(mask_path).convert("L")) > 127
            if truth.shape == picture.shape[:2]:
                yield picture, truth


def coarsen(truth: BoolArray, picture: ByteArray, size_px: int) -> CrfInput:
    """The true mask as a 28 x 28 map would show it, at network size."""
    square = (size_px, size_px)
    map_HW = resize_centred(resize_centred(truth.astype(np.float32), (GRID, GRID)), square)
    return CrfInput(map_HW=map_HW, mask_HW=map_HW >= 0.5, threshold=0.5, picture_HW3=resize_picture(picture, square))


def iou(a: BoolArray, b: BoolArray) -> float:
    """Intersection over union; 1 for two empty masks."""
    union = np.count_nonzero(a | b)
    return float(np.count_nonzero(a & b) / union) if union else 1.0


def measure_speed(starts: Starts, config: CrfConfig, rounds: int) -> dict[str, float | bool]:
    """Best of some rounds for each way, taken in turn, so that other load hits all alike."""
    plain = replace(config, **FULL_SIZE)
    seconds: dict[str, list[float]] = {"one": [], "pool": [], "plain": []}
    own_cpu: dict[str, list[float]] = {"one": [], "pool": [], "plain": []}
    outcomes = {}
    with open_pool(config) as pool:
        refine_masks(starts[:2], config, pool)  # in a run the processes boot while features are encoded
        ways = {"one": (config, None), "pool": (config, pool), "plain": (plain, None)}
        for _ in range(rounds):
            for name, (settings, executor) in ways.items():
                start, busy = time.perf_counter(), time.process_time()
                outcomes[name] = refine_masks(starts, settings, executor)
                seconds[name].append(time.perf_counter() - start)
                own_cpu[name].append(time.process_time() - busy)
    best = {name: min(values) for name, values in seconds.items()}
    cpu = {name: min(values) for name, values in own_cpu.items()}
    return {
        "seconds_per_picture": best["one"] / len(starts),
        "pool_speedup": best["one"] / best["pool"],
        "pool_equals_one_process": all(
            np.array_equal(a, b) for (a, *_), (b, *_) in zip(outcomes["one"], outcomes["pool"], strict=True)
        ),
        # Of the work, what stays with the caller: on idle cores the pool's speed-up is bounded by its inverse.
        "callers_share_of_cpu_with_pool": cpu["pool"] / cpu["one"],
        "cpu_ratio_full_size_to_half_size": cpu["plain"] / cpu["one"],
        "pixels_that_differ": share_that_differs(*([mask for mask, *_ in outcomes[name]] for name in ("one", "plain"))),
    }


def measure_torch(starts: Starts, config: CrfConfig, rounds: int, device: str) -> dict[str, float]:
    """Best of some rounds for the pool and for torch, taken in turn, default iterations."""
    seconds: dict[str, list[float]] = {"pool": [], "torch": []}
    masks: dict[str, Masks] = {}
    with open_pool(config) as pool:
        ways = {"pool": pool, "torch": TorchCrf(device)}
        for way in ways.values():
            refine_masks(starts[:2], config, way)
        for _ in range(rounds):
            for name, way in ways.items():
                start = time.perf_counter()
                masks[name] = [mask for mask, *_ in refine_masks(starts, config, way)]  # back on the CPU
                seconds[name].append(time.perf_counter() - start)
    best = {name: min(values) / len(starts) for name, values in seconds.items()}
    return {
        "torch_seconds_per_picture": best["torch"],
        "pool_seconds_per_picture": best["pool"],
        "torch_speedup_over_pool": best["pool"] / best["torch"],
        "mean_iou_of_both": float(np.mean([iou(a, b) for a, b in zip(masks["pool"], masks["torch"], strict=True)])),
    }


def rows(given: Given) -> Iterator[Row]:
    """Measure on scikit-image's photographs; `given.images` have no masks."""
    count = 6 if given.is_quick else 16
    config = CrfConfig(workers=2)
    starts = [coarsen(truth, picture, config.size_px) for picture, truth in itertools.islice(crops(), count)]
    speed = measure_speed(starts, config, 1 if given.is_quick else 3)
    yield Row(
        name=f"DenseCRF of {count} pictures: one process, a pool of 2",
        target=None if given.is_quick else 1.8,
        figure=speed["pool_speedup"],
        detail=f"the caller keeps {speed['callers_share_of_cpu_with_pool']:.1%} of the work",
    )
    yield Row(
        name="DenseCRF: 20 steps at full size, 10 at half size and the guided filter",
        figure=speed["cpu_ratio_full_size_to_half_size"],
        detail=f"{speed['pixels_that_differ']:.2%} of the pixels differ",
    )
    yield count_unequal(starts[:6], config, 3)


def count_unequal(starts: Starts, config: CrfConfig, most: int) -> Row:
    """Pictures whose mask differs by a bit between some number of workers and one process."""
    expected = [mask for mask, *_ in refine_masks(starts, config)]
    unequal = 0
    for workers in range(2, most + 1):
        settings = replace(config, workers=workers)
        with open_pool(settings) as pool:
            found = [mask for mask, *_ in refine_masks(starts, settings, pool)]
        unequal += sum(not np.array_equal(one, other) for one, other in zip(expected, found, strict=True))
    name = f"DenseCRF: masks that differ between 1 and 2 to {most} workers"
    return Row(name=name, target=0, better="lower", unit="masks", figure=unequal, detail=f"of {len(starts)}")


def share_that_differs(one: Masks, other: Masks) -> float:
    """Mean share of pixels that two sets of masks label differently."""
    return float(np.mean([(a != b).mean() for a, b in zip(one, other, strict=True) if a.shape == b.shape]))


def measure_masks(starts: Starts, truths: Masks, config: CrfConfig) -> dict[str, float | int]:
    """What the settings do to the masks, and how far each set lies from the true ones."""

    def run(given: Starts, settings: CrfConfig) -> Masks:
        return [mask for mask, *_ in refine_masks(given, settings)]

    def mean_iou(guesses: Masks) -> float:
        pairs = zip(guesses, truths, strict=True)
        return float(np.mean([iou(resize_mask(guess, (len(true), len(true[0]))), true) for guess, true in pairs]))

    ours, plain = run(starts, config), run(starts, replace(config, **FULL_SIZE))
    swapped = run(
        [replace(one, picture_HW3=np.ascontiguousarray(one.picture_HW3[..., ::-1])) for one in starts], config
    )
    hard = run(starts, replace(config, **SCOSPARC))
    masks = [one.mask_HW for one in starts]
    return {
        "pixels_differ_rgb_to_bgr": share_that_differs(ours, swapped),  # the lattice only: the exact kernel is equal
        "mean_iou_before": mean_iou(masks),
        "mean_iou_after": mean_iou(ours),
        "mean_iou_after_full_size_only": mean_iou(plain),
        "mean_iou_after_hard_start_of_scosparc": mean_iou(hard),
        "masks_erased": sum(bool(mask.any()) and not after.any() for mask, after in zip(masks, ours, strict=True)),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--masks", type=Path)
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="", help="time the form in torch there: cuda, cuda:1, cpu")
    parser.add_argument("--size", type=int, default=CrfConfig().size_px, help="side of the square that DenseCRF sees")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    if bool(options.images) != bool(options.masks):
        parser.error("--images and --masks go together")
    config = CrfConfig(workers=options.workers, size_px=options.size)
    source = files(options.images, options.masks) if options.images else crops()
    items = list(itertools.islice(source, options.count))
    if not items:
        parser.error("no picture with a mask of its own size and name was found")
    starts = [coarsen(truth, picture, config.size_px) for picture, truth in items]
    figures: dict[str, Any] = {"pictures": len(items), "workers": config.workers}
    if options.device:
        figures |= {"device": options.device, **measure_torch(starts, config, options.rounds, options.device)}
    else:
        figures |= measure_speed(starts, config, options.rounds)
        figures |= measure_masks(starts, [truth for _, truth in items], config)
    text = json.dumps(figures, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
