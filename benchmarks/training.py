"""An epoch of training from cached tokens beside one with the backbones in the loop.

Run ``python -m benchmarks IMAGES --only training [--weights FILE]``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from benchmarks.rows import BACKBONE_OF_WEIGHTS, Given, Row, scratch_folder, times_in_turn, without_weights
from umscosod import PipelineConfig, groups_from_folder, load_config
from umscosod.data.images import decode_image
from umscosod.device import FLOAT32, resolve_device
from umscosod.features.architectures import build_vit
from umscosod.features.backbone import build_backbones
from umscosod.features.cache import FeatureCache
from umscosod.features.collection import FeatureCollection, encode_collection
from umscosod.features.group import PICTURE, STREAMS, assemble, picture_arrays, stream_arrays
from umscosod.features.specs import PAIRS, VIT_SPECS
from umscosod.pseudo.proposals import HacProposer
from umscosod.pseudo.select import choose_labels
from umscosod.training.loop import train_network
from umscosod.types import GroupFeatures, ImageGroup, ImageRef


class InLoop(Sequence[GroupFeatures]):
    """Groups that are decoded and encoded each time they are asked for.

    The first one asked for is kept for the next time: training looks at the shapes of a group before its first step.
    """

    def __init__(self, collection: FeatureCollection) -> None:
        self.collection = collection
        self.seen: dict[int, GroupFeatures] | None = None

    def __len__(self) -> int:
        """Count the groups."""
        return len(self.collection)

    def __getitem__(self, index: Any) -> Any:
        """Encode one group."""
        if self.seen and index in self.seen:
            return self.seen.pop(index)
        made = self._encode(index)
        self.seen = {index: made} if self.seen is None else self.seen
        return made

    def _encode(self, index: int) -> GroupFeatures:
        group, pair = self.collection.groups[index], self.collection.pair
        pictures = [decode_image(image.path) for image in group.images]
        size_px = self.collection.config.features.size_px
        parts = {PICTURE: [picture_arrays(picture, size_px) for picture in pictures]}
        for stream, backbone in zip(STREAMS, pair.both, strict=True):
            parts[stream] = [stream_arrays(encoded, stream) for encoded in backbone.encode(pictures)]
        place = {image.id: at for at, image in enumerate(group.images)}

        def read(image: ImageRef, part: str, name: str) -> Any:
            return parts[part][place[image.id]][name]

        return assemble(group, read, pair, self.collection.whitenings)


def rows(given: Given) -> Iterator[Row]:
    """Measure with and without weights."""
    groups = [
        replace(group, images=group.images[: 3 if given.is_quick else 20])
        for group in groups_from_folder(given.images)[: 2 if given.is_quick else 6]
    ]
    target = None if given.is_quick else 15.0

    def wanted(pair: str) -> list[Row]:
        return [
            Row(name=f"{pair}, an epoch: backbones in the loop, cached tokens", target=target),
            Row(name=f"{pair}, the same without the network's own work"),
        ]

    exact = {"features.precision": FLOAT32}  # every machine has it
    if given.weights is None:
        yield from without_weights(wanted("ViT-S"))
    else:
        settings = {"features.backbone": BACKBONE_OF_WEIGHTS, "features.weights": str(given.weights)}
        yield from time_epochs(groups, load_config("fast", overrides=settings | exact), wanted("ViT-S"))
    few = [replace(group, images=group.images[:4]) for group in groups[:2]]
    with scratch_folder() as scratch:
        first, second = (write_random(name, scratch) for name in PAIRS[0])
        settings = {"features.backbone": PAIRS[0][0], "features.weights": str(first)}
        settings |= {"features.second_backbone": PAIRS[0][1], "features.second_weights": str(second)}
        config = load_config("fast", overrides=settings | exact)
        yield from time_epochs(few, config, wanted("the paper's pair, random weights"))
    config = load_config("fast", overrides={"features.backbone": "embedded"})
    yield from time_epochs(groups, config, wanted("`embedded`"))


def write_random(name: str, folder: Path) -> Path:
    """Write random weights of an architecture, for times, which do not depend on them."""
    file = folder / f"{name}.safetensors"
    save_file(build_vit(VIT_SPECS[name]).state_dict(), file)
    return file


def time_epochs(groups: Sequence[ImageGroup], config: PipelineConfig, wanted: Sequence[Row]) -> Iterator[Row]:
    """Train for one epoch both ways, and then only read what an epoch reads."""
    config = replace(config, train=replace(config.train, epochs=1, min_steps=0))
    with scratch_folder() as scratch:
        pair = build_backbones(config.features, resolve_device("cpu"))
        cached = encode_collection(groups, pair, config, FeatureCache(scratch / "cache"))
        proposer = HacProposer(config.pseudo)
        labels = {label.image_id: label for one in cached for label in choose_labels(one, proposer, config.pseudo)}
        folders = (scratch / f"run-{number}" for number in count())

        def train(features: Sequence[GroupFeatures]) -> None:
            train_network(features, labels, config, next(folders), groups=cached.groups)

        def look(features: Sequence[GroupFeatures]) -> None:
            for one in features:
                seen = one.take(range(len(one.group.images)))
                assert len(seen.first.tokens_NPD) == len(seen.second.tokens_NPD) == len(seen.saliency_NP)
                assert len(seen.pictures_NHW3) == len(seen.group.images)

        looped = InLoop(cached)
        for row, work in zip(wanted, (train, look), strict=True):
            seconds = times_in_turn({"loop": partial(work, looped), "cached": partial(work, cached)}, 1)
            loop, once = seconds["loop"].processor, seconds["cached"].processor
            images = sum(len(group.images) for group in cached.groups)
            detail = f"{loop:.2f} and {once:.3f} s of processor time, {images} photographs"
            yield replace(row, figure=loop / once, detail=detail)
