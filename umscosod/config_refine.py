"""Hyper-parameters of stage 3, the refinement: re-exported by ``config.py``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Le
from typing_extensions import Doc

from umscosod.config_features import Share


@dataclass(frozen=True, kw_only=True, slots=True)
class CrfConfig:
    """DenseCRF (Kraehenbuehl and Koltun, arXiv 1210.5644); ``presets/paper.yaml`` holds SCoSPARC's hard constants."""

    enabled: Annotated[bool, Doc("Run DenseCRF on the refined regions.")] = True
    unary: Annotated[
        Literal["soft", "hard"],
        Doc("Start from the soft map, shifted so that the threshold is 0.5, or from the mask (SCoSPARC: hard)."),
    ] = "soft"
    iterations: Annotated[int, Ge(1), Le(100), Doc("Mean-field steps (SCoSPARC: 10).")] = 20
    confidence: Annotated[
        float,
        Ge(0.501),
        Le(0.9999),
        Doc("Bound c of a label's probability: soft clips to [1 - c, c], hard assigns c (SCoSPARC: 0.995)."),
    ] = 0.98
    gaussian_xy_px: Annotated[
        float, Ge(0.01), Le(10_000.0), Doc("Smoothness kernel: spatial deviation in pixels (SCoSPARC: 10).")
    ] = 3.0
    gaussian_compat: Annotated[float, Ge(0.0), Le(1000.0), Doc("Smoothness kernel: weight (SCoSPARC: 10).")] = 3.0
    bilateral_xy_px: Annotated[
        float, Ge(0.01), Le(10_000.0), Doc("Appearance kernel: spatial deviation in pixels (SCoSPARC: 10).")
    ] = 40.0
    bilateral_rgb: Annotated[
        float, Ge(0.01), Le(10_000.0), Doc("Appearance kernel: colour deviation, in 0-255 levels (SCoSPARC: 3).")
    ] = 8.0
    bilateral_compat: Annotated[float, Ge(0.0), Le(1000.0), Doc("Appearance kernel: weight (SCoSPARC: 10).")] = 3.0
    size_px: Annotated[int, Ge(32), Le(2048), Doc("Side of the square the CRF works on.")] = 224
    workers: Annotated[
        int, Ge(0), Le(61), Doc("Processes (the CRF holds the GIL), at most one an image of a group; 0: one per core.")
    ] = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class RefineConfig:
    """Stage 3, RRBE: threshold, region filter, CRF (eq. 6-8)."""

    enabled: Annotated[bool, Doc("Off: the mask is the map at th0.")] = True
    adaptive: Annotated[bool, Doc("Threshold per image by eq. 6; off: th0 for all.")] = True
    th0: Annotated[float, *Share, Doc("Base threshold of eq. 6.")] = 0.5
    alpha_c: Annotated[
        float,
        Ge(0.0),
        Le(10.0),
        Doc("Weight of a map's lack of confidence in eq. 6 (paper: 1, which drops faint objects of every method)."),
    ] = 0.25
    th_clamp: Annotated[
        tuple[float, float], Ge(-10.0), Le(10.0), Doc("Bounds of the threshold; 0 2 switches clamping off.")
    ] = (0.05, 0.95)
    empty_floor: Annotated[
        float,
        *Share,
        Doc("If nothing passes the threshold: keep >= empty_share max(M) when max(M) exceeds this, else empty."),
    ] = 0.1
    empty_share: Annotated[
        float, *Share, Doc("Share of max(M) from which the rule for an empty mask keeps pixels.")
    ] = 0.95
    region_filter: Annotated[bool, Doc("Drop connected components unlike the group prototype (eq. 7, 8).")] = True
    skip_empty: Annotated[
        bool,
        Doc(
            "Leave images with an empty mask out of the group prototype. Off, as published: one such image makes eq. 7 "
            "0/0, and no component of the group has a similarity above 0."
        ),
    ] = True
    sim_mode: Annotated[
        Literal["absolute", "relative"], Doc("Compare the cosine itself, or its ratio to the image's best component.")
    ] = "absolute"
    sim_th: Annotated[
        float,
        Ge(-1.0),
        Le(1.0),
        Doc("Components with a cosine at or below this go (eq. 8; paper: 0.75, which also drops parts of the object)."),
    ] = 0.5
    keep_best: Annotated[bool, Doc("The best component of an image always stays.")] = True
    upsample: Annotated[
        Literal["bilinear", "guided"],
        Doc(
            "Before the threshold: enlarge a map as it is, or pull its borders to the picture's edges by a guided "
            "filter (He, Sun and Tang, DOI 10.1109/TPAMI.2012.213), as DenseCRF does later."
        ),
    ] = "bilinear"
    guided_radius_px: Annotated[
        int, Ge(1), Le(256), Doc("upsample=guided: reach of a window, in pixels at network size (a ViT's patch: 14).")
    ] = 8
    guided_eps: Annotated[
        float,
        Ge(1e-6),
        Le(1.0),
        Doc("upsample=guided: variance of colours in [0, 1] below which a window counts as flat and is averaged."),
    ] = 1e-4
    connectivity: Annotated[Literal[4, 8], Doc("Neighbours of a pixel in a component.")] = 8
    drop_regions_smaller_than: Annotated[
        float, *Share, Doc("Components under this share of the image go; 0: none.")
    ] = 0.0
    agreement_ridge: Annotated[
        float,
        Ge(1e-6),
        Le(1000.0),
        Doc("Ridge, in mean variances, of the classifier by which keep=better judges a group's masks."),
    ] = 0.1
    crf: CrfConfig = field(default_factory=CrfConfig)
