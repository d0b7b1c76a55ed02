"""`label` as a whole: beside the bare forward pass of a ViT, without weights, and on the demo.

Run ``python -m benchmarks IMAGES --only label [--weights FILE]``.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.rows import BACKBONE_OF_WEIGHTS, Given, Row, scratch_folder, time_once, times_in_turn, without_weights
from umscosod import groups_from_folder, label_groups, load_config
from umscosod.data.images import decode_image
from umscosod.device import FLOAT32, resolve_device
from umscosod.features.backbone import BackbonePair, build_backbones
from umscosod.features.specs import precision_of

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
    """One group with a ViT-S in both streams: what `label` adds to the two encodings that it cannot do without."""
    with scratch_folder() as scratch:
        images = copy_group(given.paths(8 if given.is_quick else GROUP), scratch / "image")
        files = sorted((images / "group").iterdir())
        wanted = {
            way: Row(
                name=f"ViT-S, one group of {len(files)}: `label`{words}, bare forward",
                target=None if given.is_quick else least,
                better="lower",
            )
            for way, words, least in (("label", "", 1.25), ("label without CRF", " without DenseCRF", 1.10))
        }
        if given.weights is None:
            yield from without_weights(wanted.values())
            return
        features = {"features.backbone": BACKBONE_OF_WEIGHTS, "features.weights": str(given.weights)}
        features |= {"features.use_cache": False}
        config = load_config("fast", overrides=features).features
        pair, exact = (
            build_backbones(one, resolve_device("cpu")) for one in (config, replace(config, precision=FLOAT32))
        )
        pictures = [decode_image(path) for path in files]
        names = (scratch / f"out-{number}" for number in itertools.count())
        ways = {
            "bare": lambda: [backbone.encode(pictures) for backbone in pair.both],
            "label": lambda: label(images, next(names), features, pair),
            "label without CRF": lambda: label(images, next(names), features | NO_CRF, pair),
        }
        ways["label"]()  # warm
        precision = precision_of(pair.first)
        if precision != FLOAT32:
            ways[FLOAT32] = lambda: [backbone.encode(pictures) for backbone in exact.both]
        seconds = times_in_turn(ways, 1 if given.is_quick else 3)
        for way, row in wanted.items():
            ours, bare = seconds[way], seconds["bare"]
            detail = f"{ours.wall:.1f} and {bare.wall:.1f} s; processor time {ours.processor / bare.processor:.2f} x"
            yield replace(row, figure=ours.wall / bare.wall, detail=f"{detail}; {precision}")
        if FLOAT32 in seconds:
            yield Row(
                name=f"ViT-S, one group of {len(files)}: `label` in {precision}, bare forward in float32",
                figure=seconds["label"].wall / seconds[FLOAT32].wall,
                detail=f"{seconds['label'].wall:.1f} and {seconds[FLOAT32].wall:.1f} s",
            )


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
