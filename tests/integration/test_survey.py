"""Groups counted by the database are those that a run forms."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

fo = pytest.importorskip("fiftyone")

from umscosod.errors import DataError  # noqa: E402
from umscosod.integrations.fiftyone import group_fields, likely_group_field, survey  # noqa: E402
from umscosod.integrations.fiftyone.runs.jobs import read_samples  # noqa: E402

pytestmark = pytest.mark.mongod


def formed(view: Any, group_field: str | None) -> dict[str, int]:
    """Sizes of the groups that a run forms of the same samples."""
    return dict(Counter(row.group for row in read_samples(view, group_field)))


@pytest.fixture
def mixed(dataset_factory: Any) -> Any:
    """Eight pictures with fields of all sorts."""
    dataset = dataset_factory()
    texts = ["cat", "cat", "dog", "dog", "", None, "cat", "dog"]
    for number, (sample, text) in enumerate(zip(dataset.iter_samples(autosave=True), texts, strict=True)):
        sample["kind"] = text
        sample["number"] = number // 3
        sample["is_wild"] = number < 2
        sample["serial"] = f"IMG_{number}"
        sample["guess"] = None if text is None else fo.Classification(label=text)
        sample["words"] = ["a", "b"]
        sample["boxes"] = fo.Detections(detections=[fo.Detection(label="x")])
    return dataset


@pytest.mark.parametrize("field", [None, "cls", "kind", "number", "is_wild", "guess", "serial"])
def test_it_counts_the_groups_that_a_run_forms(mixed: Any, field: str | None) -> None:
    for view in (mixed, mixed.limit(3), mixed.group_by("cls")):
        found = survey(view, field)
        flat = view.flatten() if view is not mixed and view._is_dynamic_groups else view
        expected = formed(flat, field)
        assert found.ungrouped == expected.pop("", 0)
        assert found.sizes == expected
        assert found.n_images + found.ungrouped == len(flat)


def test_folders_are_named_as_a_run_names_them(dataset_factory: Any) -> None:
    dataset = dataset_factory()
    base = Path(dataset.first().filepath).parents[1]
    dataset.add_samples([fo.Sample(filepath=f"{base}/{name}") for name in ("top.jpg", "a/b/1.jpg", "a/b//2.jpg")])
    dataset.add_sample(fo.Sample(filepath="/root.jpg"))
    assert survey(dataset).sizes == formed(dataset, None)
    assert survey(dataset.limit(4)).sizes == {"disk-0": 4}


def test_images_without_company_are_counted(mixed: Any) -> None:
    found = survey(mixed.match(fo.ViewField("kind").is_in(["dog"])).limit(1).concat(mixed.limit(2)), "kind")
    assert (found.sizes, found.n_single) == ({"cat": 2, "dog": 1}, 1)


@pytest.mark.parametrize("field", ["nothing", "ground_truth", "words", "boxes", "boxes.detections.label"])
def test_it_refuses_what_a_run_refuses(mixed: Any, field: str) -> None:
    with pytest.raises(DataError):
        formed(mixed, field)
    with pytest.raises(DataError):
        survey(mixed, field)


def test_fields_of_runs_and_reviews_name_no_groups(toy_dataset: Any) -> None:
    from umscosod.integrations.fiftyone.runs.fields import declare_fields

    declare_fields(toy_dataset, "cosal")
    declare_fields(toy_dataset, "reviewed", has_maps=False)
    toy_dataset.add_sample_field("order_status", fo.StringField)  # a person's own
    assert group_fields(toy_dataset) == ["cls", "order_status"]


def test_the_likely_field_is_the_one_with_a_usual_name(mixed: Any) -> None:
    assert likely_group_field(mixed) == "cls"
    mixed.add_sample_field("cosal_group", fo.StringField)
    assert likely_group_field(mixed) == "cls"  # the other one is empty
    mixed.set_values("cosal_group", ["x"] * 4 + ["y"] * 4)
    assert likely_group_field(mixed) == "cosal_group"
    assert likely_group_field(mixed.limit(4)) is None  # one value each


def test_without_a_usual_name_folders_count_more(mixed: Any) -> None:
    mixed.delete_sample_field("cls")
    mixed.delete_sample_field("guess")
    assert likely_group_field(mixed) is None
    for sample in mixed.iter_samples(autosave=True):
        path = Path(sample.filepath)
        sample.filepath = str(path.parents[1] / f"{path.parent.name}-{path.name}")
    assert likely_group_field(mixed) == "kind"
    mixed.set_values("serial", ["s", "t"] * 4)
    assert likely_group_field(mixed) is None  # two that might: nothing is obvious
