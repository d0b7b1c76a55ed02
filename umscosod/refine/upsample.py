"""Stage 3, before the threshold: a soft map's borders drawn to the picture's edges by a guided filter.

A map comes from a grid of patches; enlarged bilinearly, its border crosses the picture's edges anywhere within a patch.

Suffixes: ``C`` colour channels (3), ``S`` the six distinct entries of a symmetric 3 x 3 matrix.
"""

from __future__ import annotations

import logging

import cv2
import numpy as np
import numpy.typing as npt

from umscosod.config import RefineConfig
from umscosod.data.resize import resize_picture
from umscosod.errors import DataError
from umscosod.refine.threshold import check_map
from umscosod.types import ByteArray, FloatArray

logger = logging.getLogger(__name__)

_FULL = 255.0  # brightest value of an 8-bit picture


def sharpen_maps(maps_NHW: FloatArray, pictures_NHW3: ByteArray, config: RefineConfig) -> FloatArray:
    """Give the maps that are thresholded, as ``upsample`` says.

    Parameters
    ----------
    maps_NHW : ndarray, float, (N, H, W), in [0, 1]
    pictures_NHW3 : ndarray, uint8, (N, H', W', 3)
        RGB pictures, whole and stretched as the maps are.
    config : RefineConfig
        Reads upsample, guided_radius_px and guided_eps.

    Returns
    -------
    ndarray, (N, H, W), in [0, 1]
        ``bilinear``: the very array given. ``guided``: a new one, float32, from `guided_filter`.

    Raises
    ------
    DataError
        See `guided_filter`.
    """
    if config.upsample == "bilinear":
        return maps_NHW
    pairs = zip(maps_NHW, pictures_NHW3, strict=True)
    return np.stack(
        [guided_filter(map_HW, picture, config.guided_radius_px, config.guided_eps) for map_HW, picture in pairs]
    )


def guided_filter(map_HW: FloatArray, picture_HW3: ByteArray, radius_px: int, eps: float) -> FloatArray:
    """Replace a map by what is locally an affine function of the picture's colours.

    In every window, a and b of a^T I + b are fitted to the map by least squares with a ridge on a; a pixel takes the
    mean over the windows that hold it.

    Parameters
    ----------
    map_HW : ndarray, float, (H, W), in [0, 1]
    picture_HW3 : ndarray, uint8, (H', W', 3)
        RGB guide; resized to the map where the sizes differ. Colours count in [0, 1].
    radius_px : int
        Windows are squares of side 2 radius_px + 1, cut off at the picture's border.
    eps : float
        Ridge: windows whose colours vary by less than this are averaged, others keep their edges. Above 0.

    Returns
    -------
    ndarray, float32, (H, W), in [0, 1]
        Clipped: the fit may overshoot. A constant map comes out the same, bit for bit. A picture of one colour leaves
        two box means in a row.

    Raises
    ------
    DataError
        `check_map` refuses the map, or the picture is not uint8 RGB.

    References
    ----------
    He, Sun and Tang, "Guided Image Filtering", TPAMI 2013, DOI 10.1109/TPAMI.2012.213, eq. 11-16 (colour guide).

    Examples
    --------
    The picture's edge lies between the second and the third pixel, so the map's ramp becomes a step there.

    >>> picture = np.repeat(np.array([[0, 0, 255, 255]], np.uint8)[..., None], 3, axis=2)
    >>> guided_filter(np.array([[0.0, 0.4, 0.6, 1.0]]), picture, 3, 1e-6).astype(float).round(3).tolist()
    [[0.2, 0.2, 0.8, 0.8]]
    """
    check_map(map_HW)
    if picture_HW3.dtype != np.uint8 or picture_HW3.ndim != 3 or picture_HW3.shape[2] != 3:
        raise DataError(
            f"the guided filter needs a uint8 RGB picture (H, W, 3), got {picture_HW3.dtype} {picture_HW3.shape}; "
            "decode it as RGB, in 0-255"
        )
    # float64: variances are small differences of large means
    height, width = map_HW.shape
    guide_HWC = resize_picture(np.ascontiguousarray(picture_HW3), (height, width)) / _FULL
    # The filter is linear and leaves constants alone: without the least value nothing is left of a constant map.
    least = float(map_HW.min())
    values_HW1 = (map_HW.astype(np.float64) - least)[..., None]
    mean_HWC, mean_HW1 = _box_mean(guide_HWC, radius_px), _box_mean(values_HW1, radius_px)
    shared_HWC = _box_mean(guide_HWC * values_HW1, radius_px) - mean_HWC * mean_HW1
    slope_HWC = _solve_ridge(_covariance(guide_HWC, mean_HWC, radius_px), shared_HWC, eps)
    offset_HW1 = mean_HW1 - (slope_HWC * mean_HWC).sum(2, keepdims=True)
    filtered_HW = (_box_mean(slope_HWC, radius_px) * guide_HWC).sum(2) + _box_mean(offset_HW1, radius_px)[..., 0]
    return np.asarray(np.clip(filtered_HW + least, 0.0, 1.0), np.float32)


