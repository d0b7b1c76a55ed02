"""What a job says at its end: rows, notes, report, contact sheet."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from umscosod import __version__
from umscosod.baselines import BASELINES
from umscosod.config.io import dump_config
from umscosod.data.files import OWN_FILES, lock_folder, open_atomic, read_json
from umscosod.device import resolve_device
from umscosod.errors import DataError, count_of
from umscosod.export.contact_sheet import SheetRow, write_contact_sheet
from umscosod.export.report import build_row, write_report
from umscosod.features.backbone import identify_backbones
from umscosod.pipeline.job import are_whole
from umscosod.pipeline.maps import Labels
from umscosod.pipeline.setup import (
    JobSpec,
    Prepared,
    deciding_settings,
    hash_files,
    hash_instances,
    hash_labels,
    resolve_names,
)
from umscosod.refine.crf import crf_available
from umscosod.runinfo import collect_run_info, write_run_info
from umscosod.types import ImageGroup, Labelled, Status


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelReport:
    """Outcome of labelling a collection.

    Attributes
    ----------
    rows : tuple of Labelled
        One per image asked for, in the order of the groups.
    out : Path
        The output folder.
    notes : tuple of str
        What was chosen on the way and why, for people.
    seconds : float
        Wall time of this call; a resumed job counts only what was left.
    """

    rows: tuple[Labelled, ...]
    out: Path
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def counts(self) -> dict[Status, int]:
        """Number of images by status, zeros included."""
        found = Counter(row.status for row in self.rows)
        return {status: found[status] for status in Status}

    @property
    def exit_code(self) -> int:
        """0 all well, 1 if any image failed, 3 if nothing was labelled."""
        if not self.counts[Status.LABELLED]:
            return 3
        return 1 if self.counts[Status.FAILED] else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainReport:
    """Outcome of training on pseudo-labels.

    Attributes
    ----------
    checkpoint : Path
        Folder of the final checkpoint.
    steps : int
    final_loss : float
        Of the last step.
    notes : tuple of str
    rows : tuple of Labelled
        Images that could not be used, as ``failed``.
    """

    checkpoint: Path
    steps: int
    final_loss: float
    notes: tuple[str, ...] = ()
    rows: tuple[Labelled, ...] = ()


_SHOWN = 8


def _mixed_notes(rows: Sequence[Labelled]) -> list[str]:
    """Name the groups in which no common object is seen; one line, or none."""
    names = list(dict.fromkeys(row.group for row in rows if row.is_mixed))
    if not names:
        return []
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    count = len({row.group for row in rows})
    return [
        f"no common object seen, so that no mask there can be relied on: "
        f"{len(names)} of {count_of(count, 'group')} ({shown})"
    ]


_FINISHED = "finished.json"


def find_finished(groups: tuple[ImageGroup, ...], spec: JobSpec) -> LabelReport | None:
    """Take the report of a job that is finished; nothing is built, encoded or written.

    Returns
    -------
    LabelReport or None
        None where the folder holds no finished job of this version and these very settings, weights, images, instance
        masks, pseudo-labels and maps; where an image had failed; or where a result is missing or damaged.

    Raises
    ------
    UmscosodError
        As `umscosod.pipeline.setup.prepare`.
    """
    started, out, config = time.monotonic(), spec.out, spec.config
    if not (out / "run" / _FINISHED).is_file():
        return None
    if spec.pair is None:
        (first, first_id), (second, second_id) = identify_backbones(config.features, resolve_device(config.device))
        spec = replace(spec, config=resolve_names(config, first, second))
    else:
        first_id, second_id = spec.pair.first.id, spec.pair.second.id
    hashes = {"images": hash_files(image.path for group in groups for image in group.images)}
    if spec.mode["verb"] == "label" and config.method not in BASELINES:
        hashes |= {"instances": hash_instances(config), "pseudo-labels": hash_labels(out / "pseudo", groups)}
    hashes |= {"maps": spec.stored_hash} if spec.stored_hash else {}
    with lock_folder(out):
        try:
            record = read_json(out / "run" / _FINISHED)
            rows = tuple(build_row(row) for row in record["rows"])
            notes = tuple(str(note) for note in record["notes"])
            is_same = record["job"] == _identify_job(groups, spec, (first_id, second_id), hashes)
        except (DataError, TypeError, KeyError):
            return None
        everything = (image for group in groups for image in group.images)
        if not (is_same and all((out / name).is_file() for name in OWN_FILES) and are_whole(out, everything)):
            return None
    return LabelReport(rows=rows, out=out, notes=notes, seconds=time.monotonic() - started)


def _identify_job(
    groups: Sequence[ImageGroup], spec: JobSpec, backbone_ids: tuple[str, str], hashes: Mapping[str, str]
) -> str:
    """Hash everything that decides the results of a job; `hashes` are those of files, taken before they were read."""
    content = {
        "version": __version__,
        "mode": dict(spec.mode),
        "config": deciding_settings(spec.config),
        "backbones": list(backbone_ids),
        "images": [[group.name, image.id, image.output] for group in groups for image in group.images],
        "hashes": dict(hashes),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def finished_rows(prepared: Prepared) -> list[Labelled] | None:
    """Rows of a job whose groups are all finished; None if anything is left to do."""
    found = [prepared.job.load_rows(group) for group in prepared.features.groups]
    done = [rows for rows in found if rows is not None]
    return [row for rows in done for row in rows] if len(done) == len(found) else None


def pseudo_rows(groups: tuple[ImageGroup, ...], labels: Labels) -> list[Labelled]:
    """Report rows of a job that stops at pseudo-labels."""
    rows = []
    for group in groups:
        for image in group.images:
            label = labels.get(image.id)
            is_found = label is not None and bool(label.mask_hw.any())
            rows.append(
                Labelled(
                    image_id=image.id,
                    group=group.name,
                    output=image.output,
                    status=Status.LABELLED if is_found else Status.EMPTY,
                    confidence=label.confidence if label is not None and is_found else 0.0,
                    reason="" if is_found else "no mask and no attention to make a pseudo-label of",
                    source="pseudo-label",
                )
            )
    return rows


def finish_job(prepared: Prepared, rows: Sequence[Labelled], started: float) -> LabelReport:
    """Write ``report.json``, ``index.html``, ``run/config.yaml`` and ``run/run.json``.

    The first two are made to be shared: they name no place on this machine.

    Parameters
    ----------
    prepared : Prepared
    rows : sequence of Labelled
        Of the usable images.
    started : float
        `time.monotonic` at the start of the call.

    Notes
    -----
    ``run/finished.json`` comes last: by it `find_finished` knows the job again.
    """
    out, config, pair = prepared.job.out, prepared.config, prepared.features.pair
    by_id = {row.image_id: row for row in [*rows, *prepared.failed_rows()]}
    notes = [*prepared.notes, *_mixed_notes(rows)]
    ordered = tuple(by_id[image.id] for group in prepared.groups for image in group.images if image.id in by_id)
    facts = {"backbones": f"{pair.first.id}, {pair.second.id}", "device": str(prepared.device)}
    if prepared.detections is not None:
        facts["detections"] = f"sha256 {prepared.detections.sha256}"
    if config.refine.enabled and config.refine.crf.enabled and not crf_available():
        facts["DenseCRF"] = "off: pydensecrf is not installed"
        notes = [*notes, "DenseCRF was off: pydensecrf is not installed; run: pip install pydensecrf2"]
    # no place on this machine and nothing that only speeds up: those are in run/config.yaml
    settings = {**deciding_settings(config), **facts}
    shared = _without_places(prepared, by_id)
    write_report(out / "report.json", shared.values(), settings, backbones=[pair.first.id, pair.second.id])
    write_contact_sheet(
        out,
        _sheet_rows(prepared, shared),
        facts=facts,
        max_pixels=config.data.max_pixels,
    )
    with open_atomic(prepared.job.run / "config.yaml") as stream:
        stream.write(dump_config(config).encode())
    seconds = time.monotonic() - started
    info = collect_run_info(config, sys.argv, device=str(prepared.device), timings_s={"total": seconds})
    write_run_info(prepared.job.run / "run.json", info)
    prepared.job.finish()
    if not prepared.features.failures:  # else what has failed is tried again
        spec = replace(prepared.spec, config=config)
        job = _identify_job(prepared.groups, spec, (pair.first.id, pair.second.id), prepared.hashes)
        record = {"job": job, "rows": [asdict(row) for row in ordered], "notes": notes}
        with open_atomic(prepared.job.run / _FINISHED) as stream:
            stream.write(json.dumps(record).encode())
    return LabelReport(rows=ordered, out=out, notes=tuple(notes), seconds=seconds)


def _without_places(prepared: Prepared, by_id: Mapping[str, Labelled]) -> dict[str, Labelled]:
    """Rows whose reasons call an image by its id, and other files by what tells them apart."""
    shared, stored = {}, prepared.spec.stored
    for image in (image for group in prepared.groups for image in group.images):
        reason = by_id[image.id].reason.replace(str(image.path), image.id)
        if image.id in stored:
            reason = reason.replace(str(stored[image.id]), f"maps/{image.output}")
        if prepared.job.out.is_absolute():
            reason = reason.replace(f"{prepared.job.out}/", "")
        shared[image.id] = replace(by_id[image.id], reason=reason)
    return shared


def _sheet_rows(prepared: Prepared, by_id: Mapping[str, Labelled]) -> Iterator[SheetRow]:
    out = prepared.job.out
    for group in prepared.groups:
        for image in group.images:
            row = by_id[image.id]
            is_failed = row.status is Status.FAILED
            tiles = {tree: None if is_failed else _existing(out, f"{tree}/{image.output}") for tree in _TREES}
            yield SheetRow(
                labelled=row, image=image.path, pseudo=tiles["pseudo"], map=tiles["maps"], mask=tiles["masks"]
            )


_TREES = ("pseudo", "maps", "masks")


def _existing(out: Path, name: str) -> str | None:
    return name if (out / name).is_file() else None
