"""Geometry and light of a composed picture: one object layer, one background, their blend.

Legend: ``H W`` pixels of the composed frame. Layers are float32 RGB in 0-255 with opacity in [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from umscosod.demo.cutouts import Backdrop, Cutout, photo
from umscosod.types import ByteArray, FloatArray

_FIT = 0.94  # largest part of the frame's width or height an object takes
_MARGIN_PX = 3.0  # kept free between a free object and the frame, both sides together


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """A cut-out laid into a frame.

    Attributes
    ----------
    picture_HW3 : ndarray, float32, (H, W, 3), 0 to 255
    alpha_HW : ndarray, float32, (H, W), in [0, 1]
    """

    picture_HW3: FloatArray
    alpha_HW: FloatArray


def resize(picture: FloatArray, size_hw: tuple[int, int]) -> FloatArray:
    """Resize by area when shrinking and by cubic spline when growing.

    Parameters
    ----------
    picture : ndarray, float32, (H, W) or (H, W, 3)
    size_hw : (int, int)

    Returns
    -------
    ndarray, float32, (*size_hw) or (*size_hw, 3)
    """
    shrinks = size_hw[0] * size_hw[1] < picture.shape[0] * picture.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (size_hw[1], size_hw[0]), interpolation=method), np.float32)


def window_matrix(about: tuple[float, float], turn_deg: float, scale: float, target: tuple[float, float]) -> FloatArray:
    """Rotate and scale about a point, then move that point to `target`.

    Returns
    -------
    ndarray, float64, (2, 3)
        For (x, y, 1) with whole numbers at pixel centres.

    Examples
    --------
    >>> matrix_23 = window_matrix((1.0, 1.0), 0.0, 2.0, (5.0, 5.0))
    >>> (matrix_23 @ (1, 1, 1)).tolist(), (matrix_23 @ (2, 1, 1)).tolist()
    ([5.0, 5.0], [7.0, 5.0])
    """
    matrix_23 = np.asarray(cv2.getRotationMatrix2D(about, turn_deg, scale), np.float64)
    matrix_23[:, 2] += (target[0] - about[0], target[1] - about[1])
    return matrix_23


def warp(picture: FloatArray, matrix_23: FloatArray, frame_hw: tuple[int, int], border: int) -> FloatArray:
    """Apply an affine map with linear interpolation; `border` is one of OpenCV's ``BORDER_`` codes.

    Returns
    -------
    ndarray, float32, (*frame_hw,) or (*frame_hw, 3)
    """
    warped = cv2.warpAffine(picture, matrix_23, frame_hw[::-1], flags=cv2.INTER_LINEAR, borderMode=border)
    return np.asarray(warped, np.float32)


def turned(shape_hw: tuple[int, int], turn_deg: float) -> tuple[FloatArray, float, float]:
    """Rotate a rectangle about its centre.

    Returns
    -------
    corners_42 : ndarray, float64, (4, 2)
        (x, y) of top left, top right, bottom right, bottom left, centre at the origin, y down.
    width, height : float
        Of the upright box around them, in pixels.

    Examples
    --------
    >>> corners_42, width, height = turned((2, 4), 90.0)
    >>> round(width), round(height)
    (2, 4)
    >>> corners_42[0].round(6).tolist()  # top left goes to bottom left: counter-clockwise
    [-1.0, 2.0]
    """
    height, width = shape_hw
    corners_42 = 0.5 * np.array([(-width, -height), (width, -height), (width, height), (-width, height)])
    cos, sin = math.cos(math.radians(turn_deg)), math.sin(math.radians(turn_deg))
    corners_42 = corners_42 @ np.array([[cos, -sin], [sin, cos]])
    return corners_42, float(np.ptp(corners_42[:, 0])), float(np.ptp(corners_42[:, 1]))


def _centre(
    cut: Cutout,
    corners_42: FloatArray,
    box_wh: tuple[float, float],
    frame_hw: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Draw where the object's centre goes: inside the frame, or flush with the side that cuts it off."""
    height, width = frame_hw
    slack_x = max(0.0, width - box_wh[0] - _MARGIN_PX)
    x = 0.5 * width + (rng.random() - 0.5) * slack_x
    if cut.anchor == "top":
        y = -float(corners_42[:2, 1].max())  # both ends of the cut at or above the frame
    elif cut.anchor == "bottom":
        y = height - float(corners_42[2:, 1].min())
    else:
        y = 0.5 * height + (rng.random() - 0.5) * max(0.0, height - box_wh[1] - _MARGIN_PX)
    return x, y


