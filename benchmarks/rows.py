"""A row of the table of speed, what every measure is told, and the clocks that all of them use."""

from __future__ import annotations

import math
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple, TypeVar

_Result = TypeVar("_Result")
BACKBONE_OF_WEIGHTS = "dinov2_vits14"
"""What the file given by ``--weights`` is taken for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One figure.

    Attributes
    ----------
    name : str
        What is measured, with its sizes: rows of one name are compared from run to run.
    target : float or None
        None where none is set.
    better : {"higher", "lower"}
        Which side of the target is good.
    unit : str
        ``x`` for a ratio.
    figure : float or None
        None where it was not measured; `detail` then says why.
    detail : str
    is_failed : bool
        The measure ended with an error, which `detail` gives.
    command : str
        Measures it alone; filled in by the runner.
    """

    name: str
    target: float | None = None
    better: Literal["higher", "lower"] = "higher"
    unit: str = "x"
    figure: float | None = None
    detail: str = ""
    is_failed: bool = False
    command: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether the figure reaches the target; None where one of the two is missing."""
        if self.target is None or self.figure is None:
            return None
        if math.isnan(self.figure):
            return False
        return self.figure >= self.target if self.better == "higher" else self.figure <= self.target


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """What a measure is told.

    Attributes
    ----------
    images : Path
        Photographs, one sub-folder a group.
    weights : Path or None
        Of a ViT-S/14, see `BACKBONE_OF_WEIGHTS`.
    is_quick : bool
        Small sizes: some rows then have another name and no target.
    is_full : bool
        The sizes of the targets also where they take hours.
    work : Path or None
        Folder that keeps what takes hours, so that it can be resumed.
    """

    images: Path
    weights: Path | None = None
    is_quick: bool = False
    is_full: bool = False
    work: Path | None = None

    def paths(self, count: int) -> list[Path]:
        """The first photographs, at most `count`."""
        from umscosod.data.groups import groups_from_folder

        found = [image.path for group in groups_from_folder(self.images) for image in group.images]
        return found[:count]


@dataclass(frozen=True, slots=True)
class Measure:
    """A word for ``--only``, and a module of this folder whose ``rows`` yields its rows."""

    word: str
    module: str


NEEDS_WEIGHTS = "not run: needs --weights"


def without_weights(rows: Iterable[Row]) -> Iterator[Row]:
    """The same rows, not measured."""
    for row in rows:
        yield replace(row, figure=None, detail=NEEDS_WEIGHTS)


class Spent(NamedTuple):
    """Seconds on the wall, and of processors: of this process and of its children that have ended."""

    wall: float
    processor: float


def now() -> Spent:
    """Read both clocks."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return Spent(time.perf_counter(), sum(one.ru_utime + one.ru_stime for one in used))


def time_once(work: Callable[[], object], clock: Callable[[], Spent] = now) -> Spent:
    """Do the work, and say what it took."""
    before = clock()
    work()
    after = clock()
    return Spent(after.wall - before.wall, after.processor - before.processor)


def times_in_turn(
    ways: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], Spent] = now
) -> dict[str, Spent]:
    """Least seconds of each way, taken in turn, so that other load hits all alike."""
    spent: dict[str, list[Spent]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            spent[name].append(time_once(way, clock))
    return {
        name: Spent(min(one.wall for one in found), min(one.processor for one in found))
        for name, found in spent.items()
    }


def in_fresh_process(work: Callable[..., _Result], *given: Any) -> _Result:
    """Call a function of a module in a process of its own: with its own peak of memory, environment and caches."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *given).result()


def peak_bytes() -> int:
    """Greatest memory that this process has held (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Give a folder that is removed."""
    with TemporaryDirectory(prefix="umscosod-bench-") as name:
        yield Path(name)


def show(rows: Iterable[Row]) -> None:
    """Print rows as they come: the command line of each measure."""
    from benchmarks.table import in_words

    for row in rows:
        wanted = "" if row.target is None else f" (target {'>=' if row.better == 'higher' else '<='} {row.target:g})"
        print(f"{row.name}: {in_words(row.figure, row.unit)}{wanted} {row.detail}".rstrip(), flush=True)
