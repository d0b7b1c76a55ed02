"""The stages of the method, each over a whole collection, each resumable.

Suffixes: ``N`` images of a group, ``P`` patches, ``H W`` network size.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from umscosod.confidence.judge import GroupJudgement, judge_group
from umscosod.config import PipelineConfig, RefineConfig
from umscosod.data.files import open_atomic
from umscosod.data.masks import read_mask
from umscosod.data.resize import resize_aligned, resize_mask
from umscosod.export.files import path_inside
from umscosod.export.png import write_map, write_mask
from umscosod.network.model import UmsNetwork
from umscosod.network.predict import predict_group
from umscosod.pipeline.prepare import Prepared
from umscosod.pipeline.stored import copy_stored, read_stored
from umscosod.progress import ProgressFn
from umscosod.pseudo.collection import clean_collection
from umscosod.pseudo.detections import CocoProposer
from umscosod.pseudo.manifest import HUMAN_SOURCE, PseudoLabelStore, load_pseudo_labels
from umscosod.pseudo.maps import label_map
from umscosod.pseudo.proposals import HacProposer, MaskProposer
from umscosod.pseudo.select import make_pseudo_labels
from umscosod.refine.choice import group_agreement
from umscosod.refine.rrbe import refine_group
from umscosod.refine.threshold import map_confidence
from umscosod.training.loop import TrainedNetwork, train_network
from umscosod.types import FloatArray, GroupFeatures, ImageRef, Labelled, PseudoLabel, RefinedMask, Status

logger = logging.getLogger(__name__)

NETWORK, PSEUDO, MEAN, STORED = "network", "pseudo-label", "mean", "stored map"
"""Whose maps a group's masks come from."""

Labels = Mapping[str, PseudoLabel]


def pseudo_stage(prepared: Prepared, progress: ProgressFn) -> dict[str, PseudoLabel]:
    """Stage 1, CM-SPLG: a pseudo-label for every usable image, saved under ``OUT/pseudo``.

    Groups whose labels this very job has saved are not made again, and a mask that a person replaced is kept.
    """
    folder = prepared.job.out / "pseudo"
    config, groups = prepared.config.pseudo, prepared.features.groups
    done = prepared.job.run / "pseudo-done"
    proposer: MaskProposer = (
        CocoProposer(Path(config.detections), config) if config.proposer == "coco-json" else HacProposer(config)
    )
    finished = set(done.read_text(encoding="utf-8").splitlines()) if done.is_file() else set()
    store = PseudoLabelStore(folder)
    for number, group in enumerate(groups):
        progress(number, len(groups), "pseudo-labels")
        if group.name in finished and store.holds(group):
            continue
        features = prepared.features.load(group)
        store.save(group, features.sizes_hw, make_pseudo_labels(features, proposer, config))
        finished.add(group.name)
        with open_atomic(done) as stream:
            stream.write("\n".join(sorted(finished)).encode())
    store.seal(groups)
    progress(len(groups), len(groups), "pseudo-labels")
    if isinstance(proposer, CocoProposer):
        logger.info("%s", proposer.summary())
    return load_pseudo_labels(folder, groups, max_side_px=prepared.config.features.size_px)


def clean_stage(prepared: Prepared, labels: Labels) -> dict[str, PseudoLabel]:
    """Between stage 1 and 2: labels cleaned by their group and by a probe over all groups; nothing is written.

    As ``pseudo.clean`` and ``pseudo.probe`` say. The method ``pseudo`` is CM-SPLG alone: its labels stay as they are.
    """
    if prepared.config.method == "pseudo":
        return dict(labels)
    return clean_collection(prepared.features, labels, prepared.config)


def training_stage(prepared: Prepared, labels: Labels, progress: ProgressFn) -> TrainedNetwork:
    """Stage 2: train the network on the pseudo-labels; a killed run goes on where it stopped."""
    config, groups = prepared.config, prepared.features.groups
    least = math.ceil(config.train.min_steps / max(1, len(groups)))
    config = replace(config, train=replace(config.train, epochs=max(config.train.epochs, least)))
    return train_network(prepared.features, labels, config, prepared.job.run, progress, groups=groups)


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
            prepared.job.save_maps(group, predict_group(model, prepared.features.load(group), prepared.device))
            maps_NHW = prepared.job.load_maps(group)
        assert maps_NHW is not None, "it was written a moment ago"
        doubts += [1.0 - map_confidence(map_HW) for map_HW in maps_NHW]
    progress(len(groups), len(groups), "prediction")
    return math.fsum(doubts) / len(doubts) if doubts else 0.0


def label_doubt(prepared: Prepared, labels: Labels) -> float:
    """Mean of 1 - conf over the soft maps of all pseudo-labels: their own b_bar."""
    doubts = [
        1.0 - map_confidence(map_HW)
        for features in prepared.features
        for map_HW in label_maps(features, labels, prepared.config)
    ]
    return math.fsum(doubts) / len(doubts) if doubts else 0.0


