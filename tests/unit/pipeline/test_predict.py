"""Labelling with a network trained before."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.jobs import assert_same, read_tree, select
from tests.synthetic import tiny_collection
from tests.unit.pipeline.conftest import Finished
from umscosod.config import PipelineConfig
from umscosod.config.io import load_config
from umscosod.errors import CheckpointError, DataError
from umscosod.pipeline import label_groups, predict, train
from umscosod.types import Status


@pytest.fixture
def trained(tmp_path: Path, finished: Finished) -> Path:
    """A copy of the finished job's checkpoint alone, to be damaged."""
    (source,) = finished.out.glob("run/checkpoints/step-00000006")
    return Path(shutil.copytree(source, tmp_path / "network"))


def test_the_network_of_label_gives_the_maps_and_masks_that_label_gave(
    tmp_path: Path, images: Path, config: PipelineConfig, finished: Finished
) -> None:
    report = predict(images, tmp_path / "out", finished.out, replace(config, keep="network"))
    assert_same(select(read_tree(tmp_path / "out"), "masks", "maps"), select(read_tree(finished.out), "masks", "maps"))
    assert {row.source for row in report.rows} == {"network"}
    assert not (tmp_path / "out" / "pseudo").exists()


def test_label_with_a_checkpoint_is_predict(
    tmp_path: Path, images: Path, config: PipelineConfig, finished: Finished
) -> None:
    alone = replace(config, keep="network")
    label_groups(images, tmp_path / "out", alone, checkpoint=finished.out / "run")
    assert_same(select(read_tree(tmp_path / "out"), "masks", "maps"), select(read_tree(finished.out), "masks", "maps"))


def test_train_on_the_same_labels_makes_the_same_network(
    tmp_path: Path, images: Path, config: PipelineConfig, finished: Finished
) -> None:
    report = train(images, finished.out, tmp_path / "trained", config)
    (theirs,) = finished.out.glob("run/checkpoints/step-00000006")
    for name in ("model.safetensors", "whitening.json", "probe.safetensors"):
        assert (report.checkpoint / name).read_bytes() == (theirs / name).read_bytes()
    assert report.steps == 6
    assert not (tmp_path / "trained" / "run" / "maps").exists()
    predict(images, tmp_path / "out", report.checkpoint, replace(config, keep="network"))
    assert_same(select(read_tree(tmp_path / "out"), "masks", "maps"), select(read_tree(finished.out), "masks", "maps"))


def test_without_settings_the_backbones_of_the_checkpoint_are_used(
    tmp_path: Path, images: Path, finished: Finished
) -> None:
    report = predict(images, tmp_path / "out", finished.out)
    assert len(report.rows) == 6
    alone = load_config("fast", overrides={"keep": "network"})
    predict(images, tmp_path / "alone", finished.out, alone)
    assert_same(select(read_tree(tmp_path / "alone"), "maps"), select(read_tree(finished.out), "maps"))


def test_another_collection_is_labelled_with_the_whitening_of_the_checkpoint(
    tmp_path: Path, config: PipelineConfig, trained: Path
) -> None:
    tiny_collection(tmp_path / "other", groups=3, images=2, size=80, seed=5)
    report = predict(tmp_path / "other" / "image", tmp_path / "all", trained, config)
    assert report.counts[Status.LABELLED] + report.counts[Status.EMPTY] == 6
    alone = predict(tmp_path / "other" / "image" / "cat", tmp_path / "one", trained, config)
    assert len(alone.rows) == 2
    # the other groups of the collection decide nothing: whitening and b_bar are those of the checkpoint
    for tree in ("maps", "masks"):
        for path in sorted((tmp_path / "all" / tree / "cat").iterdir()):
            assert path.read_bytes() == next((tmp_path / "one" / tree).rglob(path.name)).read_bytes()


def test_other_backbones_are_refused_before_anything_is_written(
    tmp_path: Path, images: Path, config: PipelineConfig, finished: Finished
) -> None:
    larger = replace(config, features=replace(config.features, size_px=160))
    with pytest.raises(CheckpointError, match=r"other backbones:\s+first stream: trained on .*112.* given .*160"):
        predict(images, tmp_path / "out", finished.out, larger)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_folder_without_a_checkpoint_is_named(
    tmp_path: Path, images: Path, config: PipelineConfig, name: str
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=f"no checkpoint in .*{name}"):
        predict(images, tmp_path / "out", tmp_path / name, config)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "3",
        '{"first": 3}',
        '{"first": {"mean": [0], "matrix": [[1, 2]]}}',
        '{"first": {"mean": {"a": 1}, "matrix": 3}}',
        '{"first": {"mean": [[0], 1], "matrix": [[1]]}}',
        "{}",
        None,
    ],
)
def test_a_damaged_or_missing_whitening_is_named(
    tmp_path: Path, images: Path, config: PipelineConfig, trained: Path, content: str | None
) -> None:
    if content is None:
        (trained / "whitening.json").unlink()
    else:
        (trained / "whitening.json").write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match="whitening"):
        predict(images, tmp_path / "out", trained, config)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "meta.json"])
@pytest.mark.parametrize("content", [b"", b"{}", b"[1]"])
def test_a_damaged_checkpoint_is_named(
    tmp_path: Path, images: Path, config: PipelineConfig, trained: Path, name: str, content: bytes
) -> None:
    (trained / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        predict(images, tmp_path / "out", trained, config)


def test_a_checkpoint_without_weights_is_named(
    tmp_path: Path, images: Path, config: PipelineConfig, trained: Path
) -> None:
    (trained / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        predict(images, tmp_path / "out", trained, config)


def test_a_checkpoint_is_never_overwritten_by_its_own_results(
    tmp_path: Path, images: Path, config: PipelineConfig, finished: Finished
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished.out, out)
    before = read_tree(out)
    for checkpoint in (out, out / "run", out / "run" / "checkpoints" / "last"):
        with pytest.raises(DataError, match="choose another --out"):
            predict(images, out, checkpoint, config, overwrite=True)
    assert_same(read_tree(out), before)
