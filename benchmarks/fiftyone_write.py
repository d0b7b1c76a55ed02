"""How fast labels get into FiftyOne's database, and how much memory that takes; and how long the form of `label` takes.

    python -m benchmarks.fiftyone_write [--samples N]

A database of its own in a temporary folder (needs the extra ``mongod``). The masks exist already: only their paths are
written, with maps, confidence, status and reason, as a run does. Beside it, the same columns by one plain `set_values`
each: what the batches of `write_labels` cost.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.rows import Given, Row, scratch_folder, show
from umscosod.integrations.database import CURE, find_mongod

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # for the database of the tests


@contextmanager
def own_database(folder: Path, program: Path) -> Iterator[None]:
    """Point FiftyOne, which must not be imported yet, at an empty database; the user's own is left alone."""
    from tests.integration.servers import Mongod, free_port

    (folder / "plugins").mkdir()
    (folder / "plugins" / "fiftyone-umscosod").symlink_to(ROOT, target_is_directory=True)
    database = Mongod(program, folder / "db", free_port())
    os.environ.update(
        HOME=str(folder),
        FIFTYONE_CONFIG_PATH=str(folder / "config.json"),
        FIFTYONE_DATABASE_URI=f"mongodb://127.0.0.1:{database.port}",
        FIFTYONE_DATABASE_VALIDATION="false",
        FIFTYONE_DO_NOT_TRACK="true",
        FIFTYONE_PLUGINS_DIR=str(folder / "plugins"),
        FIFTYONE_SHOW_PROGRESS_BARS="false",
    )
    database.start()
    try:
        yield
        import fiftyone.core.odm as odm

        odm.get_db_client().close()  # or FiftyOne looks for it once more at the end, and waits
    finally:
        database.kill()


def make_dataset(folder: Path, count: int, size_hw: tuple[int, int] = (480, 640)) -> Any:
    """Samples of one picture; the database neither knows nor cares."""
    import fiftyone as fo
    import numpy as np
    from PIL import Image

    picture = folder / "picture.jpg"
    Image.fromarray(np.full((*size_hw, 3), 127, np.uint8)).save(picture)
    for name in ("mask", "map"):
        Image.fromarray(np.full(size_hw, 255, np.uint8)).save(folder / f"{name}.png")
    dataset = fo.Dataset("bench")
    dataset.add_samples([fo.Sample(filepath=str(picture), cls=f"group {index // 10}") for index in range(count)])
    return dataset


def iter_items(ids: list[str], folder: Path, rss: list[int]) -> Iterator[Any]:
    """One item a sample, made when asked for; the memory in use meanwhile goes to `rss`."""
    import psutil

    from umscosod.integrations.fiftyone.runs.fields import LabelItem
    from umscosod.types import Labelled, Status

    process = psutil.Process()
    for number, sample_id in enumerate(ids):
        if number % 64 == 0:
            rss.append(process.memory_info().rss)
        row = Labelled(image_id=sample_id, group="", output="", status=Status.LABELLED, confidence=0.5)
        yield LabelItem(row=row, mask_path=folder / "mask.png", map_path=folder / "map.png")
    rss.append(process.memory_info().rss)


def write_plainly(dataset: Any, field: str, ids: list[str], folder: Path) -> None:
    """The same columns, whole, without batches, checks or a record."""
    import fiftyone as fo

    mask, soft = str(folder / "mask.png"), str(folder / "map.png")
    columns = {
        f"{field}_confidence": dict.fromkeys(ids, 0.5),
        f"{field}_reason": dict.fromkeys(ids, ""),
        f"{field}_status": dict.fromkeys(ids, "labelled"),
        f"{field}_map": {sample_id: fo.Heatmap(map_path=soft) for sample_id in ids},
        field: {sample_id: fo.Segmentation(mask_path=mask, provenance="model", run=field) for sample_id in ids},
    }
    for name, values in columns.items():
        dataset.set_values(name, values, key_field="id")


def time_form(dataset: Any, rounds: int = 5) -> float:
    """Seconds to draw the form of `label`, as the App does at every change."""
    import fiftyone.operators as foo

    operator = foo.get_operator("@umscosod/umscosod/label")
    context = foo.ExecutionContext(request_params={"dataset_name": dataset.name, "params": {}})
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        operator.resolve_input(context)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def measure(folder: Path, count: int) -> list[Row]:
    """Write, and open the form."""
    from umscosod.integrations.fiftyone.runs.fields import declare_fields, write_labels

    dataset = make_dataset(folder, count)
    ids = dataset.values("id")
    for field in ("cosal", "plain"):
        declare_fields(dataset, field)
    rss: list[int] = []
    start = time.perf_counter()
    written = write_labels(dataset, "cosal", iter_items(ids, folder, rss))
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    write_plainly(dataset, "plain", ids, folder)
    plain = time.perf_counter() - start
    return [
        Row(
            name=f"FiftyOne: writing {count} samples: ours, plain set_values",
            better="lower",
            figure=seconds / plain,
            detail=f"{written / seconds:.0f} samples a second",
        ),
        Row(
            name=f"FiftyOne: memory to write {count} samples",
            better="lower",
            unit="MB",
            figure=(max(rss) - rss[0]) / 1e6,
        ),
        Row(
            name="FiftyOne: form of `label` opens",
            target=0.3,
            better="lower",
            unit="s",
            figure=time_form(dataset),
            detail=f"data set of {count}",
        ),
    ]


def rows(given: Given, count: int = 0) -> Iterator[Row]:
    """Measure where there is a database to measure."""
    count = count or (200 if given.is_quick else 2000)
    program = find_mongod()
    if program is None:
        yield Row(name="FiftyOne", detail=f"not run: FiftyOne has no mongod that runs here. {CURE}")
        return
    with scratch_folder() as folder, own_database(folder, program):
        yield from measure(folder, count)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2000)
    show(rows(Given(images=Path()), parser.parse_args().samples))


if __name__ == "__main__":
    main()