def lay(cut: Cutout, frame_hw: tuple[int, int], share: float, rng: np.random.Generator) -> Layer:
    """Scale, turn, mirror and place a cut-out.

    Parameters
    ----------
    cut : Cutout
    frame_hw : (int, int)
    share : float
        Wanted share of the frame, in (0, 1); less where the object would outgrow the frame.
    rng : Generator

    Returns
    -------
    Layer
        A free object lies wholly inside the frame, an anchored one touches its side.
    """
    quarter = int(rng.choice(cut.quarters))
    if quarter % 2:
        frame_hw = frame_hw[::-1]
    flip, turn_deg = rng.random() < 0.5, float(rng.uniform(-cut.turn_deg, cut.turn_deg))
    picture, alpha = cut.picture_HW3.astype(np.float32), cut.alpha_HW.astype(np.float32) / 255.0
    if flip:
        picture, alpha = picture[:, ::-1], alpha[:, ::-1]
    _, width, height = turned(alpha.shape, turn_deg)
    scale = math.sqrt(share * frame_hw[0] * frame_hw[1] / float(alpha.sum()))
    scale = min(scale, _FIT * frame_hw[1] / width, _FIT * frame_hw[0] / height)
    # Shrink by area first, then turn at the final size: turning a large picture straight down would alias.
    small_hw = (max(2, round(alpha.shape[0] * scale)), max(2, round(alpha.shape[1] * scale)))
    picture, alpha = resize(np.ascontiguousarray(picture), small_hw), resize(np.ascontiguousarray(alpha), small_hw)
    corners_42, width, height = turned(small_hw, turn_deg)
    centre = _centre(cut, corners_42, (width, height), frame_hw, rng)
    about = (0.5 * small_hw[1] - 0.5, 0.5 * small_hw[0] - 0.5)
    matrix_23 = window_matrix(about, turn_deg, 1.0, (centre[0] - 0.5, centre[1] - 0.5))
    picture = warp(picture, matrix_23, frame_hw, cv2.BORDER_REPLICATE)
    alpha = np.clip(warp(alpha, matrix_23, frame_hw, cv2.BORDER_CONSTANT), 0.0, 1.0)
    return Layer(
        picture_HW3=np.ascontiguousarray(np.rot90(picture, quarter)),
        alpha_HW=np.ascontiguousarray(np.rot90(alpha, quarter)),
    )


def backdrop(part: Backdrop, frame_hw: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Fill a frame from a random window of a photograph's empty part.

    Returns
    -------
    ndarray, float32, (*frame_hw, 3), 0 to 255
    """
    left, top, right, bottom = part.box
    whole = photo(part.photo)[top:bottom, left:right].astype(np.float32)
    fit = min(whole.shape[0] / frame_hw[0], whole.shape[1] / frame_hw[1]) * float(rng.uniform(0.6, 1.0))
    window_hw = (max(2, int(frame_hw[0] * fit)), max(2, int(frame_hw[1] * fit)))
    y = int(rng.integers(whole.shape[0] - window_hw[0] + 1))
    x = int(rng.integers(whole.shape[1] - window_hw[1] + 1))
    window = whole[y : y + window_hw[0], x : x + window_hw[1]]
    if rng.random() < 0.5:
        window = window[:, ::-1]
    filled_HW3 = resize(np.ascontiguousarray(window), frame_hw)
    return np.clip(filled_HW3 * np.array(part.tint, np.float32), 0.0, 255.0)


def blend(under_HW3: FloatArray, layer: Layer, rng: np.random.Generator) -> FloatArray:
    """Lay an object on a picture, under its own light and with a soft shadow.

    Returns
    -------
    ndarray, float32, (H, W, 3), 0 to 255
    """
    height, width = layer.alpha_HW.shape
    reach = 0.02 * min(height, width)
    shift = np.array([[1, 0, rng.uniform(-1, 1) * reach], [0, 1, reach]], np.float64)
    shadow_HW = warp(layer.alpha_HW, shift, (height, width), cv2.BORDER_REPLICATE)
    shadow_HW = cv2.GaussianBlur(shadow_HW, (0, 0), max(0.5, reach)) * np.float32(rng.uniform(0.1, 0.4))
    gains = rng.uniform(0.75, 1.2) * rng.uniform(0.94, 1.06, 3)
    lit_HW3 = np.clip(layer.picture_HW3 * gains.astype(np.float32), 0.0, 255.0)
    alpha_HW1 = layer.alpha_HW[..., None]
    blended_HW3: FloatArray = lit_HW3 * alpha_HW1 + under_HW3 * (1.0 - shadow_HW[..., None]) * (1.0 - alpha_HW1)
    return blended_HW3


def expose(picture_HW3: FloatArray, rng: np.random.Generator) -> ByteArray:
    """Give a whole picture one light, one lens and one sensor: gradient, contrast, slight blur, noise.

    Returns
    -------
    ndarray, uint8, (H, W, 3)
    """
    height, width, _ = picture_HW3.shape
    y_HW, x_HW = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    angle, strength = rng.uniform(0, 2 * math.pi), rng.uniform(0.0, 0.25)
    light_HW = 1.0 + np.float32(strength) * (np.float32(math.cos(angle)) * x_HW + np.float32(math.sin(angle)) * y_HW)
    picture_HW3 = (picture_HW3 * light_HW[..., None] - 128.0) * np.float32(rng.uniform(0.8, 1.15)) + np.float32(
        128.0 + rng.uniform(-12, 12)
    )
    blur = float(rng.uniform(0.0, 0.8))
    if blur > 0.3:  # narrower kernels change nothing
        picture_HW3 = np.asarray(cv2.GaussianBlur(picture_HW3, (0, 0), blur), np.float32)
    noise_HW3 = rng.standard_normal(picture_HW3.shape, dtype=np.float32) * np.float32(rng.uniform(1.0, 4.0))
    exposed_HW3: ByteArray = np.clip(np.rint(picture_HW3 + noise_HW3), 0, 255).astype(np.uint8)
    return exposed_HW3
