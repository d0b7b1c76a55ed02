"""Exported models: what ONNX Runtime makes of the files equals the library; a failed export leaves nothing."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

import umscosod
from umscosod.config import PipelineConfig
from umscosod.data.groups import groups_from_images
from umscosod.data.images import decode_image
from umscosod.deploy import export as export_module
from umscosod.deploy.graphs import CHECKED, check_graph, network_graph, open_session, write_graph
from umscosod.errors import ConfigError, DataError, ExportError, MissingDependencyError
from umscosod.features.vit import VitBackbone
from umscosod.network.model import build_network, predict_maps
from umscosod.types import ByteArray, FloatArray

CPU = torch.device("cpu")
COUNTS = (1, 2, 5)


class Runner:
    """Runs an export by what its ``model.json`` says: numpy, Pillow and ONNX Runtime, nothing of this library."""

    def __init__(self, folder: Path, *, int8: bool = False) -> None:
        self.told = json.loads((folder / "model.json").read_text())
        files = {name: graph["file"] for name, graph in self.told["graphs"].items()}
        files |= self.told["int8"]["graphs"] if int8 else {}
        self.sessions = {name: onnxruntime.InferenceSession(str(folder / file)) for name, file in files.items()}

    def pixels(self, stream: str, picture: ByteArray) -> FloatArray:
        how = self.told["streams"][stream]["preprocessing"]
        assert (how["colour"], how["layout"]) == ("RGB", ["N", "channel", "row", "column"])
        assert (how["resize"]["filter"], how["resize"]["antialias"]) == ("bilinear", True)
        size = how["resize"]["width"], how["resize"]["height"]
        resized = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR), np.float32)
        mean, std = (np.array(how[key], np.float32) for key in ("then_subtract_mean", "then_divide_by_std"))
        return np.transpose((resized / np.float32(how["divide_by"]) - mean) / std, (2, 0, 1))

    def encode(self, stream: str, pictures: Sequence[ByteArray]) -> dict[str, FloatArray]:
        session = self.sessions[self.told["streams"][stream]["graph"]]
        names = [one.name for one in session.get_outputs()]
        singly = [session.run(None, {"pixels": self.pixels(stream, picture)[None]}) for picture in pictures]
        return {name: np.concatenate(parts) for name, parts in zip(names, zip(*singly, strict=True), strict=True)}

    def pictures(self, pictures: Sequence[ByteArray]) -> ByteArray:
        (wanted,) = (one for one in self.told["graphs"]["network"]["inputs"] if one["name"] == "pictures")
        _, height, width, _ = wanted["shape"]
        resized = [Image.fromarray(one).resize((width, height), Image.Resampling.BILINEAR) for one in pictures]
        return np.stack([np.asarray(one, wanted["dtype"]) for one in resized])

    def maps(self, pictures: Sequence[ByteArray]) -> FloatArray:
        half: dict[str, dict[str, FloatArray]] = {}
        for stream in ("first", "second"):
            found = self.encode(stream, pictures)
            half[stream] = {name: values.astype(np.float16).astype(np.float32) for name, values in found.items()}
        mean = half["first"]["attention"].mean(1)
        low, high = mean.min(1, keepdims=True), mean.max(1, keepdims=True)
        inputs = {
            "first_tokens": half["first"]["tokens"],
            "second_tokens": half["second"]["tokens"],
            "saliency": (mean - low) / (high - low),
            "pictures": self.pictures(pictures),
        }
        (maps,) = self.sessions["network"].run(["maps"], inputs)
        return np.asarray(maps)


def enlarge(map_hw: FloatArray, size_hw: tuple[int, int]) -> FloatArray:
    """Bilinear, corner pixels on corners."""
    rows, columns = (np.linspace(0, old - 1, new) for old, new in zip(map_hw.shape, size_hw, strict=True))
    wide = np.stack([np.interp(columns, np.arange(map_hw.shape[1]), row) for row in map_hw])
    return np.stack([np.interp(rows, np.arange(map_hw.shape[0]), column) for column in wide.T], axis=1)


@pytest.mark.parametrize("count", COUNTS)
def test_the_json_is_enough_to_get_the_maps_of_load_model(
    exported: Path, trained: Path, settings: PipelineConfig, pictures: list[ByteArray], count: int
) -> None:
    model = umscosod.load_model(trained, settings)
    found = Runner(exported).maps(pictures[:count])
    assert model.network is not None
    wanted = predict_maps(model.network, model.encode(pictures[:count]), CPU)
    assert wanted.std((1, 2)).min() > 0.02  # a map of one grey would be met too easily
    # A number next to the border of two float16 may be rounded to either: graphs hold 1e-4, the chain of them 1e-3.
    np.testing.assert_allclose(found, wanted, atol=1e-3)
    for map_HW, one, picture in zip(found, model.predict_group(pictures[:count]), pictures, strict=False):
        np.testing.assert_allclose(
            enlarge(map_HW, picture.shape[:2]), one.map_HW, atol=2e-3
        )  # load_model keeps maps in float16


@pytest.mark.parametrize("count", COUNTS)
def test_every_graph_equals_torch_at_any_number_of_pictures(
    exported: Path, trained: Path, settings: PipelineConfig, count: int
) -> None:
    model = umscosod.load_model(trained, settings)
    sessions = Runner(exported).sessions
    generator = torch.Generator().manual_seed(count)
    for stream, backbone in (("first", model.pair.first), ("second", model.pair.second)):
        assert isinstance(backbone, VitBackbone)
        pixels = torch.randn(count, 3, backbone.size_px, backbone.size_px, generator=generator)
        with torch.no_grad():
            wanted = backbone.compute(pixels)
        found = sessions[f"backbone-{stream}"].run(["tokens", "keys", "attention"], {"pixels": pixels.numpy()})
        for one, other in zip(wanted, found, strict=True):
            np.testing.assert_allclose(other, one, atol=1e-4, rtol=0)
    shapes = {one.name: one.shape[1:] for one in sessions["network"].get_inputs()}
    pictures = torch.randint(0, 256, (count, *shapes.pop("pictures")), generator=generator, dtype=torch.uint8)
    inputs = {name: torch.rand(count, *shape, generator=generator) for name, shape in shapes.items()}
    assert model.network is not None
    with torch.no_grad():
        logits = model.network(*inputs.values(), (8, 8), (4, 4), (64, 64), pictures)[-1]
    inputs["pictures"] = pictures
    (maps,) = sessions["network"].run(None, {name: values.numpy() for name, values in inputs.items()})
    np.testing.assert_allclose(maps, logits.sigmoid().squeeze(1), atol=1e-4, rtol=0)


def test_the_json_names_files_axes_and_origin(exported: Path, trained: Path) -> None:
    told = Runner(exported).told
    names = {path.name for path in exported.iterdir()}
    assert names == {*told["files"], "model.json"}
    for name, stated in told["files"].items():
        content = (exported / name).read_bytes()
        assert stated == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    first = told["streams"]["first"]
    assert (first["grid"], first["licence"], first["is_label_free"]) == ([8, 8], "mit", False)
    assert first["id"] in (next(trained.glob("run/checkpoints/*/meta.json"))).read_text()
    shapes = {one["name"]: one["shape"] for one in told["graphs"]["network"]["inputs"]}
    assert shapes == {
        "first_tokens": ["N", 64, 32],
        "second_tokens": ["N", 16, 32],
        "saliency": ["N", 64],
        "pictures": ["N", 64, 64, 3],
    }
    assert all(0 < graph["checked"]["largest_difference"] < 1e-4 for graph in told["graphs"].values())
    assert told["opset"] == 20
    assert told["versions"]["onnxruntime"] == onnxruntime.__version__
    assert any("probe" in text for text in told["not_included"])


def test_what_is_said_of_int8_is_true(exported: Path, images: Path) -> None:
    stated = Runner(exported).told["int8"]
    exact, short = Runner(exported), Runner(exported, int8=True)
    differences, ious = [], []
    for group in groups_from_images(images):
        decoded = [decode_image(image.path) for image in group.images]
        wanted, found = exact.maps(decoded), short.maps(decoded)
        differences.append(np.abs(wanted - found))
        for one, other in zip(wanted > 0.5, found > 0.5, strict=True):
            ious.append((one & other).sum() / (one | other).sum() if (one | other).any() else 1.0)
    assert stated["measured_on"] == {"pictures": str(images), "groups": 2, "images": 6}
    assert stated["maps"]["largest_difference"] == pytest.approx(np.max(differences), abs=1e-5)
    assert stated["maps"]["mean_difference"] == pytest.approx(np.mean(differences), rel=1e-2)
    assert stated["masks"]["mean_iou"] == pytest.approx(np.mean(ious), abs=1e-3)
    assert stated["masks"]["least_iou"] == pytest.approx(np.min(ious), abs=1e-3)
    assert stated["maps"]["largest_difference"] > 1e-5  # it is another model
    for stream in ("first", "second"):
        ratio = (exported / f"backbone-{stream}.int8.onnx").stat().st_size
        assert ratio < (exported / f"backbone-{stream}.onnx").stat().st_size


def test_without_a_backbone_that_is_a_network_the_file_says_how_inputs_are_made(
    train: Callable[[str], Path], tmp_path: Path, settings: PipelineConfig, pictures: list[ByteArray]
) -> None:
    checkpoint, out = train("embedded"), tmp_path / "onnx"
    killed = tmp_path / ".writing-onnx"  # of an export that was killed
    killed.mkdir()
    (killed / "network.onnx").write_bytes(b"half")
    with pytest.raises(ConfigError, match="embedded and embedded are none; leave --int8 out"):
        umscosod.export_model(checkpoint, out, settings, int8=True)
    report = umscosod.export_model(checkpoint, out, settings)
    assert set(report.files) == {"network.onnx", "model.json"}
    assert [path.name for path in tmp_path.iterdir()] == ["onnx"]
    told = json.loads((out / "model.json").read_text())
    assert {stream["graph"] for stream in told["streams"].values()} == {None}
    assert any("umscosod.load_model(CHECKPOINT).encode(pictures)" in step for step in told["steps"])
    model = umscosod.load_model(checkpoint, settings)
    features = model.encode(pictures)
    named = {
        "first_tokens": features.first.tokens_NPD,
        "second_tokens": features.second.tokens_NPD,
        "saliency": features.saliency_NP,
        "pictures": features.pictures_NHW3,
    }
    inputs = {one["name"]: named[one["name"]].astype(one["dtype"]) for one in told["graphs"]["network"]["inputs"]}
    (maps,) = onnxruntime.InferenceSession(str(out / "network.onnx")).run(["maps"], inputs)
    assert model.network is not None
    np.testing.assert_allclose(maps, predict_maps(model.network, features, CPU), atol=1e-4)


def random_features(count: int) -> Any:
    """What the graph of a network reads of a group: 3x3 and 2x2 tokens of width 8, pictures of 12 px."""
    rng = np.random.default_rng(0)
    first, second = (
        SimpleNamespace(tokens_NPD=rng.standard_normal((count, side**2, 8)), grid_hw=(side, side)) for side in (3, 2)
    )
    pictures = rng.integers(0, 256, (count, 12, 12, 3), np.uint8)
    return SimpleNamespace(
        first=first, second=second, saliency_NP=rng.random((count, 9)), pictures_NHW3=pictures, size_hw=(12, 12)
    )


def test_a_network_of_the_published_form_is_exported_too(tmp_path: Path) -> None:
    config = PipelineConfig().network
    config = replace(
        config,
        cfmm=replace(config.cfmm, seed_prior="none", init="kaiming"),
        fram=replace(config.fram, amp_norm="none"),
        decoder=replace(config.decoder, channels=4),
    )
    graph = network_graph(build_network(config, 8, 8, seed=0), random_features(max(CHECKED)))
    write_graph(graph, tmp_path / "network.onnx")
    session = open_session(tmp_path / "network.onnx")
    assert [one.name for one in session.get_inputs()] == ["first_tokens", "second_tokens", "saliency"]
    assert check_graph(graph, session) < 1e-4


@pytest.fixture
def no_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files in no time: what fails later is looked at here."""
    monkeypatch.setattr(export_module, "write_graph", lambda graph, file: file.write_bytes(b"graph"))


