"""Examples steer the groups of a finished job: new maps from cached tokens, stage 3, nothing else.

Each call is a step, see `umscosod.pipeline.steps`. One that was killed is taken back by the next call; `undo_relabel`
takes the last one back, to the byte. A group always starts from its oldest copy, so that equal examples give equal
masks however often they are changed in between.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from umscosod.confidence.judge import GroupJudgement
from umscosod.config import PipelineConfig
from umscosod.config.io import load_stored, parse_yaml, read_settings_file
from umscosod.data.files import check_place, lock_folder
from umscosod.data.images import read_upright_size
from umscosod.data.mask_rules import MaskValue
from umscosod.data.masks import read_mask
from umscosod.device import resolve_device
from umscosod.errors import DataError, WeightsError, count_of
from umscosod.export.folder import path_inside
from umscosod.export.report import read_report
from umscosod.features.backbone import Backbone, build_backbones, pair_backbones
from umscosod.features.cache import open_cache
from umscosod.features.collection import FeatureCollection, encode_collection
from umscosod.pipeline.job import Collection, JobFolder
from umscosod.pipeline.maps import Source, read_stored
from umscosod.pipeline.report import update_report
from umscosod.pipeline.segment import Segment, segment_group
from umscosod.pipeline.stages import write_group
from umscosod.pipeline.steps import Steps, read_bytes
from umscosod.progress import ProgressFn, ignore_progress
from umscosod.pseudo.cleaning import ProbeSample
from umscosod.pseudo.store import HUMAN_SOURCE
from umscosod.refine.crf_pool import Refiner, open_pool
from umscosod.refine.rrbe import mean_uncertainty
from umscosod.steering.examples import Example, hash_example, read_examples
from umscosod.steering.head import UNCHANGED, sample_examples, steer_maps
from umscosod.types import BoolArray, FloatArray, GroupFeatures, ImageGroup, Labelled, Status

logger = logging.getLogger(__name__)

STEERED = "steered"
"""Source of the maps of a steered group."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SteerReport:
    """Outcome of steering.

    Attributes
    ----------
    out : Path
    rows : tuple of Labelled
        Of the groups that were relabelled, or that were so by equal examples before.
    changed : tuple of str
        Ids of the images whose masks differ from those before this call.
    choices : mapping of str to str
        By group: what its maps were made by, see `umscosod.steering.head`.
    notes : tuple of str
    seconds : float
    """

    out: Path
    rows: tuple[Labelled, ...] = ()
    changed: tuple[str, ...] = ()
    choices: Mapping[str, str]
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


