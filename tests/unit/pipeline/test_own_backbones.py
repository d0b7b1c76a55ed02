"""A backbone that somebody else writes: given as an object, or found by its name among installed packages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from umscosod.config import FeaturesConfig, PipelineConfig
from umscosod.data.images import square_picture
from umscosod.data.masks import read_mask
from umscosod.errors import ConfigError
from umscosod.features.backbone import backbone_names
from umscosod.features.embedded import cell_means
from umscosod.pipeline import label_groups, predict
from umscosod.types import ByteArray, EncodedImage


class Colours:
    """Mean colour and its deviation, cell by cell; what is unlike the frame attracts attention."""

    name = "colours"
    weights_sha256 = ""
    dim = 6
    batch_size = 2
    needs_whitening, is_centred, has_attention, is_label_free = False, False, True, False

    def __init__(self, size_px: int, cell_px: int) -> None:
        self.size_px, self.cell_px = size_px, cell_px
        self.grid_hw = (size_px // cell_px,) * 2
        self.id = f"colours-1@{size_px}/{cell_px}"

    def encode(self, images: Sequence[ByteArray]) -> list[EncodedImage]:
        assert len(images) <= self.batch_size
        return [self._encode_one(square_picture(image, self.size_px) / 255.0) for image in images]

    def _encode_one(self, picture_HW3: np.ndarray) -> EncodedImage:
        mean_hw3 = cell_means(picture_HW3, self.cell_px)
        spread_hw3 = np.sqrt(np.maximum(cell_means(picture_HW3**2, self.cell_px) - mean_hw3**2, 0.0))
        tokens_PD = np.concatenate([mean_hw3, spread_hw3], axis=2).reshape(-1, 6).astype(np.float16)
        frame_D = np.concatenate([mean_hw3[0], mean_hw3[-1], mean_hw3[:, 0], mean_hw3[:, -1]]).mean(axis=0)
        attn_1P = np.abs(mean_hw3 - frame_D).sum(axis=2).reshape(1, -1).astype(np.float16)
        return EncodedImage(tokens_PD=tokens_PD, keys_PK=tokens_PD, attn_AP=attn_1P, grid_hw=self.grid_hw)


def make_colours(*, config: FeaturesConfig, cell_px: int, device: object) -> Colours:
    """Found by its entry point."""
    return Colours(config.size_px, cell_px)


def make_nothing(*, config: FeaturesConfig, cell_px: int, device: object) -> Colours:
    raise RuntimeError("no licence\nfound")


@pytest.fixture
def own(config: PipelineConfig) -> tuple[Colours, Colours]:
    size_px = config.features.size_px
    return Colours(size_px, 8), Colours(size_px, 16)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package on the path that brings two backbones."""
    folder = tmp_path / "site" / "somebodys-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys\nVersion: 1.0\n")
    here = "tests.unit.pipeline.test_own_backbones"
    points = f"[umscosod.backbones]\ncolours = {here}:make_colours\nbroken = {here}:make_nothing\n"
    (folder / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path / "site")


def named(config: PipelineConfig, name: str) -> PipelineConfig:
    return replace(config, features=replace(config.features, backbone=name))


def masks(out: Path) -> dict[str, bytes]:
    found = {path.relative_to(out).as_posix(): path.read_bytes() for path in (out / "masks").rglob("*.png")}
    assert len(found) == 6
    return found


def test_objects_given_label_a_collection(
    images: Path, config: PipelineConfig, tmp_path: Path, own: tuple[Colours, Colours]
) -> None:
    out = tmp_path / "out"
    report = label_groups(images, out, config, train=False, backbones=own)
    first, second = own
    assert report.notes[0] == f"backbones: colours {first.grid_hw[0]}x{first.grid_hw[1]} and colours " + (
        f"{second.grid_hw[0]}x{second.grid_hw[1]}"
    )
    assert any("not annotation-free" in note for note in report.notes)
    assert any(read_mask(path).any() for path in (out / "masks").rglob("*.png"))


def test_a_network_trained_on_them_predicts_with_them(
    images: Path, config: PipelineConfig, tmp_path: Path, own: tuple[Colours, Colours]
) -> None:
    train = replace(config, train=replace(config.train, epochs=1, min_steps=1))
    label_groups(images, tmp_path / "trained", train, backbones=own, train=True)
    predict(images, tmp_path / "predicted", tmp_path / "trained", config, backbones=own)
    masks(tmp_path / "predicted")


@pytest.mark.usefixtures("installed")
def test_an_installed_name_gives_the_same_masks(
    images: Path, config: PipelineConfig, tmp_path: Path, own: tuple[Colours, Colours]
) -> None:
    assert backbone_names()[-2:] == ("broken", "colours")
    label_groups(images, tmp_path / "given", config, train=False, backbones=own)
    label_groups(images, tmp_path / "named", named(config, "colours"), train=False)
    assert masks(tmp_path / "named") == masks(tmp_path / "given")


@pytest.mark.usefixtures("installed")
def test_an_unknown_name_is_refused_with_the_installed_ones(
    images: Path, config: PipelineConfig, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"unknown backbone 'colour', did you mean 'colours'\?.*embedded.*colours"):
        label_groups(images, tmp_path / "out", named(config, "colour"), train=False)


@pytest.mark.usefixtures("installed")
def test_one_that_cannot_be_built_is_named_with_its_package(
    images: Path, config: PipelineConfig, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"backbone 'broken' \(.*make_nothing\) cannot be built: .*no licence found"):
        label_groups(images, tmp_path / "out", named(config, "broken"), train=False)


def test_an_object_that_is_no_backbone_is_refused_with_what_it_lacks(
    images: Path, config: PipelineConfig, tmp_path: Path, own: tuple[Colours, Colours]
) -> None:
    with pytest.raises(ConfigError, match=r"object is no backbone: it has no id, .*has_attention"):
        label_groups(images, tmp_path / "out", config, train=False, backbones=(own[0], object()))  # type: ignore[arg-type]
