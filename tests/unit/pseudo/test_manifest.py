"""Pseudo-labels on disk: look at them, replace them, train on the replaced ones."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.pseudo.groups import box, make_features, paint
from umscosod.config import PseudoConfig
from umscosod.data.masks import decode_rle, read_mask, write_png_atomic
from umscosod.errors import DataError
from umscosod.pseudo.proposals import HacProposer
from umscosod.pseudo.select import choose_labels
from umscosod.pseudo.store import PseudoLabelStore, draw_labels, load_pseudo_labels
from umscosod.types import GroupFeatures, ImageGroup, PseudoLabel

CONFIG = PseudoConfig(min_area_share=0.01)


def labelled(names: list[str] | None = None) -> tuple[GroupFeatures, list[PseudoLabel]]:
    names = names or ["cat/a.jpg", "cat/ü 猫.jpg"]
    tokens = [paint(8, {(1, 1, 4, 4 + i): 1}) for i in range(len(names))]
    features = make_features(tokens, [box(8, 1, 1, 4, 5) * 1.0] * len(names), [(80, 120)] * len(names), names)
    return features, choose_labels(features, HacProposer(CONFIG), CONFIG)


def add_photos(features: GroupFeatures, folder: Path) -> ImageGroup:
    """The group with images that are there, 120 x 80 pixels."""
    images = tuple(replace(image, path=folder / f"{n}.jpg") for n, image in enumerate(features.group.images))
    for image in images:
        Image.new("RGB", (120, 80)).save(image.path)
    return replace(features.group, images=images)


def save(out: Path, features: GroupFeatures, labels: list[PseudoLabel]) -> None:
    store = PseudoLabelStore(out)
    store.save(draw_labels(features.group, features.sizes_hw, labels))
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
    loaded = load_pseudo_labels(tmp_path, [features.group])
    assert list(loaded) == [label.image_id for label in labels]
    for label in labels:
        assert same(loaded[label.image_id], replace(label, details={}))  # they stay in the file
    row = json.loads((tmp_path / "manifest.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert labels[0].details.items() <= row.items()
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


@pytest.mark.parametrize(("size_hw", "is_told"), [((80, 120), False), ((33, 50), True), ((160, 240), True)])
def test_a_replaced_png_of_the_images_aspect_is_a_persons_label(
    tmp_path: Path, size_hw: tuple[int, int], is_told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    features, labels = labelled()
    save(tmp_path, features, labels)
    mine = np.zeros(size_hw, dtype=np.uint8)
    mine[5:9, 7:20] = 255
    Image.fromarray(mine).save(tmp_path / "cat/a.png")
    loaded = load_pseudo_labels(tmp_path, [add_photos(features, tmp_path)])
    assert (
        f"1 masks made by hand have the aspect of their images and another size ({tmp_path}" in caplog.text
    ) == is_told
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
    loaded = load_pseudo_labels(tmp_path, [add_photos(features, tmp_path)])
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
    write_png_atomic(tmp_path / "cat/a.png", np.full((80, 120), 255, dtype=np.uint8))
    loaded = load_pseudo_labels(tmp_path, [add_photos(features, tmp_path)])
    assert [(key, label.source) for key, label in loaded.items()] == [("cat/a.jpg", "human")]


@pytest.mark.parametrize("size_hw", [(1, 1), (4, 6), (120, 80), (80, 118), (80, 80)])
def test_a_persons_mask_of_another_picture_is_left_out_with_the_reason(
    tmp_path: Path, size_hw: tuple[int, int]
) -> None:
    features, labels = labelled()
    save(tmp_path, features, labels)
    write_png_atomic(tmp_path / "cat/a.png", np.full(size_hw, 255, dtype=np.uint8))
    unfit: dict[str, str] = {}
    loaded = load_pseudo_labels(tmp_path, [add_photos(features, tmp_path)], unfit=unfit)
    assert list(loaded) == ["cat/ü 猫.jpg"]
    assert list(unfit) == ["cat/a.jpg"]
    assert f"the mask has {size_hw[1]} x {size_hw[0]} pixels, its image cat/a.jpg 120 x 80" in unfit["cat/a.jpg"]


@pytest.mark.parametrize("kind", ["pipe", "folder", "empty", "torn", "loop"])
def test_what_is_no_mask_file_is_left_out_and_never_waited_for(tmp_path: Path, kind: str) -> None:
    features, labels = labelled()
    save(tmp_path, features, labels)
    path = tmp_path / "cat/a.png"
    content = path.read_bytes()
    path.unlink()
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path.name)
        case _:
            path.write_bytes(b"" if kind == "empty" else content[:-30])
    unfit: dict[str, str] = {}
    assert list(load_pseudo_labels(tmp_path, [add_photos(features, tmp_path)], unfit=unfit)) == ["cat/ü 猫.jpg"]
    assert str(path) in unfit["cat/a.jpg"]


def test_the_sealed_manifest_does_not_depend_on_the_order_of_work(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parts = [labelled(["x/1.jpg", "x/2.jpg"]), labelled(["y/1.jpg"])]
    groups = [ImageGroup(name=name, images=f.group.images) for name, (f, _) in zip("xy", parts, strict=True)]
    for out, order in ((tmp_path / "a", [0, 1]), (tmp_path / "b", [1, 0, 1])):
        store = PseudoLabelStore(out)
        for index in order:
            store.save(draw_labels(groups[index], parts[index][0].sizes_hw, parts[index][1]))
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
        patch.setattr("umscosod.pseudo.store.open_atomic", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.save(draw_labels(features.group, features.sizes_hw, other))
    assert load_pseudo_labels(tmp_path, [features.group]) == {}
    with (tmp_path / "manifest.jsonl").open("a") as stream:
        stream.write('{"image": "cat/a')  # killed inside a row
    caplog.clear()
    save(tmp_path, features, other)
    assert "unfinished" in caplog.text
    loaded = load_pseudo_labels(tmp_path, [features.group])
    assert [label.source for label in loaded.values()] == ["hac", "hac"]
    np.testing.assert_array_equal(loaded["cat/a.jpg"].mask_hw, other[0].mask_hw)


GOOD = {
    **{"image": "cat/a.jpg", "group": "cat", "output": "cat/a.png", "size": [80, 120], "source": "hac"},
    **{"confidence": 1.0, "is_weak": False, "label": {"size": [1, 1], "counts": "1"}, "png_sha256": "0"},
}


def changed(**fields: object) -> bytes:
    return json.dumps(GOOD | fields).encode() + b"\n"


@pytest.mark.parametrize(
    "text",
    [
        *(b"{}\n", b"nonsense\n", b"[1]\n", b"5\n", b"null\n", b'"text"\n', b"\x00\xff\xfe\n", b"\n"),
        *(b"[" * 100_000 + b"\n", b'{"a":' * 100_000 + b"\n", b'{"confidence": ' + b"9" * 5000 + b"}\n"),
        *(changed(label=value) for value in (None, 5, [], "022")),
        *(changed(confidence=value) for value in (None, "1", [], True, float("nan"), float("inf"), -1, 10**400)),
        *(changed(image=value) for value in (None, 5, [], {})),
        *(changed(png_sha256=5), changed(source=None), changed(is_weak="no"), changed(size=5), changed(output=5)),
    ],
    ids=lambda text: text[:30].decode("latin-1").strip(),
)
def test_a_damaged_manifest_is_named(tmp_path: Path, text: bytes) -> None:
    features, labels = labelled()
    save(tmp_path, features, labels)
    (tmp_path / "manifest.jsonl").write_bytes(text)
    with pytest.raises(DataError, match=r"manifest\.jsonl"):
        load_pseudo_labels(tmp_path, [features.group])
    with pytest.raises(DataError, match=r"manifest\.jsonl"):
        PseudoLabelStore(tmp_path)


@pytest.mark.parametrize(
    "label",
    [
        *(
            {"size": [20_000, 20_000], "counts": [400_000_000]},
            {},
            {"size": [1, 1]},
            {"size": 5, "counts": "1"},
            {"size": [5], "counts": "1"},
            {"size": [1, 1], "counts": 5},
        ),
        *({"size": [10**9, 10**9], "counts": "1"}, {"size": [1, 1], "counts": None}, {"size": None, "counts": [1]}),
        *({"size": ["x", 1], "counts": "1"}, {"size": [-1, -1], "counts": [1]}, {"size": [1, 1], "counts": ["x"]}),
    ],
    ids=str,
)
def test_a_damaged_label_is_named(tmp_path: Path, label: dict[str, object]) -> None:
    features, labels = labelled()
    save(tmp_path, features, labels)
    digest = hashlib.sha256((tmp_path / "cat/a.png").read_bytes()).hexdigest()
    (tmp_path / "manifest.jsonl").write_bytes(changed(label=label, png_sha256=digest))
    with pytest.raises(DataError, match=r"manifest\.jsonl: the label of 'cat/a\.jpg' is damaged"):
        load_pseudo_labels(tmp_path, [features.group])


def test_a_manifest_that_is_a_pipe_is_never_waited_for(tmp_path: Path) -> None:
    features, _ = labelled()
    os.mkfifo(tmp_path / "manifest.jsonl")
    for read in (lambda: PseudoLabelStore(tmp_path), lambda: load_pseudo_labels(tmp_path, [features.group])):
        with pytest.raises(DataError, match="is not a regular file"):
            read()


def test_labels_of_other_images_are_refused(tmp_path: Path) -> None:
    features, labels = labelled()
    with pytest.raises(DataError, match="same order"):
        draw_labels(features.group, features.sizes_hw, labels[::-1])


def test_loading_is_quiet_about_what_is_well(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    features, labels = labelled()
    save(tmp_path, features, labels)
    with caplog.at_level(logging.INFO):
        load_pseudo_labels(tmp_path, [features.group])
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "2 pseudo-labels for 2 images, 0 replaced" in caplog.text
