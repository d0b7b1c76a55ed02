"""`label` as a whole: beside the bare forward pass of a ViT, without weights, and on the demo.

Run ``python -m benchmarks IMAGES --only label [--weights FILE]``.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.rows import (
    BACKBONE_OF_WEIGHTS,
    Given,
    Row,
    Spent,
    scratch_folder,
    time_once,
    times_in_turn,
    without_weights,
)
from umscosod import groups_from_folder, label_groups, load_config
from umscosod.data.images import decode_image
from umscosod.device import FLOAT32, choose_precision, resolve_device
from umscosod.features.backbone import BackbonePair, build_backbones

GROUP = 20
NO_CRF = {"refine.crf.enabled": False}


def copy_group(paths: Sequence[Path], folder: Path) -> Path:
    """Copy photographs as one group; gives the folder of groups."""
    (folder / "group").mkdir(parents=True)
    for number, path in enumerate(paths):
        shutil.copyfile(path, folder / "group" / f"{number:03}{path.suffix}")
    return folder


def rows(given: Given) -> Iterator[Row]:
    """Measure."""
    yield from vit_rows(given)
    yield from embedded_rows(given)
    yield demo_row()


def vit_rows(given: Given) -> Iterator[Row]:
    """One group with a ViT-S in both streams: what `label` adds to the two encodings that it cannot do without.

    Targets are for float32, which every machine has; where `label` takes bfloat16, more rows say what that changes.
    """
    subject = f"ViT-S, one group of {8 if given.is_quick else GROUP}"
    wanted = {
        words: Row(
            name=f"{subject}: `label`{words}, bare forward", target=None if given.is_quick else least, better="lower"
        )
        for words, least in (("", 1.25), (" without DenseCRF", 1.10))
    }
    if given.weights is None:
        yield from without_weights(wanted.values())
        return
    with scratch_folder() as scratch:
        images = copy_group(given.paths(8 if given.is_quick else GROUP), scratch / "image")
        outs = (scratch / f"out-{number}" for number in itertools.count())
        both = tuple(dict.fromkeys((FLOAT32, choose_precision("auto", resolve_device("cpu")))))
        ways: dict[str, Callable[[], None]] = {}
        for precision in both:
            ways |= _vit_ways(given.weights, precision, images, outs)
        for way in ways.values():
            way()  # warm
        seconds = times_in_turn(ways, 1 if given.is_quick else 3)
    for words, row in wanted.items():
        yield _compare(row, seconds[f"label{words} {FLOAT32}"], seconds[f"bare {FLOAT32}"])
    for precision in both[1:]:
        ours, bare, exact = (seconds[way] for way in (f"label {precision}", f"bare {precision}", f"bare {FLOAT32}"))
        yield _compare(Row(name=f"{subject}: `label`, bare forward, both in {precision}"), ours, bare)
        yield _compare(Row(name=f"{subject}: `label` in {precision}, bare forward in {FLOAT32}"), ours, exact)


def _vit_ways(weights: Path, precision: str, images: Path, outs: Iterator[Path]) -> dict[str, Callable[[], None]]:
    """The forward alone and `label` with and without DenseCRF, in one arithmetic."""
    settings: dict[str, Any] = {"features.backbone": BACKBONE_OF_WEIGHTS, "features.weights": str(weights)}
    settings |= {"features.use_cache": False, "features.precision": FLOAT32 if precision == FLOAT32 else "auto"}
    pair = build_backbones(load_config("fast", overrides=settings).features, resolve_device("cpu"))
    pictures = [decode_image(path) for path in sorted((images / "group").iterdir())]

    def forward() -> None:
        for backbone in pair.both:
            backbone.encode(pictures)

    return {
        f"bare {precision}": forward,
        f"label {precision}": lambda: label(images, next(outs), settings, pair),
        f"label without DenseCRF {precision}": lambda: label(images, next(outs), settings | NO_CRF, pair),
    }


def _compare(row: Row, ours: Spent, bare: Spent) -> Row:
    detail = f"{ours.wall:.1f} and {bare.wall:.1f} s; processor time {ours.processor / bare.processor:.2f} x"
    return replace(row, figure=ours.wall / bare.wall, detail=detail)


def label(images: Path, out: Path, settings: dict[str, Any], pair: BackbonePair | None = None) -> None:
    """Label without training."""
    config = load_config("fast", overrides=settings)
    label_groups(images, out, config, train=False, backbones=None if pair is None else pair.both)


def embedded_rows(given: Given) -> Iterator[Row]:
    """From files to masks without weights, training and cache, in a warm process, in the groups that are given."""
    most, groups = (5, 2) if given.is_quick else (20, 6)
    settings = {"features.backbone": "embedded", "features.use_cache": False}
    with scratch_folder() as scratch:
        images, count = scratch / "image", 0
        for group in groups_from_folder(given.images)[:groups]:
            (images / group.name).mkdir(parents=True)
            for image in group.images[:most]:
                shutil.copyfile(image.path, images / group.name / image.path.name)
                count += 1
        label(copy_group(given.paths(2), scratch / "warm"), scratch / "warm-out", settings)
        names = (scratch / f"out-{number}" for number in itertools.count())
        ways = {
            "": partial(label, images, next(names), settings),
            ", without DenseCRF": partial(label, images, next(names), settings | NO_CRF),
        }
        for words, way in ways.items():
            spent = time_once(way)
            yield Row(
                name=f"`embedded`, decoding to mask of {count} photographs in groups, no training{words}",
                target=None if words or given.is_quick else 15,
                unit="images/s",
                figure=count / spent.wall,
                detail=f"{count / spent.processor:.1f} a second of processor time",
            )


def demo_row() -> Row:
    """The command on the demo's pictures, from a cold start, with an empty cache."""
    with scratch_folder() as scratch:
        run = partial(subprocess.run, check=True, capture_output=True, text=True)
        run([sys.executable, "-m", "umscosod.demo", str(scratch / "pictures")])
        images = scratch / "pictures" / "image"
        environment = {
            **os.environ,
            "UMSCOSOD_CACHE": str(scratch / "cache"),
            "UMSCOSOD_WEIGHTS": str(scratch / "none"),
        }
        environment["HF_HOME"] = environment["TORCH_HOME"] = str(scratch / "none")
        words = [sys.executable, "-m", "umscosod", "label", str(images), "--out", str(scratch / "out")]
        spent = time_once(partial(run, words, env=environment))
        shown = len([path for path in images.rglob("*") if path.is_file()])
    return Row(
        name="`umscosod label` of the demo's pictures, empty cache",
        target=20,
        better="lower",
        unit="s",
        figure=spent.wall,
        detail=f"{shown} pictures, {spent.processor:.1f} s of processor time",
    )
