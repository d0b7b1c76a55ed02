"""`umscosod.export_model`: a trained model as a folder of ONNX files."""

from __future__ import annotations

import copy
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from umscosod.config import DataConfig, PipelineConfig
from umscosod.config.io import DEFAULT_PRESET, load_config
from umscosod.data.files import check_place, lock_folder, real_path
from umscosod.data.groups import groups_from_images
from umscosod.data.images import decode_image
from umscosod.demo.compose import GROUP_NAMES, compose_image, scenes_of
from umscosod.deploy.describe import (
    MODEL_FILE,
    describe_files,
    describe_graph,
    describe_int8,
    describe_makers,
    describe_steps,
    describe_stream,
)
from umscosod.deploy.graphs import (
    CHECKED,
    OnnxBackbone,
    backbone_graph,
    check_graph,
    network_graph,
    open_session,
    write_graph,
)
from umscosod.deploy.int8 import Int8Loss, measure_loss, write_int8
from umscosod.errors import ConfigError, DataError, MissingDependencyError, reason_of
from umscosod.features.backbone import BackbonePair
from umscosod.features.group import STREAMS
from umscosod.features.vit import VitBackbone
from umscosod.pipeline.checkpoints import PROBE_FILE, hash_checkpoint
from umscosod.pipeline.predictor import CoSalPredictor, load_model
from umscosod.progress import ProgressFn, ignore_progress
from umscosod.training.checkpoint import find_checkpoint
from umscosod.types import ByteArray

logger = logging.getLogger(__name__)

_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
_WRITING = ".writing-"
_OWN_FILES = ("backbone-", "network.", MODEL_FILE)
_NO_PROBE = (
    "the checkpoint's probe, whose maps umscosod blends with the network's; these are the maps of "
    "predict --config.keep network"
)
_LEFT_OUT = ("masks: the refinement of maps (RRBE, DenseCRF) and the confidence of masks",)
_DEMO_IMAGES, _DEMO_PX = 6, 320  # of each group, as python -m umscosod.demo makes them


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelExport:
    """Outcome of `export_model`.

    Attributes
    ----------
    out : Path
    files : dict of str to int
        Bytes by name.
    differences : dict of str to float
        Largest difference from torch, by graph.
    loss : Int8Loss or None
        None: no int8 was asked for.
    notes : tuple of str
        What the files do not hold, and on whose labels a backbone rests.
    """

    out: Path
    files: dict[str, int]
    differences: dict[str, float]
    loss: Int8Loss | None
    notes: tuple[str, ...]


def export_model(
    checkpoint: str | Path,
    out: str | Path,
    config: PipelineConfig | None = None,
    *,
    int8: bool = False,
    images: str | Path | None = None,
    progress: ProgressFn = ignore_progress,
) -> ModelExport:
    """Write a trained model as ONNX files, checked against torch, with a ``model.json`` that says how to run them.

    Parameters
    ----------
    checkpoint : path
        As for `umscosod.load_model`.
    out : path
        Folder for ``backbone-first.onnx``, ``backbone-second.onnx``, ``network.onnx`` and ``model.json``; a new or an
        empty one. It appears whole or not at all.
    config : PipelineConfig, optional
        As for `umscosod.load_model`; the work is done on the CPU.
    int8 : bool
        Write the backbones with int8 weights too, and measure what that costs.
    images : path, optional
        Pictures for the checks and for that measure: a folder with one sub-folder a group, or a .csv or .parquet
        list. By default those of the demo.
    progress : callable
        Called as the stages ``graphs`` and ``int8``.

    Returns
    -------
    ModelExport

    Raises
    ------
    MissingDependencyError
        ``onnx``, ``onnxruntime`` or ``onnxscript`` is not installed.
    ExportError
        A graph cannot be written, or differs from torch by more than 1e-4 (of numbers above 1: as a share of them).
    CheckpointError, WeightsError, ConfigError
        As `umscosod.load_model`; or int8 is asked for and neither stream has a network.
    DataError
        The folder is not empty or cannot be written, or a picture cannot be read.

    Notes
    -----
    Only Vision Transformers become graphs. What makes the tokens of ``embedded`` or ``starter`` is no network: then
    the folder holds ``network.onnx``, and ``model.json`` says how umscosod makes its inputs.
    """
    _require_packages()
    target = _free_folder(Path(out))
    asked = load_config(DEFAULT_PRESET) if config is None else config
    if asked.device not in ("auto", "cpu"):
        logger.warning("device %s is not used: models are exported on the CPU", asked.device)
    # the graphs are compared with torch to 1e-4
    exact = replace(asked.features, precision="float32")
    model = load_model(checkpoint, replace(asked, device="cpu", features=exact))
    if int8 and not _networks_of(model):
        raise ConfigError(
            f"int8 is for backbones that are networks; {model.pair.first.name} and {model.pair.second.name} are none; "
            "leave --int8 out"
        )
    source = _Pictures(images=None if images is None else Path(images), limits=model.config.data)
    with _whole_folder(target) as folder:
        writer = _Writer(folder=folder, model=model, pictures=source, progress=progress)
        writer.write_graphs()
        loss = writer.write_int8() if int8 else None
        notes = writer.describe(find_checkpoint(Path(checkpoint)))
        files = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    return ModelExport(out=target, files=files, differences=writer.differences, loss=loss, notes=notes)


def _require_packages() -> None:
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f'to export a model {", ".join(missing)} must be installed; run: pip install "umscosod[onnx]"'
        )


