"""What a checkpoint keeps beside its weights is checked at the door: one line, before any image is encoded."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.unit.pipeline.conftest import Finished
from umscosod import load_model
from umscosod.config import PipelineConfig
from umscosod.errors import CheckpointError
from umscosod.pipeline import predict
from umscosod.pipeline.checkpoints import PROBE_FILE, WHITENING_FILE, adopt_checkpoint, hash_checkpoint
from umscosod.training.checkpoint import META_FILE, MODEL_FILE


@pytest.fixture
def folder(tmp_path: Path, finished: Finished) -> Path:
    """A copy of the finished job's checkpoint alone, to be damaged."""
    (source,) = finished.out.glob("run/checkpoints/step-00000006")
    return Path(shutil.copytree(source, tmp_path / "network"))


@pytest.fixture
def refusal(
    tmp_path: Path, images: Path, config: PipelineConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path], str]:
    """The line by which `predict` and `load_model` refuse; encoding anything before it is an error."""

    def forbidden(*_: object) -> None:
        raise AssertionError("something was encoded")

    monkeypatch.setattr("umscosod.features.embedded.EmbeddedBackbone.encode", forbidden)

    def refuse(file: Path) -> str:
        found = []
        for call in (
            lambda: predict(images, tmp_path / "out", folder, config),
            lambda: load_model(folder, config),
        ):
            with pytest.raises(CheckpointError) as caught:
                call()
            found.append(str(caught.value))
            assert "\n" not in found[-1]
            assert str(file) in found[-1]
            assert len(found[-1]) < len(str(file)) + 300
        return found[0]

    return refuse


def change_json(file: Path, change: Callable[[Any], Any]) -> None:
    file.write_text(json.dumps(change(json.loads(file.read_text(encoding="utf-8")))), encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"dims": [10**18, 36]}, "dims must be two whole numbers"),
        ({"dims": ["37", "36"]}, "dims must be two whole numbers"),
        ({"config": 5}, "config must be settings by name"),
        ({"config": {"network": 5}}, "network must hold settings by name, got 5"),
        ({"config": {"network": {"decoder": 5}}}, "network.decoder must hold settings by name, got 5"),
        ({"calibration": {"b_bar": "low"}}, "calibration must be numbers from 0 to 1 by name"),
        ({"calibration": {"b_bar": None}}, "calibration must be numbers from 0 to 1 by name"),
        ({"calibration": {"b_bar": float("nan")}}, "calibration must be numbers from 0 to 1 by name"),
        ({"calibration": 5}, "calibration must be numbers from 0 to 1 by name"),
    ],
)
def test_metadata_is_refused_before_anything_is_encoded(
    folder: Path, refusal: Callable[[Path], str], changes: dict[str, Any], part: str
) -> None:
    change_json(folder / META_FILE, lambda meta: meta | changes)
    assert part in refusal(folder / META_FILE)


def test_features_of_a_checkpoint_are_checked_where_they_are_taken_over(
    folder: Path, refusal: Callable[[Path], str], config: PipelineConfig, images: Path, tmp_path: Path
) -> None:
    change_json(folder / META_FILE, lambda meta: meta | {"config": {"features": {"size_px": "large"}}})
    auto = replace(config, features=replace(config.features, backbone="auto"))
    with pytest.raises(CheckpointError, match=r"meta\.json: features\.size_px must be a whole number"):
        predict(images, tmp_path / "out", folder, auto)