def relabel(
    out: str | Path,
    examples: str | Path | Mapping[str, Example | BoolArray],
    *,
    groups: Sequence[str] | None = None,
    examples_for: str = "group",
    mask_value: MaskValue | None = None,
    backbones: tuple[Backbone, Backbone] | None = None,
    progress: ProgressFn = ignore_progress,
) -> SteerReport:
    """Correct the masks of groups by examples; nothing is trained, and what is cached is not encoded.

    Parameters
    ----------
    out : path
        Output folder of a finished `umscosod.label_groups` or `umscosod.predict`.
    examples : path or mapping of str to Example or ndarray, bool, (H, W)
        All of them: a folder, see `umscosod.steering.examples`, or by image id; an array is a whole mask at the
        image's own size. The examples of an earlier call do not count any more in the groups of this one.
    groups : sequence of str, optional
        Groups to relabel. By default those with examples. One without any gets back the masks that it had at first.
    examples_for : {"group", "all"}
        Whether examples serve their own group or all groups to relabel.
    mask_value : int, str or sequence, optional
        What is foreground in a folder's masks of several ids, see `umscosod.data.mask_rules.MaskValue`.
    backbones : (Backbone, Backbone), optional
        Those of the job, where it was given objects.
    progress : callable

    Returns
    -------
    SteerReport

    Raises
    ------
    DataError
        There is no finished job, an example is of no image of it or of another size, or a group does not exist.
    WeightsError
        The backbones at hand are not those of the job.

    Notes
    -----
    An example's own mask becomes the mask of its image, as does what a person made before; both count as ``human``.
    """
    started = time.monotonic()
    out = Path(out)
    check_place(out, "job")
    with open_job(out) as job:
        if isinstance(examples, str | Path):
            examples = read_examples(Path(examples), job.collection.groups, mask_value)
        shown = _check_examples(job.collection, examples)
        chosen = _choose_groups(job.collection, shown, groups, examples_for)
        digests = {group.name: _digest(group, shown, examples_for) for group in chosen}
        left = [group for group in chosen if job.steps.digest_of(group.name) != digests[group.name]]
        choices: dict[str, str] = {}
        changed: list[str] = []
        if left:
            givers = [group for group in job.collection.groups if any(image.id in shown for image in group.images)]
            wanted = [*left, *(group for group in givers if examples_for == "all" and group not in left)]
            with open_steering(job, wanted, backbones) as steering:
                step = job.steps.begin(left, digests, job.rows)
                for name, choice, rows, differ in _relabel_groups(steering, left, shown, examples_for, progress):
                    choices[name] = choice
                    changed += differ
                    job.rows |= {row.image_id: row for row in rows}
            job.publish(changed)
            job.steps.end(step)
        notes = [f"{name}: {choice}" for name, choice in choices.items()]
        if left:
            notes.append(f"{count_of(len(changed), 'mask')} changed in {count_of(len(left), 'group')}")
        return SteerReport(
            out=out,
            rows=tuple(job.rows[image.id] for group in chosen for image in group.images),
            changed=tuple(changed),
            choices=choices,
            notes=tuple(notes),
            seconds=time.monotonic() - started,
        )


def undo_relabel(out: str | Path) -> SteerReport:
    """Take the last `relabel` back: masks, maps and rows are as they were, to the byte.

    Raises
    ------
    DataError
        There is no finished job, or nothing to take back.
    """
    started = time.monotonic()
    out = Path(out)
    check_place(out, "job")
    with open_job(out) as job:
        step = job.steps.last
        if step is None:
            raise DataError(f"{out} has no relabelling to take back")
        rows, changed = job.restore(step)
        return SteerReport(
            out=out, rows=tuple(rows), changed=tuple(changed), choices={}, seconds=time.monotonic() - started
        )


class SteeredJob:
    """A finished job while it is steered."""

    def __init__(self, out: Path) -> None:
        self.folder = JobFolder.reopen(out)
        self.collection = self.folder.load_collection()
        self.config: PipelineConfig = _read_config(self.folder.run / "config.yaml")
        self.rows = self._read_rows()
        self.steps = Steps(self.folder.run / "steps", out)

    def _read_rows(self) -> dict[str, Labelled]:
        """Rows as the report says them: rounded."""
        return {row.image_id: row for row in read_report(self.folder.out / "report.json")}

    def publish(self, changed: Iterable[str]) -> None:
        """Write the report and the page anew."""
        rows = [self.rows[image.id] for group in self.collection.groups for image in group.images]
        update_report(self.folder.out, self.collection.groups, rows, frozenset(changed), self.config.data.max_pixels)
        self.rows = self._read_rows()

    def restore(self, step: Path) -> tuple[list[Labelled], list[str]]:
        """Put back what a step keeps, and remove the step."""
        by_name = {group.name: group for group in self.collection.groups}
        restored: list[Labelled] = []
        changed: list[str] = []
        for name in self.steps.groups_of(step):
            group, rows = by_name[name], self.steps.rows_of(step, name)
            self.folder.drop_rows(group)
            changed += self.steps.put_back(step, group)
            self.folder.save_rows(group, rows)
            restored += rows
        self.rows |= {row.image_id: row for row in restored}
        self.publish(changed)
        gone = step.with_name(f".{step.name}.tmp")  # killed from here on, it does not count any more
        shutil.rmtree(gone, ignore_errors=True)
        step.rename(gone)
        shutil.rmtree(gone)
        return restored, changed


