"""Examples in a data set steer its masks: what changes, what stays a person's, and what an undo gives back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.jobs import quick_config
from umscosod.config import PipelineConfig
from umscosod.errors import DataError
from umscosod.integrations import fiftyone as ours

pytestmark = pytest.mark.mongod
SUFFIXES = ("_confidence", "_status", "_reason", "_review")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> PipelineConfig:
    return quick_config(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def labelled(toy_dataset: Any, config: PipelineConfig) -> Any:
    """Two groups of four, of which the ids are in order."""
    label(toy_dataset, config)
    return toy_dataset


def label(view: Any, config: PipelineConfig, **options: Any) -> Any:
    return ours.label_dataset(view, group_field="cls", config=config, train=False, **options)


def state_of(dataset: Any) -> dict[str, Any]:
    """Labels with their files' content, and the other fields, by sample."""
    dataset.reload()
    return {
        sample.id: (
            sample["cosal"].to_json(),
            Path(sample["cosal"].mask_path).read_bytes(),
            sample["cosal_map"].to_json(),
            Path(sample["cosal_map"].map_path).read_bytes(),
            *(sample[f"cosal{suffix}"] for suffix in SUFFIXES),
        )
        for sample in dataset.iter_samples()
    }


def masks_of(dataset: Any) -> dict[str, bytes]:
    dataset.reload()
    return {sample.id: Path(sample["cosal"].mask_path).read_bytes() for sample in dataset.iter_samples()}


