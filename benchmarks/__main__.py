"""Every figure of docs/performance.md, in one run: ``python -m benchmarks IMAGES``.

IMAGES holds photographs, one sub-folder a group. Prints a Markdown table: row, target, figure, whether the target
holds, the figure of the run that the repository keeps (benchmarks/last.json), and the command that measures the row
alone. Each measure runs in a process of its own. One that fails is shown with its reason, the others go on, and the
exit code is 1. Read ratios, not seconds: both sides of a ratio are measured in this run, in turn.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.rows import Given, Row
from benchmarks.run import MEASURES, run_measure
from benchmarks.table import (
    as_record,
    machine_facts,
    markdown,
    merge,
    page_part,
    read_rows,
    replace_between,
    write_record,
)
from umscosod.data.files import open_atomic

LAST = Path(__file__).resolve().parent / "last.json"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"


def main(words: Sequence[str] | None = None) -> int:
    """Run, print, write, compare; 1 where a measure failed."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each process that is measured compiles torch anew
    given = read_arguments(words)
    chosen = [one for one in MEASURES if not given.only or one.word in given.only]
    told = Given(images=given.images, weights=given.weights, is_quick=given.quick, is_full=given.full, work=given.work)
    before = read_rows(LAST)
    machine = machine_facts()
    rows = [row for measure in chosen for row in run_measure(measure, told)]
    how = {"quick": given.quick, "full": given.full, "weights": given.weights is not None}
    print(markdown(rows, before))
    record = as_record(rows, machine, how)
    if given.out:
        write_record(given.out, record)
    if given.keep:
        keep(rows, before, record, is_part=bool(given.only))
    return int(any(row.is_failed for row in rows))


def read_arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path, metavar="IMAGES")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        choices=[one.word for one in MEASURES],
        metavar="WORD",
        help=f"these rows alone, may be repeated: {', '.join(one.word for one in MEASURES)}",
    )
    parser.add_argument("--weights", type=Path, help="weight file of a DINOv2 ViT-S/14, for the rows with a ViT")
    parser.add_argument("--out", type=Path, help="JSON file for machine and rows")
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: minutes")
    parser.add_argument("--full", action="store_true", help="up to 100,000 images: hours, and 12 GB of disk")
    parser.add_argument("--work", type=Path, help="folder that keeps what --full has made, to be resumed")
    parser.add_argument("--keep", action="store_true", help="write benchmarks/last.json and docs/performance.md")
    given = parser.parse_args(words)
    if not given.images.is_dir():
        parser.error(f"{given.images} is not a folder")
    if given.weights and not given.weights.is_file():
        parser.error(f"{given.weights} is not a file")
    return given


def keep(rows: Sequence[Row], before: dict[str, Row], record: dict[str, object], *, is_part: bool) -> None:
    """Make these rows the ones that later runs are compared with, and the ones of the page.

    After a run of some measures (`is_part`) the earlier rows of the others stay.
    """
    sound = [row for row in rows if not row.is_failed]
    kept = merge(before, sound) if is_part else sound
    write_record(LAST, {**record, "rows": as_record(kept, {}, {})["rows"]})
    earlier = {row.name: before[row.name] for row in sound if row.name in before}
    text = replace_between(PAGE.read_text(encoding="utf-8"), page_part(kept, earlier, record))
    with open_atomic(PAGE) as stream:
        stream.write(text.encode())


if __name__ == "__main__":
    sys.exit(main())