def test_a_graph_that_differs_leaves_nothing(
    exported: Path, trained: Path, tmp_path: Path, settings: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(graph: Any, file: Path) -> None:  # that of the other stream's size is refused by its inputs
        file.write_bytes((exported / f"{graph.name}{'.int8' if 'backbone' in graph.name else ''}.onnx").read_bytes())

    monkeypatch.setattr(export_module, "write_graph", other)
    with pytest.raises(ExportError, match=r"backbone-first.onnx: tokens of 1 pictures differ by .* more than 0.0001"):
        umscosod.export_model(trained, tmp_path / "onnx", settings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_graphs")
def test_an_interrupted_export_leaves_nothing(
    trained: Path, tmp_path: Path, settings: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(file: Path) -> Any:
        assert file.is_file()
        raise KeyboardInterrupt

    monkeypatch.setattr(export_module, "open_session", interrupt)
    with pytest.raises(KeyboardInterrupt):
        umscosod.export_model(trained, tmp_path / "onnx", settings)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_empty_is_left_alone(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="is not empty; choose another"):
        umscosod.export_model(trained, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_missing_package_is_named_with_its_cure(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        MissingDependencyError, match=r'onnxruntime must be installed; run: pip install "umscosod\[onnx\]"'
    ):
        umscosod.export_model(trained, tmp_path / "onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_somebody_elses_in_its_way_is_left_alone(trained: Path, tmp_path: Path) -> None:
    (tmp_path / ".writing-onnx" / "sub").mkdir(parents=True)
    with pytest.raises(DataError, match=r"\.writing-onnx holds what this program did not write"):
        umscosod.export_model(trained, tmp_path / "onnx")
    assert (tmp_path / ".writing-onnx" / "sub").is_dir()
