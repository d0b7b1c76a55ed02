"""Photographs for the demo: cut-outs pasted into backgrounds, with their exact masks.

Legend: ``H W`` pixels of the composed picture. Layers are float32 RGB in 0-255 with opacity in [0, 1].
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from umscosod.demo.cutouts import BACKDROPS, OBJECT_NAMES, Backdrop, Cutout, coin, coin_labels, cutout, photo
from umscosod.device import numpy_generator
from umscosod.errors import ConfigError
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
    if cut.placing.anchor == "top":
        y = -float(corners_42[:2, 1].max())  # both ends of the cut at or above the frame
    elif cut.placing.anchor == "bottom":
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
    quarter = int(rng.choice(cut.placing.quarters))
    if quarter % 2:
        frame_hw = frame_hw[::-1]
    flip, turn_deg = rng.random() < 0.5, float(rng.uniform(-cut.placing.turn_deg, cut.placing.turn_deg))
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


_LOGGER = logging.getLogger(__name__)

GROUP_NAMES = (*OBJECT_NAMES, "coins")
# Height and width of the n-th picture of a group, as factors of `size`: mostly alike, some larger, smaller, oblong.
_SHAPES_HW = ((1.0, 1.0), (0.75, 1.0), (1.0, 0.75), (1.0, 1.0), (0.95, 1.25), (0.7, 0.7))
_SHARE_BOUNDS = (0.04, 0.55)  # of the frame, accepted for a target after frame and rotation had their say
_DISTRACTOR_CHANCE = 0.5
_DISTRACTOR_SHARE = (0.03, 0.06)
_COIN_WINDOW_PX = (85.0, 200.0)  # shorter side of a crop of the coins photograph
_TRIES = 100
_MIN_SIZE_PX = 48


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoGroup:
    """A group on disk.

    Attributes
    ----------
    name : str
    images : tuple of Path
        RGB JPEG files.
    masks : tuple of Path
        PNG files of the same stems and sizes, 0 or 255.
    """

    name: str
    images: tuple[Path, ...]
    masks: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """What surrounds the target: an index into `BACKDROPS` and the group whose object may distract."""

    backdrop: int
    distractor: str


def scenes_of(group: str, seed: int) -> list[Scene]:
    """Draw the order of surroundings: no backdrop or distractor comes back before all others had their turn."""
    rng = numpy_generator(seed, "demo", group, "scenes")
    parts = rng.permutation([index for index, part in enumerate(BACKDROPS) if part.not_for != group])
    others = rng.permutation([other for other in GROUP_NAMES if other != group])
    return [Scene(backdrop=int(part), distractor=str(others[index % len(others)])) for index, part in enumerate(parts)]


def _distract(name: str, frame_hw: tuple[int, int], target: Layer, rng: np.random.Generator) -> Layer | None:
    """Place a smaller object that the target hides at most by a quarter; None: no room."""
    cut = coin(int(rng.integers(1, 25))) if name == "coins" else cutout(name)
    for _ in range(10):
        layer = lay(cut, frame_hw, float(rng.uniform(*_DISTRACTOR_SHARE)), rng)
        hidden = float(np.minimum(layer.alpha_HW, target.alpha_HW).sum())
        if hidden <= 0.25 * float(layer.alpha_HW.sum()):
            return layer
    return None


def _paste(
    group: str, frame_hw: tuple[int, int], scene: Scene, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """One picture of a cut-out group: RGB float32 (H, W, 3) and opacity of the target (H, W)."""
    cut = cutout(group)
    target = lay(cut, frame_hw, float(rng.uniform(*cut.placing.share)), rng)
    picture_HW3 = backdrop(BACKDROPS[scene.backdrop], frame_hw, rng)
    if rng.random() < _DISTRACTOR_CHANCE:
        other = _distract(scene.distractor, frame_hw, target, rng)
        if other is not None:
            picture_HW3 = blend(picture_HW3, other, rng)
    return blend(picture_HW3, target, rng), target.alpha_HW


def _crop_coins(frame_hw: tuple[int, int], rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """One real crop of the coins photograph, turned a little: RGB float32 (H, W, 3) and opacity of all coins."""
    labels_HW = coin_labels()
    zoom = float(rng.uniform(*_COIN_WINDOW_PX)) / min(frame_hw)  # photograph pixels per frame pixel
    turn_deg = float(rng.uniform(-15.0, 15.0))
    _, width, height = turned((round(frame_hw[0] * zoom), round(frame_hw[1] * zoom)), turn_deg)
    # The turned window must lie inside the photograph: no pixel is made up.
    fit = min(1.0, labels_HW.shape[1] / width, labels_HW.shape[0] / height)
    zoom, width, height = zoom * fit, width * fit, height * fit
    centre = (
        0.5 * width - 0.5 + rng.random() * (labels_HW.shape[1] - width),
        0.5 * height - 0.5 + rng.random() * (labels_HW.shape[0] - height),
    )
    matrix_23 = window_matrix(centre, turn_deg, 1.0 / zoom, (0.5 * frame_hw[1] - 0.5, 0.5 * frame_hw[0] - 0.5))
    picture_HW3 = warp(photo("coins.png").astype(np.float32), matrix_23, frame_hw, cv2.BORDER_REPLICATE)
    # Smoothed before it is enlarged, so that the outline has no steps where the photograph has none.
    opaque_HW = np.asarray(cv2.GaussianBlur((labels_HW > 0).astype(np.float32), (0, 0), 0.8), np.float32)
    alpha_HW = warp(opaque_HW, matrix_23, frame_hw, cv2.BORDER_REPLICATE)
    if rng.random() < 0.5:
        picture_HW3, alpha_HW = picture_HW3[:, ::-1], alpha_HW[:, ::-1]
    tint = rng.uniform(0.9, 1.1, 3).astype(np.float32)
    return picture_HW3 * tint, alpha_HW


def compose_image(group: str, index: int, scene: Scene, *, seed: int, size: int) -> tuple[ByteArray, ByteArray]:
    """Make one picture and its mask.

    Parameters
    ----------
    group : str
        One of `GROUP_NAMES`.
    index : int
        Number of the picture in its group; with `seed` it decides everything drawn.
    scene : Scene
        Without effect for ``coins``, whose surroundings are the photograph's own.
    seed : int
    size : int
        Usual side in pixels; the frame is `size` times a factor that depends on `index`.

    Returns
    -------
    picture_HW3 : ndarray, uint8, (H, W, 3)
    mask_HW : ndarray, uint8, (H, W)
        255 where the object covers at least half of the pixel, else 0.
    """
    factors = _SHAPES_HW[index % len(_SHAPES_HW)]
    frame_hw = (round(size * factors[0]), round(size * factors[1]))
    for attempt in range(_TRIES):
        rng = numpy_generator(seed, "demo", group, index, attempt)
        made = _crop_coins(frame_hw, rng) if group == "coins" else _paste(group, frame_hw, scene, rng)
        mask_HW = np.where(made[1] >= 0.5, np.uint8(255), np.uint8(0))
        if _SHARE_BOUNDS[0] <= float((mask_HW > 0).mean()) <= _SHARE_BOUNDS[1]:
            return expose(made[0], rng), np.ascontiguousarray(mask_HW)
    raise ConfigError(
        f"no picture of group {group!r} at {frame_hw[0]} x {frame_hw[1]} px shows between {_SHARE_BOUNDS[0]:.0%} and "
        f"{_SHARE_BOUNDS[1]:.0%} object after {_TRIES} tries: take another size than {size}"
    )


def _check(groups: Sequence[str], images_per_group: int, size: int) -> None:
    unknown = sorted(set(groups) - set(GROUP_NAMES))
    if unknown or not groups:
        raise ConfigError(f"demo groups {unknown or list(groups)} cannot be made: choose from {list(GROUP_NAMES)}")
    if images_per_group < 1:
        raise ConfigError(f"images_per_group is {images_per_group}: it must be at least 1")
    if size < _MIN_SIZE_PX:
        raise ConfigError(f"size is {size} px: it must be at least {_MIN_SIZE_PX}")


def make_groups(
    out: Path,
    *,
    seed: int,
    groups: Sequence[str] = GROUP_NAMES,
    images_per_group: int = 6,
    size: int = 320,
) -> list[DemoGroup]:
    """Write groups of pictures that share an object, with their masks.

    Parameters
    ----------
    out : Path
        Gets ``image/GROUP/NAME.jpg`` and ``gt/GROUP/NAME.png``; made where missing, files of these names replaced.
    seed : int
        Same seed, same bytes (on one machine with one set of libraries).
    groups : sequence of str
        From `GROUP_NAMES`.
    images_per_group : int
        At least 1. The first n pictures of a group do not depend on it.
    size : int
        Usual side in pixels, at least 48; every sixth picture is larger, smaller or oblong.

    Returns
    -------
    list of DemoGroup
        In the order of `groups`.

    Raises
    ------
    ConfigError
        Unknown or no group, no picture asked for, or a size too small.
    MissingDependencyError
        The installed scikit-image lacks a photograph.
    """
    _check(groups, images_per_group, size)
    made = []
    for group in groups:
        images, masks = [], []
        scenes = scenes_of(group, seed)
        for index in range(images_per_group):
            scene = scenes[index % len(scenes)]
            picture_HW3, mask_HW = compose_image(group, index, scene, seed=seed, size=size)
            image = out / "image" / group / f"{group}_{index:02d}.jpg"
            mask = out / "gt" / group / f"{group}_{index:02d}.png"
            for path in (image, mask):
                path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture_HW3).save(image, quality=92)
            Image.fromarray(mask_HW).save(mask, optimize=True)
            images.append(image)
            masks.append(mask)
        made.append(DemoGroup(name=group, images=tuple(images), masks=tuple(masks)))
    _LOGGER.info("wrote %d demo groups to %s", len(made), out)
    return made