@pytest.mark.parametrize(
    ("saved", "asked", "taken"),
    [("auto", "auto", "auto"), ("float32", "auto", "float32"), ("auto", "float32", "float32"), (None, "auto", "auto")],
)
def test_float32_is_kept_where_the_checkpoint_or_the_user_asks_for_it(
    folder: Path, config: PipelineConfig, saved: str | None, asked: Literal["auto", "float32"], taken: str
) -> None:
    features = {"size_px": 64} if saved is None else {"size_px": 64, "precision": saved}
    change_json(folder / META_FILE, lambda meta: meta | {"config": meta["config"] | {"features": features}})
    open_choice = replace(config, features=replace(config.features, backbone="auto", precision=asked))
    assert adopt_checkpoint(open_choice, folder).features.precision == taken


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda _: [], "it holds [] where streams by name belong"),
        (lambda _: 5, "it holds 5 where streams by name belong"),
        (lambda _: None, "it holds None where streams by name belong"),
        (lambda _: {}, "has no whitening of its first stream"),
        (lambda content: content | {"first": 5}, "'first': whitening in the checkpoint is damaged"),
        (lambda content: content | {"first": []}, "'first': whitening in the checkpoint is damaged"),
        (lambda content: content | {"first": {"mean": []}}, "'matrix' is missing"),
        (lambda content: content | {"first": content["first"] | {"mean": "x"}}, "it holds what is no number"),
        (lambda content: content | {"first": content["first"] | {"mean": ["1"] * 36}}, "it holds what is no number"),
        (lambda content: content | {"first": content["first"] | {"mean": [None] * 36}}, "it holds what is no number"),
        (
            lambda content: content | {"first": content["first"] | {"mean": [10**400] * 36}},
            "it holds what is no number",
        ),
        (lambda content: content | {"first": content["first"] | {"mean": [float("nan")] * 36}}, "NaN or infinity"),
        (lambda content: content | {"first": {"mean": [0.0], "matrix": [[1.0]]}}, "it is for tokens 1 wide"),
    ],
)
def test_a_damaged_whitening_is_refused_before_anything_is_encoded(
    folder: Path, refusal: Callable[[Path], str], change: Callable[[Any], Any], part: str
) -> None:
    change_json(folder / WHITENING_FILE, change)
    assert part in refusal(folder if part.startswith("has no") else folder / WHITENING_FILE)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (
            lambda arrays: arrays | {"mean": arrays["mean"][:5], "weights": arrays["weights"][:5]},
            "it is for 5 channels",
        ),
        (lambda arrays: arrays | {"mean": arrays["mean"].astype(np.int64)}, "no number with a fraction"),
        (lambda arrays: arrays | {"bias": np.array([np.nan])}, "it holds NaN"),
        (lambda arrays: {"mean": arrays["mean"]}, "is damaged"),
    ],
)
def test_a_damaged_probe_is_refused_before_anything_is_encoded(
    folder: Path, refusal: Callable[[Path], str], change: Callable[[Any], Any], part: str
) -> None:
    file = folder / PROBE_FILE
    ids = json.loads((folder / META_FILE).read_text(encoding="utf-8"))["backbone_ids"]
    save_file(change(load_file(file)), file, {"backbone_ids": json.dumps(ids)})
    assert part in refusal(file)


@pytest.mark.parametrize("backbones", ["[" * 100_000, "5", "{", "x" * 5000])
def test_a_probe_of_unreadable_backbones_is_refused(
    folder: Path, refusal: Callable[[Path], str], backbones: str
) -> None:
    save_file(load_file(folder / PROBE_FILE), folder / PROBE_FILE, {"backbone_ids": backbones})
    refusal(folder / PROBE_FILE)


@pytest.mark.parametrize("name", [MODEL_FILE, WHITENING_FILE, PROBE_FILE])
def test_a_fifo_in_a_checkpoint_is_never_waited_for(folder: Path, refusal: Callable[[Path], str], name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert "not a regular file" in refusal(folder / name)


def test_a_probe_for_more_channels_than_the_patches_have_is_named(
    folder: Path, refusal: Callable[[Path], str], images: Path, config: PipelineConfig, tmp_path: Path
) -> None:
    file = folder / PROBE_FILE
    arrays = load_file(file)
    ids = json.loads((folder / META_FILE).read_text(encoding="utf-8"))["backbone_ids"]

    def lengthen(count: int) -> None:
        longer = {name: np.resize(arrays[name], count) for name in ("mean", "weights")}
        save_file(arrays | longer, file, {"backbone_ids": json.dumps(ids)})

    lengthen(164)
    assert "it is for 164 channels, its backbones have fewer" in refusal(file)
    lengthen(83)  # keys may be as wide as tokens, and are not here
    with pytest.raises(
        CheckpointError, match=r"\(probe\.safetensors of the checkpoint\) is for .* 83 .* have 82; train"
    ):
        predict(images, tmp_path / "out", folder, config)


@pytest.mark.parametrize("name", [META_FILE, MODEL_FILE, PROBE_FILE, WHITENING_FILE])
def test_each_part_of_a_checkpoint_is_in_its_hash(folder: Path, name: str) -> None:
    before = hash_checkpoint(folder)
    with (folder / name).open("ab") as stream:
        stream.write(b" ")
    assert hash_checkpoint(folder) != before