def _read_config(file: Path) -> PipelineConfig:
    return load_stored(parse_yaml(read_settings_file(file)), str(file))


@contextmanager
def open_job(out: Path) -> Iterator[SteeredJob]:
    """Open a finished job to steer it; a relabelling that was killed is taken back first."""
    with lock_folder(out):
        job = SteeredJob(out)
        if (torn := job.steps.torn) is not None:
            logger.warning("%s: a relabelling was interrupted; it is taken back first", out)
            job.restore(torn)
        yield job


def _check_examples(collection: Collection, examples: Mapping[str, Example | BoolArray]) -> dict[str, Example]:
    """Refuse examples of images that the job does not have, and masks of another size than their image."""
    images = {image.id: image for group in collection.groups for image in group.images}
    checked = {}
    for image_id, given in examples.items():
        if image_id not in images:
            raise DataError(f"there is an example of {image_id!r}, which is no image of this job")
        example = given if isinstance(given, Example) else Example(mask_HW=given)
        size_hw, _ = read_upright_size(images[image_id].path)
        for mask_HW in (example.mask_HW, example.not_HW):
            if mask_HW is not None and (mask_HW.dtype != np.bool_ or mask_HW.shape != size_hw):
                raise DataError(
                    f"the example of {image_id} is {mask_HW.dtype} of {mask_HW.shape}; its image needs {size_hw}"
                )
        if example.says_anything:
            checked[image_id] = example
    return checked


def _choose_groups(
    collection: Collection, shown: Mapping[str, Example], names: Sequence[str] | None, examples_for: str
) -> list[ImageGroup]:
    if examples_for not in ("group", "all"):
        raise DataError(f"examples_for is {examples_for!r}; use group or all")
    if names is not None:
        known = {group.name for group in collection.groups}
        if unknown := [name for name in names if name not in known]:
            raise DataError(f"there is no group {unknown[0]!r}; groups here: {', '.join(sorted(known)[:8])}")
        return [group for group in collection.groups if group.name in set(names)]
    if examples_for == "all":
        return list(collection.groups)
    return [group for group in collection.groups if any(image.id in shown for image in group.images)]


