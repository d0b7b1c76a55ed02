"""Pseudo-labels on disk: look at them, replace them, train on the replaced ones."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.pseudo.groups import box, make_features, paint
from umscosod.config import PseudoConfig
from umscosod.data.masks import decode_rle, read_mask, write_png_atomic
from umscosod.errors import DataError
from umscosod.pseudo.manifest import PseudoLabelStore, load_pseudo_labels
from umscosod.pseudo.proposals import HacProposer
from umscosod.pseudo.select import make_pseudo_labels
from umscosod.types import GroupFeatures, ImageGroup, PseudoLabel

CONFIG = PseudoConfig(min_area_share=0.01)


def labelled(names: list[str] | None = None) -> tuple[GroupFeatures, list[PseudoLabel]]:
    names = names or ["cat/a.jpg", "cat/ü 猫.jpg"]
    tokens = [paint(8, {(1, 1, 4, 4 + i): 1}) for i in range(len(names))]
    features = make_features(tokens, [box(8, 1, 1, 4, 5) * 1.0] * len(names), [(80, 120)] * len(names), names)
    return features, make_pseudo_labels(features, HacProposer(CONFIG), CONFIG)


def save(out: Path, features: GroupFeatures, labels: list[PseudoLabel]) -> None:
    store = PseudoLabelStore(out)
    store.save(features.group, features.sizes_hw, labels)
    store.seal([features.group])


def same(one: PseudoLabel, other: PseudoLabel) -> bool:
    return (
        np.array_equal(one.mask_hw, other.mask_hw)
        and np.array_equal(one.map_hw, other.map_hw)
        and (one.image_id, one.confidence, one.source, one.is_weak)
        == (other.image_id, other.confidence, other.source, other.is_weak)
        and one.details == other.details
    )


def test_labels_come_back_as_they_were_made(tmp_path: Path) -> None:
    features, labels = labelled()
    save(tmp_path, features, labels)
    loaded = load_pseudo_labels(tmp_path, [features.group], with_candidates=True)
    assert list(loaded) == [label.image_id for label in labels]
    assert all(same(loaded[label.image_id], label) for label in labels)
    light = load_pseudo_labels(tmp_path, [features.group])
    assert all("candidates" not in label.details for label in light.values())
    row = json.loads((tmp_path / "manifest.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert len(row["candidates"]) == len(labels[0].details["candidates"]) > 0
    np.testing.assert_array_equal(decode_rle(row["label"]), labels[0].mask_hw)


def test_file_names_that_are_not_utf_8_come_back(tmp_path: Path) -> None:
    features, labels = labelled(["cat/\udcff.jpg"])
    save(tmp_path, features, labels)
    assert load_pseudo_labels(tmp_path, [features.group])["cat/\udcff.jpg"].source == "hac"


def test_pngs_are_masks_at_the_images_own_size(tmp_path: Path) -> None:
    features, labels = labelled()
    save(tmp_path, features, labels)
    with Image.open(tmp_path / "cat/a.png") as image:
        assert image.mode == "L"
        values = np.asarray(image)
    assert values.shape == (80, 120)
    assert set(np.unique(values)) == {0, 255}
    assert (values > 0).mean() == pytest.approx(labels[0].mask_hw.mean(), rel=0.1)


def test_a_replaced_png_of_any_size_is_a_persons_label(tmp_path: Path) -> None:
    features, labels = labelled()
    save(tmp_path, features, labels)
    mine = np.zeros((33, 50), dtype=np.uint8)
    mine[5:9, 7:20] = 255
    Image.fromarray(mine).save(tmp_path / "cat/a.png")
    loaded = load_pseudo_labels(tmp_path, [features.group])
    first, second = loaded.values()
    assert (first.source, first.confidence, first.is_weak) == ("human", 1.0, False)
    assert first.details == {"replaced": "hac"}
    np.testing.assert_array_equal(first.mask_hw, mine > 0)
    assert second.source == "hac"


def test_a_second_run_keeps_a_persons_mask_and_renews_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    features, labels = labelled()
    save(tmp_path, features, labels)
    mine = np.full((80, 120), 255, dtype=np.uint8)
    write_png_atomic(tmp_path / "cat/a.png", mine)
    other = [replace(label, mask_hw=~label.mask_hw, map_hw=1 - label.map_hw) for label in labels]
    save(tmp_path, features, other)
    assert "replaced by hand" in caplog.text
    assert read_mask(tmp_path / "cat/a.png").all()
    loaded = load_pseudo_labels(tmp_path, [features.group])
    assert [label.source for label in loaded.values()] == ["human", "hac"]
    np.testing.assert_array_equal(loaded["cat/ü 猫.jpg"].mask_hw, other[1].mask_hw)


def test_a_removed_png_leaves_its_image_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    features, labels = labelled()
    save(tmp_path, features, labels)
    (tmp_path / "cat/a.png").unlink()
    assert list(load_pseudo_labels(tmp_path, [features.group])) == ["cat/ü 猫.jpg"]
    assert "cat/a.jpg" in caplog.text
    assert "removed" in caplog.text


def test_an_unreadable_png_is_named(tmp_path: Path) -> None:
    features, labels = labelled()
    save(tmp_path, features, labels)
    (tmp_path / "cat/a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"a\.png"):
        load_pseudo_labels(tmp_path, [features.group])


def test_masks_without_a_manifest_are_a_persons(tmp_path: Path) -> None:
    features, _ = labelled()
    write_png_atomic(tmp_path / "cat/a.png", np.full((4, 4), 255, dtype=np.uint8))
    loaded = load_pseudo_labels(tmp_path, [features.group])
    assert [(key, label.source) for key, label in loaded.items()] == [("cat/a.jpg", "human")]


def test_the_sealed_manifest_does_not_depend_on_the_order_of_work(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parts = [labelled(["x/1.jpg", "x/2.jpg"]), labelled(["y/1.jpg"])]
    groups = [ImageGroup(name=name, images=f.group.images) for name, (f, _) in zip("xy", parts, strict=True)]
    for out, order in ((tmp_path / "a", [0, 1]), (tmp_path / "b", [1, 0, 1])):
        store = PseudoLabelStore(out)
        for index in order:
            store.save(groups[index], parts[index][0].sizes_hw, parts[index][1])
        store.seal(groups)
    texts = [(tmp_path / name / "manifest.jsonl").read_bytes() for name in "ab"]
    assert texts[0] == texts[1]
    assert [json.loads(line)["image"] for line in texts[0].splitlines()] == ["x/1.jpg", "x/2.jpg", "y/1.jpg"]
    files = sorted(p.name for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert files == ["1.png", "1.png", "2.png", "manifest.jsonl"]
    assert not caplog.records


def test_a_killed_run_never_passes_for_a_persons_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    features, labels = labelled()
    save(tmp_path, features, labels)
    other = [replace(label, mask_hw=~label.mask_hw, map_hw=1 - label.map_hw) for label in labels]
    store = PseudoLabelStore(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("umscosod.pseudo.manifest.open_atomic", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.save(features.group, features.sizes_hw, other)
    assert load_pseudo_labels(tmp_path, [features.group]) == {}
    with (tmp_path / "manifest.jsonl").open("a") as stream:
        stream.write('{"image": "cat/a')  # killed inside a row
    caplog.clear()
    save(tmp_path, features, other)
    assert "unfinished" in caplog.text
    loaded = load_pseudo_labels(tmp_path, [features.group])
    assert [label.source for label in loaded.values()] == ["hac", "hac"]
    np.testing.assert_array_equal(loaded["cat/a.jpg"].mask_hw, other[0].mask_hw)


@pytest.mark.parametrize("text", ["{}\n", "nonsense\n", "[1]\n"])
def test_a_damaged_manifest_is_named(tmp_path: Path, text: str) -> None:
    features, labels = labelled()
    save(tmp_path, features, labels)
    (tmp_path / "manifest.jsonl").write_text(text)
    with pytest.raises(DataError, match=r"manifest\.jsonl"):
        load_pseudo_labels(tmp_path, [features.group])
    with pytest.raises(DataError, match=r"manifest\.jsonl"):
        PseudoLabelStore(tmp_path)


def test_labels_of_other_images_are_refused(tmp_path: Path) -> None:
    features, labels = labelled()
    with pytest.raises(DataError, match="same order"):
        PseudoLabelStore(tmp_path).save(features.group, features.sizes_hw, labels[::-1])


def test_loading_is_quiet_about_what_is_well(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    features, labels = labelled()
    save(tmp_path, features, labels)
    with caplog.at_level(logging.INFO):
        load_pseudo_labels(tmp_path, [features.group])
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "2 pseudo-labels for 2 images, 0 replaced" in caplog.text