def _networks_of(model: CoSalPredictor) -> dict[str, VitBackbone]:
    """The streams whose backbone is a network."""
    pairs = zip(STREAMS, model.pair.both, strict=True)
    return {stream: backbone for stream, backbone in pairs if isinstance(backbone, VitBackbone)}


def _free_folder(out: Path) -> Path:
    """Where the files will lie, without links; DataError if that is no free place."""
    check_place(out)
    target = real_path(out)
    if target.is_dir() and any(target.iterdir()):
        raise DataError(f"--out {out} is not empty; choose another, or remove what is in it")
    return target


@contextmanager
def _whole_folder(target: Path) -> Iterator[Path]:
    """Give a folder beside the target that takes its name when the block ends without an error, and goes otherwise."""
    folder = target.with_name(f"{_WRITING}{target.name}")
    with lock_folder(folder):  # also against a second export to the same place
        leftovers = list(folder.iterdir())
        if any(one.is_dir() or not one.name.startswith(_OWN_FILES) for one in leftovers):
            raise DataError(f"{folder} holds what this program did not write; remove it, or choose another --out")
        try:
            for one in leftovers:  # of an export that was killed
                one.unlink()
            yield folder
            folder.replace(target)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise DataError(f"cannot write {target}: {reason_of(error)}; check the folder and the disk") from error
            raise


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pictures:
    """The groups that the checks and the measure look at."""

    images: Path | None
    limits: DataConfig

    def groups(self) -> Iterator[list[ByteArray]]:
        if self.images is None:
            for name in GROUP_NAMES:
                scenes = scenes_of(name, seed=0)[:_DEMO_IMAGES]
                yield [
                    compose_image(name, index, scene, seed=0, size=_DEMO_PX)[0] for index, scene in enumerate(scenes)
                ]
            return
        limits = {"max_pixels": self.limits.max_pixels, "min_side_px": self.limits.min_side_px}
        for group in groups_from_images(self.images):
            yield [decode_image(image.path, **limits) for image in group.images]

    def for_checks(self) -> list[ByteArray]:
        """As many as the largest check takes, of the first group; a small one is repeated."""
        first = next(self.groups(), [])
        if not first:
            raise DataError(f"--images {self.images} holds no picture; name a folder with one sub-folder a group")
        return [first[index % len(first)] for index in range(max(CHECKED))]


@dataclass(kw_only=True, slots=True)
class _Writer:
    """One call of `export_model`: what is written so far, and what ``model.json`` will say of it."""

    folder: Path
    model: CoSalPredictor
    pictures: _Pictures
    progress: ProgressFn
    differences: dict[str, float] = field(default_factory=dict)
    described: dict[str, Any] = field(default_factory=dict)
    int8: dict[str, Any] | None = None

    def write_graphs(self) -> None:
        model = self.model
        assert model.network is not None  # a checkpoint has one
        shown = self.pictures.for_checks()
        graphs = [backbone_graph(stream, backbone, shown) for stream, backbone in _networks_of(model).items()]
        graphs.append(network_graph(model.network, model.encode(shown)))
        for done, graph in enumerate(graphs):
            self.progress(done, len(graphs), "graphs")
            file = self.folder / f"{graph.name}.onnx"
            write_graph(graph, file)
            session = open_session(file)
            self.differences[graph.name] = difference = check_graph(graph, session)
            self.described[graph.name] = describe_graph(graph, session, file, difference)
        self.progress(len(graphs), len(graphs), "graphs")

    def write_int8(self) -> Int8Loss:
        self.progress(0, 1, "int8")
        short = {}
        for stream in _networks_of(self.model):
            name = f"backbone-{stream}"
            short[name] = f"{name}.int8.onnx"
            write_int8(self.folder / f"{name}.onnx", self.folder / short[name])
        exact = self._with_graphs({name: f"{name}.onnx" for name in short})
        session = open_session(self.folder / "network.onnx")
        loss = measure_loss(exact, self._with_graphs(short), session, self.pictures.groups())
        images = self.pictures.images
        self.int8 = describe_int8(loss, short, "those of the demo" if images is None else str(images))
        self.progress(1, 1, "int8")
        return loss

    def _with_graphs(self, files: Mapping[str, str]) -> CoSalPredictor:
        """The model on graphs of ours in place of its backbones."""
        networks = _networks_of(self.model)
        pair = [
            OnnxBackbone(networks[stream], self.folder / files[f"backbone-{stream}"]) if stream in networks else other
            for stream, other in zip(STREAMS, self.model.pair.both, strict=True)
        ]
        twin = copy.copy(self.model)
        twin.pair = BackbonePair(first=pair[0], second=pair[1])
        return twin

    def describe(self, checkpoint: Path) -> tuple[str, ...]:
        model, networks = self.model, _networks_of(self.model)
        left_out = list(_LEFT_OUT)
        if (checkpoint / PROBE_FILE).exists():
            left_out.insert(0, _NO_PROBE)
        streams = {
            stream: describe_stream(backbone, f"backbone-{stream}" if stream in networks else None)
            for stream, backbone in zip(STREAMS, model.pair.both, strict=True)
        }
        assert model.network is not None
        picture_px = model.config.features.size_px if model.network.config.decoder.picture else None
        content = {
            **describe_makers(),
            "checkpoint_sha256": hash_checkpoint(checkpoint),
            "steps": describe_steps(streams, picture_px),
            "not_included": left_out,
            "streams": streams,
            "graphs": self.described,
            "int8": self.int8,
            "files": describe_files(self.folder),
        }
        (self.folder / MODEL_FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        return (*model.notes, *(f"not exported: {text}" for text in left_out))
