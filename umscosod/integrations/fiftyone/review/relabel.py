"""Corrects the masks of groups in a data set by a person's examples, and takes that back.

Nothing is trained, and what is cached is not encoded: seconds. A person's masks are never written.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fiftyone as fo

from umscosod.errors import DataError, count_of
from umscosod.integrations.fiftyone.review.examples import (
    Marks,
    Prompts,
    persons_samples,
    read_dataset_examples,
    read_marks,
)
from umscosod.integrations.fiftyone.review.relabel_steps import (
    Record,
    begin_record,
    end_record,
    has_record,
    list_records,
    show_file,
    take_back,
)
from umscosod.integrations.fiftyone.review.steering import before_field, declare_steering, finished_parts, run_of
from umscosod.integrations.fiftyone.runs.edits import read_new_edits, refresh_objects
from umscosod.integrations.fiftyone.runs.fields import LabelItem, every_sample, store_values, write_labels
from umscosod.integrations.fiftyone.runs.jobs import label_items
from umscosod.integrations.fiftyone.runs.parts import Part, hold_run
from umscosod.integrations.fiftyone.runs.record import CoSalRunConfig, Progress, showing, update_run
from umscosod.pipeline import relabel
from umscosod.progress import ProgressFn
from umscosod.steering.examples import Example
from umscosod.types import ImageRef

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class RelabelReport:
    """Outcome of relabelling, or of taking it back.

    Attributes
    ----------
    key : str
        Name of the run and of its field.
    groups : tuple of str
    changed : tuple of str
        Ids of the samples that have another mask now.
    looked_at : int
        Samples in these groups.
    kept : tuple of str
        Ids of the samples whose labels are a person's; nothing of them was written.
    notes : tuple of str
    seconds : float
    is_undone : bool
        Whether a relabelling was taken back.
    """

    key: str
    groups: tuple[str, ...]
    changed: tuple[str, ...] = ()
    looked_at: int = 0
    kept: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    is_undone: bool = False

    @property
    def summary(self) -> str:
        """One sentence for people.

        Examples
        --------
        >>> RelabelReport(key="cosal", groups=("cup",), changed=("a",), looked_at=14, seconds=1.23).summary
        'cosal: 1 of 14 masks changed in cup, 1.2 s'
        """
        where = ", ".join(self.groups[:3]) if len(self.groups) <= 3 else count_of(len(self.groups), "group")
        done = "taken back" if self.is_undone else "changed"
        text = f"{self.key}: {len(self.changed)} of {count_of(self.looked_at, 'mask')} {done} in {where}"
        return f"{text}, {self.seconds:.1f} s"

    @property
    def is_success(self) -> bool:
        """Always: an error is raised."""
        return True


def relabel_dataset(
    dataset: Any,
    run: str,
    groups: Iterable[str] | None = None,
    examples_for: str = "group",
    points_field: str | None = None,
    boxes_field: str | None = None,
    progress: Progress = None,
) -> RelabelReport:
    """Correct the masks of groups by the examples marked with `use_as_example` and `mark_not_this`.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset
    run : str
        Name of a run of ``label`` or ``predict``.
    groups : iterable of str, optional
        Names of the groups; by default those with examples. One whose examples were all forgotten gets back the masks
        that it had at first.
    examples_for : {"group", "all"}
        Whether examples serve their own group or all groups to relabel.
    points_field, boxes_field : str, optional
        Field of Keypoints and of Detections that hold a person's points and boxes. Those labelled ``not`` (or ``no``,
        ``negative``, ``background``) are not the object.
    progress : callable or bool, optional
        See `umscosod.integrations.fiftyone.runs.record.showing`.

    Returns
    -------
    RelabelReport

    Raises
    ------
    DataError
        There is no such run or group, nothing is shown of a group, or a call is working on the run.
    WeightsError
        The weights at hand are not those of the run.

    Notes
    -----
    The samples keep their masks of before in ``<run>_before``. Labels that belong to a person are not written.
    """
    started = time.monotonic()
    dataset.reload()  # another process may have changed the run since the data set was loaded here
    config = run_of(dataset, run)
    with hold_run(Path(config.folder)), showing(progress) as shown:
        call = _Call(dataset, run, config, Prompts(points_field=points_field, boxes_field=boxes_field))
        call.take_back_killed()
        read_new_edits(dataset, run)
        report = call.relabel(None if groups is None else list(groups), examples_for, shown)
        refresh_objects(dataset, run, dict.fromkeys(report.changed, ""))
    report = _timed(report, started)
    logger.info("%s", report.summary)
    return report


def undo_relabel_dataset(dataset: Any, run: str) -> RelabelReport:
    """Take the last `relabel_dataset` back: masks, maps and fields are as they were, to the byte; marks stay.

    A sample that a person decided about since keeps what it has. If the last call was killed, that one is taken back.

    Raises
    ------
    DataError
        There is no such run, or nothing to take back.
    """
    started = time.monotonic()
    dataset.reload()
    config = run_of(dataset, run)
    with hold_run(Path(config.folder)):
        read_new_edits(dataset, run)
        report = _Call(dataset, run, config, Prompts()).undo()
        refresh_objects(dataset, run, dict.fromkeys(report.changed, ""))
    report = _timed(report, started)
    logger.info("%s", report.summary)
    return report


def can_undo(dataset: Any, run: str) -> bool:
    """Whether there is a relabelling to take back."""
    return has_record(finished_parts(run_of(dataset, run)))


def _timed(report: RelabelReport, started: float) -> RelabelReport:
    return replace(report, seconds=time.monotonic() - started)


@dataclass(frozen=True, slots=True)
class _Share:
    """What one part does in a call: some of its groups, and those of their images that no newer part holds."""

    part: Part
    groups: tuple[str, ...]
    images: tuple[ImageRef, ...]


class _Call:
    """One call on a run whose folder is held."""

    def __init__(self, dataset: Any, field: str, config: CoSalRunConfig, prompts: Prompts) -> None:
        self.dataset, self.field, self.config, self.prompts = dataset, field, config, prompts
        self.parts = finished_parts(config)

    def take_back_killed(self) -> Record | None:
        """Take back a call that was killed."""
        killed = [record for record in list_records(self.parts) if not record.is_done]
        for record in reversed(killed):
            logger.warning("%s: a relabelling was interrupted; it is taken back first", self.field)
            self._take_back(record)
        return killed[0] if killed else None

    def _take_back(self, record: Record) -> list[str]:
        self._note_change()
        marks = read_marks(self.dataset, self.field, Prompts())

        def find_kept(ids: list[str]) -> set[str]:
            return persons_samples(self.dataset, self.field, ids, marks)

        return take_back(self.dataset, self.field, record, self.parts, find_kept)

    def _note_change(self) -> None:
        """Call earlier evaluations stale; before a label changes."""
        update_run(self.dataset, self.field, self.config, changed=uuid.uuid4().hex)

    def undo(self) -> RelabelReport:
        """Take back the killed call, else the last one."""
        records = list_records(self.parts)
        if not records:
            raise DataError(f"the run {self.field!r} has no relabelling to take back")
        record = next((each for each in records if not each.is_done), records[-1])
        before = self._masks(list(record.values[self.field]))
        kept = self._take_back(record)
        after = self._masks(list(before))
        self._count_again()
        return RelabelReport(
            key=self.field,
            groups=record.groups,
            changed=record.changed or tuple(id_ for id_, mask in after.items() if mask != before[id_]),
            looked_at=len(before),
            kept=tuple(kept),
            notes=(f"{len(kept)} stay, as a person decided about them since",) if kept else (),
            is_undone=True,
        )

    def _masks(self, ids: list[str]) -> dict[str, str | None]:
        columns = every_sample(self.dataset).select(ids).values(["id", f"{self.field}.mask_path"])
        return dict(zip(*columns, strict=True))

    def relabel(self, names: list[str] | None, examples_for: str, progress: ProgressFn) -> RelabelReport:
        """Relabel groups; see `relabel_dataset`."""
        marks = read_marks(self.dataset, self.field, self.prompts)
        names = self._choose(names, marks)
        shares = self._share_out(names)
        ids = [image.id for share in shares for image in share.images]
        everybody = {id_ for part in self.parts for id_ in part.sample_ids}
        shown, lost = read_dataset_examples(
            self.dataset, self.field, self.parts, marks, everybody if examples_for == "all" else ids
        )
        self._refuse_silence(names, shown, examples_for)
        kept = persons_samples(self.dataset, self.field, ids, marks)
        parts = [share.part for share in shares]
        declare_steering(self.dataset, self.field, self.config)
        record = begin_record(self.dataset, self.field, parts, self.parts, names, ids=ids, kept=kept)
        try:
            written, changed, notes = self._work(shares, shown, kept, examples_for, progress)
        except BaseException:  # a stop by the user too
            self._take_back(record)
            raise
        if written:
            end_record(record, parts, changed)
            self._count_again()
        else:  # an undo is to find the call before
            self._take_back(record)
            notes.append("these examples change nothing")
        if lost:
            notes.append(f"{count_of(len(lost), 'example')} had no mask any more and did not count; mark again")
        return RelabelReport(
            key=self.field,
            groups=tuple(names),
            changed=tuple(changed),
            looked_at=len(ids),
            kept=tuple(sorted(kept)),
            notes=tuple(notes),
        )

    def _choose(self, names: list[str] | None, marks: Marks) -> list[str]:
        there = {group.name: group for part in self.parts for group in part.groups}
        if names is None:
            held = {
                group.name for part in self.parts for group in part.groups for i in group.images if i.id in marks.ids
            }
            names = [name for name in there if name in held]
            if not names:
                raise DataError("nothing is shown yet; use a mask as an example, or mark one as not the object")
        if unknown := [name for name in names if name not in there]:
            shown = ", ".join(sorted(there)[:8])
            raise DataError(f"the run {self.field!r} has no finished group {unknown[0]!r}; groups here: {shown}")
        return list(dict.fromkeys(names))

    def _share_out(self, names: Sequence[str]) -> list[_Share]:
        """Give each group to the newest parts that hold its images."""
        present = set(every_sample(self.dataset).values("id"))
        taken: set[str] = set()
        shares = []
        for part in self.parts:
            images: list[ImageRef] = []
            groups = []
            for group in part.groups:
                left = [image for image in group.images if image.id in present - taken]
                if group.name in names and left:
                    groups.append(group.name)
                    images += left
            taken.update(image.id for image in images)
            if images:
                shares.append(_Share(part, tuple(groups), tuple(images)))
        return shares

    def _refuse_silence(self, names: Sequence[str], shown: Mapping[str, Example], examples_for: str) -> None:
        """Refuse groups of which nothing is shown, unless they are to get their first masks back."""
        if examples_for == "all" and shown:
            return
        steered = {name for record in list_records(self.parts) for name in record.groups}
        for name in names:
            of_group = {
                i.id for part in self.parts for group in part.groups if group.name == name for i in group.images
            }
            if name not in steered and not of_group & shown.keys():
                raise DataError(
                    f"nothing is shown of {name}; use one of its masks as an example, or mark one as not the object"
                )

    def _work(
        self,
        shares: Sequence[_Share],
        shown: Mapping[str, Example],
        kept: set[str],
        examples_for: str,
        progress: ProgressFn,
    ) -> tuple[int, list[str], list[str]]:
        """Relabel each part, and write what came of it; give the samples written, those with other masks, and notes."""
        self._note_change()
        written = 0
        changed: list[str] = []
        notes: list[str] = []
        for share in shares:
            before = self._freeze(share)
            held = set(share.part.sample_ids)
            examples = {id_: example for id_, example in shown.items() if id_ in held}
            if len(examples) < len(shown):
                notes.append(f"{count_of(len(shown) - len(examples), 'example')} lie in another part of the run")
            report = relabel(
                share.part.folder, examples, groups=share.groups, examples_for=examples_for, progress=progress
            )
            notes += [f"{name}: {choice}" for name, choice in report.choices.items()]
            mine = {image.id for image in share.images} - kept
            rows = [row for row in report.rows if row.image_id in mine]
            items = self._show(share, label_items(share.part, rows, self.config.tree, has_maps=True))
            self._keep_before(before)
            written += write_labels(self.dataset, self.field, items)
            changed += [i.row.image_id for i in items if i.mask_path and str(i.mask_path) != before[i.row.image_id]]
        return written, changed, notes

    def _freeze(self, share: _Share) -> dict[str, str | None]:
        """Point labels to copies that never change, as the pipeline is about to write its own files; give the masks."""
        ids = [image.id for image in share.images]
        outputs = {image.id: image.output for image in share.images}
        paths = {self.config.tree: f"{self.field}.mask_path", "maps": f"{self.field}_map.map_path"}
        found, *columns = every_sample(self.dataset).select(ids).values(["id", *paths.values()])
        masks: dict[str, str | None] = {}
        for (tree, path), column in zip(paths.items(), columns, strict=True):
            files = dict(zip(found, column, strict=True))
            own = {id_: share.part.folder / tree / outputs[id_] for id_ in files}
            moved = {
                id_: str(show_file(share.part, own[id_], outputs[id_]))
                for id_, file in files.items()
                if file is not None and Path(file) == own[id_] and own[id_].is_file()
            }
            store_values(self.dataset, path, moved)
            if tree == self.config.tree:
                masks = files | moved
        return masks

    def _show(self, share: _Share, items: Iterable[LabelItem]) -> list[LabelItem]:
        """Give new masks and maps names that the App's page does not know yet."""
        return [
            LabelItem(
                row=item.row,
                mask_path=show_file(share.part, item.mask_path, item.row.output),
                map_path=show_file(share.part, item.map_path, item.row.output) if item.map_path else None,
            )
            for item in items
            if item.mask_path is not None
        ]

    def _keep_before(self, masks: Mapping[str, str | None]) -> None:
        labels = {id_: None if mask is None else fo.Segmentation(mask_path=mask) for id_, mask in masks.items()}
        store_values(self.dataset, before_field(self.field), labels)

    def _count_again(self) -> None:
        counts = every_sample(self.dataset).count_values(f"{self.field}_status")
        found = {str(status): count for status, count in counts.items() if status is not None}
        update_run(self.dataset, self.field, self.config, counts=found)
