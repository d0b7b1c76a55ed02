"""Runs measures, each in a process of its own: an error, or a process that dies, ends no other measure."""

from __future__ import annotations

import sys
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module

from benchmarks.rows import Given, Measure, Row, in_fresh_process
from benchmarks.table import with_command
from umscosod.errors import one_line

MEASURES = (
    Measure("label", "benchmarks.label"),
    Measure("network", "benchmarks.network"),
    Measure("group", "benchmarks.group"),
    Measure("regions", "benchmarks.regions"),
    Measure("grids", "benchmarks.grids"),
    Measure("training", "benchmarks.training"),
    Measure("crf", "benchmarks.crf"),
    Measure("measures", "benchmarks.measures"),
    Measure("scale", "benchmarks.scale"),
    Measure("start", "benchmarks.start"),
    Measure("fiftyone", "benchmarks.fiftyone_write"),
    Measure("cache", "benchmarks.cache"),
    Measure("embedded", "benchmarks.embedded"),
    Measure("steer", "benchmarks.steer"),
    Measure("discover", "benchmarks.discover"),
)


def run_measure(measure: Measure, given: Given) -> list[Row]:
    """Rows of a measure, from a process of its own; an error is one row more."""
    print(f"{measure.word} ...", file=sys.stderr, flush=True)
    try:
        rows = in_fresh_process(collect, measure, given)
    except BrokenProcessPool as error:
        rows = [Row(name=measure.word, is_failed=True, detail=f"its process died: {one_line(str(error))}")]
    weights = " --weights FILE" if any("ViT" in row.name for row in rows) else ""
    command = f"python -m benchmarks IMAGES --only {measure.word}{weights}"
    return [with_command(row, command) for row in rows]


def collect(measure: Measure, given: Given) -> list[Row]:
    """Rows of a measure; what it had measured before an error stays."""
    rows: list[Row] = []
    try:
        for row in import_module(measure.module).rows(given):
            rows.append(row)
            print(f"  {row.name}: {row.figure} {row.detail}", file=sys.stderr, flush=True)
    except Exception as error:  # whatever ends one measure must not end the others
        rows.append(
            Row(name=measure.word, is_failed=True, detail=one_line(f"{type(error).__name__}: {error}") or "no reason")
        )
    return rows
