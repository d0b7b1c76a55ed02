"""What a job is: what is asked for, what decides its results, and whether the folder holds them already."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from umscosod import __version__
from umscosod.baselines import BASELINES
from umscosod.config import PipelineConfig
from umscosod.config.io import DEFAULT_PRESET, config_to_dict, load_config, validate_config
from umscosod.data.files import OWN_FILES, check_place, lock_folder, open_regular, read_json
from umscosod.data.images import read_upright_size
from umscosod.data.masks import is_whole_png
from umscosod.device import resolve_device
from umscosod.engine import Engine
from umscosod.errors import ConfigError, DataError
from umscosod.estimate import first_width
from umscosod.export.folder import path_inside
from umscosod.export.report import build_row
from umscosod.features.backbone import AUTO, Backbone, BackbonePair, identify_backbones, pair_backbones
from umscosod.pseudo.store import MANIFEST_NAME
from umscosod.training.processes import ALONE, Processes
from umscosod.types import ImageGroup, ImageRef, Labelled, LabelReport

FINISHED = "finished.json"
"""In ``run``: all rows of a finished job, and what they were made from."""
_NO_EFFECT = (  # settings that change neither masks nor maps on the CPU
    ("device",),
    ("features", "batch_size"),
    ("features", "cache_dir"),
    ("features", "use_cache"),
    ("features", "weights"),  # their hash is in the backbone's id
    ("features", "second_weights"),
    ("refine", "crf", "workers"),
    ("train", "checkpoint_every"),
    ("pseudo", "detections"),  # the content of both is bound, wherever it lies
    ("pseudo", "detections_images"),
)

_TRAINING_PAYS_FROM = 100
"""Images: a guess. The largest set that was measured has 98, and in the mean of five sets nothing was gained."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobSpec:
    """What is asked for, but for the images: enough to know a finished job again.

    Attributes
    ----------
    out : Path
    config : PipelineConfig
        Valid; ``auto`` may be left.
    mode : mapping
        The verb, and what else decides the results: whether to train, the checkpoint's hash.
    pair : BackbonePair or None
        In the place of the backbones that the settings name.
    stored : mapping of str to Path
        Soft maps to refine, by image id.
    stored_hash : str
        Of what they hold.
    notes : tuple of str
        For people.
    engine : Engine or None
        Does the work of groups; None: this process does. Results are the same.
    """

    out: Path
    config: PipelineConfig
    mode: Mapping[str, Any]
    pair: BackbonePair | None = None
    stored: Mapping[str, Path] = field(default_factory=dict)
    stored_hash: str = ""
    notes: tuple[str, ...] = ()
    engine: Engine | None = None


def specify(
    out: str | Path,
    config: PipelineConfig | None,
    verb: str,
    *,
    backbones: tuple[Backbone, Backbone] | None = None,
    processes: Processes = ALONE,
    engine: Engine | None = None,
    **mode: Any,
) -> JobSpec:
    """Check the place, the settings and the backbones given.

    Parameters
    ----------
    out : path
    config : PipelineConfig or None
        None: the ``fast`` preset.
    verb : str
    backbones : (Backbone, Backbone), optional
        In the place of those that the settings name.
    processes : Processes
        Those that do the job together.
    engine : Engine, optional
        See `JobSpec`.
    **mode
        What else decides the results.

    Raises
    ------
    UmscosodError
        The place cannot be an output folder, settings are wrong, or an object is no backbone.
    """
    check_place(out, "job")
    config = load_config(DEFAULT_PRESET) if config is None else config
    validate_config(config)
    config = processes.settle(config)
    pair = None if backbones is None else pair_backbones(*backbones)
    check_shared_cache(config, engine)
    return JobSpec(out=Path(out), config=config, mode={"verb": verb, **mode}, pair=pair, engine=engine)


def check_shared_cache(config: PipelineConfig, engine: Engine | None) -> None:
    """Refuse an engine whose workers would have no cache to share.

    Raises
    ------
    ConfigError
    """
    if engine is not None and not config.features.use_cache:
        raise ConfigError(
            "features.use_cache is off, so that workers have no cache to share; leave it on for an engine"
        )


def settle_training(spec: JobSpec, n_images: int) -> JobSpec:
    """Where nobody said whether to train, do so where it pays; only the whole method trains."""
    config = spec.config
    if "train" not in spec.mode or (spec.mode["train"] is not None and config.method == "ums"):
        return spec
    notes: tuple[str, ...] = ()
    trains = config.method == "ums"
    if trains and config.keep != "network":
        width = first_width(config.features) if spec.pair is None else spec.pair.first.dim
        trains, why = advise_training(n_images, width)
        notes = () if trains else (f"no network was trained: {why}; to train all the same: --train always",)
    return replace(spec, mode={**spec.mode, "train": trains}, notes=notes)


def advise_training(n_images: int, width: int) -> tuple[bool, str]:
    """Whether a trained network may add to its pseudo-labels: ViT features and at least 100 images.

    Without weights nothing was gained on any set; with a ViT nothing in the mean over sets of 10 to 98 images, and
    larger ones were not measured: docs/accuracy.md.

    Parameters
    ----------
    n_images : int
    width : int
        Token width of the first stream; 0 for features without weights, see `umscosod.estimate.first_width`.

    Returns
    -------
    pays : bool
    why : str
        The reason, in words.
    """
    if not width:
        return False, "with features without weights training adds nothing (mean IoU .646 with it, .651 without)"
    if n_images < _TRAINING_PAYS_FROM:
        return False, f"these are {n_images} images, and on sets below {_TRAINING_PAYS_FROM} the mean gain was nil"
    return True, "a network learns from the masks found so far and may better them"


