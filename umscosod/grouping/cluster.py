"""Images as vectors, and clusters of them.

All similarities are cosines of unit vectors, so that means over pairs follow from sums of vectors: nothing but the
sample's distances grows with the square of the collection.

Legend: ``N`` images of the collection, ``P`` patches, ``D`` token width, ``E`` width of a vector, ``K`` groups.
Labels are ``0 .. K - 1``, and -1 for left over.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import pdist

from umscosod.config import GroupingConfig, PipelineConfig
from umscosod.device import numpy_generator, resolve_device
from umscosod.errors import ConfigError, DataError, count_of
from umscosod.features.backbone import build_backbones
from umscosod.features.cache import open_cache
from umscosod.features.collection import FeatureCollection, encode_collection
from umscosod.features.group import fit_whitening, saliency_from_attention
from umscosod.features.remote import fetch_copies
from umscosod.progress import ProgressFn, ignore_progress
from umscosod.types import FloatArray, ImageGroup, ImageRef

logger = logging.getLogger(__name__)

SHRINKAGE = 0.1  # of the whitening of tokens, in mean variances: what all images share must not drown the rest
SAMPLE_IMAGES = 3000  # in the tree; of more a random sample, to whose groups the others are assigned. They take 40 MB
# Where their number is chosen: the fewest groups whose mean silhouette reaches this share of the best. At 1, the best
# itself, there tend to be many small groups.
ENOUGH_SEPARATION = 0.8
ROUNDS = 10  # reassignments of all images to the nearest group after the cut, at most
_STREAMS = (0, 1)
_ROUNDING = 1e-6  # of a vector's length: what is shorter says nothing of the image


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageVectors:
    """A collection's images as points on a sphere.

    Attributes
    ----------
    images : tuple of ImageRef
        Of all groups, in order; only those whose features could be read.
    vectors_NE : ndarray, float32, (N, E)
        Rows of unit length, or zero for an image that says nothing. Their cosine is the mean over the streams.
    failures : dict of str to str
        Reason by image id.
    """

    images: tuple[ImageRef, ...]
    vectors_NE: FloatArray
    failures: dict[str, str] = field(default_factory=dict)


@contextmanager
def encoded_collection(
    groups: Sequence[ImageGroup], config: PipelineConfig, *, progress: ProgressFn = ignore_progress
) -> Iterator[FeatureCollection]:
    """Features of a collection in the cache that the configuration names, or in a passing one.

    Parameters
    ----------
    groups : sequence of ImageGroup
    config : PipelineConfig
        Checked.
    progress : callable
        Stage ``features``.

    Raises
    ------
    UmscosodError
        No weights, an unknown backbone or device, or a full disk.
    """
    pair = build_backbones(config.features, resolve_device(config.device))
    with open_cache(config.features.cache_dir, use_cache=config.features.use_cache) as cache:
        groups, lost = fetch_copies(groups, cache, progress)
        yield encode_collection(groups, pair, config, cache, lost=lost, progress=progress)


def embed_images(features: FeatureCollection, *, progress: ProgressFn = ignore_progress) -> ImageVectors:
    """Describe every image by the mean of its patch tokens, weighted by its attention.

    Tokens are whitened first, by the statistics of all patches of the collection: a few directions carry most of the
    variance of a ViT's tokens and are the same in all pictures. The means are centred over the collection and scaled
    to unit length, per stream; two streams count alike.

    Parameters
    ----------
    features : FeatureCollection
        Its grouping plays no part: every image is looked at by itself.
    progress : callable
        Called once per image and stream as stage ``embed``.

    Returns
    -------
    ImageVectors
        No rows for an empty collection.
    """
    images = [image for group in features.groups for image in group.images]
    failures: dict[str, str] = dict(features.failures)
    done = 0
    means: list[dict[str, FloatArray]] = []

    def iter_tokens(stream: int, found: dict[str, FloatArray]) -> Iterator[FloatArray]:
        """Yield each image's tokens, and note their weighted mean on the way: one pass serves both."""
        nonlocal done
        for image in images:
            progress(done, len(images) * len(_STREAMS), "embed")
            done += 1
            try:
                one = features.load(ImageGroup(name=image.id, images=(image,)))
            except DataError as error:  # vanished or changed since it was encoded
                failures[image.id] = str(error)
                logger.warning("%s: left out: %s", image.id, error)
                continue
            tokens = (one.first, one.second)[stream]
            weights_P = one.saliency_NP[0] if stream == 0 else saliency_from_attention(tokens.attn_NAP[0])
            found[image.id] = pool_tokens(tokens.tokens_NPD[0], weights_P)
            yield tokens.tokens_NPD[0]

    for stream in _STREAMS:
        found: dict[str, FloatArray] = {}
        tokens = iter_tokens(stream, found)
        if (first := next(tokens, None)) is not None:
            whitening = fit_whitening(chain([first], tokens), SHRINKAGE)
            # a mean of whitened tokens is the whitened mean
            found = {name: whitening.apply(mean_D) for name, mean_D in found.items()}
        means.append(found)
    progress(done, len(images) * len(_STREAMS), "embed")
    kept = tuple(image for image in images if all(image.id in found for found in means))
    if not kept:
        return ImageVectors(images=(), vectors_NE=np.zeros((0, 1), np.float32), failures=failures)
    parts = []
    for found in means:
        mean_ND = np.stack([found[image.id] for image in kept]).astype(np.float64)
        parts.append(unit_rows(mean_ND - mean_ND.mean(0)))
    vectors_NE = unit_rows(np.concatenate(parts, 1)).astype(np.float32)
    return ImageVectors(images=kept, vectors_NE=vectors_NE, failures=failures)


