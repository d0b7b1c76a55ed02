"""Before the first stage: groups found, settings checked, backbones chosen, the output folder claimed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umscosod.config import PipelineConfig
from umscosod.config_io import DEFAULT_PRESET, config_to_dict, load_config, validate_config
from umscosod.data.groups import groups_from_csv, groups_from_folder
from umscosod.device import resolve_device
from umscosod.errors import DataError
from umscosod.features.cache import FeatureCache
from umscosod.features.collection import FeatureCollection
from umscosod.features.registry import AUTO, build_backbones
from umscosod.features.whitening import Whitening
from umscosod.pipeline.job import JobFolder
from umscosod.progress import ProgressFn
from umscosod.types import ImageGroup, Labelled, Status

if TYPE_CHECKING:
    import torch

Images = str | Path | Sequence[ImageGroup]

_NO_EFFECT = (  # settings that change neither masks nor maps on the CPU
    ("device",),
    ("features", "batch_size"),
    ("features", "cache_dir"),
    ("features", "use_cache"),
    ("features", "allow_download"),
    ("features", "weights"),  # their hash is in the backbone's id
    ("features", "second_weights"),
    ("refine", "crf", "workers"),
    ("train", "checkpoint_every"),
    ("train", "keep_checkpoints"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """Everything the stages need.

    Attributes
    ----------
    groups : tuple of ImageGroup
        As asked for, unusable images included.
    features : FeatureCollection
        Of the usable ones.
    config : PipelineConfig
        Resolved: no ``auto`` left.
    job : JobFolder
    device : torch.device
    notes : tuple of str
    """

    groups: tuple[ImageGroup, ...]
    features: FeatureCollection
    config: PipelineConfig
    job: JobFolder
    device: torch.device
    notes: tuple[str, ...]

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


def find_groups(images: Images, out: Path) -> tuple[ImageGroup, ...]:
    """Take groups as they are, or find them in a folder or a ``.csv`` list; the output folder is left out.

    Raises
    ------
    DataError
        There are none, or two have one name.
    """
    if not isinstance(images, str | Path):
        groups = tuple(images)
    elif Path(images).suffix.lower() == ".csv" and Path(images).is_file():
        groups = tuple(groups_from_csv(images))
    else:
        groups = tuple(groups_from_folder(images, exclude=[out]))
    if not groups:
        raise DataError("no groups to work on; give at least one ImageGroup")
    for what, names in (
        ("group name", [group.name for group in groups]),
        ("output", [image.output for group in groups for image in group.images]),
    ):
        twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        if twice:
            raise DataError(f"{what} {twice[0]!r} occurs twice; every group and every output needs a name of its own")
    return groups


@contextmanager
def prepare(
    images: Images,
    out: str | Path,
    config: PipelineConfig | None,
    *,
    mode: Mapping[str, Any],
    overwrite: bool,
    progress: ProgressFn,
    whitenings: Mapping[str, Whitening] | None = None,
) -> Iterator[Prepared]:
    """Check, choose, claim and encode; see `Prepared`.

    Parameters
    ----------
    images : path or sequence of ImageGroup
    out : path
    config : PipelineConfig or None
        None: the ``fast`` preset.
    mode : mapping
        What else decides the results: the verb, the checkpoint's hash.
    overwrite : bool
    progress : callable
    whitenings : mapping, optional
        Of a checkpoint.

    Raises
    ------
    UmscosodError
        Whatever is wrong at the door: settings, images, weights, or an output folder in use.
    """
    config = load_config(DEFAULT_PRESET) if config is None else config
    validate_config(config)
    out = Path(out)
    groups = find_groups(images, out)
    device = resolve_device(config.device)
    pair = build_backbones(config.features, device)
    config = replace(config, device=str(device))
    if config.features.backbone == AUTO:
        chosen = replace(config.features, backbone=pair.first.name, second_backbone=pair.second.name)
        config = replace(config, features=chosen)
    settings = {**mode, "config": _deciding(config), "backbones": [pair.first.id, pair.second.id]}
    job = JobFolder(out, settings, overwrite=overwrite)
    with tempfile.TemporaryDirectory() as scratch:
        folder = config.features.cache_dir or None if config.features.use_cache else scratch
        cache = FeatureCache(Path(folder) if folder else None)
        features = FeatureCollection(groups, pair, config, cache, whitenings=whitenings, progress=progress)
        job.bind_images(groups, features.sha256)
        notes = list(pair.notes)
        notes += [
            f"group {group.name!r} has one image: it is labelled by itself, nothing else says what recurs"
            for group in features.groups
            if len(group.images) == 1
        ]
        yield Prepared(groups=groups, features=features, config=config, job=job, device=device, notes=tuple(notes))


def _deciding(config: PipelineConfig) -> dict[str, Any]:
    """Settings that can change a result."""
    values = config_to_dict(config)
    for *sections, name in _NO_EFFECT:
        section = values
        for part in sections:
            section = section[part]
        del section[name]
    return values
