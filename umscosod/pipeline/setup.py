"""Before the first stage: groups found, settings checked, finished jobs known again, the output folder claimed."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umscosod import __version__
from umscosod.baselines import BASELINES
from umscosod.config import PipelineConfig
from umscosod.config.io import DEFAULT_PRESET, config_to_dict, load_config, validate_config
from umscosod.data.files import (
    GUARDED,
    LONGEST_PATH,
    OWN_FILES,
    OWN_FOLDERS,
    check_place,
    lock_folder,
    read_json,
    real_path,
)
from umscosod.data.folders import refuse_images_in
from umscosod.data.groups import groups_from_images
from umscosod.data.images import check_regular
from umscosod.device import resolve_device
from umscosod.errors import ConfigError, DataError
from umscosod.estimate import advise_training, first_width
from umscosod.export.report import build_row
from umscosod.features.backbone import AUTO, Backbone, BackbonePair, build_backbones, identify_backbones, pair_backbones
from umscosod.features.cache import open_cache
from umscosod.features.collection import FeatureCollection
from umscosod.features.group import Whitening
from umscosod.pipeline.job import (
    FINISHED,
    JobFolder,
    are_whole,
    hash_files,
    hash_instances,
    hash_labels,
    hash_texts,
)
from umscosod.progress import ProgressFn
from umscosod.pseudo.proposals import CocoProposer
from umscosod.types import ImageGroup, ImageRef, Labelled, LabelReport, Status

if TYPE_CHECKING:
    import torch

Images = str | Path | Sequence[ImageGroup]

_SHOWN = 100  # letters of a name that is too long
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

logger = logging.getLogger(__name__)


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
    """

    out: Path
    config: PipelineConfig
    mode: Mapping[str, Any]
    pair: BackbonePair | None = None
    stored: Mapping[str, Path] = field(default_factory=dict)
    stored_hash: str = ""
    notes: tuple[str, ...] = ()


