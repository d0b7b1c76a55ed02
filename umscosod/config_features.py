"""Hyper-parameters of stage 0, the frozen features: the part of ``config.py`` that it re-exports from here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Le
from typing_extensions import Doc

Share = (Ge(0.0), Le(1.0))


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddedConfig:
    """The backbone without weights: descriptors per cell, and a stand-in for self-attention (spec A0)."""

    centre_sigma: Annotated[
        float, Ge(0.01), Le(10.0), Doc("Deviation of the centre prior, as a share of the picture's side.")
    ] = 0.25
    contrast_centre_power: Annotated[
        float, Ge(0.0), Le(4.0), Doc("Exponent of the centre prior on the contrast to the border.")
    ] = 0.5
    centre_power: Annotated[float, Ge(0.0), Le(4.0), Doc("Exponent of the centre prior on the sharpened map.")] = 0.25
    geodesic_sigma: Annotated[
        float,
        Ge(0.001),
        Le(100.0),
        Doc("Geodesic Lab distance at which two patches stop being one surface (L in [0, 1])."),
    ] = 0.1
    flat_step_quantile: Annotated[
        float, *Share, Doc("Steps between patches below this quantile count as flat: noise must not add up on a path.")
    ] = 0.3
    connectivity_sigma: Annotated[
        float,
        Ge(0.01),
        Le(100.0),
        Doc("Border connectivity at which a surface counts as background (Zhu et al. 2014: 1)."),
    ] = 1.0
    contrast_reach: Annotated[
        float,
        Ge(0.01),
        Le(100.0),
        Doc("Reach of the contrast to the border, as a share of the side (Zhu et al. 2014: 0.25)."),
    ] = 0.25
    gradient_scales: Annotated[
        tuple[float, float, float], Ge(0.01), Le(4.0), Doc("Deviations of the oriented gradients' Gaussians, in cells.")
    ] = (0.125, 0.3125, 0.625)
    surround_scales: Annotated[
        tuple[float, float], Ge(0.01), Le(8.0), Doc("Deviations of the surroundings' Gaussians, in cells.")
    ] = (0.75, 1.75)
    spectral_components: Annotated[
        int, Ge(1), Le(36), Doc("Principal components of the descriptors that the keys' affinity compares.")
    ] = 12
    spectral_floor: Annotated[
        float,
        Ge(1e-6),
        Le(100.0),
        Doc("Added to a channel's deviation before it is standardised: bounds what noise can weigh."),
    ] = 0.02
    spectral_bandwidth: Annotated[
        float,
        Ge(0.01),
        Le(1000.0),
        Doc("Bandwidth of the keys' affinity, in medians of the squared distances between patches."),
    ] = 0.5
    spectral_reach: Annotated[
        float, Ge(0.01), Le(100.0), Doc("Reach of the keys' affinity, as a share of the side (6 of 28 cells).")
    ] = 6.0 / 28.0
    shrinkage: Annotated[
        float, Ge(1e-6), Le(1000.0), Doc("Added to every variance when tokens are whitened, in mean variances.")
    ] = 1e-3
    sharpen_rounds: Annotated[
        int, Ge(0), Le(10), Doc("Refits of the linear foreground classifier; 0: contrast to the border alone.")
    ] = 3
    image_weight: Annotated[
        float, *Share, Doc("Weight of the classifier fitted to the image itself, against the one of the whole group.")
    ] = 0.6
    group_ridge: Annotated[float, Ge(1e-6), Le(1000.0), Doc("Ridge of the group's classifier, in mean variances.")] = (
        0.1
    )
    image_ridge: Annotated[float, Ge(1e-6), Le(1000.0), Doc("Ridge of an image's classifier, in mean variances.")] = 0.3
    slope: Annotated[
        float, Ge(0.01), Le(1000.0), Doc("Steepness of the sigmoid over the standardised discriminant.")
    ] = 2.0
    smooth_cells: Annotated[float, Ge(0.0), Le(100.0), Doc("Gaussian smoothing of the discriminant, in cells.")] = 1.0
    token_saliency: Annotated[
        float,
        Ge(0.0),
        Le(1000.0),
        Doc("Weight of the sharpened map as one more token channel: groups masks by what they are."),
    ] = 6.0
    key_saliency: Annotated[
        float,
        Ge(0.0),
        Le(1000.0),
        Doc("Weight of the sharpened map as one more key channel: regions end at its borders."),
    ] = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class FeaturesConfig:
    """Stage 0: frozen features."""

    backbone: Annotated[
        str,
        Doc(
            "First stream: auto, embedded, dino_vitb8, dino_vits8, dinov2_vitb14_reg, dinov2_vits14 or "
            "dinov2_vits14_reg. auto takes the paper's pair where weights are at hand, else embedded."
        ),
    ] = "auto"
    weights: Annotated[str, Doc("Local weight file of the first stream (.safetensors or .pth); empty: the hub's.")] = ""
    second_backbone: Annotated[
        str, Doc("Second stream; empty: the paper's partner if at hand, else a second granularity of the first.")
    ] = ""
    second_weights: Annotated[str, Doc("Local weight file of the second stream.")] = ""
    allow_download: Annotated[bool, Doc("Let timm fetch missing weights from its hub. Off: no network.")] = False
    size_px: Annotated[
        int, Ge(56), Le(1022), Doc("Side of the square picture a backbone sees, in pixels (spec A0; 224).")
    ] = 224
    batch_size: Annotated[int, Ge(1), Le(256), Doc("Images per forward pass of a ViT.")] = 8
    cache_dir: Annotated[
        str, Doc("Folder of the content-addressed feature cache; empty: UMSCOSOD_CACHE or the user's cache folder.")
    ] = ""
    use_cache: Annotated[bool, Doc("Keep encoded features on disk, so that no image is ever encoded twice.")] = True
    embedded: EmbeddedConfig = field(default_factory=EmbeddedConfig)