def _digest(group: ImageGroup, shown: Mapping[str, Example], examples_for: str) -> str:
    """Hash what a group is relabelled by."""
    counts = sorted(shown) if examples_for == "all" else [image.id for image in group.images if image.id in shown]
    parts = [f"{image_id}:{hash_example(shown[image_id])}" for image_id in counts]
    return hashlib.sha256("\n".join([examples_for, *parts]).encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Steering:
    """Some groups of a finished job, with what relabelling takes.

    Attributes
    ----------
    job : SteeredJob
    features : FeatureCollection
    pool : Refiner or None
    """

    job: SteeredJob
    features: FeatureCollection
    pool: Refiner | None

    def load(self, group: ImageGroup) -> tuple[GroupFeatures, FloatArray]:
        """Features of a group, and its maps before it was steered, float32, (N, H, W), at network size."""
        features = self.features.load(group)
        step = self.job.steps.first_of(group.name)
        root = self.job.folder.out if step is None else step
        files = [path_inside(root, f"maps/{image.output}") for image in group.images]
        return features, np.stack([read_stored(file, features.size_hw) for file in files])

    def segment(
        self,
        features: GroupFeatures,
        base_NHW: FloatArray,
        shown: Mapping[str, Example],
        own_masks: Mapping[str, BoolArray],
        others: Sequence[ProbeSample] = (),
    ) -> tuple[str, list[Segment], GroupJudgement]:
        """Steer the maps of a group and refine them; nothing is written."""
        steered = steer_maps(features, base_NHW, shown, others)
        # the centre of eq. 6 moves with the maps: else surer ones would lower every threshold
        b_bar = self.job.collection.b_bar + mean_uncertainty(steered.maps_NHW) - mean_uncertainty(base_NHW)
        source = Source(name=STEERED, b_bar=b_bar, make_maps=lambda _: steered.maps_NHW)
        segments, judged = segment_group(features, [source], self.job.config, own_masks=own_masks, pool=self.pool)
        return steered.choice, segments, judged


@contextmanager
def open_steering(
    job: SteeredJob, groups: Sequence[ImageGroup], backbones: tuple[Backbone, Backbone] | None = None
) -> Iterator[Steering]:
    """Get ready to relabel some groups of a job.

    Raises
    ------
    WeightsError
        The backbones at hand are not those of the job.
    """
    config, collection = job.config, job.collection
    own = None if backbones is None else pair_backbones(*backbones)
    device = "cpu"  # backbones of one's own are somewhere already: the job's device need not be at hand
    if own is None:
        device = str(resolve_device(config.device))
    pair = build_backbones(config.features, resolve_device(device)) if own is None else own
    if (pair.first.id, pair.second.id) != collection.backbone_ids:
        raise WeightsError(
            f"the job was done with {' and '.join(collection.backbone_ids)}, at hand are {pair.first.id} and "
            f"{pair.second.id}; give the weights of then, or label again"
        )
    largest = max((len(group.images) for group in groups), default=0)
    with (
        open_cache(config.features.cache_dir, use_cache=config.features.use_cache) as cache,
        open_pool(config.refine.crf, largest, device) as pool,
    ):
        features = encode_collection(groups, pair, config, cache, whitenings=collection.whitenings)
        features.leave_out({name: row.reason for name, row in job.rows.items() if row.status is Status.FAILED})
        yield Steering(job=job, features=features, pool=pool)


def _relabel_groups(
    steering: Steering,
    groups: Sequence[ImageGroup],
    shown: Mapping[str, Example],
    examples_for: str,
    progress: ProgressFn,
) -> Iterator[tuple[str, str, list[Labelled], list[str]]]:
    """Relabel groups one by one; give the name of each, what made its maps, its rows, and the masks that changed."""
    usable = {group.name: group for group in steering.features.groups}
    foreign = {}
    if examples_for == "all":
        foreign = {name: sample_examples(*steering.load(group), shown) for name, group in usable.items()}
    for number, group in enumerate(groups):
        progress(number, len(groups), "steering")
        if group.name in usable:
            others = [one for name, samples in foreign.items() if name != group.name for one in samples]
            yield (group.name, *_relabel_group(steering, group, usable[group.name], shown, others))
    progress(len(groups), len(groups), "steering")


def _relabel_group(
    steering: Steering,
    group: ImageGroup,
    usable: ImageGroup,
    shown: Mapping[str, Example],
    others: Sequence[ProbeSample],
) -> tuple[str, list[Labelled], list[str]]:
    """Write a group anew, whose copy has been kept."""
    job, folder = steering.job, steering.job.folder
    first = job.steps.first_of(group.name)
    assert first is not None, "the step keeps it"
    before = {row.image_id: row for row in job.steps.rows_of(first, group.name)}
    own_masks = {}
    for image in usable.images:
        if image.id in shown and (mask_HW := shown[image.id].mask_HW) is not None:
            own_masks[image.id] = mask_HW
        elif before[image.id].source == HUMAN_SOURCE:
            own_masks[image.id] = read_mask(first / "masks" / image.output)
    features, base_NHW = steering.load(usable)
    choice, segments, judged = steering.segment(features, base_NHW, shown, own_masks, others)
    old = {image.id: read_bytes(path_inside(folder.out, f"masks/{image.output}")) for image in group.images}
    folder.drop_rows(group)
    rows = {**before, **{row.image_id: row for row in write_group(folder, features, segments, judged, {})}}
    if choice == UNCHANGED:  # a map read back from 8 bits could give another mask
        kept = replace(group, images=tuple(image for image in group.images if image.id not in own_masks))
        job.steps.put_back(first, kept)
        rows |= {image.id: before[image.id] for image in kept.images}
    ordered = [rows[image.id] for image in group.images]
    folder.save_rows(group, ordered)
    new = {image.id: read_bytes(path_inside(folder.out, f"masks/{image.output}")) for image in group.images}
    return choice, ordered, [image_id for image_id in new if new[image_id] != old[image_id]]