def specify(
    out: str | Path,
    config: PipelineConfig | None,
    verb: str,
    *,
    backbones: tuple[Backbone, Backbone] | None = None,
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
    pair = None if backbones is None else pair_backbones(*backbones)
    return JobSpec(out=Path(out), config=config, mode={"verb": verb, **mode}, pair=pair)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """Everything the stages need.

    Attributes
    ----------
    spec : JobSpec
        As asked for.
    groups : tuple of ImageGroup
        As asked for, unusable images included.
    features : FeatureCollection
        Of the usable images.
    config : PipelineConfig
        Resolved: no ``auto`` left.
    job : JobFolder
    hashes : dict of str to str
        Of the files that the job reads, each taken before they are read.
    device : torch.device
    notes : tuple of str
    detections : CocoProposer or None
        Where instance masks are wanted and are to come from a file.
    """

    spec: JobSpec
    groups: tuple[ImageGroup, ...]
    features: FeatureCollection
    config: PipelineConfig
    job: JobFolder
    hashes: dict[str, str]
    device: torch.device
    notes: tuple[str, ...]
    detections: CocoProposer | None = None

    def failed_rows(self) -> list[Labelled]:
        """One row for every image that could not be encoded."""
        return [
            Labelled(
                image_id=image.id,
                group=group.name,
                output=image.output,
                status=Status.FAILED,
                reason=self.features.failures[image.id],
            )
            for group in self.groups
            for image in group.images
            if image.id in self.features.failures
        ]


def settle_training(spec: JobSpec, groups: Sequence[ImageGroup]) -> JobSpec:
    """Where nobody said whether to train, do so where it pays; only the whole method trains."""
    config = spec.config
    if "train" not in spec.mode or (spec.mode["train"] is not None and config.method == "ums"):
        return spec
    notes: tuple[str, ...] = ()
    trains = config.method == "ums"
    if trains and config.keep != "network":
        width = first_width(config.features) if spec.pair is None else spec.pair.first.dim
        trains, why = advise_training(sum(len(group.images) for group in groups), width)
        notes = () if trains else (f"no network was trained: {why}; to train all the same: --train always",)
    return replace(spec, mode={**spec.mode, "train": trains}, notes=notes)


def find_groups(images: Images, out: Path, *, inputs: Sequence[Path] = ()) -> tuple[ImageGroup, ...]:
    """Take groups as they are, or find them in a folder or a ``.csv`` list; the output folder is left out.

    Parameters
    ----------
    images : path or sequence of ImageGroup
    out : Path
    inputs : sequence of Path
        What else the job reads; pictures below are no images.

    Raises
    ------
    DataError
        There are none, two have one name, the output folder cannot be one, or it holds images, or an input lies where
        results go.
    """
    check_place(out, "job")
    if not isinstance(images, str | Path):
        groups = tuple(images)
    else:
        _refuse_results(Path(images), out)
        if os.path.isdir(images):  # noqa: PTH112 - Path.is_dir raises on some names
            # before the search, which would leave a group's folder out
            refuse_images_in(out, exclude=[*(out / name for name in GUARDED), *inputs, Path(images)])
        groups = tuple(groups_from_images(images, exclude=[out]))
    _refuse_inputs(groups, out, inputs)
    if not groups:
        raise DataError("no groups to work on; give at least one ImageGroup")
    everything = [image for group in groups for image in group.images]
    _refuse_long_paths(everything, out)
    for what, names in (
        ("group name", [group.name for group in groups]),
        ("image id", [image.id for image in everything]),
        ("output", [image.output for image in everything]),
    ):
        name, count = Counter(names).most_common(1)[0]
        if count > 1:
            raise DataError(
                f"{what} {name!r} occurs {count} times; every group, image and output needs a name of its own"
            )
    return groups


def _refuse_long_paths(images: Sequence[ImageRef], out: Path) -> None:
    """A group's name may be as long as a path, and then no path is left for its results."""
    long = [image for image in images if len(os.fsencode(out / "pseudo" / image.output)) > LONGEST_PATH]
    if long:
        raise DataError(
            f"{len(long)} results would have paths of more than {LONGEST_PATH} bytes below --out, such as that of "
            f"{long[0].id[:_SHOWN]}...; give the group a shorter name, or nest its folders less deeply"
        )


def _refuse_results(images: Path, out: Path) -> None:
    """Images must not lie where results go: a second run would take results for images, or clear images away."""
    root, place = real_path(images), real_path(out)
    if root == place or any(root.is_relative_to(real_path(place / name)) for name in GUARDED):
        raise DataError(f"{images} cannot be searched for images and hold the results too; choose another --out")


def _refuse_inputs(groups: Sequence[ImageGroup], out: Path, others: Sequence[Path]) -> None:
    """No input may lie, or be linked from, where results go; and no folder of images may become one of results."""
    place, inside = real_path(out), []
    for path in others:
        if any(real_path(path).is_relative_to(real_path(out / name)) for name in OWN_FOLDERS):
            raise DataError(f"{path} lies among the results in {out}, which this job replaces; choose another --out")
    results = [real_path(out / name) for name in GUARDED]
    for image in (image for group in groups for image in group.images):
        real = real_path(image.path)
        if any(real.is_relative_to(folder) for folder in results):
            raise DataError(f"the image {image.path} lies among the results in {out}; choose another --out")
        inside += [real.parent] if real.is_relative_to(place) else []
    roots = [Path(os.path.commonpath(inside))] if inside else []
    refuse_images_in(out, exclude=[*(out / name for name in GUARDED), *others, *roots])


@contextmanager
def prepare(
    groups: tuple[ImageGroup, ...],
    spec: JobSpec,
    *,
    overwrite: bool,
    progress: ProgressFn,
    whitenings: Mapping[str, Whitening] | None = None,
    admit: Callable[[BackbonePair], object] = lambda pair: None,
    wants_masks: bool = False,
) -> Iterator[Prepared]:
    """Choose, claim and encode; see `Prepared`.

    Parameters
    ----------
    groups : tuple of ImageGroup
        See `find_groups`.
    spec : JobSpec
    overwrite : bool
    progress : callable
    whitenings : mapping, optional
        Of a checkpoint.
    admit : callable
        Sees the backbones before anything is written or encoded, and may raise.
    wants_masks : bool
        Pseudo-labels will be made: a file of instance masks is read now, before hours of work.

    Raises
    ------
    UmscosodError
        Whatever is wrong at the door: detections, weights, an output folder of other results, or one that another job
        is working on.
    """
    config, pair = spec.config, spec.pair
    hashes = {"instances": hash_instances(config)} if wants_masks else {}
    hashes |= {"maps": spec.stored_hash} if spec.stored_hash else {}
    detections = _read_detections(config, groups) if wants_masks else None
    device = resolve_device(config.device)
    if pair is None:
        pair = build_backbones(config.features, device)
        config = resolve_names(config, pair.first.name, pair.second.name)
    admit(pair)
    config = replace(config, device=str(device))
    settings = {**spec.mode, "config": deciding_settings(config), "backbones": [pair.first.id, pair.second.id]}
    with lock_folder(spec.out), open_cache(config.features.cache_dir, use_cache=config.features.use_cache) as cache:
        job = JobFolder(spec.out, settings, overwrite=overwrite)
        if detections is not None:
            job.bind_detections(detections.sha256)
        features = FeatureCollection(groups, pair, config, cache, whitenings=whitenings, progress=progress)
        job.bind_images(groups, features.sha256)
        if spec.stored_hash:
            job.bind_maps(spec.stored_hash)
        yield Prepared(
            spec=spec,
            groups=groups,
            features=features,
            config=config,
            job=job,
            hashes=hashes | {"images": hash_texts(list(features.sha256.values()))},
            device=device,
            notes=(*spec.notes, *pair.notes, *_notes_on_groups(features.groups)),
            detections=detections,
        )


def _read_detections(config: PipelineConfig, groups: Sequence[ImageGroup]) -> CocoProposer | None:
    """Read the file of instance masks, if the settings want one; say so where one is named in vain."""
    if config.pseudo.proposer != "coco-json":
        if config.pseudo.detections:
            logger.warning(
                "pseudo.detections %s is not used: pseudo.proposer is %s; set it to coco-json",
                config.pseudo.detections,
                config.pseudo.proposer,
            )
        return None
    check_detections(config)
    images = [image for group in groups for image in group.images]
    return CocoProposer(Path(config.pseudo.detections), config.pseudo, images)


def check_detections(config: PipelineConfig) -> None:
    """Refuse settings that want instance masks from a file, and name none or one that is not there.

    Raises
    ------
    ConfigError, DataError
    """
    if config.pseudo.proposer != "coco-json":
        return
    file = config.pseudo.detections
    if not file:
        raise ConfigError(
            "pseudo.detections is empty: give the COCO-format file of masks, or set pseudo.proposer to hac"
        )
    try:
        check_regular(Path(file), "a COCO-format file")
    except DataError as error:
        raise DataError(f"pseudo.detections: {error}") from None


def named_files(config: PipelineConfig) -> list[Path]:
    """Files that the settings name."""
    names = (config.pseudo.detections, config.pseudo.detections_images)
    return [Path(name) for name in (*names, config.features.weights, config.features.second_weights) if name]


def resolve_names(config: PipelineConfig, first: str, second: str) -> PipelineConfig:
    """Put the names of the backbones in the place of ``auto``."""
    if config.features.backbone != AUTO:
        return config
    return replace(config, features=replace(config.features, backbone=first, second_backbone=second))


def _notes_on_groups(groups: Sequence[ImageGroup]) -> list[str]:
    return [
        f"group {group.name!r} has one image: it is labelled by itself, nothing else says what recurs"
        for group in groups
        if len(group.images) == 1
    ]


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
            is_same = record["job"] == identify_job(groups, spec, (first_id, second_id), hashes)
        except (DataError, TypeError, KeyError):
            return None
        everything = (image for group in groups for image in group.images)
        if not (is_same and all((out / name).is_file() for name in OWN_FILES) and are_whole(out, everything)):
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
