"""The stages of the method, each over a whole collection, each resumable.

Suffixes: ``N`` images of a group, ``P`` patches, ``H W`` network size.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from umscosod.confidence.judge import GroupJudgement
from umscosod.config import PipelineConfig
from umscosod.data.files import open_atomic
from umscosod.data.foreign import MaskReader
from umscosod.data.images import limit_at_once
from umscosod.data.resize import resize_aligned, resize_mask
from umscosod.device import map_on_cores, one_blas_thread
from umscosod.errors import DataError
from umscosod.export.folder import path_inside
from umscosod.export.png import write_map, write_mask
from umscosod.network.model import UmsNetwork
from umscosod.pipeline.identity import hash_labels
from umscosod.pipeline.job import Collection, JobFolder
from umscosod.pipeline.maps import PSEUDO, LabelMaps, Labels, Source, copy_stored, label_maps, network_maps, source_for
from umscosod.pipeline.segment import Segment, begin_segmenting, mixed_b_bar
from umscosod.pipeline.setup import Prepared
from umscosod.progress import ProgressFn
from umscosod.pseudo.cleaning import LinearProbe, clean_collection, map_labelled, own_labels
from umscosod.pseudo.proposals import HacProposer
from umscosod.pseudo.store import HUMAN_SOURCE, DrawnLabel, PseudoLabelStore, draw_group, load_pseudo_labels
from umscosod.refine.crf_pool import CrfPool, Refiner, count_processes, open_pool
from umscosod.refine.rrbe import mean_of, mean_uncertainty, uncertainties
from umscosod.training.loop import TrainedNetwork, train_network
from umscosod.training.sampler import count_steps
from umscosod.types import (
    NAMES,
    BoolArray,
    FloatArray,
    GroupFeatures,
    ImageGroup,
    ImageRef,
    Labelled,
    PseudoLabel,
    Status,
)

logger = logging.getLogger(__name__)

_NO_LABELS: Labels = MappingProxyType({})
_WRITERS = 2  # threads that write masks and maps: each takes 11 bytes a pixel of an image


def pseudo_stage(prepared: Prepared, progress: ProgressFn) -> dict[str, PseudoLabel]:
    """Stage 1, CM-SPLG: a pseudo-label for every usable image, saved under ``OUT/pseudo``.

    Groups whose labels this very job has saved are not made again, and a mask that a person replaced is kept.
    """
    folder = prepared.job.out / "pseudo"
    groups = prepared.features.groups
    done = prepared.job.run / "pseudo-done"
    finished = set(done.read_text(encoding="utf-8", errors=NAMES).splitlines()) if done.is_file() else set()
    store = PseudoLabelStore(folder)
    lacking = {group.name: group for group in groups if not (group.name in finished and store.holds(group))}
    drawn = _iter_drawn(prepared, list(lacking.values()))
    for number, group in enumerate(groups):
        progress(number, len(groups), "pseudo-labels")
        if group.name not in lacking:
            continue
        store.save(next(drawn))
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


def _iter_drawn(prepared: Prepared, groups: Sequence[ImageGroup]) -> Iterator[list[DrawnLabel]]:
    """Make the pseudo-labels of groups, one by one, here or by the engine; nothing is written."""
    config, features = prepared.config.pseudo, prepared.features
    if prepared.detections is not None:  # it counts what it is asked for, so all are asked for here
        return (draw_group(features.load(group), None, prepared.detections, config) for group in groups)
    work = partial(draw_group, proposer=HacProposer(config), config=config)
    return features.map(work, ((group, None) for group in groups), engine=prepared.engine_for(groups))


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
    with one_blas_thread():
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
    prepared: Prepared,
    make_maps: Callable[[GroupFeatures], FloatArray],
    stage: str,
    progress: ProgressFn,
    *,
    network_on: str = "",
) -> float:
    """Compute the maps of all groups into the job's folder, but for those that this very job has stored.

    See `umscosod.features.collection.FeatureCollection.map`.

    Returns
    -------
    float
        Their mean uncertainty: the b_bar of eq. 6.
    """

    def iter_maps() -> Iterator[FloatArray]:
        job, groups = prepared.job, prepared.features.groups
        lacking = ((group, None) for group in groups if job.load_maps(group) is None)
        made = prepared.features.map(partial(_make_maps, make_maps), lacking, network_on=network_on)
        for number, group in enumerate(groups):
            progress(number, len(groups), stage)
            maps_NHW = job.load_maps(group)
            if maps_NHW is None:
                maps_NHW = job.save_maps(group, next(made))
            yield from maps_NHW
        progress(len(groups), len(groups), stage)

    return mean_uncertainty(iter_maps())


def _make_maps(make_maps: Callable[[GroupFeatures], FloatArray], features: GroupFeatures, _: None) -> FloatArray:
    return make_maps(features)


def prediction_stage(prepared: Prepared, model: UmsNetwork, progress: ProgressFn) -> float:
    """Stage 2, inference: store the network's maps of all groups; gives their b_bar."""
    device = prepared.features.network_device
    make_maps = partial(_network_maps, model.to("cpu"), device)  # a worker may have no other device
    # It is small: on the CPU it goes with each group, to processes that are there.
    on = "" if device == "cpu" else device
    return store_maps(prepared, make_maps, "prediction", progress, network_on=on)


def _network_maps(model: UmsNetwork, device: str, features: GroupFeatures) -> FloatArray:
    return network_maps(model, features, torch.device(device))


