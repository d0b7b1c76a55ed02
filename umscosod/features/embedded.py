"""The backbone without weights: descriptors per cell, and the contrast to the border in place of self-attention.

Own implementation of the background measure of Zhu, Liang, Wei and Sun, "Saliency Optimization from Robust
Background Detection", CVPR 2014 (DOI 10.1109/CVPR.2014.360), on grid cells instead of superpixels.

Legend: ``P = h * w`` cells, row-major; ``B`` cells on the border; ``E`` edges; ``H W`` pixels, ``C`` channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.sparse.linalg import LinearOperator, eigsh
from scipy.spatial.distance import cdist

from umscosod.data.guided import upsample_guided
from umscosod.data.images import square_picture
from umscosod.data.resize import resize_picture
from umscosod.device import one_blas_thread
from umscosod.errors import ConfigError
from umscosod.types import BoolArray, ByteArray, EncodedImage, FloatArray

# What encoding reads; a change of any of it needs another SCHEMA, by which cached features and checkpoints are known.
CENTRE_SIGMA = 0.25  # deviation of the centre prior, as a share of the picture's side
CONTRAST_CENTRE_POWER = 0.5  # exponent of the centre prior on the contrast to the border
GEODESIC_SIGMA = 0.1  # geodesic Lab distance at which two cells stop being one surface, L in [0, 1]
FLAT_STEP_QUANTILE = 0.3  # steps between cells below this quantile are flat: noise must not add up on a path
CONNECTIVITY_SIGMA = 1.0  # border connectivity at which a surface is background, Zhu et al. 2014
CONTRAST_CELLS = 14  # least cells a side for the contrast: its paths grow with the fourth power of the side
CONTRAST_GUIDE_CELLS = 2  # radius of the guided filter's windows, in those cells
CONTRAST_REACH = 0.25  # reach of the contrast to the border, as a share of the side, Zhu et al. 2014
GRADIENT_SCALES = (0.125, 0.3125, 0.625)  # deviations of the oriented gradients' Gaussians, in cells
SURROUND_SCALES = (0.75, 1.75)  # deviations of the surroundings' Gaussians, in cells
SPECTRAL_COMPONENTS = 12  # principal components of the descriptors that the keys' affinity compares
SPECTRAL_FLOOR = 0.02  # added to a channel's deviation before it is standardised: bounds what noise can weigh
SPECTRAL_BANDWIDTH = 0.5  # of the keys' affinity, in medians of the squared distances between cells
SPECTRAL_REACH = 6.0 / 28.0  # of the keys' affinity, as a share of the side: 6 of 28 cells
SPECTRAL_SAMPLE = 8  # every so many-th cell tells the median distance

_TINY = 1e-6  # far below one grey level: what is smaller is rounding
_REACH_SIGMAS = 5.0
_EIGEN_TOLERANCE = 1e-5  # of the eigenvalues: keys differ from the exact ones by less than float16 rounds


def cell_positions(grid_hw: tuple[int, int]) -> FloatArray:
    """Centre every cell's row and column about 0: float64 (P, 2), in [-0.5, 0.5]; a side of one cell gives 0."""
    axes = [np.linspace(-0.5, 0.5, side) if side > 1 else np.zeros(1) for side in grid_hw]
    rows, columns = np.meshgrid(*axes, indexing="ij")
    return np.stack([rows.ravel(), columns.ravel()], 1)


def centre_prior(grid_hw: tuple[int, int]) -> FloatArray:
    """Gaussian about the picture's centre, of the deviation `CENTRE_SIGMA`: float64 (P,), in (0, 1]."""
    return np.asarray(np.exp(-(cell_positions(grid_hw) ** 2).sum(1) / (2.0 * CENTRE_SIGMA**2)))


def border_contrast(lab_P3: FloatArray, grid_hw: tuple[int, int]) -> FloatArray:
    """Sum the colour contrast of every cell to cells that are connected to the border.

    Parameters
    ----------
    lab_P3 : ndarray, float, (P, 3)
        Mean Lab colour of every cell, L in [0, 1].
    grid_hw : (int, int)

    Returns
    -------
    ndarray, float64, (P,), in [0, 1]
        Min-maxed; all zero for a picture of one colour.
    """
    if np.ptp(lab_P3, 0).max() < _TINY:  # rounding in the distances, summed over all cells, would make a map of it
        return np.zeros(len(lab_P3))
    distance_PP = cdist(lab_P3, lab_P3)
    background_P = _background_probability(distance_PP, grid_hw)
    contrast_P = (distance_PP * _nearness(grid_hw, CONTRAST_REACH)) @ background_P
    span = float(np.ptp(contrast_P))
    return (contrast_P - contrast_P.min()) / span if span > _TINY else np.zeros_like(contrast_P)


