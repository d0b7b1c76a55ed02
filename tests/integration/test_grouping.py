"""Groups on a real database: from fields, folders, tags and pictures; proposed, then written, no values lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from umscosod.config import FeaturesConfig, GroupingConfig, PipelineConfig
from umscosod.errors import ConfigError, DataError

fo = pytest.importorskip("fiftyone")
from umscosod.integrations.fiftyone import grouping  # noqa: E402
from umscosod.integrations.fiftyone.grouping import (  # noqa: E402
    group_dataset,
    preview_groups,
    proposal_file,
    stored_preview,
)

pytestmark = pytest.mark.mongod

QUICK = PipelineConfig(device="cpu", features=FeaturesConfig(backbone="embedded", size_px=112))


@pytest.fixture
def kinds(dataset_factory: Any) -> Any:
    """Three groups of four pictures, samples in the order of groups."""
    return dataset_factory(n_groups=3)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fo.config, "default_dataset_dir", str(tmp_path / "fiftyone"))


def no_discovery(*_: Any, **__: Any) -> Any:
    raise AssertionError("the stored proposal was to be used")


def test_by_field_with_a_view_of_one_tile_a_group(kinds: Any) -> None:
    sample = kinds.first()
    sample["cls"] = None
    sample.save()
    report = group_dataset(kinds, by="field", source="cls")
    assert report.sizes == {"diamond-2": 4, "disk-0": 3, "square-1": 4}
    assert (report.ungrouped, report.small, report.view_name) == (1, (), "by-cosal_group")
    assert kinds.values("cosal_group") == kinds.values("cls")
    view = kinds.load_saved_view(report.view_name)
    assert len(view) == 3
    assert sorted(len(group) for group in view.iter_dynamic_groups()) == [3, 4, 4]
    assert report.summary == (
        "3 groups of 11 samples written to the field 'cosal_group'; 1 sample without a group; "
        "saved view 'by-cosal_group'"
    )


@pytest.mark.parametrize("kind", ["label", "number", "flag"])
def test_by_a_field_of_another_kind(kinds: Any, kind: str) -> None:
    values = {
        "label": [fo.Classification(label=name) for name in kinds.values("cls")],
        "number": [int(name[-1]) for name in kinds.values("cls")],
        "flag": [name.startswith("disk") for name in kinds.values("cls")],
    }
    kinds.set_values(kind, values[kind])
    sizes = {
        "label": {"diamond-2": 4, "disk-0": 4, "square-1": 4},
        "number": {"0": 4, "1": 4, "2": 4},
        "flag": {"False": 8, "True": 4},
    }
    assert group_dataset(kinds, by="field", source=kind).sizes == sizes[kind]


def test_by_folder_of_a_view_leaves_the_rest_alone(kinds: Any) -> None:
    report = group_dataset(kinds.limit(5), by="folder", into="place")
    assert report.sizes == {"disk-0": 4, "square-1": 1}
    assert report.small == ("square-1",)
    assert kinds.values("place") == ["disk-0"] * 4 + ["square-1"] + [None] * 7


def test_none_or_several_tags_are_no_group(kinds: Any) -> None:
    kinds[:4].tag_samples("a")
    kinds[3:8].tag_samples("b")
    kinds[5:6].tag_samples("other")
    named = group_dataset(kinds, by="tag", source=["a", "b"])
    assert (named.sizes, named.ungrouped) == ({"a": 3, "b": 4}, 5)  # the fourth has both
    assert kinds.values("cosal_group")[3] is None
    every = group_dataset(kinds, by="tag", into="any_tag")
    assert (every.sizes, every.ungrouped) == ({"a": 3, "b": 3}, 6)
    assert group_dataset(kinds, by="tag", source="a", into="one").sizes == {"a": 4}


def test_other_values_are_kept_unless_told(kinds: Any) -> None:
    group_dataset(kinds, by="folder")
    assert group_dataset(kinds, by="folder").sizes  # the same once more does no harm
    kinds[:6].tag_samples("a")
    with pytest.raises(DataError, match="12 samples have another value in the field 'cosal_group'"):
        group_dataset(kinds, by="tag")
    assert kinds.values("cosal_group") == kinds.values("cls")
    group_dataset(kinds, by="tag", overwrite=True)
    assert kinds.values("cosal_group") == ["a"] * 6 + [None] * 6


def test_stopped_half_way_it_can_be_repeated(kinds: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "WRITE_BATCH", 5)

    def stop(done: int, total: int, stage: str) -> None:
        if done >= 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        group_dataset(kinds, by="folder", progress=stop)
    assert kinds.values("cosal_group") == [*kinds.values("cls")[:10], None, None]
    seen: list[tuple[int, int, str]] = []
    assert group_dataset(kinds, by="folder", progress=lambda *each: seen.append(each)).ungrouped == 0
    assert seen[-1] == (2, 2, "groups")  # only what was left


def test_another_ones_view_keeps_its_name(kinds: Any) -> None:
    kinds.save_view("by-cosal_group", kinds.limit(2), description="mine")
    assert group_dataset(kinds, by="folder").view_name == "by-cosal_group-2"
    assert group_dataset(kinds, by="folder").view_name == "by-cosal_group-2"  # ours is replaced
    assert len(kinds.load_saved_view("by-cosal_group")) == 2


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"source": "cls", "into": "filepath"}, "cannot hold group names"),
        ({"source": "cls", "into": "ground_truth"}, "cannot hold group names"),
        ({"source": "cls", "into": "cls"}, "is the field that is read"),
        ({"source": "cls", "into": "two words"}, "letters, digits"),
        ({"source": "ground_truth"}, "cannot group by 'ground_truth'"),
        ({"source": "tags"}, "several values"),
        ({"source": "nothing"}, "no field 'nothing'"),
        ({}, "name the field"),
        ({"by": "tag", "source": ["a"]}, "none of the 12 samples gets a group by tag"),
        ({"by": "magic"}, "choose field, folder, tag or discovered"),
    ],
)
def test_refuses_what_does_not_fit(kinds: Any, options: dict[str, Any], complaint: str) -> None:
    before = kinds.get_field_schema()
    with pytest.raises(DataError, match=complaint):
        group_dataset(kinds, **options)
    assert kinds.get_field_schema().keys() == before.keys()
    assert kinds.list_saved_views() == []


def test_proposed_then_written_as_proposed(kinds: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    proposed = preview_groups(kinds, n_groups=3, config=QUICK)
    assert proposed.sizes == {"group-01": 4, "group-02": 4, "group-03": 4}
    assert (proposed.mixed, proposed.ungrouped, proposed.view_name) == ((), 0, "")
    assert "proposed for the field 'cosal_group'" in proposed.summary
    assert not kinds.has_sample_field("cosal_group")
    assert stored_preview(kinds) == proposed.sizes
    assert stored_preview(kinds, "another") == stored_preview(kinds, "../x") == {}

    monkeypatch.setattr(grouping, "discover_groups", no_discovery)
    written = group_dataset(kinds, by="discovered", n_groups=3, config=QUICK)
    assert written.sizes == proposed.sizes
    assert written.cohesion == proposed.cohesion
    pairs = set(zip(kinds.values("cls"), kinds.values("cosal_group"), strict=True))
    assert len(pairs) == 3  # each kind is one group


@pytest.mark.parametrize("change", ["samples", "number", "settings", "damage"])
def test_a_proposal_for_something_else_is_made_anew(kinds: Any, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    preview_groups(kinds, n_groups=3, config=QUICK)
    view, options = kinds, {"n_groups": 3, "config": QUICK}
    if change == "samples":
        view = kinds.limit(11)
    elif change == "number":
        options["n_groups"] = 2
    elif change == "settings":
        options["grouping"] = GroupingConfig(max_groups=5)
    else:
        proposal_file(kinds, "cosal_group").write_text('{"schema": 1, "groups"', encoding="utf-8")
    asked: list[Any] = []
    real = grouping.discover_groups
    monkeypatch.setattr(grouping, "discover_groups", lambda *args, **given: asked.append(1) or real(*args, **given))
    preview_groups(view, **options)
    preview_groups(view, **options)
    assert asked == [1]
    assert json.loads(proposal_file(kinds, "cosal_group").read_text(encoding="utf-8"))["schema"] == 1


def test_damaged_and_repeated_files(kinds: Any) -> None:
    first, second = kinds[:1].first(), kinds[1:2].first()
    Path(first.filepath).write_bytes(b"no picture")
    kinds.add_sample(fo.Sample(filepath=second.filepath))
    report = group_dataset(kinds, by="discovered", n_groups=3, config=QUICK)
    assert list(report.failures) == [first.id]
    assert (report.ungrouped, sum(report.sizes.values())) == (1, 12)
    names = kinds.values("cosal_group")
    assert names[0] is None
    assert names[1] == names[-1]  # two samples, one file
    assert "1 picture cannot be read" in report.summary


def test_a_number_of_groups_that_cannot_be(kinds: Any) -> None:
    with pytest.raises(ConfigError, match="12 images make no 7 groups of 3"):
        preview_groups(kinds, n_groups=7, config=QUICK)
    assert stored_preview(kinds) == {}


def test_given_groups_are_checked_when_asked(kinds: Any) -> None:
    dealt = ["a", "b", "c"] * 4
    kinds.set_values("dealt", dealt)
    true = group_dataset(kinds, by="field", source="cls", check=True, config=QUICK)
    assert true.mixed == ()
    thrown_together = group_dataset(kinds, by="field", source="dealt", into="other", check=True, config=QUICK)
    assert thrown_together.mixed == ("a", "b", "c")
    assert "3 mixed (a, b, c)" in thrown_together.summary
    assert all(true.cohesion[name] > max(thrown_together.cohesion.values()) for name in true.sizes)


def test_the_operator_proposes_then_writes(kinds: Any) -> None:
    import fiftyone.operators as foo

    group = foo.get_operator("@umscosod/umscosod/group_by_class")
    params = {
        "by": "discovered",
        "n_groups": 3,
        "into": "kind",
        "backbone": "embedded",
        "settings": "features.size_px=112",
    }
    group(kinds, **params)
    assert not kinds.has_sample_field("kind")
    assert sum(stored_preview(kinds, "kind").values()) == 12
    group(kinds, action="write", **params)
    kinds.reload()
    assert len(set(zip(kinds.values("cls"), kinds.values("kind"), strict=True))) == 3
    assert kinds.list_saved_views() == ["by-kind"]


def test_one_flat_folder_is_said_to_tell_nothing_apart(kinds: Any, tmp_path: Path) -> None:
    for sample in kinds:
        flat = tmp_path / "flat" / f"{sample.cls}-{Path(sample.filepath).name}"
        flat.parent.mkdir(exist_ok=True)
        flat.write_bytes(Path(sample.filepath).read_bytes())
        sample.filepath = str(flat)
        sample.save()
    report = group_dataset(kinds, by="folder")
    assert report.sizes == {"flat": 12}
    assert report.summary.startswith("1 group of 12 samples written")
    assert "all 12 images are in one folder: one group; if they show several things, try 'discovered'" in report.summary
    checked = group_dataset(kinds, by="folder", check=True, config=QUICK)
    assert "whether 'flat' is mixed cannot be told: it has more than half of the images" in checked.notes