def pool_tokens(tokens_PD: FloatArray, weights_P: FloatArray) -> FloatArray:
    """Average tokens by weight; where all weights are zero, plainly.

    Parameters
    ----------
    tokens_PD : ndarray, float, (P, D)
    weights_P : ndarray, float, (P,), >= 0

    Returns
    -------
    ndarray, float64, (D,)

    Examples
    --------
    >>> tokens = np.array([[4.0, 0.0], [0.0, 8.0]])
    >>> pool_tokens(tokens, np.array([3.0, 1.0])).tolist(), pool_tokens(tokens, np.zeros(2)).tolist()
    ([3.0, 2.0], [2.0, 4.0])
    """
    weights = np.asarray(weights_P, np.float64)
    total = weights.sum()
    if total <= 0.0:
        return np.asarray(np.asarray(tokens_PD, np.float64).mean(0))
    return np.asarray(weights @ np.asarray(tokens_PD, np.float64) / total)


def unit_rows(rows_NE: FloatArray) -> FloatArray:
    """Scale rows to unit length; rows of no length stay zero.

    Examples
    --------
    >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    wide = np.asarray(rows_NE, np.float64)
    length_N1 = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.asarray(np.where(length_N1 > _ROUNDING, wide / np.maximum(length_N1, _ROUNDING), 0.0))


Labels = npt.NDArray[np.int64]
LEFT_OVER = -1
# Compared after rounding, so that values that differ by the order of a sum alone tie.
_TIE_DIGITS = 9
_HALF = 0.5  # a squared length is 0 or 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Clustering:
    """Which image belongs where.

    Attributes
    ----------
    labels_N : ndarray, int64, (N,)
        Group of each image, numbered by size (largest first; ties: the one with the earlier image), or -1.
    separation : float
        Mean silhouette of the groups, in [-1, 1]; NaN where there is but one.
    """

    labels_N: Labels
    separation: float


def cluster_vectors(
    vectors_NE: FloatArray, config: GroupingConfig, *, n_groups: int | None = None, seed: int = 0
) -> Clustering:
    """Find groups among unit vectors.

    An average-linkage tree of at most `SAMPLE_IMAGES` vectors is cut where it has the wanted number of branches
    with at least `config.min_size` leaves; their means then take in all other vectors, and move with them for
    `ROUNDS` rounds (spherical k-means).

    Parameters
    ----------
    vectors_NE : ndarray, float, (N, E)
        Rows of unit length, or zero.
    config : GroupingConfig
    n_groups : int, optional
        None: from 2 to `config.max_groups`, the fewest whose mean silhouette in the sample reaches
        `ENOUGH_SEPARATION` of the highest. That one group is enough is never concluded.
    seed : int
        Of the sample.

    Returns
    -------
    Clustering
        As many groups as asked for; each has `config.min_size` images, or as many as the tree allows.

    Raises
    ------
    ConfigError
        There are too few images for so many groups of that size.

    References
    ----------
    Kaufman and Rousseeuw, "Finding Groups in Data", 1990 (DOI 10.1002/9780470316801): average linkage, silhouettes,
    and clustering a sample and assigning the rest.

    Examples
    --------
    >>> rows = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    >>> cluster_vectors(rows, GroupingConfig(min_size=2)).labels_N.tolist()
    [0, 1, 0, 1, 0]
    """
    vectors = np.asarray(vectors_NE, np.float64)
    check_count(len(vectors), config, n_groups)
    if n_groups == 1 or len(vectors) < 2 * config.min_size:
        return Clustering(labels_N=np.zeros(len(vectors), np.int64), separation=float("nan"))
    rows = np.arange(len(vectors))
    if len(rows) > SAMPLE_IMAGES:
        rng = numpy_generator(seed, "grouping", "sample")
        rows = np.sort(rng.choice(len(vectors), SAMPLE_IMAGES, replace=False))
    if n_groups is None:
        cut_S, min_size = _best_cut(vectors[rows], config), config.min_size
    else:
        cut_S, min_size = _cut_into(vectors[rows], n_groups, config)
    start_N = np.full(len(vectors), LEFT_OVER, np.int64)
    start_N[rows] = cut_S
    labels_N = _number_by_size(_settle(vectors, start_N, min_size, config))
    return Clustering(labels_N=labels_N, separation=mean_silhouette(vectors, labels_N))


def check_count(count: int, config: GroupingConfig, n_groups: int | None) -> None:
    """Refuse a number of groups that so many images cannot make.

    Raises
    ------
    ConfigError
    """
    if n_groups is not None and n_groups < 1:
        raise ConfigError(f"the number of groups must be at least 1, got {n_groups}")
    if count < config.min_size * (n_groups or 1):
        wanted = f"{count_of(n_groups or 1, 'group')} of {config.min_size}"
        raise ConfigError(
            f"{count_of(count, 'image makes', 'images make')} no {wanted}; "
            f"ask for fewer groups, or lower grouping.min_size"
        )


def mean_silhouette(vectors_NE: FloatArray, labels_N: Labels) -> float:
    """Mean over images of how much nearer their own group is than the next, exactly and without a distance matrix.

    Parameters
    ----------
    vectors_NE : ndarray, float, (N, E)
        Rows of unit length.
    labels_N : ndarray, int, (N,)
        Images of -1 are left out.

    Returns
    -------
    float
        In [-1, 1], from cosine distances; an image alone in its group counts 0. NaN for fewer than two groups.

    References
    ----------
    Rousseeuw, 1987 (DOI 10.1016/0377-0427(87)90125-7).

    Examples
    --------
    >>> rows = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> mean_silhouette(rows, np.array([0, 0, 1, 1])), mean_silhouette(rows, np.array([0, 1, 0, 1]))
    (1.0, -0.5)
    """
    inside = labels_N >= 0
    kept, labels = vectors_NE[inside], labels_N[inside]
    count = int(labels.max(initial=-1)) + 1
    if count < 2:
        return float("nan")
    sums_KE, sizes_K = _sums(kept, labels, count)
    towards_NK = kept @ sums_KE.T
    rows = np.arange(len(kept))
    own_size = sizes_K[labels]
    itself = np.einsum("ne,ne->n", kept, kept)
    own = 1.0 - (towards_NK[rows, labels] - itself) / np.maximum(own_size - 1, 1)
    other_NK = 1.0 - towards_NK / sizes_K
    other_NK[rows, labels] = np.inf
    other = other_NK.min(1)
    larger = np.maximum(own, other)
    values = np.where((own_size > 1) & (larger > 0.0), (other - own) / np.where(larger > 0.0, larger, 1.0), 0.0)
    return float(values.mean())


def cohesion_of(vectors_NE: FloatArray) -> float:
    """Mean cosine over all pairs of a group, in [-1, 1]; NaN for fewer than two images.

    Examples
    --------
    >>> cohesion_of(np.array([[1.0, 0.0], [0.6, 0.8]]))
    0.6
    """
    count = len(vectors_NE)
    if count < 2:
        return float("nan")
    wide = np.asarray(vectors_NE, np.float64)
    total = float((wide.sum(0) ** 2).sum()) - float((wide**2).sum())
    return float(np.clip(round(total / (count * (count - 1)), _TIE_DIGITS), -1.0, 1.0))


def _grow_tree(sample_SE: FloatArray) -> FloatArray:
    """Average-linkage tree on cosine distances, as SciPy writes one."""
    # pdist's own cosine divides by the norm, and a zero row has none; unit rows need no division
    halves = pdist(sample_SE, "sqeuclidean") / 2.0
    is_zero = (sample_SE**2).sum(1) < _HALF
    if is_zero.any():  # at distance 1 from all, as from a vector at right angles
        rows, columns = np.triu_indices(len(sample_SE), 1)
        halves = np.where(is_zero[rows] | is_zero[columns], 1.0, halves)
    return np.asarray(linkage(np.round(halves, _TIE_DIGITS), method="average"))


def _cut_tree(tree: FloatArray, min_size: int, most: int) -> dict[int, Labels]:
    """By number of groups, the highest cut with so many branches of `min_size` leaves; other leaves are left over.

    Undoing one merge after the other, from the last, changes the number of such branches by one at most: no number
    below the greatest is passed over.
    """
    leaves = len(tree) + 1
    sizes = np.concatenate([np.ones(leaves), tree[:, 3]])
    cuts: dict[int, Labels] = {}
    count = 1
    for undone in range(leaves):
        if count and count not in cuts:
            cuts[count] = _label_branches(tree, undone, min_size)
        if not 0 < count < most or undone == leaves - 1:
            break
        left, right = tree[-1 - undone, :2].astype(int)
        count += sum(int(sizes[child] >= min_size) for child in (left, right))
        count -= int(sizes[2 * leaves - 2 - undone] >= min_size)
    return cuts


def _label_branches(tree: FloatArray, undone: int, min_size: int) -> Labels:
    """Number the branches of at least `min_size` leaves that are left when the last merges are undone."""
    merges = len(tree)
    leaves = merges + 1
    label = np.full(leaves + merges, LEFT_OVER, np.int64)
    is_root = np.zeros(leaves + merges, bool)
    is_root[-1] = True
    found = 0
    for node in range(leaves + merges - 1, -1, -1):
        size = int(tree[node - leaves, 3]) if node >= leaves else 1
        is_cut = node >= leaves + merges - undone
        if is_root[node] and not is_cut and size >= min_size:
            label[node] = found
            found += 1
        if node >= leaves:
            children = tree[node - leaves, :2].astype(int)
            is_root[children] = is_cut
            label[children] = label[node]
    return label[:leaves]


def _best_cut(sample_SE: FloatArray, config: GroupingConfig) -> Labels:
    """Choose the cut: with ever more groups the silhouette creeps up by chance, hence the fewest that do nearly best.

    The groups are settled before they are judged. The cut into one group, where there is no other.
    """
    cuts = _cut_tree(_grow_tree(sample_SE), min(config.min_size, len(sample_SE)), config.max_groups)
    values = {
        count: mean_silhouette(sample_SE, _settle(sample_SE, labels_S, config.min_size, config))
        for count, labels_S in cuts.items()
        if count > 1
    }
    best = max(values.values(), default=0.0)
    # a best of zero or less has no share to reach: only the best itself will do
    enough = round(best * ENOUGH_SEPARATION if best > 0.0 else best, _TIE_DIGITS)
    return cuts[min((count for count, value in values.items() if round(value, _TIE_DIGITS) >= enough), default=1)]


def _cut_into(sample_SE: FloatArray, n_groups: int, config: GroupingConfig) -> tuple[Labels, int]:
    """Find the cut into so many groups, and the largest size, up to `min_size`, that all of them have."""
    tree = _grow_tree(sample_SE)
    for min_size in range(min(config.min_size, len(sample_SE)), 0, -1):
        cuts = _cut_tree(tree, min_size, n_groups)
        if n_groups in cuts:
            return cuts[n_groups], min_size
    raise ConfigError(f"{n_groups} groups are more than the {len(sample_SE)} images looked at; ask for fewer")


def _settle(vectors_NE: FloatArray, start_N: Labels, min_size: int, config: GroupingConfig) -> Labels:
    """Give every image to the nearest group, again while their means move; no group may fall below `min_size`."""
    nearest = _nearest(vectors_NE, _group_means(vectors_NE, start_N), config.join_similarity)
    labels = np.where(start_N >= 0, start_N, nearest)
    for _ in range(ROUNDS):
        moved = _nearest(vectors_NE, _group_means(vectors_NE, labels), config.join_similarity)
        if np.array_equal(moved, labels):
            break
        if np.bincount(moved[moved >= 0], minlength=int(labels.max()) + 1).min() < min_size:
            break
        labels = moved
    return labels


def _nearest(vectors_NE: FloatArray, means_KE: FloatArray, join_similarity: float) -> Labels:
    cosines_NK = np.round(vectors_NE @ means_KE.T, _TIE_DIGITS)
    labels = cosines_NK.argmax(1).astype(np.int64)
    return np.where(cosines_NK.max(1) < join_similarity, LEFT_OVER, labels)


def _group_means(vectors_NE: FloatArray, labels_N: Labels) -> FloatArray:
    """Directions of the groups, (K, E)."""
    inside = labels_N >= 0
    return unit_rows(_sums(vectors_NE[inside], labels_N[inside], int(labels_N.max()) + 1)[0])


def _sums(vectors_NE: FloatArray, labels_N: Labels, count: int) -> tuple[FloatArray, FloatArray]:
    """Sum of each group's vectors, (K, E), and its size, (K,)."""
    sums_KE = np.zeros((count, vectors_NE.shape[1]))
    np.add.at(sums_KE, labels_N, vectors_NE)
    return sums_KE, np.bincount(labels_N, minlength=count).astype(np.float64)


def _number_by_size(labels_N: Labels) -> Labels:
    """Number the groups anew: the largest first, of equals the one with the earlier image."""
    present, first, sizes = np.unique(labels_N[labels_N >= 0], return_index=True, return_counts=True)
    order = np.lexsort((first, -sizes))
    number = np.full(int(labels_N.max()) + 1, LEFT_OVER, np.int64)
    number[present[order]] = np.arange(len(present))
    return np.where(labels_N >= 0, number[labels_N], LEFT_OVER)
