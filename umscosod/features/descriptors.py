"""Dense descriptors of the weight-free backbone: colour, oriented gradients and contrast, one vector a cell.

Legend: ``H W`` pixels, ``h w`` cells, ``C`` channels.
"""

from __future__ import annotations

import cv2
import numpy as np

from umscosod.config import EmbeddedConfig
from umscosod.types import ByteArray, FloatArray

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
    cells = map_HWC.reshape(height // cell_px, cell_px, width // cell_px, cell_px, channels)
    return np.asarray(cells.mean((1, 3)))


def compute_descriptors(picture_HW3: ByteArray, cell_px: int, config: EmbeddedConfig) -> FloatArray:
    """Describe every cell of a picture.

    Parameters
    ----------
    picture_HW3 : ndarray, uint8, (H, W, 3)
        RGB; H and W multiples of `cell_px`.
    cell_px : int
        Side of a cell in pixels; all scales follow it.
    config : EmbeddedConfig

    Returns
    -------
    ndarray, float32, (h, w, 36)
        Lab means (3), Lab deviations inside the cell (3), square roots of oriented gradient energy (6 orientations
        at 3 scales), and Lab means and deviations of two wider surroundings (12).
    """
    lab_HW3 = to_lab(picture_HW3)
    means = cell_means(lab_HW3, cell_px)
    parts = [means, _deviation(cell_means(lab_HW3**2, cell_px), means)]
    parts += [_oriented_gradients(lab_HW3[..., 0], scale * cell_px, cell_px) for scale in config.gradient_scales]
    for scale in config.surround_scales:
        blurred_HW3 = _blur(lab_HW3, scale * cell_px)
        spread_HW3 = _deviation(_blur(lab_HW3**2, scale * cell_px), blurred_HW3)
        parts += [cell_means(blurred_HW3, cell_px), cell_means(spread_HW3, cell_px)]
    return np.concatenate(parts, -1).astype(np.float32)


def _blur(map_HWC: FloatArray, sigma_px: float) -> FloatArray:
    return np.asarray(cv2.GaussianBlur(map_HWC, (0, 0), sigma_px))


def _deviation(mean_of_squares: FloatArray, mean: FloatArray) -> FloatArray:
    return np.asarray(np.sqrt(np.maximum(mean_of_squares - mean**2, 0.0)))


def _oriented_gradients(light_HW: FloatArray, sigma_px: float, cell_px: int) -> FloatArray:
    """Share the gradient of every pixel between its two nearest orientations, then pool to cells."""
    blurred_HW = _blur(light_HW, sigma_px)
    dx_HW = cv2.Sobel(blurred_HW, cv2.CV_32F, 1, 0) * sigma_px  # x sigma: equal weight for every scale
    dy_HW = cv2.Sobel(blurred_HW, cv2.CV_32F, 0, 1) * sigma_px
    magnitude_HW = np.hypot(dx_HW, dy_HW)
    angle_HW = np.mod(np.arctan2(dy_HW, dx_HW), np.pi) / np.pi * ORIENTATIONS
    lower_HW = np.floor(angle_HW)
    upper_share_HW = angle_HW - lower_HW
    bins_HW = lower_HW.astype(np.int64) % ORIENTATIONS
    histogram_HWO = np.zeros((*light_HW.shape, ORIENTATIONS), np.float32)
    for offset, share_HW in ((0, 1.0 - upper_share_HW), (1, upper_share_HW)):
        index = ((bins_HW + offset) % ORIENTATIONS)[..., None]
        np.put_along_axis(
            histogram_HWO, index, np.take_along_axis(histogram_HWO, index, 2) + (magnitude_HW * share_HW)[..., None], 2
        )
    return np.asarray(np.sqrt(cell_means(_blur(histogram_HWO, sigma_px), cell_px)))
