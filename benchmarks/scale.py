"""Many small pictures: memory, open files, time, and the same command again on a finished job.

    python -m benchmarks.scale [--sizes N ...] [--work FOLDER] [--full]

Pictures of 48 to 64 px in groups of 50: 500 drawn ones, whose files differ by a comment, so that each is encoded. They
are labelled by the preset ``smoke`` without training and without DenseCRF, whose processes would blur the memory, and
whose work on one image does not grow with the collection. ``--full`` takes 500, 20,000 and 100,000 pictures. Each
size has a cache of its own. With ``--work`` pictures, jobs and figures stay: the same command takes up the job where it
was stopped (its memory is then that of the rest), and does not measure again what is measured.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from benchmarks.rows import Given, Row, peak_bytes, scratch_folder, show
from benchmarks.table import in_words
from umscosod.data.files import open_atomic

DRAWN, GROUP, FIRST = 500, 50, 500
FULL = (FIRST, 20_000, 100_000)
SMALL, SMALLEST = (FIRST, 2_000), (100, 400)
SETTINGS = ("--preset", "smoke", "--train", "never", "--config.refine.crf.no-enabled")
EVERY_S = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a job of some size took.

    Attributes
    ----------
    images, masks : int
        Given, and masks found at the end.
    seconds, again_s : float
        Of the job, and of the same command on the finished job.
    processor_s, again_processor_s : float
        The same in processor time, which other work on the machine changes less.
    peak_mb : float
        Greatest memory of the job, which is one process.
    open_before, open_after, open_most : int
        File descriptors when the job begins and when it has ended; most seen.
    is_resumed : bool
        The job had been begun before: time and memory are those of the rest.
    """

    images: int
    masks: int
    seconds: float
    again_s: float
    processor_s: float
    again_processor_s: float
    peak_mb: float
    open_before: int
    open_after: int
    open_most: int
    is_resumed: bool = False


def draw(count: int) -> list[bytes]:
    """Draw JPEG files: a disc or a square on noise, alike in a group."""
    files = []
    for index in range(count):
        group, rng = index // GROUP, np.random.default_rng(index)
        side = 48 + index % 17
        picture = rng.integers(0, 90, (side, side, 3)) + np.random.default_rng(group).integers(0, 90, 3)
        rows, columns = np.mgrid[:side, :side] / side - rng.uniform(0.35, 0.65, (2, 1, 1))
        is_inside = np.hypot(rows, columns) < 0.25 if group % 2 else np.maximum(abs(rows), abs(columns)) < 0.2
        picture[is_inside] = np.random.default_rng(1000 + group).integers(120, 256, 3)
        stream = io.BytesIO()
        Image.fromarray(picture.astype(np.uint8)).save(stream, "JPEG", quality=90)
        files.append(stream.getvalue())
    return files


def write_pictures(folder: Path, count: int) -> None:
    """Write `count` files that all differ, by a comment after the first marker; those that are there stay."""
    done = folder.with_suffix(".written")
    if done.is_file():
        return
    drawn = draw(min(count, DRAWN))
    for index in range(count):
        path = folder / f"group{index // GROUP:05}" / f"{index:06}.jpg"
        if index % GROUP == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        comment = f"{index:08}".encode()
        data = drawn[index % len(drawn)]
        path.write_bytes(data[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + data[2:])
    done.touch()


def measure(folder: Path, count: int) -> Outcome:
    """Label `count` pictures in a process of its own, twice; what is measured already is read."""
    record = folder / f"{count}.json"
    if record.is_file():
        return Outcome(**json.loads(record.read_text(encoding="utf-8")))
    images, out = folder / f"{count}-pictures", folder / f"{count}-out"
    write_pictures(images, count)
    is_resumed = (out / "run").is_dir()
    words = [
        "label",
        str(images),
        "--out",
        str(out),
        *SETTINGS,
        "--config.features.cache-dir",
        str(folder / f"{count}-cache"),
    ]
    started = time.perf_counter()
    first, most = run_watched(words)
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    again, _ = run_watched(words)
    outcome = Outcome(
        images=count,
        masks=sum(1 for _ in (out / "masks").rglob("*.png")),
        seconds=seconds,
        again_s=time.perf_counter() - started,
        processor_s=first["processor_s"],
        again_processor_s=again["processor_s"],
        peak_mb=first["peak_mb"],
        open_before=int(first["open_before"]),
        open_after=int(first["open_after"]),
        open_most=most,
        is_resumed=is_resumed,
    )
    with open_atomic(record) as stream:
        stream.write(json.dumps(asdict(outcome)).encode())
    return outcome


def run_watched(words: Sequence[str]) -> tuple[dict[str, float], int]:
    """Run the command by `as_job`; gives its report, and the most files that it was seen to hold open."""
    line = [sys.executable, "-m", "benchmarks.scale", "--job", *words]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    seen = [0]
    ended = threading.Event()
    watcher = threading.Thread(target=watch, args=(process.pid, seen, ended))
    watcher.start()
    said, complained = process.communicate()
    ended.set()
    watcher.join()
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}: {complained[-500:]}")
    return json.loads(said.splitlines()[-1]), seen[0]