@lru_cache(maxsize=8)
def _nearness(grid_hw: tuple[int, int], reach: float, dtype: type[np.floating[Any]] = np.float64) -> FloatArray:
    """Gaussian of the distance between the centres of cells, (P, P), read-only."""
    positions_P2 = cell_positions(grid_hw)
    near_PP = np.exp(-cdist(positions_P2, positions_P2, "sqeuclidean") / (2.0 * reach**2)).astype(dtype)
    near_PP.flags.writeable = False
    return np.asarray(near_PP)


def _background_probability(distance_PP: FloatArray, grid_hw: tuple[int, int]) -> FloatArray:
    """Probability that a cell's surface is background: how much border it holds for its size."""
    grid_E2, border_E2, is_border_P = _graph(grid_hw)
    steps_E = distance_PP[grid_E2[:, 0], grid_E2[:, 1]]
    flat = np.quantile(steps_E, FLAT_STEP_QUANTILE) if len(steps_E) else 0.0
    edges_E2 = np.concatenate([grid_E2, border_E2])
    weights_E = np.maximum(distance_PP[edges_E2[:, 0], edges_E2[:, 1]] - flat, 0.0)
    node_P, geodesic_NN = _geodesics(edges_E2, weights_E, len(is_border_P))
    same_surface_NN = np.exp(-(geodesic_NN**2) / (2.0 * GEODESIC_SIGMA**2))
    cells_N, border_N = (np.bincount(node_P, share, len(geodesic_NN)) for share in (None, is_border_P))
    connectivity_N = same_surface_NN @ border_N / np.sqrt(same_surface_NN @ cells_N)
    return np.asarray(1.0 - np.exp(-(connectivity_N**2) / (2.0 * CONNECTIVITY_SIGMA**2)))[node_P]


def _geodesics(
    edges_E2: npt.NDArray[np.int64], weights_E: FloatArray, count: int
) -> tuple[npt.NDArray[np.int32], FloatArray]:
    """Shortest paths between all pairs of cells, between nodes: cells that flat steps join are one.

    Returns
    -------
    ndarray, int32, (count,)
        The node of each cell.
    ndarray, float64, (N, N)
        Lengths; infinite beyond what counts as one surface: at the limit its Gaussian is 4e-6.
    """
    limit = _REACH_SIGMAS * GEODESIC_SIGMA
    flat_E2 = edges_E2[weights_E == 0.0]
    joined = coo_matrix((np.ones(len(flat_E2)), flat_E2.T), shape=(count, count))
    nodes, node_P = connected_components(joined, directed=False)
    is_step_E = (weights_E > 0.0) & (weights_E <= limit)
    steps_S2, lengths_S = np.sort(node_P[edges_E2[is_step_E]], axis=1), weights_E[is_step_E]
    order_S = np.lexsort((lengths_S, steps_S2[:, 1], steps_S2[:, 0]))
    steps_S2, lengths_S = steps_S2[order_S], lengths_S[order_S]
    is_shortest_S = np.ones(len(steps_S2), bool)  # of the steps between two nodes; the matrix would add them up
    is_shortest_S[1:] = (steps_S2[1:] != steps_S2[:-1]).any(1)
    is_shortest_S &= steps_S2[:, 0] != steps_S2[:, 1]
    graph = coo_matrix((lengths_S[is_shortest_S], steps_S2[is_shortest_S].T), shape=(nodes, nodes)).tocsr()
    return node_P, dijkstra(graph, directed=False, limit=limit)


