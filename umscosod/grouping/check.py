"""Is a group one? Too small, or no more alike than images drawn at random from the same collection."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from umscosod.config import GroupingConfig
from umscosod.features.collection import FeatureCollection
from umscosod.grouping.cluster import cohesion_of
from umscosod.grouping.embed import embed_images
from umscosod.progress import ProgressFn, ignore_progress
from umscosod.seed import numpy_generator
from umscosod.types import FloatArray
from umscosod.words import count_of


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
        ``min_size`` and the settings that begin with ``mixed``.
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
    looked_at = min(size, config.mixed_images)
    is_mixed = 1 < size <= len(collection_ME) / 2 and _lower_quartile(
        members_NE[_rng(seed, size).choice(size, looked_at, replace=False)]
    ) <= _chance(looked_at, collection_ME, config, seed)
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
    vectors = embed_images(features, config, progress=progress)
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


def _chance(size: int, collection_ME: FloatArray, config: GroupingConfig, seed: int) -> float:
    """Quantile, over random draws of `size` images, of what `_lower_quartile` gives."""
    rng = _rng(seed, size)
    drawn = (rng.choice(len(collection_ME), size, replace=False) for _ in range(config.mixed_draws))
    value = float(np.quantile([_lower_quartile(collection_ME[rows]) for rows in drawn], config.mixed_quantile))
    return value if math.isfinite(value) else -1.0


def _lower_quartile(vectors_NE: FloatArray) -> float:
    """Lower quartile of the cosines of all pairs; of two images or more."""
    wide = np.asarray(vectors_NE, np.float64)
    cosines_NN = wide @ wide.T
    return float(np.quantile(cosines_NN[np.triu_indices(len(wide), 1)], 0.25))


def _rng(seed: int, size: int) -> np.random.Generator:
    return numpy_generator(seed, "grouping", "check", size)
