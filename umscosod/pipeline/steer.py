"""Examples steer the groups of a finished job: new maps from cached tokens, stage 3, nothing else.

Each call is a step. ``OUT/run/steps/NNNN`` holds the masks, maps and rows of its groups as they were before, and
appears whole; ``done`` in it appears last. A step without it was killed: it is taken back first. `undo_relabel` takes
the last one back, to the byte. A group always starts from its oldest copy, so that equal examples give equal masks
however often they are changed in between.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from umscosod.config import PipelineConfig
from umscosod.config.io import load_stored_config
from umscosod.data.files import check_place, lock_folder, open_atomic, read_json
from umscosod.data.masks import read_mask
from umscosod.device import resolve_device
from umscosod.errors import DataError, WeightsError, count_of
from umscosod.export.folder import path_inside
from umscosod.export.report import build_row, read_report
from umscosod.features.backbone import Backbone, build_backbones, pair_backbones
from umscosod.features.cache import open_cache
from umscosod.features.collection import FeatureCollection
from umscosod.pipeline.job import Collection, JobFolder
from umscosod.pipeline.maps import Source, read_stored
from umscosod.pipeline.report import update_report
from umscosod.pipeline.segment import segment_group
from umscosod.pipeline.stages import write_group
from umscosod.progress import ProgressFn, ignore_progress
from umscosod.pseudo.store import HUMAN_SOURCE
from umscosod.refine.crf_pool import open_pool
from umscosod.refine.rrbe import mean_uncertainty
from umscosod.steering.examples import Example, hash_example
from umscosod.steering.head import SteeredMaps, sample_examples, steer_maps
from umscosod.types import BoolArray, GroupFeatures, ImageGroup, Labelled

logger = logging.getLogger(__name__)

STEERED = "steered"
"""Source of the maps of a steered group."""
_TREES = ("masks", "maps")
_DONE = "done"


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
    examples: Mapping[str, Example | BoolArray],
    *,
    groups: Sequence[str] | None = None,
    examples_for: str = "group",
    backbones: tuple[Backbone, Backbone] | None = None,
    progress: ProgressFn = ignore_progress,
) -> SteerReport:
    """Correct the masks of groups by examples; nothing is trained, and what is cached is not encoded.

    Parameters
    ----------
    out : path
        Output folder of a finished `umscosod.label_groups` or `umscosod.predict`.
    examples : mapping of str to Example or ndarray, bool, (H, W)
        All of them, by image id; an array is a whole mask at the image's own size. The examples of an earlier call do
        not count any more in the groups of this one.
    groups : sequence of str, optional
        Groups to relabel. By default those with examples. One without any gets back the masks that it had at first.
    examples_for : {"group", "all"}
        Whether examples serve their own group or all groups to relabel.
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
    with _open(out) as job:
        shown = _check_examples(job.collection, examples)
        chosen = _choose_groups(job.collection, shown, groups, examples_for)
        digests = {group.name: _digest(group, shown, examples_for) for group in chosen}
        left = [group for group in chosen if job.steps.digest_of(group.name) != digests[group.name]]
        choices: dict[str, str] = {}
        changed: list[str] = []
        if left:
            step = job.steps.begin(left, digests, job.rows)
            for group, steered, rows, differ in _steer(job, left, shown, examples_for, backbones, progress):
                choices[group.name] = steered
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
    with _open(out) as job:
        step = job.steps.last
        if step is None:
            raise DataError(f"{out} has no relabelling to take back")
        rows, changed = job.restore(step)
        return SteerReport(
            out=out, rows=tuple(rows), changed=tuple(changed), choices={}, seconds=time.monotonic() - started
        )


class _Job:
    """A finished job while it is steered."""

    def __init__(self, out: Path) -> None:
        self.folder = JobFolder.reopen(out)
        self.collection = self.folder.load_collection()
        self.config: PipelineConfig = load_stored_config(self.folder.run / "config.yaml")
        self.rows = {row.image_id: row for row in read_report(out / "report.json")}
        self.steps = _Steps(self.folder.run / "steps", out)

    def publish(self, changed: Iterable[str]) -> None:
        """Write the report and the page anew."""
        rows = [self.rows[image.id] for group in self.collection.groups for image in group.images]
        update_report(self.folder.out, self.collection.groups, rows, frozenset(changed), self.config.data.max_pixels)

    def restore(self, step: Path) -> tuple[list[Labelled], list[str]]:
        """Put back what a step keeps, and remove the step."""
        by_name = {group.name: group for group in self.collection.groups}
        restored: list[Labelled] = []
        changed: list[str] = []
        for name, rows in self.steps.rows_of(step).items():
            group = by_name[name]
            self.folder.drop_rows(group)
            changed += self.steps.put_back(step, group)
            self.folder.save_rows(group, rows)
            restored += rows
        self.rows |= {row.image_id: row for row in restored}
        self.publish(changed)
        shutil.rmtree(step)
        return restored, changed


@contextmanager
def _open(out: Path):  # type: ignore[no-untyped-def]
    with lock_folder(out):
        job = _Job(out)
        if (torn := job.steps.torn()) is not None:
            logger.warning("%s: a relabelling was interrupted; it is taken back first", out)
            job.restore(torn)
        yield job