@lru_cache(maxsize=8)
def _graph(grid_hw: tuple[int, int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], BoolArray]:
    """Edges between 8-neighbours, edges between all pairs of border cells, and which cells lie on the border."""
    height, width = grid_hw
    index = np.arange(height * width).reshape(height, width)
    grid = [
        np.stack([first.ravel(), second.ravel()], 1)
        for first, second in (
            (index[:, :-1], index[:, 1:]),
            (index[:-1], index[1:]),
            (index[:-1, :-1], index[1:, 1:]),
            (index[:-1, 1:], index[1:, :-1]),
        )
    ]
    is_border = np.zeros((height, width), bool)
    is_border[[0, -1]] = True
    is_border[:, [0, -1]] = True
    border = np.flatnonzero(is_border)
    first, second = np.triu_indices(len(border), 1)
    neighbours = np.concatenate(grid)
    between = np.stack([border[first], border[second]], 1)
    # a pair that is both would be summed by the sparse matrix: leave it to the grid
    count = height * width
    is_new = ~np.isin(between.min(1) * count + between.max(1), neighbours.min(1) * count + neighbours.max(1))
    return neighbours, between[is_new], is_border.ravel()


# Counts, not settings: they set the width of a descriptor, which whitenings and checkpoints are made for.
ORIENTATIONS = 6
DESCRIPTOR_DIM = 3 + 3 + 3 * ORIENTATIONS + 2 * 6  # 3 gradient scales, 2 surroundings

_LAB_RANGE = np.array([100.0, 128.0, 128.0], np.float32)


def to_lab(picture_HW3: ByteArray) -> FloatArray:
    """Convert RGB bytes to CIE Lab, L in [0, 1], a and b in about [-1, 1]; float32, same shape."""
    lab_HW3 = cv2.cvtColor(picture_HW3.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB) / _LAB_RANGE
    return np.asarray(lab_HW3, np.float32)