def refine_features(
    features: GroupFeatures, maps_NHW: FloatArray, config: RefineConfig, b_bar: float, pool: Executor | None
) -> list[RefinedMask]:
    """Refine a group's maps by its pictures and the first stream's tokens; see `umscosod.refine.rrbe.refine_group`."""
    first = features.first
    return refine_group(
        maps_NHW, features.pictures_NHW3, first.tokens_NPD, first.grid_hw, features.sizes_hw, config, b_bar, pool
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One maker's maps of a group, refined."""

    source: str
    maps_NHW: FloatArray
    refined: list[RefinedMask]
    agreement: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Refiner:
    """Stage 3 over a collection: refine, choose, write.

    Attributes
    ----------
    prepared : Prepared
    labels : mapping of str to PseudoLabel, or None
    b_bars : mapping of str to float
        By maker, ``network`` and ``pseudo-label``, or ``stored map`` or a peer's name alone: whose maps are there to
        refine.
    pool : Executor or None
    stored : mapping of str to Path
        Files of the stored maps by image id.
    """

    prepared: Prepared
    labels: Labels | None
    b_bars: Mapping[str, float]
    pool: Executor | None
    stored: Mapping[str, Path] = field(default_factory=dict)

    def run(self, progress: ProgressFn) -> list[Labelled]:
        """Write the masks and maps of every group; finished groups are left alone."""
        rows: list[Labelled] = []
        groups = self.prepared.features.groups
        for number, group in enumerate(groups):
            progress(number, len(groups), "refinement")
            done = self.prepared.job.load_rows(group)
            if done is None:
                features = self.prepared.features.load(group)
                done = self._write(features, self._choose(features))
                self.prepared.job.save_rows(group, done)
            rows += done
        progress(len(groups), len(groups), "refinement")
        return rows

    def _choose(self, features: GroupFeatures) -> Candidate:
        """Refine every maker's maps; return what is to be kept."""
        found = {
            source: self._refine(features, source, self._maps(features, source), b_bar)
            for source, b_bar in self.b_bars.items()
        }
        config = self.prepared.config
        if len(found) == 1:
            return next(iter(found.values()))
        network, pseudo = found[NETWORK], found[PSEUDO]
        lead = network.agreement - pseudo.agreement
        if config.keep == "network" or (config.keep == "better" and lead > config.keep_margin):
            return network
        if config.keep == "pseudo" or lead < -config.keep_margin:
            return pseudo
        share = config.mean_network_share
        b_bar = share * self.b_bars[NETWORK] + (1.0 - share) * self.b_bars[PSEUDO]
        maps_NHW = share * network.maps_NHW + (1.0 - share) * pseudo.maps_NHW
        return self._refine(features, MEAN, maps_NHW, b_bar)

    def _maps(self, features: GroupFeatures, source: str) -> FloatArray:
        if source not in (PSEUDO, STORED):
            maps_NHW = self.prepared.job.load_maps(features.group)
            assert maps_NHW is not None, "the prediction stage, or that of a peer, ran"
            return maps_NHW
        if source == STORED:
            size_hw = (features.pictures_NHW3.shape[1], features.pictures_NHW3.shape[2])
            return np.stack([read_stored(self.stored[image.id], size_hw) for image in features.group.images])
        assert self.labels is not None
        return np.stack(label_maps(features, self.labels, self.prepared.config))

    def _refine(self, features: GroupFeatures, source: str, maps_NHW: FloatArray, b_bar: float) -> Candidate:
        refined = refine_features(features, maps_NHW, self.prepared.config.refine, b_bar, self.pool)
        if len(self.b_bars) == 1:  # nothing to choose from
            return Candidate(source=source, maps_NHW=maps_NHW, refined=refined)
        # judged on the second stream: neither the pseudo-labels' masks nor the region filter looked at it
        second = features.second
        masks = [one.mask_HW for one in refined]
        agreement = group_agreement(masks, second.tokens_NPD, second.grid_hw, self.prepared.config.refine)
        return Candidate(source=source, maps_NHW=maps_NHW, refined=refined, agreement=agreement)

    def _write(self, features: GroupFeatures, kept: Candidate) -> list[Labelled]:
        judged = judge_group(features, [one.mask_HW for one in kept.refined], self.prepared.config.confidence)
        self.prepared.job.save_cues(features.group, _list_cues(features, judged))
        rows = []
        for index, image in enumerate(features.group.images):
            refined, map_HW, size_hw = kept.refined[index], kept.maps_NHW[index], features.sizes_hw[index]
            mask_HW, source, one = refined.mask_HW, kept.source, judged.masks[index]
            confidence, reason = one.confidence, one.reason
            if one.is_withdrawn:
                mask_HW = np.zeros_like(mask_HW)
            if self.labels is not None and image.id in self.labels and self.labels[image.id].source == HUMAN_SOURCE:
                mask_HW = resize_mask(read_mask(self._path("pseudo", image)), size_hw)
                source, confidence, reason = HUMAN_SOURCE, 1.0, ""
            is_found = bool(mask_HW.any())
            if kept.source == STORED:
                copy_stored(self.stored[image.id], self._path("maps", image), size_hw)
            else:
                write_map(self._path("maps", image), resize_aligned(map_HW, size_hw))
            write_mask(self._path("masks", image), mask_HW)
            rows.append(
                Labelled(
                    image_id=image.id,
                    group=features.group.name,
                    output=image.output,
                    status=Status.LABELLED if is_found else Status.EMPTY,
                    confidence=confidence if is_found else 0.0,
                    reason=reason if is_found else reason or _why_empty(source, refined.threshold),
                    source=source,
                    threshold=refined.threshold,
                    is_mixed=judged.is_mixed,
                )
            )
        return rows

    def _path(self, tree: str, image: ImageRef) -> Path:
        return path_inside(self.prepared.job.out, f"{tree}/{image.output}")


def _list_cues(features: GroupFeatures, judged: GroupJudgement) -> dict[str, object]:
    """Content of a group's file under ``run/cues``."""
    return {
        "group": features.group.name,
        "kind": "whitened" if features.first.is_centred else "plain",
        "outputs": [image.output for image in features.group.images],
        "group_cues": judged.cues,
        "mask_cues": [one.cues for one in judged.masks],
    }


def _why_empty(source: str, threshold: float) -> str:
    return "a person left it empty" if source == HUMAN_SOURCE else f"no region passed the threshold {threshold:.2f}"


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
