"""Settings that earlier versions had, with the values they are fixed at: what was stored with them stays readable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from umscosod.errors import ConfigError, shorten

_BY_SECTION: Mapping[str, Mapping[str, Any]] = {
    "": {"keep_margin": 0.2},
    "features.embedded": {
        **{"centre_sigma": 0.25, "contrast_centre_power": 0.5, "centre_power": 0.25, "geodesic_sigma": 0.1},
        **{"flat_step_quantile": 0.3, "connectivity_sigma": 1.0, "contrast_reach": 0.25, "spectral_components": 12},
        **{"gradient_scales": (0.125, 0.3125, 0.625), "surround_scales": (0.75, 1.75), "spectral_floor": 0.02},
        **{"spectral_bandwidth": 0.5, "spectral_reach": 6.0 / 28.0, "shrinkage": 1e-3, "sharpen_rounds": 3},
        **{"image_weight": 0.6, "group_ridge": 0.1, "image_ridge": 0.3, "slope": 2.0, "smooth_cells": 1.0},
        **{"token_saliency": 6.0, "key_saliency": 3.0},
    },
    "pseudo": {
        **{"sa_binarize": "mass", "sa_mass": 0.6, "max_area_share": 0.8, "max_corners": 2, "nms_iou": 0.9},
        **{"parent_coverage": 0.9, "max_level": 1, "max_group_masks": 6000, "clean_gain": 4.0, "clean_rounds": 2},
        **{"probe_ridge": 0.5, "probe_patches": 15000, "probe_slope": 12.0, "probe_slope_whitened": 0.6},
        "weak_weight": 0.5,
    },
    "network": {"common_dim": 0, "mirror_average": False},
    "network.afmm": {"weight": "patch", "hidden_divisor": 4, "heads": 4, "pre_norm": False},
    "network.cfmm": {"affinity": "conv", "rm_minmax": True, "block_images": 1},
    "network.fram": {"mca": True, "alpha": 3.0},
    "network.decoder": {"stride": 2},
    "train": {
        **{"weight_decay": 0.0, "bce_weight": 1.0, "iou_weight": 1.0, "iou_eps": 1e-7, "mirror": False},
        **{"keep_checkpoints": 2, "rounds": 1, "round_share": 0.5},
    },
    "refine": {
        "agreement_ridge": 0.1,
        **{"empty_share": 0.95, "sim_mode": "absolute", "connectivity": 8},
        **{"upsample": "bilinear", "guided_radius_px": 8, "guided_eps": 1e-4},
    },
    "confidence": {
        **{"mixed_images": 4, "doubt_cap": 0.8, "dims": 64, "ridge": 0.3, "agreement_ridge": 0.1, "nearest": 3},
        **{"kinship_ridge": 0.1, "match_patches": 200, "match_images": 24, "touch_share": 0.1, "ring_share": 0.05},
        "colour_bins": 8,
    },
    "baselines.attention": {"binarize": "mass", "mass": 0.6},
    "baselines.tokencut": {
        **{"facet": "tokens", "centre": "none", "tau": 0.2, "eps": 1e-5, "principal": True, "max_corners": 2},
    },
    "baselines.dvfdvd": {
        **{"facet": "auto", "centre": "none", "elbow": 0.975, "max_clusters": 14, "sample_patches": 96},
        **{"rounds": 300, "restarts": 10, "vote": "auto", "vote_level": 0.065, "votes": 0.75},
    },
    "baselines.scosparc": {
        **{"epochs": 10, "min_steps": 120, "restarts": 4, "batch_images": 24, "learning_rate": 1e-4},
        **{"weight_decay": 1e-4, "beta2": 0.99, "saliency_weight": 0.3, "level": 0.65, "softness": 0.15},
    },
    "grouping": {
        **{"stream": "both", "attention_power": 1.0, "shrinkage": 0.1, "enough_separation": 0.8, "rounds": 10},
        **{"sample_images": 3000, "mixed_draws": 200, "mixed_images": 200, "mixed_quantile": 0.95},
    },
}
REMOVED: Mapping[str, Any] = MappingProxyType(
    {
        f"{section}.{name}".lstrip("."): value
        for section, values in _BY_SECTION.items()
        for name, value in values.items()
    }
)
"""Dotted name of each removed setting, and the value it is fixed at."""


def is_old_section(name: str) -> bool:
    """Whether a dotted name held settings of which all or some are removed."""
    return any(removed.startswith(f"{name}.") for removed in REMOVED)


def is_as_fixed(name: str, value: object) -> bool:
    """Whether a dotted name is a removed setting, with the very value it is fixed at.

    Examples
    --------
    >>> is_as_fixed("refine.connectivity", 8), is_as_fixed("refine.connectivity", 4), is_as_fixed("refine.th0", 0.5)
    (True, False, False)
    """
    if name not in REMOVED:
        return False
    fixed, given = REMOVED[name], tuple(value) if isinstance(value, list) else value
    return type(given) in ((float, int) if isinstance(fixed, float) else (type(fixed),)) and bool(given == fixed)


def check_removed(name: str, value: object) -> None:
    """Refuse a removed setting that asks for another value than it is fixed at.

    Raises
    ------
    ConfigError

    Examples
    --------
    >>> check_removed("refine.connectivity", 8)
    >>> check_removed("refine.connectivity", 4)
    Traceback (most recent call last):
    umscosod.errors.ConfigError: refine.connectivity is no setting any more; its value is fixed at 8; remove it (got 4)
    """
    if not is_as_fixed(name, value):
        raise ConfigError(
            f"{name} is no setting any more; its value is fixed at {REMOVED[name]}; remove it (got {shorten(value)})"
        )


def drop_removed(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leave removed settings out of nested ones, as a checkpoint stores them.

    Parameters
    ----------
    values : mapping
    prefix : str
        Dotted name of the section with a dot, such as ``"network."``, or nothing.

    Raises
    ------
    ConfigError
        One of them has another value than it is fixed at.

    Examples
    --------
    >>> drop_removed({"refine": {"th0": 0.5, "connectivity": 8}, "features": {"embedded": {"slope": 2.0}}})
    {'refine': {'th0': 0.5}}
    """
    kept: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if name in REMOVED:
            check_removed(name, value)
        elif isinstance(value, Mapping) and value and is_old_section(name):
            if inner := drop_removed(value, f"{name}."):
                kept[key] = inner
        else:
            kept[key] = value
    return kept


def iter_differences(
    before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Compare what an earlier job stored with what a job of today has.

    Parameters
    ----------
    before, now : mapping
        Nested; settings are under ``config``, the removed ones among them only in what is stored.
    prefix : str
        Starts the dotted names.

    Yields
    ------
    (str, object, object)
        Dotted name, value before, value now. A removed setting has the value it is fixed at now.

    Examples
    --------
    >>> list(iter_differences({"config": {"refine": {"connectivity": 4}}, "mode": 1}, {"config": {}, "mode": 1}))
    [('config.refine.connectivity', 4, 8)]
    """
    for key in sorted(before.keys() | now.keys()):
        name = f"{prefix}{key}"
        setting = name.removeprefix("config.")
        first, second = before.get(key), now.get(key, REMOVED.get(setting))
        if isinstance(first, Mapping) and isinstance(second, Mapping | None):
            yield from iter_differences(first, second or {}, f"{name}.")
        elif first != second and not is_as_fixed(setting, first):
            yield name, first, second
