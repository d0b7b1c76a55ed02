"""Every hyper-parameter, said once: default, bounds, meaning and where it comes from.

The command line, the App form and the docs read this file; ``config_features.py`` holds its part for stage 0,
``config_grouping.py`` that for finding groups, which is no stage, ``config_baselines.py`` that of other methods,
``config_confidence.py`` that of a mask's confidence.
"spec" is the project's method specification, "eq." an equation of the paper. ``presets/paper.yaml`` lists where the
paper's form differs from these defaults.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt
from typing_extensions import Doc

# the redundant names re-export: `from umscosod.config import EmbeddedConfig` is how the rest of the package asks
from umscosod.config_baselines import AttentionConfig as AttentionConfig
from umscosod.config_baselines import BaselinesConfig as BaselinesConfig
from umscosod.config_baselines import DvfdvdConfig as DvfdvdConfig
from umscosod.config_baselines import ScosparcConfig as ScosparcConfig
from umscosod.config_baselines import TokenCutConfig as TokenCutConfig
from umscosod.config_confidence import ConfidenceConfig as ConfidenceConfig
from umscosod.config_features import EmbeddedConfig as EmbeddedConfig
from umscosod.config_features import FeaturesConfig as FeaturesConfig
from umscosod.config_features import Share
from umscosod.config_grouping import GroupingConfig as GroupingConfig

Method = Literal["ums", "pseudo", "attention", "tokencut", "dvfdvd", "scosparc"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """What counts as a usable image file."""

    max_pixels: Annotated[
        int,
        Ge(1),
        Le(178_956_970),
        Doc("Largest image read, width times height; Pillow's own hard limit is the bound."),
    ] = 100_000_000
    min_side_px: Annotated[int, Ge(1), Le(1024), Doc("Images with a shorter side than this are refused.")] = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class PseudoConfig:
    """Stage 1, CM-SPLG: pseudo-labels from attention and masks that co-occur."""

    proposer: Annotated[Literal["hac", "coco-json"], Doc("Maker of instance masks (spec B).")] = "hac"
    detections: Annotated[str, Doc("COCO-format file of masks (RLE or polygons) for proposer=coco-json.")] = ""
    detections_images: Annotated[
        str, Doc("COCO file whose images list names the ids of a bare results list; empty: ids equal file stems.")
    ] = ""
    hac_thresholds: Annotated[
        tuple[float, ...],
        Doc("Cosine similarities at which the merging is read out, high to low (HASSOD: 0.4 0.2 0.1 on DINO keys)."),
    ] = (0.4, 0.2, 0.1)
    centre: Annotated[
        Literal["group", "none"],
        Doc(
            "Take the group's mean patch out of a ViT's keys and tokens before cosines: thresholds then hold for any "
            "backbone. none: as HASSOD on DINO keys."
        ),
    ] = "group"
    sa_binarize: Annotated[
        Literal["mass", "otsu", "mean", "soft"], Doc("How the attention map becomes a set for eq. 1 (spec A1.2).")
    ] = "mass"
    sa_mass: Annotated[float, *Share, Doc("Share of the attention mass kept by sa_binarize=mass.")] = 0.6
    category_distance: Annotated[
        float, Gt(0.0), Le(2.0), Doc("Average-linkage cosine distance below which two masks are one category.")
    ] = 0.45
    min_score: Annotated[float, *Share, Doc("Lowest detector score of a mask (coco-json).")] = 0.3
    min_area_share: Annotated[float, *Share, Doc("Smallest mask, as a share of the image.")] = 0.005
    max_area_share: Annotated[float, *Share, Doc("Largest mask, as a share of the image.")] = 0.8
    max_corners: Annotated[int, Ge(0), Le(4), Doc("Masks that hold more image corners than this are background.")] = 2
    nms_iou: Annotated[float, *Share, Doc("Of two masks with a larger IoU only the first is kept.")] = 0.9
    parent_coverage: Annotated[
        float,
        Gt(0.0),
        Le(1.0),
        Doc("Share of a mask that its parent covers: gives whole, part, subpart (HASSOD: 0.9)."),
    ] = 0.9
    max_level: Annotated[int, Ge(0), Le(2), Doc("Deepest level of the masks used: 0 whole, 1 part, 2 subpart.")] = 1
    max_group_masks: Annotated[
        int,
        Ge(1),
        Doc("Masks of a group that are clustered at most (memory grows with the square); best overlap first."),
    ] = 6000
    top_k: Annotated[
        int, Ge(1), Doc("Only the k most frequent categories of an image compete (paper: k). 1 = frequency alone.")
    ] = 3
    clean: Annotated[
        Literal["auto", "prototype", "none"],
        Doc(
            "Before training and refinement, turn pseudo-labels into soft maps by contrast to the picture's border "
            "times nearness to the group's prototype. auto: not for features whose attention is fitted to the group "
            "already (embedded). none: as published."
        ),
    ] = "auto"
    clean_gain: Annotated[
        float, Ge(1.0), Le(16.0), Doc("Steepness of a cleaned map about 0.5: how much of it DenseCRF takes as settled.")
    ] = 4.0
    weak_overlap: Annotated[float, *Share, Doc("Best overlap (eq. 1) below which a pseudo-label is called weak.")] = (
        0.05
    )
    weak_weight: Annotated[float, *Share, Doc("Loss weight of a weak pseudo-label; 0 leaves it out.")] = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class AfmmConfig:
    """Adaptive feature mixing of the two streams (eq. 2)."""

    enabled: Annotated[bool, Doc("Off: 0.5 / 0.5 mean of the two streams (first row of the paper's ablation).")] = True
    weight: Annotated[Literal["patch", "channel"], Doc("Mixing weight per patch (paper) or per channel.")] = "patch"
    hidden_divisor: Annotated[int, Ge(1), Doc("Hidden width of the mixing MLP is C over this (spec A2; unsaid).")] = 4
    heads: Annotated[int, Ge(1), Doc("Self-attention heads (paper: 4).")] = 4
    pre_norm: Annotated[bool, Doc("LayerNorm without affine on each stream before mixing.")] = False


@dataclass(frozen=True, kw_only=True, slots=True)
class CfmmConfig:
    """Consensus mining over the group (eq. 3)."""

    enabled: Annotated[bool, Doc("Off: the fused features pass through unchanged.")] = True
    affinity: Annotated[Literal["conv", "dot", "cosine"], Doc("Similarity of two tokens (spec A3).")] = "conv"
    init: Annotated[
        Literal["identity", "kaiming"],
        Doc("Start of the affinity's q and k. They get no gradient, so kaiming (ancestors) stays random."),
    ] = "identity"
    seed_prior: Annotated[
        Literal["attention", "none"], Doc("Multiply the min-maxed importance by the attention map before the argmax.")
    ] = "attention"
    rm_relu: Annotated[
        Literal["always", "eval", "never"], Doc("When response maps are rectified (ancestors: eval).")
    ] = "always"
    rm_minmax: Annotated[bool, Doc("Min-max the mean response map per image (ancestors).")] = True
    block_images: Annotated[
        int,
        Ge(1),
        Doc("Images per block of the affinity and of inference: bounds memory, not results (1: cache-sized)."),
    ] = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class FramConfig:
    """Feature refinement and amplification (eq. 4, 5)."""

    enabled: Annotated[bool, Doc("Off: the merged features go straight to the decoder.")] = True
    mca: Annotated[bool, Doc("Multi-dimensional collaborative attention in front.")] = True
    alpha: Annotated[float, Ge(0.0), Le(8.0), Doc("Exponent of the rank amplification, eq. 4 (ancestors: 3).")] = 3.0
    amp_norm: Annotated[
        Literal["row", "none"], Doc("Renormalise amplified rows. none is the published form and overflows in fp16.")
    ] = "row"


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderConfig:
    """From enriched tokens to three supervised maps (spec A5)."""

    channels: Annotated[int, Ge(4), Le(512), Doc("Width of the decoder.")] = 64
    picture: Annotated[
        bool, Doc("Feed the picture itself beside the tokens at every stage: borders finer than the token grid.")
    ] = False
    stride: Annotated[int, Ge(1), Le(8), Doc("Input side over the side of the last map: 2 gives 28-56-112 at 224.")] = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig:
    """Stage 2: the UMS network."""

    afmm: AfmmConfig = field(default_factory=AfmmConfig)
    cfmm: CfmmConfig = field(default_factory=CfmmConfig)
    fram: FramConfig = field(default_factory=FramConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    common_dim: Annotated[
        int, Ge(0), Doc("Width both streams are projected to; 0: none if equal, else the larger (spec A0).")
    ] = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Stage 2: training on pseudo-labels (eq. 9, 10)."""

    epochs: Annotated[int, Ge(1), Doc("Passes over all groups (paper: 100).")] = 100
    min_steps: Annotated[
        int, Ge(0), Doc("Small collections get more epochs until so many steps are done; 0: epochs alone decide.")
    ] = 0
    batch_images: Annotated[int, Ge(1), Le(512), Doc("One step = one group of at most so many images (paper: 24).")] = (
        24
    )
    learning_rate: Annotated[float, Gt(0.0), Doc("Adam's step size (paper: 1e-4).")] = 1e-4
    weight_decay: Annotated[float, Ge(0.0), Doc("L2 decay inside Adam.")] = 0.0
    bce_weight: Annotated[float, Ge(0.0), Doc("Weight of the cross-entropy (eq. 9).")] = 1.0
    iou_weight: Annotated[float, Ge(0.0), Doc("Weight of the soft IoU loss (eq. 10).")] = 1.0
    label_smoothing: Annotated[
        float,
        Ge(0.0),
        Lt(1.0),
        Doc("Targets become (1 - s) t + s / 2, so that a network copies its labels' faults later. 0: as published."),
    ] = 0.0
    iou_eps: Annotated[float, Gt(0.0), Doc("Added to the union in eq. 10 (CFPAM: 1e-7).")] = 1e-7
    checkpoint_every: Annotated[int, Ge(1), Doc("Epochs between two checkpoints a killed run resumes from.")] = 1
    keep_checkpoints: Annotated[int, Ge(1), Doc("How many of the latest checkpoints stay on disk.")] = 2


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
        Gt(0.5),
        Le(0.9999),
        Doc("Bound c of a label's probability: soft clips to [1 - c, c], hard assigns c (SCoSPARC: 0.995)."),
    ] = 0.98
    gaussian_xy_px: Annotated[float, Gt(0.0), Doc("Smoothness kernel: spatial deviation in pixels (SCoSPARC: 10).")] = (
        3.0
    )
    gaussian_compat: Annotated[float, Ge(0.0), Doc("Smoothness kernel: weight (SCoSPARC: 10).")] = 3.0
    bilateral_xy_px: Annotated[
        float, Gt(0.0), Doc("Appearance kernel: spatial deviation in pixels (SCoSPARC: 10).")
    ] = 60.0
    bilateral_rgb: Annotated[
        float, Gt(0.0), Doc("Appearance kernel: colour deviation, in 0-255 levels (SCoSPARC: 3).")
    ] = 5.0
    bilateral_compat: Annotated[float, Ge(0.0), Doc("Appearance kernel: weight (SCoSPARC: 10).")] = 5.0
    size_px: Annotated[int, Ge(32), Le(2048), Doc("Side of the square the CRF works on.")] = 224
    workers: Annotated[int, Ge(0), Doc("Processes (the CRF holds the GIL); 0: one per core.")] = 0


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
    th_clamp: Annotated[tuple[float, float], Doc("Bounds of the threshold; 0 2 switches clamping off.")] = (0.05, 0.95)
    empty_floor: Annotated[
        float,
        *Share,
        Doc("If nothing passes the threshold: keep >= empty_share max(M) when max(M) exceeds this, else empty."),
    ] = 0.1
    empty_share: Annotated[
        float, *Share, Doc("Share of max(M) from which the rule for an empty mask keeps pixels.")
    ] = 0.95
    region_filter: Annotated[bool, Doc("Drop connected components unlike the group prototype (eq. 7, 8).")] = True
    sim_mode: Annotated[
        Literal["absolute", "relative"], Doc("Compare the cosine itself, or its ratio to the image's best component.")
    ] = "absolute"
    sim_th: Annotated[float, Ge(-1.0), Le(1.0), Doc("Components with a cosine at or below this go (eq. 8).")] = 0.75
    keep_best: Annotated[bool, Doc("The best component of an image always stays.")] = True
    connectivity: Annotated[Literal[4, 8], Doc("Neighbours of a pixel in a component.")] = 8
    drop_regions_smaller_than: Annotated[
        float, *Share, Doc("Components under this share of the image go; 0: none.")
    ] = 0.0
    agreement_ridge: Annotated[
        float, Gt(0.0), Doc("Ridge, in mean variances, of the classifier by which keep=better judges a group's masks.")
    ] = 0.1
    crf: CrfConfig = field(default_factory=CrfConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineConfig:
    """All stages."""

    seed: Annotated[int, Ge(0), Doc("Seed of everything random; group and image order are part of it.")] = 123
    device: Annotated[str, Doc("auto, cpu, cuda, cuda:N or mps.")] = "auto"
    method: Annotated[
        Method,
        Doc(
            "What makes the maps that are refined: ums, the whole method; pseudo, its pseudo-labels alone; or a method "
            "of others on the same features, for comparison."
        ),
    ] = "ums"
    keep: Annotated[
        Literal["better", "network", "pseudo"],
        Doc(
            "Per group: the better of network and pseudo-label by a label-free criterion, the mean of both where "
            "neither is clearly better; or always one of them."
        ),
    ] = "better"
    keep_margin: Annotated[
        float,
        Ge(0.0),
        Le(2.0),
        Doc(
            "Difference in agreement across the group above which one maker is clearly better. Wide, as a network is "
            "more consistent than what it learnt from even where it is no better."
        ),
    ] = 0.2
    mean_network_share: Annotated[
        float, *Share, Doc("The network's share in that mean; the rest is the pseudo-label's mask and its attention.")
    ] = 0.25
    data: DataConfig = field(default_factory=DataConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    pseudo: PseudoConfig = field(default_factory=PseudoConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    confidence: ConfidenceConfig = field(default_factory=ConfidenceConfig)
    baselines: BaselinesConfig = field(default_factory=BaselinesConfig)
