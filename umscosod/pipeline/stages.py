"""The stages of the method, each over a whole collection, each resumable.

Suffixes: ``N`` images of a group, ``P`` patches, ``H W`` network size.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from umscosod.confidence.judge import GroupJudgement
from umscosod.data.files import open_atomic
from umscosod.data.foreign import MaskReader
from umscosod.data.resize import resize_aligned, resize_mask
from umscosod.errors import DataError
from umscosod.export.folder import path_inside
from umscosod.export.png import write_map, write_mask
from umscosod.network.model import UmsNetwork
from umscosod.pipeline.identity import hash_labels
from umscosod.pipeline.job import Collection, JobFolder
from umscosod.pipeline.maps import PSEUDO, Labels, Source, copy_stored, label_maps, network_maps
from umscosod.pipeline.segment import Segment, mixed_b_bar, segment_group
from umscosod.pipeline.setup import Prepared
from umscosod.progress import ProgressFn
from umscosod.pseudo.cleaning import LinearProbe, clean_collection
from umscosod.pseudo.proposals import HacProposer, MaskProposer
from umscosod.pseudo.select import choose_labels
from umscosod.pseudo.store import HUMAN_SOURCE, PseudoLabelStore, load_pseudo_labels
from umscosod.refine.crf_pool import open_pool
from umscosod.refine.rrbe import mean_uncertainty
from umscosod.training.loop import TrainedNetwork, train_network
from umscosod.training.sampler import count_steps
from umscosod.types import NAMES, BoolArray, FloatArray, GroupFeatures, Labelled, PseudoLabel, Status

logger = logging.getLogger(__name__)

_NO_LABELS: Labels = MappingProxyType({})


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
    prepared.hashes["pseudo-labels"] = hash_labels(folder, prepared.groups)
    unfit: dict[str, str] = {}
    size_px = prepared.config.features.size_px
    labels = load_pseudo_labels(folder, prepared.features.groups, max_side_px=size_px, unfit=unfit)
    if unfit and not labels:
        raise DataError(f"none of {len(unfit)} masks in {folder} can be used: {next(iter(unfit.values()))}")
    prepared.features.leave_out(unfit)
    return labels


def clean_stage(prepared: Prepared, labels: Labels) -> tuple[dict[str, PseudoLabel], LinearProbe | None]:
    """Between stage 1 and 2: labels cleaned by their group and by a probe over all groups; nothing is written.

    As ``pseudo.clean`` and ``pseudo.probe`` say. The method ``pseudo`` is CM-SPLG alone: its labels stay as they are.
    """
    if prepared.config.method == "pseudo":
        return dict(labels), None
    return clean_collection(prepared.features, labels, prepared.config)


def training_stage(prepared: Prepared, labels: Labels, progress: ProgressFn) -> TrainedNetwork:
    """Stage 2: train the network on the pseudo-labels; a killed run goes on where it stopped."""
    config, groups = prepared.config, prepared.features.groups
    if len(groups) < config.train.groups_per_step:
        logger.warning(
            "train.groups_per_step is %d, but there are %d groups: a step takes them all, and processes beyond their "
            "number wait",
            config.train.groups_per_step,
            len(groups),
        )
    least = math.ceil(config.train.min_steps / max(1, count_steps(len(groups), config.train.groups_per_step)))
    config = replace(config, train=replace(config.train, epochs=max(config.train.epochs, least)))
    return train_network(
        prepared.features,
        labels,
        config,
        prepared.job.run,
        progress,
        groups=groups,
        processes=prepared.processes,
    )


def store_maps(
    prepared: Prepared, make_maps: Callable[[GroupFeatures], FloatArray], stage: str, progress: ProgressFn
) -> float:
    """Compute the maps of all groups into the job's folder, but for those that this very job has stored.

    Returns
    -------
    float
        Their mean uncertainty: the b_bar of eq. 6.
    """

    def iter_maps() -> Iterator[FloatArray]:
        groups = prepared.features.groups
        for number, group in enumerate(groups):
            progress(number, len(groups), stage)
            maps_NHW = prepared.job.load_maps(group)
            if maps_NHW is None:
                maps_NHW = prepared.job.save_maps(group, make_maps(prepared.features.load(group)))
            yield from maps_NHW
        progress(len(groups), len(groups), stage)

    return mean_uncertainty(iter_maps())


def prediction_stage(prepared: Prepared, model: UmsNetwork, progress: ProgressFn) -> float:
    """Stage 2, inference: store the network's maps of all groups; gives their b_bar."""
    return store_maps(prepared, lambda group: network_maps(model, group, prepared.device), "prediction", progress)


