"""Find groups in an unsorted collection, check groups that are given, list them."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from umscosod.config import GroupingConfig, PipelineConfig
from umscosod.config.io import DEFAULT_PRESET, load_config, validate_config
from umscosod.config.schema import check_section
from umscosod.data.files import check_place, open_atomic
from umscosod.data.groups import groups_from_images
from umscosod.device import numpy_generator
from umscosod.errors import DataError, count_of
from umscosod.features.collection import FeatureCollection
from umscosod.grouping.cluster import (
    LEFT_OVER,
    ImageVectors,
    check_count,
    cluster_vectors,
    cohesion_of,
    embed_images,
    encoded_collection,
)
from umscosod.progress import ProgressFn, ignore_progress
from umscosod.types import FloatArray, ImageGroup, ImageRef

# When a group is called mixed: where the lower quartile of its pairs is no higher than this quantile of random draws'.
MIXED_QUANTILE = 0.95
MIXED_DRAWS = 200
MIXED_IMAGES = 200  # of a draw at most: what chance gives so many changes little; time grows with their square


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupCheck:
    """What can be said of a group without looking at a label.

    Attributes
    ----------
    size : int
        Images that could be read.
    cohesion : float
        Mean cosine over pairs, in [-1, 1]; 0 is what any two images of the collection have. NaN for one image.
    is_small : bool
        Fewer than `GroupingConfig.min_size`: little recurs.
    is_mixed : bool
        No more alike than chance. False where that cannot be told.
    reason : str
        In words; ``""`` where nothing is wrong.
    """

    size: int
    cohesion: float
    is_small: bool
    is_mixed: bool
    reason: str


def check_group(
    members_NE: FloatArray, collection_ME: FloatArray, config: GroupingConfig | None = None, *, seed: int = 0
) -> GroupCheck:
    """Compare the pairs of a group with those of as many images drawn at random from the collection.

    Objects share no measure of likeness that holds for all features and things; what chance gives in this collection
    does. The lower quartile of the pairs' cosines is compared, not their mean: where three things are thrown together,
    a third of the pairs show one thing, and lift the mean above chance. Of a group that is more than half of the
    collection this says nothing, as every draw is mostly that group.

    Parameters
    ----------
    members_NE : ndarray, float, (N, E)
        Rows of `embed_images` of the group.
    collection_ME : ndarray, float, (M, E)
        Rows of the whole collection, the group's among them.
    config : GroupingConfig, optional
        ``min_size``.
    seed : int
        Of the draws.

    Returns
    -------
    GroupCheck

    References
    ----------
    A one-sided permutation test: Good, "Permutation, Parametric and Bootstrap Tests of Hypotheses", 2005
    (DOI 10.1007/b138696).

    Examples
    --------
    >>> cats, dogs = np.repeat([[1.0, 0.0]], 6, 0), np.repeat([[-1.0, 0.0]], 6, 0)
    >>> everything = np.concatenate([cats, dogs])
    >>> check_group(cats, everything).is_mixed, check_group(everything[3:9], everything).reason
    (False, 'no more alike than images drawn at random')
    """
    config = config or GroupingConfig()
    size, cohesion = len(members_NE), cohesion_of(members_NE)
    is_small = size < config.min_size
    looked_at = min(size, MIXED_IMAGES)
    is_mixed = 1 < size <= len(collection_ME) / 2 and _lower_quartile(
        members_NE[_rng(seed, size).choice(size, looked_at, replace=False)]
    ) <= _chance(looked_at, collection_ME, seed)
    reasons = []
    if is_small:
        reasons.append(f"{count_of(size, 'image')} only")
    if is_mixed:
        reasons.append("no more alike than images drawn at random")
    return GroupCheck(
        size=size, cohesion=cohesion, is_small=is_small, is_mixed=bool(is_mixed), reason="; ".join(reasons)
    )


def check_groups(
    features: FeatureCollection,
    config: GroupingConfig | None = None,
    *,
    members: Mapping[str, Sequence[str]] | None = None,
    progress: ProgressFn = ignore_progress,
) -> dict[str, GroupCheck]:
    """Check every group of a collection against the collection.

    Parameters
    ----------
    features : FeatureCollection
    config : GroupingConfig, optional
    members : mapping of str to sequence of str, optional
        Image ids by name of group; by default the collection's own groups.
    progress : callable
        Stage ``embed``.

    Returns
    -------
    dict of str to GroupCheck
        By name of group. A group none of whose images can be read has size 0 and counts as small.
    """
    vectors = embed_images(features, progress=progress)
    row_of = {image.id: row for row, image in enumerate(vectors.images)}
    if members is None:
        members = {group.name: [image.id for image in group.images] for group in features.groups}
    return {
        name: check_group(
            vectors.vectors_NE[[row_of[each] for each in ids if each in row_of]],
            vectors.vectors_NE,
            config,
            seed=features.config.seed,
        )
        for name, ids in members.items()
    }


def _chance(size: int, collection_ME: FloatArray, seed: int) -> float:
    """Quantile, over random draws of `size` images, of what `_lower_quartile` gives."""
    rng = _rng(seed, size)
    drawn = (rng.choice(len(collection_ME), size, replace=False) for _ in range(MIXED_DRAWS))
    value = float(np.quantile([_lower_quartile(collection_ME[rows]) for rows in drawn], MIXED_QUANTILE))
    return value if math.isfinite(value) else -1.0


def _lower_quartile(vectors_NE: FloatArray) -> float:
    """Lower quartile of the cosines of all pairs; of two images or more."""
    wide = np.asarray(vectors_NE, np.float64)
    cosines_NN = wide @ wide.T
    return float(np.quantile(cosines_NN[np.triu_indices(len(wide), 1)], 0.25))


def _rng(seed: int, size: int) -> np.random.Generator:
    return numpy_generator(seed, "grouping", "check", size)


def write_groups_csv(groups: Sequence[ImageGroup], path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write the columns ``path`` and ``group``, which `umscosod.data.groups.groups_from_csv` reads.

    Parameters
    ----------
    groups : sequence of ImageGroup
    path : path
        UTF-8. Images in its folder or below are named relative to it, so that both can be moved together; others by
        their absolute path.
    overwrite : bool
        Replace a file that is there: a person may have corrected it.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    DataError
        The file is there, cannot be written, or an image's name is no text that UTF-8 can hold.
    """
    check_listable(groups, path)
    path = Path(path).expanduser()
    check_place(path.parent)
    if path.exists() and not overwrite:
        raise DataError(f"{path} is there, and may hold somebody's corrections; choose another name, or overwrite it")
    home = path.resolve().parent
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    careful = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(("path", "group"))
    for group in groups:
        for image in group.images:
            row = (image.address or _name_from(home, image.path), group.name)
            # a carriage return ends a line for readers too, and only line feeds are quoted without being told
            (careful if any("\r" in value for value in row) else writer).writerow(row)
    with open_atomic(path) as file:
        file.write(text.getvalue().encode())
    return path


def check_listable(groups: Sequence[ImageGroup], path: str | os.PathLike[str]) -> None:
    """Refuse images whose names no list at `path` can hold: ask before the work, not only after it.

    Raises
    ------
    DataError
        A name is not valid UTF-8. Of how many, and one of them, is said.
    """
    home = Path(path).expanduser().resolve().parent
    names = [_name_from(home, image.path) for group in groups for image in group.images]
    unfit = [name for name in names if any("\udc80" <= letter <= "\udcff" for letter in name)]
    if unfit:
        raise DataError(
            f"{path}: a list is UTF-8, and {len(unfit)} names of images are not valid UTF-8, such as {unfit[0]!r}; "
            "rename the files or their folders"
        )


def _name_from(home: Path, image: Path) -> str:
    absolute = Path(os.path.abspath(image))  # noqa: PTH100 - resolve() would rename linked files
    return absolute.relative_to(home).as_posix() if absolute.is_relative_to(home) else absolute.as_posix()


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
        vectors = embed_images(features, progress=progress)
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
