"""What a job says at its end: rows, notes, report, contact sheet."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from umscosod.config.io import dump_config
from umscosod.data.files import open_atomic, read_json
from umscosod.errors import count_of
from umscosod.export.contact_sheet import SheetRow, write_contact_sheet
from umscosod.export.report import write_report
from umscosod.pipeline.identity import FINISHED, deciding_settings, identify_job, read_sizes
from umscosod.pipeline.maps import Labels
from umscosod.pipeline.setup import Prepared
from umscosod.refine.crf import crf_available
from umscosod.refine.crf_pool import runs_in_torch
from umscosod.runinfo import collect_run_info, write_run_info
from umscosod.types import ImageGroup, Labelled, LabelReport, Status, TrainReport

__all__ = ["LabelReport", "TrainReport", "finish_job", "finished_rows", "pseudo_rows", "update_report"]

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
    wants_crf = config.refine.enabled and config.refine.crf.enabled
    is_in_torch = prepared.spec.engine is None and runs_in_torch(config.device)
    if wants_crf and not is_in_torch and not crf_available():
        facts["DenseCRF"] = "off: pydensecrf is not installed"
        notes = [*notes, "DenseCRF was off: pydensecrf is not installed; run: pip install pydensecrf2"]
    # no place on this machine and nothing that only speeds up: those are in run/config.yaml
    settings = {**deciding_settings(config), **facts}
    shared = _without_places(out, prepared.groups, by_id, prepared.spec.stored)
    write_report(out / "report.json", shared.values(), settings, backbones=[pair.first.id, pair.second.id])
    sheet = _sheet_rows(out, prepared.groups, shared)
    engine = prepared.engine_for(prepared.groups, len(shared))
    each = map if engine is None else engine.map
    write_contact_sheet(out, sheet, facts=facts, max_pixels=config.data.max_pixels, each=each)
    with open_atomic(prepared.job.run / "config.yaml") as stream:
        stream.write(dump_config(config).encode())
    seconds = time.monotonic() - started
    info = collect_run_info(config, sys.argv, device=str(prepared.device), timings_s={"total": seconds})
    write_run_info(prepared.job.run / "run.json", info)
    prepared.job.finish()
    images = (image for group in prepared.groups for image in group.images)
    # else what has failed is tried again
    if not prepared.features.failures and (sizes_hw := read_sizes(images)) is not None:
        spec = replace(prepared.spec, config=config)
        job = identify_job(prepared.groups, spec, (pair.first.id, pair.second.id), prepared.hashes)
        record = {"job": job, "rows": [asdict(row) for row in ordered], "sizes": sizes_hw, "notes": notes}
        with open_atomic(prepared.job.run / FINISHED) as stream:
            stream.write(json.dumps(record).encode())
    return LabelReport(rows=ordered, out=out, notes=tuple(notes), seconds=seconds)


def update_report(
    out: Path, groups: Sequence[ImageGroup], rows: Sequence[Labelled], changed: Collection[str], max_pixels: int
) -> None:
    """Write ``report.json`` and ``index.html`` of a finished job anew, with other rows.

    Parameters
    ----------
    out : Path
    groups : sequence of ImageGroup
        All of the job.
    rows : sequence of Labelled
        Of all images.
    changed : collection of str
        Ids of the images whose pictures on the page are painted anew.
    max_pixels : int
        See `umscosod.export.contact_sheet.write_contact_sheet`.
    """
    old = read_json(out / "report.json")
    facts = {name: old["config"][name] for name in _FACTS if name in old["config"]}
    shared = _without_places(out, groups, {row.image_id: row for row in rows}, {})
    write_report(out / "report.json", shared.values(), old["config"], backbones=old["backbones"])
    sheet = _sheet_rows(out, groups, shared)
    write_contact_sheet(out, sheet, facts=facts, max_pixels=max_pixels, changed=changed)
    finished = out / "run" / FINISHED
    if finished.is_file():  # an equal job is answered with the new rows
        record = {**read_json(finished), "rows": [asdict(row) for row in rows]}
        with open_atomic(finished) as stream:
            stream.write(json.dumps(record).encode())


_FACTS = ("backbones", "device", "detections", "DenseCRF")


def _without_places(
    out: Path, groups: Sequence[ImageGroup], by_id: Mapping[str, Labelled], stored: Mapping[str, Path]
) -> dict[str, Labelled]:
    """Rows whose reasons call an image by its id, and other files by what tells them apart."""
    shared = {}
    for image in (image for group in groups for image in group.images):
        reason = by_id[image.id].reason.replace(str(image.path), image.id)
        if image.id in stored:
            reason = reason.replace(str(stored[image.id]), f"maps/{image.output}")
        if out.is_absolute():
            reason = reason.replace(f"{out}/", "")
        shared[image.id] = replace(by_id[image.id], reason=reason)
    return shared


def _sheet_rows(out: Path, groups: Sequence[ImageGroup], by_id: Mapping[str, Labelled]) -> Iterator[SheetRow]:
    for image in (image for group in groups for image in group.images):
        row = by_id[image.id]
        is_failed = row.status is Status.FAILED
        tiles = {tree: None if is_failed else _existing(out, f"{tree}/{image.output}") for tree in _TREES}
        yield SheetRow(labelled=row, image=image.path, pseudo=tiles["pseudo"], map=tiles["maps"], mask=tiles["masks"])


_TREES = ("pseudo", "maps", "masks")


def _existing(out: Path, name: str) -> str | None:
    return name if (out / name).is_file() else None
