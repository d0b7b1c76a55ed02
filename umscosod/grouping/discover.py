"""From a folder of pictures in no order to groups of images that show the same kind of thing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from umscosod.config import GroupingConfig, PipelineConfig
from umscosod.config_io import DEFAULT_PRESET, load_config, validate_config
from umscosod.config_schema import check_section
from umscosod.data.csv_list import groups_from_images
from umscosod.errors import DataError
from umscosod.grouping.check import GroupCheck, check_group
from umscosod.grouping.cluster import LEFT_OVER, check_count, cluster_vectors
from umscosod.grouping.embed import ImageVectors, embed_images, encoded_collection
from umscosod.progress import ProgressFn, ignore_progress
from umscosod.types import ImageGroup, ImageRef

Images = str | Path | Sequence[ImageGroup]


@dataclass(frozen=True, kw_only=True, slots=True)
class Grouping:
    """A proposal how to group a collection.

    Attributes
    ----------
    groups : tuple of ImageGroup
        Named ``group-01`` and so on: the largest first, of equals the one with the earlier image.
    checks : tuple of GroupCheck
        Of each group: size, cohesion, and whether it is small or no more alike than chance.
    leftover : tuple of ImageRef
        Images like no group.
    failures : dict of str to str
        Reason by image id, of images that could not be read.
    separation : float
        Mean silhouette, in [-1, 1]; NaN where there is one group.
    notes : tuple of str
        Which features were used, and why.
    """

    groups: tuple[ImageGroup, ...]
    checks: tuple[GroupCheck, ...]
    leftover: tuple[ImageRef, ...] = ()
    failures: dict[str, str] = field(default_factory=dict)
    separation: float = math.nan
    notes: tuple[str, ...] = ()


def discover_groups(
    images: Images,
    *,
    n_groups: int | None = None,
    config: PipelineConfig | None = None,
    grouping: GroupingConfig | None = None,
    progress: ProgressFn = ignore_progress,
) -> Grouping:
    """Find groups in an unsorted collection.

    Parameters
    ----------
    images : path or sequence of ImageGroup
        A folder, searched at any depth, or a ``.csv`` list. Groups that these have play no part; an image that is in
        several is taken once.
    n_groups : int, optional
        None: chosen; see `umscosod.grouping.cluster.cluster_vectors`.
    config : PipelineConfig, optional
        For seed, device, image limits and features; the ``fast`` preset by default.
    grouping : GroupingConfig, optional
    progress : callable
        Stages ``features`` and ``embed``.

    Returns
    -------
    Grouping
        The same images, settings and machine give the same groups.

    Raises
    ------
    ConfigError
        A setting is wrong, or there is no such number of groups.
    DataError
        There are no images, or none can be read.
    WeightsError
        Weights that were asked for are missing.
    """
    config = load_config(DEFAULT_PRESET) if config is None else config
    grouping = grouping or GroupingConfig()
    validate_config(config)
    check_section(grouping, "grouping")
    collection = ImageGroup(name="collection", images=_flatten(images))
    if n_groups is not None:  # before all are encoded
        check_count(len(collection.images), grouping, n_groups)
    with encoded_collection([collection], config, progress=progress) as features:
        vectors = embed_images(features, grouping, progress=progress)
    if not vectors.images:
        raise DataError(f"none of the {len(collection.images)} images can be read; check the files")
    found = group_vectors(vectors, n_groups=n_groups, grouping=grouping, seed=config.seed)
    return replace(found, notes=features.pair.notes)


def group_vectors(
    vectors: ImageVectors, *, n_groups: int | None = None, grouping: GroupingConfig | None = None, seed: int = 0
) -> Grouping:
    """Find groups among images that are encoded; see `discover_groups`."""
    result = cluster_vectors(vectors.vectors_NE, grouping or GroupingConfig(), n_groups=n_groups, seed=seed)
    members = [np.flatnonzero(result.labels_N == label) for label in range(int(result.labels_N.max()) + 1)]
    width = max(2, len(str(len(members))))
    groups = tuple(
        ImageGroup(name=f"group-{number:0{width}d}", images=tuple(vectors.images[row] for row in rows))
        for number, rows in enumerate(members, start=1)
    )
    return Grouping(
        groups=groups,
        checks=tuple(
            check_group(vectors.vectors_NE[rows], vectors.vectors_NE, grouping, seed=seed) for rows in members
        ),
        leftover=tuple(vectors.images[row] for row in np.flatnonzero(result.labels_N == LEFT_OVER)),
        failures=vectors.failures,
        separation=result.separation,
    )


def _flatten(images: Images) -> tuple[ImageRef, ...]:
    """All images once, in order of the groups."""
    groups = groups_from_images(images) if isinstance(images, str | Path) else list(images)
    once = {image.path: image for group in reversed(groups) for image in reversed(group.images)}
    found = tuple(reversed(once.values()))
    if not found:
        raise DataError("no images to group; give at least one ImageGroup")
    return found