def label_source(prepared: Prepared, labels: Labels) -> Source:
    """Pseudo-labels as a source of maps, with the mean uncertainty of all of them."""
    lacks = map_labelled(prepared.features, partial(_label_lacks, config=prepared.config), labels)
    b_bar = mean_of(lack for group in lacks for lack in group)
    return Source(name=PSEUDO, b_bar=b_bar, make_maps=LabelMaps(labels=labels, config=prepared.config))


def _label_lacks(features: GroupFeatures, labels: Labels, config: PipelineConfig) -> list[float]:
    return uncertainties(label_maps(features, labels, config))


def stored_source(prepared: Prepared, name: str, b_bar: float) -> Source:
    """The maps that `store_maps` left, as a source."""
    return Source(name=name, b_bar=b_bar, make_maps=partial(_load_maps, prepared.job))


def _load_maps(job: JobFolder, features: GroupFeatures) -> FloatArray:
    job.check_seen()
    maps_NHW = job.load_maps(features.group)
    assert maps_NHW is not None, "they were stored"
    return maps_NHW


def boot_refiners(prepared: Prepared) -> None:
    """Start the processes of stage 3, which boot while this one does what comes before."""
    wanted = count_processes(prepared.config.refine.crf, *_crf_limits(prepared))
    # where stage 1 works in processes, it starts its own, and stage 3 takes those
    if prepared.config.refine.enabled and wanted and prepared.engine_for(prepared.features.groups) is None:
        prepared.pool.start(wanted)


def _crf_limits(prepared: Prepared) -> tuple[int, str]:
    """Most images that DenseCRF is given at once, and the device that it may use.

    Groups are done one by one: more processes than the largest has images would idle. Workers of an engine do one group
    each, in their own process, by the CPU: they have no share of a GPU.
    """
    if prepared.features.engine is not None:
        return 1, "cpu"
    return max((len(group.images) for group in prepared.features.groups), default=0), prepared.config.device


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
    # BLAS's threads would wait in loops, on cores that the pool needs.
    with (
        one_blas_thread(),
        open_pool(prepared.config.refine.crf, *_crf_limits(prepared), prepared.pool.running) as pool,
    ):
        lacking = (
            (group, ([source_for(group, source) for source in sources], own_labels(group, labels)))
            for group in groups
            if job.load_rows(group) is None
        )
        at_work: dict[str, Any] = {"job": job, "config": prepared.config, "stored": prepared.spec.stored, "pool": pool}
        if isinstance(pool, CrfPool):
            made = _finish_each(prepared.features.map(partial(_begin_group, **at_work), lacking))
        else:
            made = prepared.features.map(partial(_segment_and_write, **at_work), lacking)
        for number, group in enumerate(groups):
            progress(number, len(groups), "refinement")
            done = job.load_rows(group)
            if done is None:
                done = next(made)
                job.save_rows(group, done)
            rows += done
    progress(len(groups), len(groups), "refinement")
    return rows


def _begin_group(
    features: GroupFeatures,
    given: tuple[Sequence[Source], Labels],
    *,
    job: JobFolder,
    config: PipelineConfig,
    stored: Mapping[str, Path],
    pool: Refiner | None,
) -> Callable[[], list[Labelled]]:
    """Begin stage 3 of a group: what is returned waits for DenseCRF, judges and writes."""
    job.check_seen()
    sources, labels = given
    own_masks = _read_own_masks(job, features, labels)
    segment = begin_segmenting(features, sources, config, own_masks=own_masks, pool=pool)
    return lambda: write_group(job, features, *segment(), stored)


def _segment_and_write(
    features: GroupFeatures, given: tuple[Sequence[Source], Labels], **at_work: Any
) -> list[Labelled]:
    return _begin_group(features, given, **at_work)()


def _finish_each(begun: Iterator[Callable[[], list[Labelled]]]) -> Iterator[list[Labelled]]:
    """Finish each group after the next one was begun: the pool then has work while this process judges and writes.

    A group that cannot be begun ends the job after the group before it is finished.
    """
    group, failure = next(begun, None), None
    while group is not None:
        following = None
        try:
            following = next(begun, None)
        except Exception as error:
            failure = error
        yield group()
        if failure is not None:
            raise failure
        group = following


def _read_own_masks(job: JobFolder, features: GroupFeatures, labels: Labels) -> dict[str, BoolArray]:
    """A person's masks of a group by image id, each at its image's size."""
    found = {}
    reader = MaskReader()  # what it did to them was told when labels were read
    for image, size_hw in zip(features.group.images, features.sizes_hw, strict=True):
        if image.id in labels and labels[image.id].source == HUMAN_SOURCE:
            file = path_inside(job.out, f"pseudo/{image.output}")
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

    def write(one: tuple[ImageRef, Segment, tuple[int, int]]) -> Labelled:
        image, segment, size_hw = one
        if image.id in stored:
            copy_stored(stored[image.id], path_inside(job.out, f"maps/{image.output}"), size_hw)
        else:
            write_map(path_inside(job.out, f"maps/{image.output}"), resize_aligned(segment.map_HW, size_hw))
        write_mask(path_inside(job.out, f"masks/{image.output}"), segment.mask_HW)
        return Labelled(
            image_id=image.id,
            group=features.group.name,
            output=image.output,
            status=Status.LABELLED if segment.mask_HW.any() else Status.EMPTY,
            confidence=segment.confidence,
            reason=segment.reason,
            source=segment.source,
            threshold=segment.threshold,
            is_mixed=judged.is_mixed,
        )

    at_once = limit_at_once((height * width for height, width in features.sizes_hw), _WRITERS)
    return list(map_on_cores(write, zip(features.group.images, segments, features.sizes_hw, strict=True), at_once))