def named_files(config: PipelineConfig) -> list[Path]:
    """Files that the settings name."""
    names = (config.pseudo.detections, config.pseudo.detections_images)
    return [Path(name) for name in (*names, config.features.weights, config.features.second_weights) if name]


def resolve_names(config: PipelineConfig, first: str, second: str) -> PipelineConfig:
    """Put the names of the backbones in the place of ``auto``."""
    if config.features.backbone != AUTO:
        return config
    return replace(config, features=replace(config.features, backbone=first, second_backbone=second))


def deciding_settings(config: PipelineConfig) -> dict[str, Any]:
    """Settings that can change a result, as plain values: equal ones give equal results on one machine."""
    values = config_to_dict(config)
    for *sections, name in _NO_EFFECT:
        section = values
        for part in sections:
            section = section[part]
        del section[name]
    return values


def find_finished(groups: tuple[ImageGroup, ...], spec: JobSpec) -> LabelReport | None:
    """Take the report of a job that is finished; nothing is built, encoded or written.

    Returns
    -------
    LabelReport or None
        None where the folder holds no finished job of this version and these very settings, weights, images, instance
        masks, pseudo-labels and maps; where an image had failed; or where a result is missing or damaged.

    Raises
    ------
    UmscosodError
        As `umscosod.pipeline.setup.prepare`.
    """
    started, out, config = time.monotonic(), spec.out, spec.config
    if not (out / "run" / FINISHED).is_file():
        return None
    if spec.pair is None:
        (first, first_id), (second, second_id) = identify_backbones(config.features, resolve_device(config.device))
        spec = replace(spec, config=resolve_names(config, first, second))
    else:
        first_id, second_id = spec.pair.first.id, spec.pair.second.id
    hashes = {"images": hash_files(image.path for group in groups for image in group.images)}
    if spec.mode["verb"] == "label" and config.method not in BASELINES:
        hashes |= {"instances": hash_instances(config), "pseudo-labels": hash_labels(out / "pseudo", groups)}
    hashes |= {"maps": spec.stored_hash} if spec.stored_hash else {}
    with lock_folder(out):
        try:
            record = read_json(out / "run" / FINISHED)
            rows = tuple(build_row(row) for row in record["rows"])
            notes = tuple(str(note) for note in record["notes"])
            sizes_hw = [(int(height), int(width)) for height, width in record["sizes"]]
            is_same = record["job"] == identify_job(groups, spec, (first_id, second_id), hashes)
        except (DataError, TypeError, KeyError, ValueError):
            return None
        if not (is_same and all((out / name).is_file() for name in OWN_FILES) and are_whole(out, rows, sizes_hw)):
            return None
    return LabelReport(rows=rows, out=out, notes=notes, seconds=time.monotonic() - started)


def identify_job(
    groups: Sequence[ImageGroup], spec: JobSpec, backbone_ids: tuple[str, str], hashes: Mapping[str, str]
) -> str:
    """Hash everything that decides the results of a job; `hashes` are those of files, taken before they were read."""
    content = {
        "version": __version__,
        "mode": dict(spec.mode),
        "config": deciding_settings(spec.config),
        "backbones": list(backbone_ids),
        "images": [[group.name, image.id, image.output] for group in groups for image in group.images],
        "hashes": dict(hashes),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def are_whole(out: Path, rows: Sequence[Labelled], sizes_hw: Sequence[tuple[int, int]]) -> bool:
    """Whether each image has its mask and map: PNGs, of its size, that begin and end as such (`is_whole_png`)."""
    return len(rows) == len(sizes_hw) and all(
        is_whole_png(f"{out}/{tree}/{row.output}", size_hw)
        for row, size_hw in zip(rows, sizes_hw, strict=True)
        for tree in ("masks", "maps")
    )


def read_sizes(images: Iterable[ImageRef]) -> list[tuple[int, int]] | None:
    """Height and width of each image, see `read_upright_size`; None where one is gone or damaged."""
    try:
        return [read_upright_size(image.path)[0] for image in images]
    except DataError:
        return None


def hash_files(files: Iterable[str | Path]) -> str:
    """Hash what files hold, in their order; one that cannot be read counts as empty."""
    return hash_texts([hash_file(file) for file in files])


def hash_file(file: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal; empty where it cannot be read."""
    try:
        with open_regular(file) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return ""


def hash_instances(config: PipelineConfig) -> str:
    """Hash the files of instance masks."""
    wanted = config.pseudo.proposer == "coco-json"
    names = (config.pseudo.detections, config.pseudo.detections_images) if wanted else ()
    return hash_files(Path(name) for name in names if name)


def hash_labels(folder: Path, groups: Sequence[ImageGroup]) -> str:
    """Hash the pseudo-labels of some groups."""
    look = cache(lambda parent: path_inside(folder, f"{parent}name").parent)  # at each folder once, not for each image
    parts = (image.output.rpartition("/") for group in groups for image in group.images)
    return hash_files([folder / MANIFEST_NAME, *(f"{look(parent + slash)}/{name}" for parent, slash, name in parts)])


def hash_texts(texts: Sequence[str]) -> str:
    """Hash some texts in their order."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()
