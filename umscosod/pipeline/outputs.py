"""The end of a job: report, contact sheet, settings and provenance."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from umscosod.config_io import dump_config
from umscosod.data.files import open_atomic
from umscosod.export.contact_sheet import SheetRow, write_contact_sheet
from umscosod.export.report import write_report
from umscosod.pipeline.prepare import Prepared, deciding_settings
from umscosod.pipeline.results import LabelReport
from umscosod.refine.crf import crf_available
from umscosod.runinfo import collect_run_info, write_run_info
from umscosod.types import Labelled, Status


def finish_job(
    prepared: Prepared,
    rows: Sequence[Labelled],
    notes: Sequence[str],
    started: float,
    stored: Mapping[str, Path] | None = None,
) -> LabelReport:
    """Write ``report.json``, ``index.html``, ``run/config.yaml`` and ``run/run.json``.

    The first two are made to be shared: they name no place on this machine.

    Parameters
    ----------
    prepared : Prepared
    rows : sequence of Labelled
        Of usable and failed images alike, in any order.
    notes : sequence of str
    started : float
        `time.monotonic` at the start of the call.
    stored : mapping of str to Path, optional
        Files of the stored maps by image id.
    """
    out, config, pair = prepared.job.out, prepared.config, prepared.features.pair
    by_id = {row.image_id: row for row in rows}
    ordered = tuple(by_id[image.id] for group in prepared.groups for image in group.images if image.id in by_id)
    facts = {"backbones": f"{pair.first.id}, {pair.second.id}", "device": str(prepared.device)}
    if prepared.detections is not None:
        facts["detections"] = f"sha256 {prepared.detections.sha256}"
    if config.refine.enabled and config.refine.crf.enabled and not crf_available():
        facts["DenseCRF"] = "off: pydensecrf is not installed"
        notes = [*notes, "DenseCRF was off: pydensecrf is not installed; run: pip install pydensecrf2"]
    # no place on this machine and nothing that only speeds up: those are in run/config.yaml
    settings = {**deciding_settings(config), **facts}
    shared = _without_places(prepared, by_id, stored or {})
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
    return LabelReport(rows=ordered, out=out, notes=tuple(notes), seconds=seconds)


def _without_places(
    prepared: Prepared, by_id: Mapping[str, Labelled], stored: Mapping[str, Path]
) -> dict[str, Labelled]:
    """Rows whose reasons call an image by its id, and other files by what tells them apart."""
    shared = {}
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