def label_source(prepared: Prepared, labels: Labels) -> Source:
    """Pseudo-labels as a source of maps, with the mean uncertainty of all of them."""

    def make_maps(features: GroupFeatures) -> FloatArray:
        return label_maps(features, labels, prepared.config)

    b_bar = mean_uncertainty(map_HW for features in prepared.features for map_HW in make_maps(features))
    return Source(name=PSEUDO, b_bar=b_bar, make_maps=make_maps)


def stored_source(prepared: Prepared, name: str, b_bar: float) -> Source:
    """The maps that `store_maps` left, as a source."""

    def load_maps(features: GroupFeatures) -> FloatArray:
        maps_NHW = prepared.job.load_maps(features.group)
        assert maps_NHW is not None, "they were stored"
        return maps_NHW

    return Source(name=name, b_bar=b_bar, make_maps=load_maps)


def segment_stage(
    prepared: Prepared,
    sources: Sequence[Source],
    progress: ProgressFn,
    *,
    labels: Labels = _NO_LABELS,
) -> list[Labelled]:
    """Stage 3, RRBE: write the masks and maps of every group; finished groups are left alone.

    Parameters
    ----------
    prepared : Prepared
    sources : sequence of Source
        See `umscosod.pipeline.segment.segment_group`.
    progress : callable
    labels : mapping of str to PseudoLabel
        Those that a person made become the final masks.
    """
    pair, share = prepared.features.pair, prepared.config.mean_network_share
    prepared.job.save_collection(
        Collection(
            groups=prepared.groups,
            whitenings=prepared.features.whitenings,
            b_bar=mixed_b_bar(sources, share),
            backbone_ids=(pair.first.id, pair.second.id),
        )
    )
    job, groups = prepared.job, prepared.features.groups
    rows: list[Labelled] = []
    # groups are done one by one: more processes than the largest has images would idle
    largest = max((len(group.images) for group in groups), default=0)
    with open_pool(prepared.config.refine.crf, largest) as pool:
        for number, group in enumerate(groups):
            progress(number, len(groups), "refinement")
            done = job.load_rows(group)
            if done is None:
                features = prepared.features.load(group)
                own_masks = _read_own_masks(prepared, features, labels)
                segments, judged = segment_group(features, sources, prepared.config, own_masks=own_masks, pool=pool)
                done = write_group(job, features, segments, judged, prepared.spec.stored)
                job.save_rows(group, done)
            rows += done
    progress(len(groups), len(groups), "refinement")
    return rows


def _read_own_masks(prepared: Prepared, features: GroupFeatures, labels: Labels) -> dict[str, BoolArray]:
    """A person's masks of a group by image id, each at its image's size."""
    found = {}
    reader = MaskReader()  # what it did to them was told when labels were read
    for image, size_hw in zip(features.group.images, features.sizes_hw, strict=True):
        if image.id in labels and labels[image.id].source == HUMAN_SOURCE:
            file = path_inside(prepared.job.out, f"pseudo/{image.output}")
            found[image.id] = resize_mask(reader.read(file).foreground, size_hw)
    return found


def write_group(
    job: JobFolder,
    features: GroupFeatures,
    segments: Sequence[Segment],
    judged: GroupJudgement,
    stored: Mapping[str, Path],
) -> list[Labelled]:
    """Write the masks and maps of a group, and the cues of its confidences; give its rows."""
    job.save_cues(features, judged)
    rows = []
    for image, one, size_hw in zip(features.group.images, segments, features.sizes_hw, strict=True):
        if image.id in stored:
            copy_stored(stored[image.id], path_inside(job.out, f"maps/{image.output}"), size_hw)
        else:
            write_map(path_inside(job.out, f"maps/{image.output}"), resize_aligned(one.map_HW, size_hw))
        write_mask(path_inside(job.out, f"masks/{image.output}"), one.mask_HW)
        rows.append(
            Labelled(
                image_id=image.id,
                group=features.group.name,
                output=image.output,
                status=Status.LABELLED if one.mask_HW.any() else Status.EMPTY,
                confidence=one.confidence,
                reason=one.reason,
                source=one.source,
                threshold=one.threshold,
                is_mixed=judged.is_mixed,
            )
        )
    return rows
