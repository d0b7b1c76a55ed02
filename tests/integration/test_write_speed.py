"""Large data sets: labels are written in even batches of bounded memory, and a form asks no sample anything.

Seconds depend on what else the machine does, so requests are counted; benchmarks/fiftyone_write.py prints seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.toys import DatasetFactory
from umscosod.integrations.fiftyone.runs.fields import LabelItem, declare_fields, write_labels
from umscosod.types import Labelled, Status

fo = pytest.importorskip("fiftyone")

SAMPLES = 2000


@pytest.fixture
def large(dataset_factory: DatasetFactory) -> Any:
    """Many samples of four pictures of 480 x 640."""
    dataset = dataset_factory(n_groups=2, n_images=2, size_hw=(480, 640))
    rows = zip(dataset.values("filepath"), dataset.values("cls"), strict=True)
    copies = [fo.Sample(filepath=path, cls=cls) for path, cls in list(rows) * (SAMPLES // 4 - 1)]
    dataset.add_samples(copies)
    return dataset


def iter_items(ids: list[str], mask: Path, seen_bytes: list[int]) -> Iterator[LabelItem]:
    import psutil

    process = psutil.Process()
    for number, sample_id in enumerate(ids):
        if number % 64 == 0:
            seen_bytes.append(process.memory_info().rss)
        row = Labelled(image_id=sample_id, group="", output="", status=Status.LABELLED, confidence=0.5)
        yield LabelItem(row=row, mask_path=mask, map_path=mask)
    seen_bytes.append(process.memory_info().rss)


def write_plainly(dataset: Any, field: str, ids: list[str], mask: Path) -> None:
    """The same columns, whole: FiftyOne's own quickest way."""
    dataset.set_values(f"{field}_confidence", dict.fromkeys(ids, 0.5), key_field="id")
    dataset.set_values(f"{field}_reason", dict.fromkeys(ids, ""), key_field="id")
    dataset.set_values(f"{field}_status", dict.fromkeys(ids, "labelled"), key_field="id")
    dataset.set_values(f"{field}_map", {id_: fo.Heatmap(map_path=str(mask)) for id_ in ids}, key_field="id")
    masks = {id_: fo.Segmentation(mask_path=str(mask), provenance="model", run=field) for id_ in ids}
    dataset.set_values(field, masks, key_field="id")


def count_requests(work: Callable[[], object]) -> int:
    """What the database was asked meanwhile."""
    import fiftyone.core.odm as odm

    def total() -> int:
        return int(odm.get_db_conn().command("serverStatus")["network"]["numRequests"])

    before = total()
    work()
    return total() - before


@pytest.mark.slow
def test_batches_cost_little_time_and_no_memory(large: Any) -> None:
    ids, mask = large.values("id"), Path(large.first().ground_truth.mask_path)
    for field in ("batched", "plain"):
        declare_fields(large, field)
    seen_bytes: list[int] = []
    batched = count_requests(lambda: write_labels(large, "batched", iter_items(ids, mask, seen_bytes)))
    plain = count_requests(lambda: write_plainly(large, "plain", ids, mask))
    assert large.count_values("batched_status") == {"labelled": SAMPLES}
    assert large.count("batched.mask_path") == large.count("batched_map.map_path") == SAMPLES
    assert 0 < plain <= batched < SAMPLES / 2  # about 200; batches of one sample: many a sample
    assert max(seen_bytes) - seen_bytes[0] < 100e6


@pytest.mark.slow
def test_a_form_counts_samples_once_and_reads_none(large: Any) -> None:
    import fiftyone.core.odm as odm
    import fiftyone.operators as foo

    operator = foo.get_operator("@umscosod/umscosod/label")
    context = foo.ExecutionContext(request_params={"dataset_name": large.name, "params": {}})
    database, samples = odm.get_db_conn(), large._sample_collection_name
    database.command("profile", 2)  # the database records every query
    try:
        form = operator.resolve_input(context)
        asked = list(database["system.profile"].find({"ns": f"{database.name}.{samples}"}))
        assert 0 < len(asked) <= 4  # group sizes, by field and by folder
        assert all("aggregate" in each["command"] and each["nreturned"] <= 2 for each in asked)
        operator.resolve_input(context)  # the next keystroke
        assert database["system.profile"].count_documents({"ns": f"{database.name}.{samples}"}) == len(asked)
    finally:
        database.command("profile", 0)
        database.drop_collection("system.profile")
    assert "cls" in str(form.to_json())