def _box_mean(values_HWK: npt.NDArray[np.float64], radius_px: int) -> npt.NDArray[np.float64]:
    """Mean over the part of each window that lies in the picture, channel by channel; K axes stay."""
    side = 2 * radius_px + 1

    def add(array: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        summed = cv2.boxFilter(array, cv2.CV_64F, (side, side), normalize=False, borderType=cv2.BORDER_CONSTANT)
        return np.asarray(summed, np.float64).reshape(array.shape)  # OpenCV drops an axis of length 1

    return np.asarray(add(values_HWK) / add(np.ones((*values_HWK.shape[:2], 1))))


def _covariance(
    guide_HWC: npt.NDArray[np.float64], mean_HWC: npt.NDArray[np.float64], radius_px: int
) -> npt.NDArray[np.float64]:
    """Covariance of the colours in each window: rr, rg, rb, gg, gb, bb; (H, W, S)."""
    first, second = np.triu_indices(3)
    products_HWS = np.ascontiguousarray(guide_HWC[..., first] * guide_HWC[..., second])
    return _box_mean(products_HWS, radius_px) - mean_HWC[..., first] * mean_HWC[..., second]


def _solve_ridge(
    covariance_HWS: npt.NDArray[np.float64], shared_HWC: npt.NDArray[np.float64], eps: float
) -> npt.NDArray[np.float64]:
    """Solve (covariance + eps 1) a = shared at each pixel by the adjugate of the symmetric matrix; (H, W, C)."""
    rr, rg, rb, gg, gb, bb = np.moveaxis(covariance_HWS, 2, 0)
    rr, gg, bb = rr + eps, gg + eps, bb + eps
    minor_rr, minor_rg, minor_rb = gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg
    minor_gg, minor_gb, minor_bb = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
    determinant = rr * minor_rr + rg * minor_rg + rb * minor_rb
    red, green, blue = np.moveaxis(shared_HWC, 2, 0)
    solved = (
        minor_rr * red + minor_rg * green + minor_rb * blue,
        minor_rg * red + minor_gg * green + minor_gb * blue,
        minor_rb * red + minor_gb * green + minor_bb * blue,
    )
    return np.stack([one / determinant for one in solved], axis=2)


_warned: set[str] = set()


def warn_unused(config: RefineConfig) -> None:
    """Say which settings of this file have no effect beside the others; each once per process.

    Parameters
    ----------
    config : RefineConfig
    """
    default = RefineConfig()
    own, usual = ((one.guided_radius_px, one.guided_eps) for one in (config, default))
    if config.upsample == "guided" and not config.enabled:
        warn_once("refine.upsample=guided is not used: refine.enabled is off, so masks are the maps at refine.th0")
    if config.upsample == "bilinear" and own != usual:
        warn_once(
            "refine.guided_radius_px and refine.guided_eps are not used: refine.upsample is bilinear; set it to guided"
        )


def warn_once(message: str) -> None:
    """A run over thousands of groups must not drown its log."""
    if message not in _warned:
        _warned.add(message)
        logger.warning("%s", message)
