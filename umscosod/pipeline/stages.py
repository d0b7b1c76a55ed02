"""The stages of the method, each over a whole collection, each resumable.

Suffixes: ``N`` images of a group, ``P`` patches, ``H W`` network size.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from umscosod.config import PipelineConfig, RefineConfig
from umscosod.data.files import open_atomic
from umscosod.data.resize import resize_centred
from umscosod.errors import DataError
from umscosod.network.model import UmsNetwork
from umscosod.network.predict import predict_maps
from umscosod.pipeline.blend import blend_maps
from umscosod.pipeline.setup import Prepared
from umscosod.progress import ProgressFn
from umscosod.pseudo.cleaning import CleanedLabels, clean_collection
from umscosod.pseudo.probe import LinearProbe, compute_maps
from umscosod.pseudo.proposals import HacProposer, MaskProposer
from umscosod.pseudo.select import choose_labels
from umscosod.pseudo.store import HUMAN_SOURCE, PseudoLabelStore, label_map, load_pseudo_labels
from umscosod.refine.crf_pool import CrfPool
from umscosod.refine.rrbe import refine_group
from umscosod.refine.threshold import map_confidence
from umscosod.training.loop import TrainedNetwork, train_network
from umscosod.types import NAMES, FloatArray, GroupFeatures, PseudoLabel, RefinedMask

logger = logging.getLogger(__name__)

Labels = Mapping[str, PseudoLabel]


def pseudo_stage(prepared: Prepared, progress: ProgressFn) -> dict[str, PseudoLabel]:
    """Stage 1, CM-SPLG: a pseudo-label for every usable image, saved under ``OUT/pseudo``.

    Groups whose labels this very job has saved are not made again, and a mask that a person replaced is kept.
    """
    folder = prepared.job.out / "pseudo"
    config, groups = prepared.config.pseudo, prepared.features.groups
    done = prepared.job.run / "pseudo-done"
    proposer: MaskProposer = prepared.detections or HacProposer(config)
    finished = set(done.read_text(encoding="utf-8", errors=NAMES).splitlines()) if done.is_file() else set()
    store = PseudoLabelStore(folder)
    for number, group in enumerate(groups):
        progress(number, len(groups), "pseudo-labels")
        if group.name in finished and store.holds(group):
            continue
        features = prepared.features.load(group)
        store.save(group, features.sizes_hw, choose_labels(features, proposer, config))
        finished.add(group.name)
        with open_atomic(done) as stream:
            stream.write("\n".join(sorted(finished)).encode("utf-8", NAMES))
    store.seal(groups)
    progress(len(groups), len(groups), "pseudo-labels")
    if prepared.detections is not None:
        logger.info("%s", prepared.detections.summary())
        for line in prepared.detections.warnings():
            logger.warning("%s", line)
    return read_labels(prepared, folder)


def read_labels(prepared: Prepared, folder: Path) -> dict[str, PseudoLabel]:
    """Read the pseudo-labels of the usable images; an image whose mask by a person is unfit is a failure.

    Raises
    ------
    DataError
        A person's masks are all there is, and none is fit; or the manifest is damaged.
    """
    unfit: dict[str, str] = {}
    size_px = prepared.config.features.size_px
    labels = load_pseudo_labels(folder, prepared.features.groups, max_side_px=size_px, unfit=unfit)
    if unfit and not labels:
        raise DataError(f"none of {len(unfit)} masks in {folder} can be used: {next(iter(unfit.values()))}")
    prepared.features.leave_out(unfit)
    return labels


def clean_stage(prepared: Prepared, labels: Labels) -> CleanedLabels:
    """Between stage 1 and 2: labels cleaned by their group and by a probe over all groups; nothing is written.

    As ``pseudo.clean`` and ``pseudo.probe`` say. The method ``pseudo`` is CM-SPLG alone: its labels stay as they are.
    """
    if prepared.config.method == "pseudo":
        return CleanedLabels(labels=dict(labels))
    return clean_collection(prepared.features, labels, prepared.config)


def training_stage(prepared: Prepared, labels: Labels, progress: ProgressFn) -> TrainedNetwork:
    """Stage 2: train the network on the pseudo-labels; a killed run goes on where it stopped."""
    config, groups = prepared.config, prepared.features.groups
    least = math.ceil(config.train.min_steps / max(1, len(groups)))
    config = replace(config, train=replace(config.train, epochs=max(config.train.epochs, least)))
    rounds, start, targets = config.train.rounds, None, labels
    for number in range(1, rounds):
        run = prepared.job.run / f"round-{number}"
        start = train_network(prepared.features, targets, config, run, progress, groups=groups, start=start).model
        targets = relabel(prepared, labels, start)
    return train_network(prepared.features, targets, config, prepared.job.run, progress, groups=groups, start=start)


def relabel(prepared: Prepared, labels: Labels, model: UmsNetwork) -> dict[str, PseudoLabel]:
    """Self-training: the labels blended with what a network makes of the images.

    A person's label stays as it is, and so does one that the blend would leave empty.
    """
    share = prepared.config.train.round_share
    found: dict[str, PseudoLabel] = {}
    for features in prepared.features:
        own_NHW = np.stack(label_maps(features, labels, prepared.config))
        maps_NHW = blend_maps(own_NHW, predict_maps(model, features, prepared.device), share)
        for image, map_HW in zip(features.group.images, maps_NHW, strict=True):
            label, mask_HW = labels.get(image.id), map_HW >= 0.5
            if label is not None and label.source != HUMAN_SOURCE and mask_HW.any():
                label = replace(label, map_hw=map_HW, mask_hw=mask_HW, is_map=True)
            if label is not None:
                found[image.id] = label
    return found


def prediction_stage(prepared: Prepared, model: UmsNetwork, progress: ProgressFn) -> float:
    """Predict the co-saliency maps of all groups into the job's folder.

    Returns
    -------
    float
        Mean of 1 - conf over all maps: the b_bar of eq. 6.
    """
    doubts: list[float] = []
    groups = prepared.features.groups
    for number, group in enumerate(groups):
        progress(number, len(groups), "prediction")
        maps_NHW = prepared.job.load_maps(group)
        if maps_NHW is None:
            prepared.job.save_maps(group, predict_maps(model, prepared.features.load(group), prepared.device))
            maps_NHW = prepared.job.load_maps(group)
        assert maps_NHW is not None, "it was written a moment ago"
        doubts += [1.0 - map_confidence(map_HW) for map_HW in maps_NHW]
    progress(len(groups), len(groups), "prediction")
    return math.fsum(doubts) / len(doubts) if doubts else 0.0


def label_doubt(prepared: Prepared, labels: Labels) -> float:
    """Mean of 1 - conf over the soft maps of all pseudo-labels: their own b_bar."""
    return _mean_doubt(label_maps(features, labels, prepared.config) for features in prepared.features)


def probe_doubt(prepared: Prepared, probe: LinearProbe) -> float:
    """Mean of 1 - conf over a probe's maps of all images: its own b_bar, whoever made the labels it was fitted to."""
    return _mean_doubt(probe_maps(features, probe, prepared.config) for features in prepared.features)


