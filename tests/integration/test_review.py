"""Review against a real database: decisions, their files, and what stays when something breaks in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from umscosod.errors import DataError

fo = pytest.importorskip("fiftyone")
from umscosod.integrations.fiftyone.review import decide  # noqa: E402
from umscosod.integrations.fiftyone.review.decide import (  # noqa: E402
    accept_masks,
    reject_masks,
    replace_mask,
    send_back,
    undo_review,
)
from umscosod.integrations.fiftyone.review.listing import (  # noqa: E402
    list_certain,
    list_for_review,
    list_review_fields,
    read_review_items,
    review_counts,
)
from umscosod.integrations.fiftyone.runs import record  # noqa: E402
from umscosod.integrations.fiftyone.runs.fields import declare_fields, review_folder  # noqa: E402

pytestmark = pytest.mark.mongod

SIZE_HW = (96, 128)
CONFIDENCES = (0.9, 0.2, 0.0, 0.0, 0.5, 0.7)
STATUSES = ("labelled", "labelled", "empty", "failed", "labelled", "labelled")


def write_mask(path: Path, value: int) -> Path:
    """A mask with a square whose side says which it is."""
    mask_HW = np.zeros(SIZE_HW, np.uint8)
    mask_HW[:value, :value] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask_HW).save(path)
    return path


def add_run(dataset: Any, field: str, folder: Path, side: int = 10) -> list[str]:
    """A run over the first six of eight samples, as a labelling run leaves it; returns the ids of all eight."""
    declare_fields(dataset, field)
    ids: list[str] = dataset.values("id")
    chosen = ids[: len(STATUSES)]
    masks = {
        sample_id: fo.Segmentation(
            mask_path=str(write_mask(folder / field / f"{n}.png", 0 if STATUSES[n] == "empty" else side + n)),
            provenance="model",
            run=field,
        )
        for n, sample_id in enumerate(chosen)
        if STATUSES[n] != "failed"
    }
    dataset.set_values(field, masks, key_field="id")
    dataset.set_values(f"{field}_confidence", dict(zip(chosen, CONFIDENCES, strict=True)), key_field="id")
    dataset.set_values(f"{field}_status", dict(zip(chosen, STATUSES, strict=True)), key_field="id")
    return ids


@pytest.fixture
def run_ids(toy_dataset: Any, tmp_path: Path) -> list[str]:
    return add_run(toy_dataset, "cosal", tmp_path / "runs")


def file_of(dataset: Any, sample_id: str) -> Path:
    return review_folder(dataset) / f"{sample_id}.png"


def assert_labels_have_files(dataset: Any) -> None:
    paths = [path for path in dataset.values("reviewed.mask_path") if path]
    assert all(Path(path).is_file() for path in paths)


def test_lists_the_least_certain_first_and_leaves_out_what_was_decided(toy_dataset: Any, run_ids: list[str]) -> None:
    order = [run_ids[n] for n in (2, 3, 1, 4, 5, 0)]
    assert list_for_review(toy_dataset, "cosal").values("id") == order
    assert list_for_review(toy_dataset.group_by("cls"), "cosal").values("id") == order
    assert list_for_review(toy_dataset, "cosal", max_confidence=0.5).values("id") == order[:4]

    accept_masks(toy_dataset, "cosal", ids=run_ids[1:2])
    view = list_for_review(toy_dataset, "cosal")
    assert view.values("id") == [run_ids[n] for n in (2, 3, 4, 5, 0)]
    assert list_for_review(toy_dataset, "cosal", include_reviewed=True).values("id") == order

    reject_masks(toy_dataset, "cosal", ids=run_ids[2:3])
    assert run_ids[2] not in view.values("id")  # the view follows the data


def test_lists_masks_without_confidence_too(toy_dataset: Any) -> None:
    assert list_for_review(toy_dataset, "ground_truth", max_confidence=0.1).values("id") == toy_dataset.values("id")


def test_keeps_the_certain_ones(toy_dataset: Any, run_ids: list[str]) -> None:
    listed = list_for_review(toy_dataset, "cosal")
    assert list_certain(listed, "cosal", 0.7).values("id") == [run_ids[5], run_ids[0]]
    assert len(list_certain(list_for_review(toy_dataset, "ground_truth"), "ground_truth", 0.0)) == 0


def test_reads_the_first_masks_in_words(toy_dataset: Any, run_ids: list[str]) -> None:
    toy_dataset.set_values("cosal_reason", {run_ids[3]: "damaged file"}, key_field="id")
    accept_masks(toy_dataset, "cosal", ids=run_ids[1:2])
    items = read_review_items(list_for_review(toy_dataset, "cosal", include_reviewed=True), "cosal", limit=3)
    assert [(item.name, item.group, item.confidence, item.status, item.reason, item.state) for item in items] == [
        ("02.jpg", "disk-0", 0.0, "empty", "", ""),
        ("03.jpg", "disk-0", 0.0, "failed", "damaged file", ""),
        ("01.jpg", "disk-0", 0.2, "labelled", "", "accepted"),
    ]
    assert [item.confidence for item in read_review_items(toy_dataset, "ground_truth", limit=1)] == [None]


@pytest.mark.parametrize("kind", ["text", "class"])
def test_names_the_groups_of_the_run(toy_dataset: Any, run_ids: list[str], kind: str) -> None:
    values = ["a", None, *"bcdefg"]
    if kind == "class":
        values = [None if value is None else fo.Classification(label=value) for value in values]
    toy_dataset.set_values("kind", values)
    record.begin_run(toy_dataset, "cosal", "umscosod/label", group_field="kind")
    view = list_for_review(toy_dataset, "cosal").sort_by("filepath")
    assert [item.group for item in read_review_items(view, "cosal", limit=3)] == ["a", "", "b"]


def test_offers_fields_of_runs_before_others(toy_dataset: Any, tmp_path: Path) -> None:
    assert list_review_fields(toy_dataset) == ["ground_truth"]
    ids = add_run(toy_dataset, "cosal", tmp_path)
    accept_masks(toy_dataset, "cosal", ids=ids[:1])
    assert list_review_fields(toy_dataset) == ["cosal"]


def test_counts(toy_dataset: Any, run_ids: list[str]) -> None:
    assert review_counts(toy_dataset, "cosal") == {"open": 6, "accepted": 0, "rejected": 0, "sent back": 0}
    accept_masks(toy_dataset, "cosal", ids=run_ids[:2])
    reject_masks(toy_dataset, "cosal", ids=run_ids[2:3])
    send_back(toy_dataset, "cosal", ids=run_ids[3:4])
    assert review_counts(toy_dataset, "cosal") == {"open": 2, "accepted": 2, "rejected": 1, "sent back": 1}
    assert review_counts(toy_dataset.limit(1), "cosal")["accepted"] == 1


def test_accepting_copies_the_file_as_it_is(toy_dataset: Any, run_ids: list[str]) -> None:
    report = accept_masks(toy_dataset, "cosal")
    assert (report.accepted, report.is_success) == (5, True)
    assert dict(report.skipped) == {
        run_ids[3]: "it has no mask to accept",
        **{unseen: "it is not among the samples of 'cosal'" for unseen in run_ids[6:]},
    }
    sample = toy_dataset[run_ids[0]]
    label = sample["reviewed"]
    assert (label.provenance, label.run, sample["cosal_review"]) == ("human", "cosal", "accepted")
    assert Path(label.mask_path) == file_of(toy_dataset, run_ids[0])
    assert Path(label.mask_path).read_bytes() == Path(sample["cosal"].mask_path).read_bytes()
    assert (sample["cosal"].provenance, toy_dataset[run_ids[3]]["reviewed"]) == ("model", None)
    assert toy_dataset.mask_targets["reviewed"] == {255: "co-salient"}
    assert "reviewed" in toy_dataset.app_config.active_fields.paths


def test_accepting_again_changes_nothing_unless_told(toy_dataset: Any, run_ids: list[str], tmp_path: Path) -> None:
    add_run(toy_dataset, "second", tmp_path / "runs", side=30)
    first, other = run_ids[0], run_ids[1]
    accept_masks(toy_dataset, "cosal", ids=[first])
    before = file_of(toy_dataset, first).read_bytes()
    assert accept_masks(toy_dataset, "cosal", ids=[first]).accepted == 1  # the same once more is no conflict

    report = accept_masks(toy_dataset, "second", ids=[first, other])
    assert report.accepted == 1
    assert report.skipped == ((first, "the mask of 'cosal' was accepted before; overwrite to replace it"),)
    assert file_of(toy_dataset, first).read_bytes() == before
    assert toy_dataset[first]["second_review"] is None

    assert accept_masks(toy_dataset, "second", ids=[first], overwrite=True).accepted == 1
    sample = toy_dataset[first]
    assert sample["reviewed"].run == "second"
    assert file_of(toy_dataset, first).read_bytes() == Path(sample["second"].mask_path).read_bytes() != before
    undo_review(toy_dataset, "cosal", ids=[first])  # the mask that counts now is not this run's to take back
    assert toy_dataset[first]["reviewed"].run == "second"


def test_a_label_that_no_review_wrote_is_never_replaced(toy_dataset: Any, run_ids: list[str]) -> None:
    truth = toy_dataset[run_ids[0]]["ground_truth"].mask_path
    report = accept_masks(toy_dataset, "cosal", ids=run_ids[:1], reviewed="ground_truth", overwrite=True)
    assert not report.is_success
    assert "comes from no review" in report.skipped[0][1]
    assert toy_dataset[run_ids[0]]["ground_truth"].mask_path == truth
    with pytest.raises(DataError, match="comes from no review"):
        replace_mask(toy_dataset[run_ids[0]], "cosal", truth, reviewed="ground_truth")


@pytest.mark.parametrize(
    ("decide", "state"), [(reject_masks, "rejected"), (send_back, "sent back"), (undo_review, None)]
)
def test_other_decisions_take_an_accepted_mask_back(
    toy_dataset: Any, run_ids: list[str], decide: Any, state: str | None
) -> None:
    accept_masks(toy_dataset, "cosal", ids=run_ids[:2])
    report = decide(toy_dataset, "cosal", ids=run_ids[1:4])
    assert (report.rejected + report.sent_back + report.undone, report.skipped) == (3, ())
    assert toy_dataset.select(run_ids[:4], ordered=True).values("cosal_review") == ["accepted", *[state] * 3]
    assert [bool(label) for label in toy_dataset.select(run_ids[:2], ordered=True).values("reviewed.id")] == [
        True,
        False,
    ]
    assert [file_of(toy_dataset, sample_id).exists() for sample_id in run_ids[:2]] == [True, False]
    assert Path(toy_dataset[run_ids[1]]["cosal"].mask_path).is_file()  # the run keeps its own


def test_another_field_for_accepted_masks_has_files_of_its_own(toy_dataset: Any, run_ids: list[str]) -> None:
    accept_masks(toy_dataset, "cosal", ids=run_ids[:1])
    accept_masks(toy_dataset, "cosal", ids=run_ids[:1], reviewed="gold")
    sample = toy_dataset[run_ids[0]]
    assert sample["gold"].mask_path != sample["reviewed"].mask_path
    undo_review(toy_dataset, "cosal", ids=run_ids[:1], reviewed="gold")
    assert_labels_have_files(toy_dataset)
    assert toy_dataset[run_ids[0]]["reviewed"] is not None


@pytest.mark.parametrize("content", [None, b"", b"\x89PNG\r\n\x1a\n cut off"])
def test_one_bad_mask_file_does_not_end_a_review(toy_dataset: Any, run_ids: list[str], content: bytes | None) -> None:
    bad = Path(toy_dataset[run_ids[0]]["cosal"].mask_path)
    bad.unlink()
    if content is not None:
        bad.write_bytes(content)
    report = accept_masks(toy_dataset, "cosal", ids=run_ids[:2])
    assert report.accepted == 1
    assert report.skipped[0][0] == run_ids[0]
    assert str(bad) in report.skipped[0][1]
    assert toy_dataset[run_ids[0]]["reviewed"] is None


def test_stopped_between_file_and_field_no_label_lacks_its_file(
    toy_dataset: Any, run_ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(decide, "write_accepted", stop)
        with pytest.raises(KeyboardInterrupt):
            accept_masks(toy_dataset, "cosal")
    assert file_of(toy_dataset, run_ids[0]).is_file()
    assert toy_dataset.count("reviewed") == 0
    assert review_counts(toy_dataset, "cosal")["open"] == 6

    assert accept_masks(toy_dataset, "cosal").accepted == 5  # the next call completes it
    with monkeypatch.context() as patch:
        patch.setattr(decide, "remove_reviewed", stop)
        with pytest.raises(KeyboardInterrupt):
            undo_review(toy_dataset, "cosal")
    assert_labels_have_files(toy_dataset)
    assert toy_dataset.count("reviewed") == 0


def test_a_large_review_is_written_in_batches(
    toy_dataset: Any, run_ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decide, "WRITE_BATCH", 2)
    written = []
    real = decide.write_accepted

    def stop_at_third(*args: Any) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(real(*args))

    monkeypatch.setattr(decide, "write_accepted", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        accept_masks(toy_dataset, "cosal")
    assert toy_dataset.values("cosal_review")[:6] == ["accepted"] * 3 + [None] * 3  # the fourth has no mask
    assert_labels_have_files(toy_dataset)


def test_a_corrected_mask_becomes_the_reviewed_one(toy_dataset: Any, run_ids: list[str], tmp_path: Path) -> None:
    accept_masks(toy_dataset, "cosal", ids=run_ids[:1])
    mine = write_mask(tmp_path / "mine.png", 50)
    sample = toy_dataset[run_ids[0]]
    target = replace_mask(sample, "cosal", mine)
    assert target.read_bytes() == mine.read_bytes()
    sample.reload()
    assert (sample["reviewed"].mask_path, sample["reviewed"].run) == (str(target), "cosal")

    report = accept_masks(toy_dataset, "cosal")  # accepting all does not undo a person's work
    assert dict(report.skipped)[sample.id] == "another mask was accepted before; overwrite to replace it"
    assert target.read_bytes() == mine.read_bytes()

    replace_mask(toy_dataset[run_ids[3]], "cosal", mine)  # of an image that failed
    assert toy_dataset[run_ids[3]]["cosal_review"] == "accepted"
    with pytest.raises(DataError, match="not among the samples"):
        replace_mask(toy_dataset[run_ids[7]], "cosal", mine)


def test_corrected_masks_in_an_editors_colours_are_written_as_grey(
    toy_dataset: Any, run_ids: list[str], tmp_path: Path
) -> None:
    rgba_HW4 = np.zeros((*SIZE_HW, 4), np.uint8)
    rgba_HW4[:20, :20] = 255
    rgba_HW4[40:, :, :3] = 255  # white, but transparent: background
    Image.fromarray(rgba_HW4).save(tmp_path / "mine.png")
    with Image.open(replace_mask(toy_dataset[run_ids[0]], "cosal", tmp_path / "mine.png")) as written:
        assert written.mode == "L"
        assert np.array_equal(np.asarray(written) == 255, np.indices(SIZE_HW).max(axis=0) < 20)


@pytest.mark.parametrize("kind", ["0 and 1", "red on black"])
def test_corrected_masks_of_other_values_are_read_as_what_they_are(
    toy_dataset: Any, run_ids: list[str], tmp_path: Path, kind: str
) -> None:
    mask_HW = np.indices(SIZE_HW).max(axis=0) < 20
    values = mask_HW.astype(np.uint8)
    if kind != "0 and 1":
        values = np.dstack([values * np.uint8(255), values * 0, values * 0])
    Image.fromarray(values).save(tmp_path / "mine.png")
    with Image.open(replace_mask(toy_dataset[run_ids[0]], "cosal", tmp_path / "mine.png")) as written:
        assert np.array_equal(np.asarray(written) == 255, mask_HW)


def test_unfit_corrections_are_refused(toy_dataset: Any, run_ids: list[str], tmp_path: Path) -> None:
    sample = toy_dataset[run_ids[0]]
    soft = tmp_path / "soft.png"
    Image.fromarray(np.full(SIZE_HW, 120, np.uint8)).save(soft)
    small = tmp_path / "small.png"
    Image.fromarray(np.zeros((10, 20), np.uint8)).save(small)
    text = tmp_path / "text.png"
    text.write_text("no picture")
    cases = {
        soft: r"other than 0 and 255 \(120\)",
        small: "is 20 x 10 pixels, its image .* 128 x 96",
        text: r"cannot read the mask file .*text\.png: it is no picture in a known format",
        tmp_path / "gone.png": "cannot be found",
    }
    for path, message in cases.items():
        with pytest.raises(DataError, match=message):
            replace_mask(sample, "cosal", path)
    with pytest.raises(DataError, match="in no data set"):
        replace_mask(fo.Sample(filepath=sample.filepath), "cosal", soft)
    assert not toy_dataset.has_field("reviewed")


def test_wrong_fields_and_empty_choices_are_named(toy_dataset: Any, run_ids: list[str]) -> None:
    with pytest.raises(DataError, match="no mask field 'nope' to review; fields with masks here: cosal, ground_truth"):
        list_for_review(toy_dataset, "nope")
    for name in ("cosal", "cls", "two words"):
        with pytest.raises(DataError, match=name):
            accept_masks(toy_dataset, "cosal", reviewed=name)
    with pytest.raises(DataError, match="no samples to decide about"):
        accept_masks(toy_dataset, "cosal", ids=[])
    toy_dataset.add_sample_field("ground_truth_review", fo.FloatField)
    with pytest.raises(DataError, match="ground_truth_review"):
        reject_masks(toy_dataset, "ground_truth", ids=run_ids[:1])
