"""The files of a bench."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from umscosod.bench.page import write_page
from umscosod.bench.results import BenchReport
from umscosod.bench.table import format_report, report_to_json
from umscosod.data.files import open_atomic


def save_bench(report: BenchReport, *, shown: int) -> str:
    """Write ``OUT/bench.json``, ``OUT/bench.md`` and ``OUT/index.html``; return the tables.

    Parameters
    ----------
    report : BenchReport
    shown : int
        Pictures of each data set on the page.
    """
    text = format_report(report)
    content = json.dumps(make_finite(report_to_json(report)), indent=1, ensure_ascii=False, allow_nan=False)
    for name, data in (("bench.json", content), ("bench.md", text)):
        with open_atomic(report.out / name) as stream:
            stream.write(data.encode("utf-8", "replace"))
    write_page(report, shown)
    return text


def make_finite(value: Any) -> Any:
    """Replace NaN, which JSON does not know, by null."""
    if isinstance(value, Mapping):
        return {key: make_finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [make_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