def _mean_doubt(groups: Iterable[Iterable[FloatArray]]) -> float:
    doubts = [1.0 - map_confidence(map_HW) for maps in groups for map_HW in maps]
    return math.fsum(doubts) / len(doubts) if doubts else 0.0


def refine_features(
    features: GroupFeatures, maps_NHW: FloatArray, config: RefineConfig, b_bar: float, pool: CrfPool | None
) -> list[RefinedMask]:
    """Refine a group's maps by its pictures and the first stream's tokens; see `umscosod.refine.rrbe.refine_group`."""
    first = features.first
    return refine_group(
        maps_NHW, features.pictures_NHW3, first.tokens_NPD, first.grid_hw, features.sizes_hw, config, b_bar, pool
    )


def label_maps(features: GroupFeatures, labels: Labels, config: PipelineConfig) -> list[FloatArray]:
    """Soft maps of a group's pseudo-labels at network size; zeros for an image that has none."""
    size_hw, grid_hw = features.pictures_NHW3.shape[1:3], features.first.grid_hw
    empty_HW = np.zeros(size_hw, np.float32)
    return [
        label_map(labels[image.id], saliency_P.reshape(grid_hw), (size_hw[0], size_hw[1]), config.pseudo)
        if image.id in labels
        else empty_HW
        for image, saliency_P in zip(features.group.images, features.saliency_NP, strict=True)
    ]


def probe_maps(features: GroupFeatures, probe: LinearProbe, config: PipelineConfig) -> FloatArray:
    """Soft maps that a probe makes of a group, float32, (N, H, W), at network size."""
    size_hw = (features.pictures_NHW3.shape[1], features.pictures_NHW3.shape[2])
    maps = [resize_centred(map_hw, size_hw) for map_hw in compute_maps(features, probe)]
    return np.stack(maps).astype(np.float32)