def cell_means(map_HWC: FloatArray, cell_px: int) -> FloatArray:
    """Average every ``cell_px x cell_px`` cell; sides must be multiples of `cell_px`.

    Examples
    --------
    >>> import numpy as np
    >>> cell_means(np.arange(8.0).reshape(2, 4, 1), 2)[..., 0].tolist()
    [[2.5, 4.5]]
    """
    height, width, channels = map_HWC.shape
    size_wh = (width // cell_px, height // cell_px)
    means = cv2.resize(map_HWC, size_wh, interpolation=cv2.INTER_AREA)
    return np.asarray(means, map_HWC.dtype).reshape(*size_wh[::-1], channels)  # OpenCV drops a single channel


def compute_descriptors(picture_HW3: ByteArray, cell_px: int) -> FloatArray:
    """Describe every cell of a picture.

    Parameters
    ----------
    picture_HW3 : ndarray, uint8, (H, W, 3)
        RGB; H and W multiples of `cell_px`.
    cell_px : int
        Side of a cell in pixels; all scales follow it.

    Returns
    -------
    ndarray, float32, (h, w, 36)
        Lab means (3), Lab deviations inside the cell (3), square roots of oriented gradient energy (6 orientations
        at 3 scales), and Lab means and deviations of two wider surroundings (12).
    """
    lab_HW3 = to_lab(picture_HW3)
    means = cell_means(lab_HW3, cell_px)
    parts = [means, _deviation(cell_means(lab_HW3**2, cell_px), means)]
    parts += [_oriented_gradients(lab_HW3[..., :1], scale * cell_px, cell_px) for scale in GRADIENT_SCALES]
    for scale in SURROUND_SCALES:
        step = _step(scale * cell_px, cell_px)
        sigma, small_px = scale * cell_px / step, cell_px // step
        blurred_HW3 = _blur(cell_means(lab_HW3, step), sigma)
        spread_HW3 = _deviation(_blur(cell_means(lab_HW3**2, step), sigma), blurred_HW3)
        parts += [cell_means(blurred_HW3, small_px), cell_means(spread_HW3, small_px)]
    return np.concatenate(parts, -1).astype(np.float32)


def _step(sigma_px: float, cell_px: int) -> int:
    """Side of the squares averaged before a blur: divides the cell; at most a quarter of it, and half of sigma."""
    most = min(sigma_px / 2, cell_px / 4)
    return max(step for step in range(1, cell_px + 1) if step == 1 or (step <= most and cell_px % step == 0))


def _blur(map_HWC: FloatArray, sigma_px: float) -> FloatArray:
    return np.asarray(cv2.GaussianBlur(map_HWC, (0, 0), sigma_px))


def _deviation(mean_of_squares: FloatArray, mean: FloatArray) -> FloatArray:
    variance = mean_of_squares - mean**2
    return np.asarray(np.sqrt(np.where(variance > _TINY, variance, 0.0)))


def _oriented_gradients(light_HW1: FloatArray, sigma_px: float, cell_px: int) -> FloatArray:
    """Share the gradient of every pixel between its two nearest orientations, then pool to cells."""
    step = _step(sigma_px, cell_px)
    sigma = sigma_px / step
    blurred_HW = _blur(cell_means(light_HW1, step), sigma)
    dx_HW = cv2.Sobel(blurred_HW, cv2.CV_32F, 1, 0) * sigma  # x sigma: equal weight for every scale
    dy_HW = cv2.Sobel(blurred_HW, cv2.CV_32F, 0, 1) * sigma
    magnitude_HW, angle_HW = cv2.cartToPolar(dx_HW, dy_HW)
    magnitude_HW[magnitude_HW < _TINY] = 0.0
    turn_HW = angle_HW * np.float32(ORIENTATIONS / np.pi)  # two turns
    turn_HW[turn_HW >= ORIENTATIONS] -= ORIENTATIONS
    energies = []
    for orientation in range(ORIENTATIONS):  # one after the other: planes are faster than interleaved channels
        away_HW = np.abs(turn_HW - orientation)
        share_HW = np.maximum(1.0 - np.minimum(away_HW, ORIENTATIONS - away_HW), 0.0)
        energies.append(cell_means(_blur(magnitude_HW * share_HW, sigma)[..., None], cell_px // step))
    return np.asarray(np.sqrt(np.concatenate(energies, -1)))


SCHEMA = "5-75f696d4"
"""Raised when the code changes what is encoded, so that old cache entries are not reused."""
SPECTRAL_CHANNELS = 8
"""Width of the keys: cached entries of one width are stacked."""


class EmbeddedBackbone:
    """Dense descriptors on a grid, with spectral keys and contrast to the border as attention.

    Parameters
    ----------
    size_px : int
        Side of the square picture, in pixels; a multiple of `cell_px`.
    cell_px : int
        Side of a cell, in pixels.

    Raises
    ------
    ConfigError
        `size_px` is not a multiple of `cell_px`.

    Notes
    -----
    Its tokens are raw: `umscosod.features.group` applies the collection's statistics and the group's, after the
    cache.
    """

    needs_whitening = True
    is_centred = False
    has_attention = False
    is_label_free = True
    name = "embedded"
    weights_sha256 = ""
    dim = DESCRIPTOR_DIM
    batch_size = 1

    def __init__(self, size_px: int, cell_px: int) -> None:
        if size_px % cell_px:
            raise ConfigError(f"features.size_px {size_px} must be a multiple of {cell_px} for the embedded backbone")
        self.size_px, self.cell_px = size_px, cell_px
        self.grid_hw = (size_px // cell_px, size_px // cell_px)
        self.id = f"embedded-v{SCHEMA}@{size_px}/{cell_px}"

    def encode(self, images: Sequence[ByteArray]) -> list[EncodedImage]:
        """Encode RGB images (uint8, (H, W, 3)) one by one; see `umscosod.features.backbone.Backbone.encode`."""
        with one_blas_thread():
            return [self._encode_one(square_picture(image, self.size_px)) for image in images]

    def _encode_one(self, picture_HW3: ByteArray) -> EncodedImage:
        descriptors_PD = compute_descriptors(picture_HW3, self.cell_px).reshape(-1, DESCRIPTOR_DIM)
        lab_hw3 = descriptors_PD[:, :3].astype(np.float64).reshape(*self.grid_hw, 3)
        contrast_P = _contrast(lab_hw3, picture_HW3).ravel()
        prior_P = centre_prior(self.grid_hw) ** CONTRAST_CENTRE_POWER
        return EncodedImage(
            tokens_PD=descriptors_PD.astype(np.float16),
            keys_PK=spectral_keys(descriptors_PD, self.grid_hw).astype(np.float16),
            attn_AP=(contrast_P * prior_P)[None].astype(np.float16),
            grid_hw=self.grid_hw,
        )


def _contrast(lab_hw3: FloatArray, picture_HW3: ByteArray) -> FloatArray:
    """Contrast to the border of the cells of a square grid, from fewer and larger ones: (h, w), in [0, 1]."""
    side = len(lab_hw3)
    join = max(by for by in range(1, side + 1) if by == 1 or (side % by == 0 and side // by >= CONTRAST_CELLS))
    few_hw3 = cell_means(lab_hw3, join)
    contrast_hw = border_contrast(few_hw3.reshape(-1, 3), few_hw3.shape[:2]).reshape(few_hw3.shape[:2])
    if join == 1:
        return contrast_hw
    cells_hw3 = resize_picture(picture_HW3, (side, side))
    return np.clip(upsample_guided(contrast_hw, cells_hw3, CONTRAST_GUIDE_CELLS), 0.0, 1.0)


def spectral_keys(descriptors_PD: FloatArray, grid_hw: tuple[int, int]) -> FloatArray:
    """Embed cells by the leading eigenvectors of their affinity: cells of one surface get parallel vectors.

    Parameters
    ----------
    descriptors_PD : ndarray, float, (P, D)
    grid_hw : (int, int)

    Returns
    -------
    ndarray, float64, (P, 8)
        Zero columns where the grid has fewer cells than channels, or the picture is of one colour.

    References
    ----------
    Shi and Malik, "Normalized Cuts and Image Segmentation", TPAMI 2000 (DOI 10.1109/34.868688).
    """
    components_PC = _principal_components(descriptors_PD.astype(np.float64)).astype(np.float32)
    keys_PK = np.zeros((len(components_PC), SPECTRAL_CHANNELS))
    distance_PP = _squared_distances(components_PC)
    scale = SPECTRAL_BANDWIDTH * float(np.median(distance_PP[::SPECTRAL_SAMPLE]))
    if scale <= 0.0:
        return keys_PK
    distance_PP *= np.float32(-1.0 / scale)
    affinity_PP = np.exp(distance_PP, out=distance_PP)
    affinity_PP *= _nearness(grid_hw, SPECTRAL_REACH, np.float32)
    degree_P = affinity_PP.sum(1, dtype=np.float64)
    count = min(SPECTRAL_CHANNELS, len(keys_PK) - 1)
    start_P = np.random.default_rng(0).standard_normal(len(keys_PK))  # equal pictures give equal bits
    normalised = _normalised(affinity_PP, degree_P)
    values_K, vectors_PK = eigsh(normalised, count, which="LA", v0=start_P, tol=_EIGEN_TOLERANCE)
    falling_K = np.argsort(-values_K)
    vectors_PK = vectors_PK[:, falling_K] / np.sqrt(degree_P)[:, None]
    deviation_K = vectors_PK.std(0)
    scale_K = np.sqrt(values_K[falling_K].clip(0, 1)) / np.where(deviation_K > 0, deviation_K, 1.0)
    keys_PK[:, :count] = vectors_PK * scale_K
    return keys_PK


def _squared_distances(points_PD: FloatArray) -> FloatArray:
    """|x - y|^2 = (-2 x, |x|^2, 1) . (y, 1, |y|^2): one product, as what takes the time is memory."""
    squares_P1, one_P1 = (points_PD**2).sum(1, keepdims=True), np.ones((len(points_PD), 1), points_PD.dtype)
    distance_PP = np.hstack([-2.0 * points_PD, squares_P1, one_P1]) @ np.hstack([points_PD, one_P1, squares_P1]).T
    return np.asarray(np.maximum(distance_PP, 0.0, out=distance_PP))


def _normalised(affinity_PP: FloatArray, degree_P: FloatArray) -> LinearOperator:
    """Normalise an affinity by its degrees, without its leading eigenvector, of eigenvalue 1: that one tells nothing.

    The products are float32: they are bound by memory, and keys are stored as float16.
    """
    root_P = (1.0 / np.sqrt(degree_P)).astype(np.float32)
    constant_P = np.sqrt(degree_P / degree_P.sum())

    def multiply(vector_P: FloatArray) -> FloatArray:
        product_P = root_P * (affinity_PP @ (root_P * vector_P.astype(np.float32)))
        return np.asarray(product_P - constant_P * (constant_P @ vector_P))

    return LinearOperator(affinity_PP.shape, matvec=multiply, dtype=np.float64)


def _principal_components(descriptors_PD: FloatArray) -> FloatArray:
    """Standardise each channel inside the picture and keep the leading principal components, (P, at most so many)."""
    centred_PD = descriptors_PD - descriptors_PD.mean(0)
    left, singular, _ = np.linalg.svd(centred_PD / (centred_PD.std(0) + SPECTRAL_FLOOR), full_matrices=False)
    return np.asarray(left[:, :SPECTRAL_COMPONENTS] * singular[:SPECTRAL_COMPONENTS])
