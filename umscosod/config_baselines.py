"""Hyper-parameters of the peers, methods of others run on the same features: re-exported by ``config.py``.

Defaults are the published constants but where a meaning says what was adapted, and why.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Le
from typing_extensions import Doc

from umscosod.config_features import Share

Centre = Annotated[
    Literal["group", "image", "none"],
    Doc("Mean patch taken out before cosines: the group's, each image's own, or none (as published)."),
]


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionConfig:
    """Thresholded self-attention (Caron et al. 2021, arXiv 2104.14294, visualisation of the last layer)."""

    binarize: Annotated[Literal["mass", "otsu", "mean"], Doc("Rule that makes a set of the attention.")] = "mass"
    mass: Annotated[float, *Share, Doc("Share of the attention kept by binarize=mass (DINO: 0.6).")] = 0.6


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenCutConfig:
    """TokenCut: normalised cut of one image's patches (Wang et al. 2022, arXiv 2202.11539)."""

    facet: Annotated[
        Literal["tokens", "keys"],
        Doc("What of a patch is compared (TokenCut: DINO's keys; other ViTs' keys all have cosines above tau)."),
    ] = "tokens"
    centre: Centre = "none"
    tau: Annotated[float, Ge(-1.0), Le(1.0), Doc("Cosine above which two patches are joined (TokenCut: 0.2).")] = 0.2
    eps: Annotated[float, Ge(1e-9), Le(1.0), Doc("Weight of the other edges, so that the graph holds (1e-5).")] = 1e-5
    principal: Annotated[
        bool, Doc("Keep only the connected region of the strongest patch (TokenCut), not the whole side of the cut.")
    ] = True
    max_corners: Annotated[
        int,
        Ge(0),
        Le(4),
        Doc(
            "A side that holds more image corners than this is background (MaskCut, arXiv 2301.11320: 2; TokenCut has "
            "no such rule, 4, and often takes a plain background for the object)."
        ),
    ] = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class DvfdvdConfig:
    """DVFDVD: patches clustered over the group, clusters chosen by vote (Amir et al. 2021, arXiv 2112.05814)."""

    facet: Annotated[
        Literal["auto", "keys", "tokens"],
        Doc("What of a patch is clustered: a ViT's keys (DVFDVD); embedded's tokens, as its keys hold for one image."),
    ] = "auto"
    centre: Centre = "none"
    elbow: Annotated[
        float, Ge(0.01), Le(1.0), Doc("No more clusters once the mean squared distance stays above this share (0.975).")
    ] = 0.975
    max_clusters: Annotated[int, Ge(2), Le(100), Doc("Most clusters tried (DVFDVD: 14).")] = 14
    sample_patches: Annotated[
        int,
        Ge(1),
        Le(20_000),
        Doc("Patches an image lends to k-means; all are assigned (DVFDVD: every 100th of a finer grid, about 30)."),
    ] = 96
    rounds: Annotated[
        int, Ge(1), Le(10_000), Doc("Most rounds of one k-means (DVFDVD: 300); it ends when nothing moves.")
    ] = 300
    restarts: Annotated[int, Ge(1), Le(100), Doc("k-means from so many starts; the best is kept (DVFDVD: 10).")] = 10
    vote: Annotated[
        Literal["auto", "fixed", "mean"],
        Doc(
            "An image votes for a cluster whose mean attention exceeds vote_level (DVFDVD), or the image's own mean. "
            "auto: fixed for a ViT; mean for embedded, whose map lies above that level nearly everywhere."
        ),
    ] = "auto"
    vote_level: Annotated[float, *Share, Doc("Level of vote=fixed (DVFDVD, for DINO ViT-S/8).")] = 0.065
    votes: Annotated[float, Ge(0.001), Le(1.0), Doc("Share of the group's images that must vote for it (0.75).")] = 0.75


@dataclass(frozen=True, kw_only=True, slots=True)
class ScosparcConfig:
    """SCoSPARC: cross-attention trained by feature correspondence (Chakraborty and Samaras 2024, arXiv 2403.11107)."""

    epochs: Annotated[
        int, Ge(0), Le(1_000_000), Doc("Passes over all groups (SCoSPARC: 150 on 17,500 images); 0: untrained.")
    ] = 10
    min_steps: Annotated[
        int, Ge(0), Le(10_000_000), Doc("Small collections get more epochs until so many steps are done.")
    ] = 120
    restarts: Annotated[
        int,
        Ge(1),
        Le(100),
        Doc("Trainings from so many starts; the lowest loss is kept (SCoSPARC: 1; whitened tokens need several)."),
    ] = 4
    batch_images: Annotated[int, Ge(2), Le(512), Doc("One step = one group of at most so many images (24).")] = 24
    learning_rate: Annotated[float, Ge(1e-8), Le(1.0), Doc("Adam's step size (SCoSPARC: 1e-4).")] = 1e-4
    weight_decay: Annotated[float, Ge(0.0), Le(1.0), Doc("L2 decay inside Adam (SCoSPARC: 1e-4).")] = 1e-4
    beta2: Annotated[float, Ge(0.0), Le(0.9999), Doc("Adam's second beta (SCoSPARC: 0.99).")] = 0.99
    saliency_weight: Annotated[float, Ge(0.0), Le(1000.0), Doc("Weight of the saliency loss (SCoSPARC: 0.3).")] = 0.3
    level: Annotated[float, *Share, Doc("Min-maxed cross-attention at which the map is 0.5 (SCoSPARC: 0.65).")] = 0.65
    softness: Annotated[float, Ge(0.001), Le(100.0), Doc("Width of the sigmoid about that level (SCoSPARC: 0.15).")] = (
        0.15
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselinesConfig:
    """Peers that ``method`` chooses among."""

    attention: AttentionConfig = field(default_factory=AttentionConfig)
    tokencut: TokenCutConfig = field(default_factory=TokenCutConfig)
    dvfdvd: DvfdvdConfig = field(default_factory=DvfdvdConfig)
    scosparc: ScosparcConfig = field(default_factory=ScosparcConfig)
