"""The weight-free backbone in its plain form: blurs of all pixels, paths between all cells, a dense eigensolver."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.linalg import eigh
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

from umscosod.features import embedded as ours
from umscosod.types import ByteArray, FloatArray

_TINY = 1e-6  # a step of no length would not be in the sparse matrix


def compute_descriptors(picture_HW3: ByteArray, cell_px: int) -> FloatArray:
    """As `umscosod.features.embedded.compute_descriptors`, with every blur at the picture's own resolution."""

    def pool(map_HWC: FloatArray) -> FloatArray:
        height, width, channels = map_HWC.shape
        return np.asarray(map_HWC.reshape(height // cell_px, cell_px, width // cell_px, cell_px, channels).mean((1, 3)))

    def blur(map_HWC: FloatArray, scale: float) -> FloatArray:
        return np.asarray(cv2.GaussianBlur(map_HWC, (0, 0), scale * cell_px))

    def spread(squares: FloatArray, mean: FloatArray) -> FloatArray:
        return np.asarray(np.sqrt(np.maximum(squares - mean**2, 0.0)))

    lab_HW3 = ours.to_lab(picture_HW3)
    parts = [pool(lab_HW3), spread(pool(lab_HW3**2), pool(lab_HW3))]
    for scale in ours.GRADIENT_SCALES:
        light_HW = blur(lab_HW3[..., 0], scale)
        steps = [cv2.Sobel(light_HW, cv2.CV_32F, *axis) * (scale * cell_px) for axis in ((1, 0), (0, 1))]
        size_HW, angle_HW = cv2.cartToPolar(*steps)
        turn_HW1 = np.mod(angle_HW * (ours.ORIENTATIONS / np.pi), ours.ORIENTATIONS)[..., None]
        away_HWO = np.abs(turn_HW1 - np.arange(ours.ORIENTATIONS, dtype=np.float32))
        share_HWO = np.maximum(1.0 - np.minimum(away_HWO, ours.ORIENTATIONS - away_HWO), 0.0)
        parts.append(np.sqrt(pool(blur(size_HW[..., None] * share_HWO, scale))))
    for scale in ours.SURROUND_SCALES:
        mean_HW3 = blur(lab_HW3, scale)
        parts += [pool(mean_HW3), pool(spread(blur(lab_HW3**2, scale), mean_HW3))]
    return np.concatenate(parts, -1).astype(np.float32)


def background_probability(distance_PP: FloatArray, grid_hw: tuple[int, int]) -> FloatArray:
    """As `umscosod.features.embedded.border_contrast` weighs cells, by Dijkstra's paths from every cell."""
    grid_E2, border_E2, is_border_P = ours._graph(grid_hw)
    flat = np.quantile(distance_PP[grid_E2[:, 0], grid_E2[:, 1]], ours.FLAT_STEP_QUANTILE)
    first_E, second_E = np.concatenate([grid_E2, border_E2]).T
    weights_E = np.maximum(distance_PP[first_E, second_E] - flat, 0.0) + _TINY
    count = len(is_border_P)
    graph = coo_matrix((weights_E, (first_E, second_E)), shape=(count, count)).tocsr()
    geodesic_PP = dijkstra(graph, directed=False)
    same_surface_PP = np.exp(-(geodesic_PP**2) / (2.0 * ours.GEODESIC_SIGMA**2))
    connectivity_P = same_surface_PP[:, is_border_P].sum(1) / np.sqrt(same_surface_PP.sum(1))
    return np.asarray(1.0 - np.exp(-(connectivity_P**2) / (2.0 * ours.CONNECTIVITY_SIGMA**2)))


def spectral_keys(descriptors_PD: FloatArray, grid_hw: tuple[int, int]) -> FloatArray:
    """As `umscosod.features.embedded.spectral_keys`, by all digits of a dense solver."""
    components_PC = ours._principal_components(descriptors_PD.astype(np.float64))
    distance_PP = ((components_PC[:, None] - components_PC[None]) ** 2).sum(2)
    positions_P2 = ours.cell_positions(grid_hw)
    apart_PP = ((positions_P2[:, None] - positions_P2[None]) ** 2).sum(2)
    scale = ours.SPECTRAL_BANDWIDTH * float(np.median(distance_PP[:: ours.SPECTRAL_SAMPLE]))
    affinity_PP = np.exp(-distance_PP / scale - apart_PP / (2.0 * ours.SPECTRAL_REACH**2))
    degree_P = affinity_PP.sum(1)
    last = len(degree_P) - 2  # the last eigenvector is constant
    values_K, vectors_PK = eigh(
        affinity_PP / np.sqrt(np.outer(degree_P, degree_P)), subset_by_index=[last + 1 - ours.SPECTRAL_CHANNELS, last]
    )
    vectors_PK = vectors_PK[:, ::-1] / np.sqrt(degree_P)[:, None]
    return np.asarray(vectors_PK / vectors_PK.std(0) * np.sqrt(values_K[::-1].clip(0, 1)))
