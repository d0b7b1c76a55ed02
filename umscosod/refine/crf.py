"""DenseCRF (Krähenbühl and Koltun, arXiv 1210.5644): what it starts from, and the mean-field steps of pydensecrf.

Two labels, background 0 and foreground 1. Shape suffix ``L``: labels.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from types import ModuleType

import numpy as np

from umscosod.config import CrfConfig
from umscosod.data.guided import upsample_guided
from umscosod.data.resize import resize_centred, resize_mask, resize_picture
from umscosod.errors import DataError, MissingDependencyError
from umscosod.types import BoolArray, ByteArray, FloatArray

logger = logging.getLogger(__name__)

InferFn = Callable[[FloatArray, ByteArray, CrfConfig], FloatArray]
"""From energies, picture and settings to marginals, as `infer`."""

_GUIDE_RADIUS_PX = 4  # at half size
_UNDECIDED = 0.5  # probability of a pixel for which neither label speaks


def foreground_probability(
    map_HW: FloatArray, mask_HW: BoolArray, threshold: float, size_hw: tuple[int, int], config: CrfConfig
) -> FloatArray:
    """How likely each pixel is foreground, before it is known how the picture looks there.

    Parameters
    ----------
    map_HW : ndarray, float, (H, W), in [0, 1]
    mask_HW : ndarray, bool, (H, W)
        Union of the regions kept.
    threshold : float
        Level of the map from which a pixel is foreground, from `effective_threshold`.
    size_hw : (int, int)
        Size wanted.
    config : CrfConfig
        Reads unary and confidence, c.

    Returns
    -------
    ndarray, float64, size_hw, in [1 - c, c]
        ``soft``: sigmoid(logit M - logit threshold), so 0.5 at the threshold and rising with M, clipped to [1 - c, c];
        1 - c in the regions dropped, which are the pixels that reach the threshold outside the mask; then resized
        with pixel centres in place. ``hard``: c inside the mask, 1 - c outside; the mask is what is resized, so that
        no pixel is in between.

    Raises
    ------
    DataError
        Map and mask differ in shape.

    Examples
    --------
    Odds of 9 against the threshold's 1; the third pixel is of a region that was dropped.

    >>> map_HW, mask_HW = np.array([[0.9, 0.5, 0.9, 0.0]]), np.array([[True, True, False, False]])
    >>> foreground_probability(map_HW, mask_HW, 0.5, (1, 4), CrfConfig(confidence=0.95)).round(2).tolist()
    [[0.9, 0.5, 0.05, 0.05]]
    >>> foreground_probability(map_HW, mask_HW, 0.5, (1, 4), CrfConfig(unary="hard")).round(2).tolist()
    [[0.98, 0.98, 0.02, 0.02]]
    """
    if map_HW.shape != mask_HW.shape:
        raise DataError(f"the CRF's map and mask must be of one size, got {map_HW.shape} and {mask_HW.shape}")
    low, high = 1.0 - config.confidence, config.confidence
    if config.unary == "hard":
        return np.where(resize_mask(mask_HW, size_hw), high, low)
    values = map_HW.astype(np.float64, copy=False)
    is_dropped_HW = (values >= threshold) & ~mask_HW
    # without logarithms M (1 - th) / (M (1 - th) + th (1 - M)), which is finite for every M and th in [0, 1]
    level = min(max(threshold, 0.0), 1.0)
    for_HW, against_HW = values * (1.0 - level), level * (1.0 - values)
    total_HW = for_HW + against_HW
    soft_HW = np.divide(for_HW, total_HW, out=np.full_like(values, _UNDECIDED), where=total_HW > 0.0)
    return resize_centred(np.where(is_dropped_HW, low, np.clip(soft_HW, low, high)), size_hw)


def build_unary(probability_HW: FloatArray) -> FloatArray:
    """Energies of the two labels, -log p.

    Parameters
    ----------
    probability_HW : ndarray, float, (H, W), in (0, 1)
        Of foreground, from `foreground_probability`.

    Returns
    -------
    ndarray, float32, (2, H * W), C-contiguous
        Row 0 background, row 1 foreground; row-major pixels.

    Examples
    --------
    >>> np.exp(-build_unary(np.array([[0.75, 0.5]]))).round(2).tolist()
    [[0.25, 0.5], [0.75, 0.5]]
    """
    flat = probability_HW.astype(np.float64, copy=False).ravel()
    return np.asarray(-np.log(np.stack([1.0 - flat, flat])), dtype=np.float32)


CURE = (
    "install it with `pip install pydensecrf2==1.1` (needs a C++ compiler and Python < 3.13; it imports as "
    "pydensecrf), or switch the CRF off with refine.crf.enabled=false"
)


def _import_backend() -> ModuleType:
    """Load pydensecrf's compiled module.

    Raises
    ------
    MissingDependencyError
        It is not installed, or was built against another numpy.
    """
    try:
        return importlib.import_module("pydensecrf.densecrf")
    except (ImportError, ValueError) as error:  # ValueError: "numpy.dtype size changed", a stale build
        raise MissingDependencyError(f"DenseCRF cannot be loaded ({error}); {CURE}") from error


def crf_available() -> bool:
    """Whether DenseCRF can run here. Asks once more at each call; costs a dictionary look-up after the first."""
    try:
        _import_backend()
    except MissingDependencyError:
        return False
    return True


def check_rgb(picture_HW3: ByteArray) -> None:
    """Refuse what is no picture for DenseCRF.

    Raises
    ------
    DataError
        The picture is not uint8 (H, W, 3).
    """
    if picture_HW3.dtype != np.uint8 or picture_HW3.ndim != 3 or picture_HW3.shape[2] != 3:
        raise DataError(
            f"DenseCRF needs a uint8 RGB picture (H, W, 3), got {picture_HW3.dtype} {picture_HW3.shape}; "
            "decode it as RGB, in 0-255"
        )


def infer(unary_LP: FloatArray, picture_HW3: ByteArray, config: CrfConfig) -> FloatArray:
    """Mean-field inference in a fully connected CRF with a smoothness and an appearance kernel, by pydensecrf.

    Parameters
    ----------
    unary_LP : ndarray, float32, (L, H * W)
        Energies, from `build_unary`.
    picture_HW3 : ndarray, uint8, (H, W, 3)
        Red, green, blue.
    config : CrfConfig
        Reads iterations and the kernels.

    Returns
    -------
    ndarray, float32, (L, H, W), in [0, 1]
        Marginals after ``config.iterations`` steps; they sum to 1 over the labels.

    Raises
    ------
    MissingDependencyError
        pydensecrf is not installed, or was built against another numpy.
    DataError
        The picture is not uint8 (H, W, 3).

    Notes
    -----
    Permutohedral lattice, near-exact, about 0.2 s for 224 x 224. Deterministic, one thread, holds the GIL. Kernels are
    not trained (diagonal) and are normalised symmetrically. The exact kernel does not depend on the order of the
    channels; the lattice does, slightly.

    References
    ----------
    Kraehenbuehl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials",
    NIPS 2011, arXiv 1210.5644.
    """
    backend = _import_backend()
    check_rgb(picture_HW3)
    height, width = picture_HW3.shape[:2]
    # Its sides are (width, height), its memory row-major: transposing anything here scrambles the picture.
    crf = backend.DenseCRF2D(width, height, len(unary_LP))
    crf.setUnaryEnergy(np.ascontiguousarray(unary_LP))
    shared = {"kernel": backend.DIAG_KERNEL, "normalization": backend.NORMALIZE_SYMMETRIC}
    crf.addPairwiseGaussian(sxy=config.gaussian_xy_px, compat=config.gaussian_compat, **shared)
    crf.addPairwiseBilateral(
        sxy=config.bilateral_xy_px,
        srgb=config.bilateral_rgb,
        rgbim=np.ascontiguousarray(picture_HW3),  # a channel-flipped view has negative strides
        compat=config.bilateral_compat,
        **shared,
    )
    marginals_LP, *scratch = crf.startInference()
    for _ in range(config.iterations):
        crf.stepInference(marginals_LP, *scratch)
    return np.array(marginals_LP, dtype=np.float32).reshape(len(unary_LP), height, width)


@dataclass(frozen=True, kw_only=True, slots=True)
class CrfInput:
    """What DenseCRF needs of one image.

    Attributes
    ----------
    map_HW : ndarray, float, (H, W), in [0, 1]
        The soft map.
    mask_HW : ndarray, bool, (H, W)
        Union of the regions kept.
    threshold : float
        Level of the map from which a pixel is foreground, from `effective_threshold`.
    picture_HW3 : ndarray, uint8, (any height, any width, 3)
        The RGB picture the map belongs to.
    """

    map_HW: FloatArray
    mask_HW: BoolArray
    threshold: float
    picture_HW3: ByteArray


def refine_mask(start: CrfInput, config: CrfConfig, infer_by: InferFn | None = None) -> tuple[BoolArray, bool]:
    """DenseCRF on one mask, or the mask as it is where there is nothing to do or nothing to do it with.

    Parameters
    ----------
    start : CrfInput
    config : CrfConfig
    infer_by : callable, optional
        Another form of inference than `infer`, which needs pydensecrf.

    Returns
    -------
    mask_HW : ndarray, bool
        At ``config.size_px`` squared if DenseCRF ran, else the very mask given. A tie is background.
    did_run : bool
        False if the CRF is switched off, cannot be loaded (a warning in the log says so once per process), or the
        mask is all background or all foreground, where there is no border to move.

    Raises
    ------
    DataError
        See `infer` and `foreground_probability`.

    References
    ----------
    Paper, sec. 2.3 (after eq. 8).
    """
    if not config.enabled:
        return start.mask_HW, False
    if infer_by is None and not crf_available():
        _warn_missing()
        return start.mask_HW, False
    square_hw = (config.size_px, config.size_px)
    small_HW = resize_mask(start.mask_HW, square_hw)
    if not small_HW.any() or small_HW.all():
        return start.mask_HW, False
    return _compute_lead(start, config, infer_by or infer) > 0.0, True


def _compute_lead(start: CrfInput, config: CrfConfig, infer_by: InferFn) -> FloatArray:
    """By how much the belief in foreground exceeds that in background, (size_px, size_px)."""
    size_px = config.size_px
    picture_HW3 = np.ascontiguousarray(resize_picture(start.picture_HW3, (size_px, size_px)))
    small_px, small_HW3 = size_px, picture_HW3
    if config.half_size:
        small_px = (size_px + 1) // 2
        shrink = small_px / size_px
        config = replace(
            config, gaussian_xy_px=config.gaussian_xy_px * shrink, bilateral_xy_px=config.bilateral_xy_px * shrink
        )
        small_HW3 = np.ascontiguousarray(resize_picture(start.picture_HW3, (small_px, small_px)))
    probability_hw = foreground_probability(start.map_HW, start.mask_HW, start.threshold, (small_px, small_px), config)
    marginals_Lhw = infer_by(build_unary(probability_hw), small_HW3, config)
    lead_hw = marginals_Lhw[1] - marginals_Lhw[0]
    return upsample_guided(lead_hw, picture_HW3, _GUIDE_RADIUS_PX) if config.half_size else lead_hw


@cache
def _warn_missing() -> None:
    """Say it once per process: a run over thousands of images must not drown its log."""
    logger.warning("DenseCRF is not available: masks are left at the borders of the map; %s", CURE)
