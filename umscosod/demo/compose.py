"""Groups of pictures with exact masks: cut-outs on photographic backgrounds, and crops of the coins photograph.

Legend: ``H W`` pixels of a composed picture.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from umscosod.demo.cutouts import BACKDROPS, OBJECT_NAMES, coin, coin_labels, cutout, photo
from umscosod.demo.paste import Layer, backdrop, blend, expose, lay, turned, warp, window_matrix
from umscosod.errors import ConfigError
from umscosod.seed import numpy_generator
from umscosod.types import ByteArray, FloatArray

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
    """Draw the order of surroundings: no backdrop or distractor comes back before all others had their turn.

    Raises
    ------
    ConfigError
        `group` is none of `GROUP_NAMES`.
    """
    if group not in GROUP_NAMES:
        raise ConfigError(f"demo group {group!r} cannot be made: choose from {list(GROUP_NAMES)}")
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
    target = lay(cut, frame_hw, float(rng.uniform(*cut.share)), rng)
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