def watch(pid: int, seen: list[int], ended: threading.Event) -> None:
    """Note the open files of a process until it has ended."""
    while not ended.wait(EVERY_S):
        with suppress(psutil.Error):  # it has ended meanwhile
            seen[0] = max(seen[0], psutil.Process(pid).num_fds())


def as_job(words: Sequence[str]) -> int:
    """Be the command, and say at the end how many files were open and how much memory was held."""
    import umscosod.pipeline  # noqa: F401 - libraries open what they open when they are loaded
    from umscosod.cli import main as command

    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    code = command(list(words))
    after = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    report = {"open_before": before, "open_after": after, "peak_mb": peak_bytes() / 1e6}
    print(json.dumps(report | {"processor_s": time.process_time()}))
    return code


def rows(given: Given) -> Iterator[Row]:
    """Measure: small sizes, or those of the targets."""
    sizes = FULL if given.is_full else SMALLEST if given.is_quick else SMALL
    with scratch_folder() if given.work is None else nullcontext(given.work) as folder:
        yield from rows_of(folder, sizes)


def rows_of(folder: Path, sizes: Sequence[int]) -> Iterator[Row]:
    """Compare each size with the first, which must not be above it."""
    folder.mkdir(parents=True, exist_ok=True)
    least: Outcome | None = None
    for size in sizes:
        outcome = measure(folder, size)
        if least is not None:
            yield from compare(least, outcome)
        least = least or outcome


def compare(least: Outcome, found: Outcome) -> Iterator[Row]:
    """Rows of one size."""
    size = f"{found.images:,} small images"
    rest = " (resumed: of the rest)" if found.is_resumed else ""
    yield Row(
        name=f"{size}: peak memory, of that of {least.images:,}",
        target=1.15 if least.images == FIRST and found.images >= 20_000 else None,
        better="lower",
        figure=found.peak_mb / least.peak_mb,
        detail=f"{found.peak_mb:,.0f} and {least.peak_mb:,.0f} MB{rest}",
    )
    yield Row(
        name=f"{size}: open files at the end, more than at the start",
        target=0,
        better="lower",
        unit="files",
        figure=found.open_after - found.open_before,
        detail=f"{found.open_before} at the start, at most {found.open_most}",
    )
    yield Row(
        name=f"{size} in {found.images // GROUP:,} groups: share with a mask",
        target=1,
        unit="",
        figure=found.masks / found.images,
        detail=f"{found.seconds:,.0f} s{rest}",
    )
    more = found.images - least.images
    each = (found.processor_s - least.processor_s) / more
    yield Row(
        name=f"{size}: each more image, processor time",
        better="lower",
        unit="s",
        figure=each,
        detail=f"100,000 would take {in_words(each * 100_000 / 3600, 'h')}",
    )
    again = (found.again_processor_s - least.again_processor_s) / more
    yield Row(
        name=f"{size}: the same command on the finished job",
        target=20 if found.images >= 100_000 else None,
        better="lower",
        unit="s",
        figure=found.again_s,
        detail=f"processor time {found.again_processor_s:.1f} s, of 100,000 "
        f"{in_words(least.again_processor_s + again * (100_000 - least.images), 's')}",
    )


def main() -> int:
    """Measure some sizes, or be the job that is measured."""
    if sys.argv[1:2] == ["--job"]:
        return as_job(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SMALL, help="ascending")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--full", action="store_true", help=f"sizes {FULL}")
    given = parser.parse_args()
    with scratch_folder() if given.work is None else nullcontext(given.work) as folder:
        show(rows_of(folder, FULL if given.full else given.sizes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