def show_half(dataset: Any, sample_id: str, tmp_path: Path) -> None:
    """A person draws another mask: the left half of the picture."""
    sample = dataset[sample_id]
    with Image.open(sample.filepath) as picture:
        width, height = picture.size
    drawn_HW = np.zeros((height, width), np.uint8)
    drawn_HW[:, : width // 2] = 255
    file = tmp_path / f"{sample_id}.png"
    Image.fromarray(drawn_HW).save(file)
    ours.replace_mask(sample, "cosal", file)
    ours.use_as_example(dataset, "cosal", ids=[sample_id])


def test_an_example_changes_its_neighbours_and_is_left_alone(labelled: Any, tmp_path: Path) -> None:
    ids = labelled.values("id")
    show_half(labelled, ids[0], tmp_path)
    before, first = state_of(labelled), masks_of(labelled)
    paths = dict(zip(ids, labelled.values("cosal.mask_path"), strict=True))
    report = ours.relabel_dataset(labelled, "cosal")
    print(report.summary)
    assert (report.groups, report.looked_at, report.kept) == (("disk-0",), 4, (ids[0],))
    assert set(report.changed) == set(ids[1:4])
    after = masks_of(labelled)
    assert {id_ for id_ in ids if after[id_] != first[id_]} == set(report.changed)
    for sample in labelled.select(list(report.changed)):
        assert sample["cosal"].mask_path != paths[sample.id]  # the App's page would show the old one
        assert Path(paths[sample.id]).read_bytes() != first[sample.id]
        assert Path(sample["cosal_before"].mask_path).read_bytes() == first[sample.id]
        assert (sample["cosal"].provenance, sample["cosal_review"]) == ("model", None)
    example = labelled[ids[0]]
    assert Path(example["cosal"].mask_path).read_bytes() == first[ids[0]]
    assert example["reviewed"].run == "cosal"
    assert (example["cosal_review"], example["cosal_example"]) == ("accepted", "example")
    assert {id_: state for id_, state in state_of(labelled).items() if id_ in ids[4:]} == {
        id_: state for id_, state in before.items() if id_ in ids[4:]
    }
    undone = ours.undo_relabel_dataset(labelled, "cosal")
    assert set(undone.changed) == set(ids[1:4])
    assert state_of(labelled) == before
    assert labelled.values("cosal_before.mask_path") == [None] * 8
    with pytest.raises(DataError, match="no relabelling to take back"):
        ours.undo_relabel_dataset(labelled, "cosal")


def test_not_this_alone(labelled: Any) -> None:
    ids = labelled.values("id")
    ours.reject_masks(labelled, "cosal", ids=ids[:1])
    report = ours.mark_not_this(labelled, "cosal", ids=ids[:1])
    assert report.summary == "cosal: 1 not the object"
    wrong = masks_of(labelled)[ids[0]]
    relabelled = ours.relabel_dataset(labelled, "cosal", ["disk-0"])
    assert ids[0] in relabelled.changed
    assert masks_of(labelled)[ids[0]] != wrong
    assert labelled[ids[0]]["cosal_review"] is None  # the rejection was of the mask that is gone
    # what was said stays said, though the mask is another one
    assert ours.relabel_dataset(labelled, "cosal", ["disk-0"]).changed == ()
    # forgotten, the first masks come back
    ours.forget_examples(labelled, "cosal", ids=ids[:1])
    ours.relabel_dataset(labelled, "cosal", ["disk-0"])
    assert masks_of(labelled)[ids[0]] == wrong


def test_two_calls_are_taken_back_one_by_one(labelled: Any, tmp_path: Path) -> None:
    ids = labelled.values("id")
    show_half(labelled, ids[0], tmp_path)
    states = [state_of(labelled)]
    ours.relabel_dataset(labelled, "cosal")
    ours.mark_not_this(labelled, "cosal", ids=[ids[1], ids[5]])
    states.append(state_of(labelled))
    assert ours.relabel_dataset(labelled, "cosal").groups == ("disk-0", "square-1")
    ours.undo_relabel_dataset(labelled, "cosal")
    assert state_of(labelled) == states[1]
    ours.undo_relabel_dataset(labelled, "cosal")
    assert state_of(labelled) == states[0]


def test_what_a_person_decided_stays(labelled: Any, tmp_path: Path) -> None:
    ids = labelled.values("id")
    ours.accept_masks(labelled, "cosal", ids=[ids[1]])
    ours.reject_masks(labelled, "cosal", ids=[ids[2]])
    sample = labelled[ids[3]]
    sample["cosal"]["provenance"] = "human"
    sample.save()
    show_half(labelled, ids[0], tmp_path)
    before, first = state_of(labelled), masks_of(labelled)
    report = ours.relabel_dataset(labelled, "cosal")
    assert report.changed == ()
    assert set(report.kept) == set(ids[:4])
    assert masks_of(labelled) == first  # the pipeline wrote its own files, but no label shows them
    assert [state[4:] for state in state_of(labelled).values()] == [state[4:] for state in before.values()]


def test_a_mask_accepted_since_survives_the_undo(labelled: Any, tmp_path: Path) -> None:
    ids = labelled.values("id")
    show_half(labelled, ids[0], tmp_path)
    first = masks_of(labelled)
    ours.relabel_dataset(labelled, "cosal")
    steered = masks_of(labelled)
    ours.accept_masks(labelled, "cosal", ids=[ids[1]])
    report = ours.undo_relabel_dataset(labelled, "cosal")
    assert report.kept == (ids[1],)
    assert masks_of(labelled) == first | {ids[1]: steered[ids[1]]}
    assert labelled[ids[1]]["cosal_review"] == "accepted"


def test_use_as_example_accepts(labelled: Any) -> None:
    ids = labelled.values("id")
    report = ours.use_as_example(labelled, "cosal", ids=ids[:2])
    assert report.summary == "cosal: 2 used as examples (2 accepted with it)"
    assert ours.use_as_example(labelled, "cosal", ids=ids[:1]).summary == "cosal: 1 used as example"
    assert labelled.count_values("cosal_review")["accepted"] == 2
    skipped = ours.mark_not_this(labelled, "cosal", ids=ids[:1])
    assert not skipped.is_success
    assert "a person accepted or made its mask" in skipped.summary


def test_points_and_boxes_are_examples(labelled: Any) -> None:
    import fiftyone as fo

    ids = labelled.values("id")
    sample = labelled[ids[1]]
    sample["dots"] = fo.Keypoints(
        keypoints=[
            fo.Keypoint(points=[[0.1, 0.1], [float("nan"), float("nan")]], label="not"),
            fo.Keypoint(points=[[0.5, 0.5]]),
        ]
    )
    sample["boxes"] = fo.Detections(
        detections=[
            fo.Detection(bounding_box=[0.0, 0.0, 0.5, 1.02]),
            fo.Detection(bounding_box=[0.8, 0.8, 0.1, 0.1], label="Not"),
        ]
    )
    sample.save()
    with pytest.raises(DataError, match="nothing is shown yet"):
        ours.relabel_dataset(labelled, "cosal")
    report = ours.relabel_dataset(labelled, "cosal", points_field="dots", boxes_field="boxes")
    assert report.groups == ("disk-0",)
    assert ids[1] in report.changed
    with pytest.raises(DataError, match="'cls' holds no Keypoints; fields that do: dots"):
        ours.relabel_dataset(labelled, "cosal", points_field="cls")


def test_what_cannot_be_done_is_said(labelled: Any, config: PipelineConfig) -> None:
    with pytest.raises(DataError, match="nothing is shown of disk-0"):
        ours.relabel_dataset(labelled, "cosal", ["disk-0"])
    ours.use_as_example(labelled, "cosal", ids=labelled.values("id")[:1])
    with pytest.raises(DataError, match="no finished group 'nope'; groups here: disk-0, square-1"):
        ours.relabel_dataset(labelled, "cosal", ["nope"])
    with pytest.raises(DataError, match="there is no run 'nope'"):
        ours.relabel_dataset(labelled, "nope")
    ours.pseudo_label_dataset(labelled, group_field="cls", field="pseudo", config=config)
    with pytest.raises(DataError, match="cannot be corrected by examples"):
        ours.use_as_example(labelled, "pseudo")
    before = state_of(labelled)
    with pytest.raises(DataError, match="use group or all"):
        ours.relabel_dataset(labelled, "cosal", examples_for="some")
    assert state_of(labelled) == before


def test_examples_of_one_group_serve_another_by_choice(labelled: Any, tmp_path: Path) -> None:
    ids = labelled.values("id")
    show_half(labelled, ids[0], tmp_path)
    report = ours.relabel_dataset(labelled, "cosal", ["square-1"], examples_for="all")
    assert report.groups == ("square-1",)
    assert set(report.changed) <= set(ids[4:])
    assert report.changed


def test_two_parts(toy_dataset: Any, config: PipelineConfig, tmp_path: Path) -> None:
    ids = toy_dataset.values("id")
    label(toy_dataset.exclude(ids[3:6]), config)
    label(toy_dataset, config)  # one more of the first group, two of the second, with all of their groups
    folder = ours.get_run(toy_dataset, "cosal").folder
    show_half(toy_dataset, ids[0], tmp_path)
    ours.mark_not_this(toy_dataset, "cosal", ids=[ids[6]])
    before = state_of(toy_dataset)
    report = ours.relabel_dataset(toy_dataset, "cosal")
    assert report.groups == ("disk-0", "square-1")
    assert report.looked_at == 8
    assert ids[3] in report.changed  # of the other part than its example's label
    assert all("part-002" in path for path in toy_dataset.select(list(report.changed)).values("cosal.mask_path"))
    ours.undo_relabel_dataset(toy_dataset, "cosal")
    assert state_of(toy_dataset) == before
    # a group whose halves were labelled apart: each has its own job
    other = {"group_field": "cls", "config": config, "train": False, "field": "apart"}
    ours.label_dataset(toy_dataset.select(ids[:2]), **other)
    ours.label_dataset(toy_dataset.select(ids[2:4]), **other, overwrite=True)
    ours.use_as_example(toy_dataset, "apart", ids=[ids[0]])
    ours.mark_not_this(toy_dataset, "apart", ids=[ids[2]])
    report = ours.relabel_dataset(toy_dataset, "apart")
    assert report.looked_at == 4
    assert any("lie in another part" in note for note in report.notes) or len(set(report.notes)) <= 2
    ours.undo_relabel_dataset(toy_dataset, "apart")
    assert folder.is_dir()


def test_nothing_is_left_when_the_run_is_deleted(labelled: Any, tmp_path: Path) -> None:
    ids = labelled.values("id")
    show_half(labelled, ids[0], tmp_path)
    ours.mark_not_this(labelled, "cosal", ids=[ids[5]])
    ours.relabel_dataset(labelled, "cosal")
    folder = ours.get_run(labelled, "cosal").folder
    ours.delete_run(labelled, "cosal")
    assert not folder.exists()
    assert [name for name in labelled.get_field_schema() if name.startswith("cosal")] == []
    assert labelled[ids[0]]["reviewed"].run == "cosal"


def test_a_later_call_of_the_run_leaves_steered_masks(labelled: Any, config: PipelineConfig, tmp_path: Path) -> None:
    ids = labelled.values("id")
    show_half(labelled, ids[0], tmp_path)
    ours.relabel_dataset(labelled, "cosal")
    before = state_of(labelled)
    assert label(labelled, config).summary == "cosal: 8 kept"
    assert state_of(labelled) == before
    label(labelled, config, overwrite=True)
    assert all(Path(path).is_file() for path in labelled.values("cosal.mask_path"))
