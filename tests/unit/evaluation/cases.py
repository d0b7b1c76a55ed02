"""Pairs of 8-bit maps and masks that have tripped measures before: (name, prediction, ground truth)."""

from __future__ import annotations

import numpy as np

HEIGHT, WIDTH = 37, 46


def blob(rng, level=255):
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    r, c = rng.uniform(8, HEIGHT - 8), rng.uniform(8, WIDTH - 8)
    inside = ((rows - r) / rng.uniform(4, 12)) ** 2 + ((columns - c) / rng.uniform(4, 14)) ** 2 < 1
    return (inside * level).astype(np.uint8)


def soften(mask, rng, noise=25.0):
    smooth = mask.astype(float)
    for axis in (0, 1):
        smooth = sum(np.roll(smooth, shift, axis) for shift in (-2, -1, 0, 1, 2)) / 5
    return np.clip(smooth * 0.8 + 20 + rng.normal(0, noise, mask.shape), 0, 255).astype(np.uint8)


def make_maps(rng, gt):
    """Predictions of every kind for one mask."""
    shape = gt.shape
    levels = np.array([0, 90, 200], np.uint8)
    return {
        "random": rng.integers(0, 256, shape, dtype=np.uint8),
        "soft": soften(gt, rng),
        "narrow range": rng.integers(90, 140, shape, dtype=np.uint8),
        "binary": blob(rng)[: shape[0], : shape[1]] if shape == (HEIGHT, WIDTH) else gt.copy(),
        "perfect": gt.copy(),
        "inverse": 255 - gt,
        "three levels": levels[rng.integers(0, 3, shape)],
        "gradient": np.broadcast_to(np.linspace(3, 250, shape[1]).astype(np.uint8), shape).copy(),
        "zero": np.zeros(shape, np.uint8),
        "constant 77": np.full(shape, 77, np.uint8),
        "constant 128": np.full(shape, 128, np.uint8),
        "constant 200": np.full(shape, 200, np.uint8),
        "full": np.full(shape, 255, np.uint8),
        "one pixel": one_pixel(shape, shape[0] // 3, shape[1] // 2),
        "all but one pixel": 255 - one_pixel(shape, shape[0] // 3, shape[1] // 2),
    }


def one_pixel(shape, row, column):
    picture = np.zeros(shape, np.uint8)
    picture[row, column] = 255
    return picture


def make_masks(rng):
    """Ground truths of every kind."""
    shape = (HEIGHT, WIDTH)
    border = np.zeros(shape, np.uint8)
    border[:, -3:] = 255
    even = np.zeros(shape, np.uint8)
    even[10:20, 11:31] = 255  # centroid at 14.5, 20.5: a tie
    soft = soften(blob(rng), rng, noise=5.0)
    near_half = np.where(blob(rng) > 0, rng.choice(np.array([127, 128, 129], np.uint8), shape), 0).astype(np.uint8)
    return {
        "blob": blob(rng),
        "even": even,
        "border": border,
        "noise": rng.integers(0, 2, shape, dtype=np.uint8) * 255,
        "empty": np.zeros(shape, np.uint8),
        "full": np.full(shape, 255, np.uint8),
        "one pixel": one_pixel(shape, 12, 30),
        "corner": one_pixel(shape, 0, 0),
        "last corner": one_pixel(shape, HEIGHT - 1, WIDTH - 1),
        "first row": np.pad(np.full((1, WIDTH), 255, np.uint8), ((0, HEIGHT - 1), (0, 0))),
        "last column": np.pad(np.full((HEIGHT, 1), 255, np.uint8), ((0, 0), (WIDTH - 1, 0))),
        "hole": 255 - one_pixel(shape, 12, 30),
        "soft": soft,
        "127 and 128": near_half,
        "constant 128": np.full(shape, 128, np.uint8),
        "0 and 1": np.minimum(blob(rng), 1),
        "0 and 127": blob(rng, level=127),
        "128 and 255": np.maximum(blob(rng), 128),
        "254 and 255": 255 - one_pixel(shape, 12, 30) // 255,
        "tiny": np.array([[0, 255], [0, 0]], np.uint8),
        "one row": np.array([[0, 0, 255, 255, 0]], np.uint8),
    }


def make_cases(seed=0):
    rng = np.random.default_rng(seed)
    for gt_name, gt in make_masks(rng).items():
        for pred_name, pred in make_maps(rng, gt).items():
            yield f"{pred_name} on {gt_name}", pred, gt


CASES = list(make_cases())
