"""Every hyper-parameter, said once: default, bounds, meaning and where it comes from.

The command line, the App form and the docs read this file. Parts of it lie beside it: ``config_features.py`` (stage 0),
``config_pseudo.py`` (stage 1), ``config_refine.py`` (stage 3), ``config_confidence.py`` (a mask's confidence),
``config_grouping.py`` (finding groups, which is no stage) and ``config_baselines.py`` (other methods).
"spec" is the project's method specification, "eq." an equation of the paper. ``presets/paper.yaml`` lists where the
paper's form differs from these defaults.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Le
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
from umscosod.config_pseudo import PseudoConfig as PseudoConfig
from umscosod.config_refine import CrfConfig as CrfConfig
from umscosod.config_refine import RefineConfig as RefineConfig

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
class AfmmConfig:
    """Adaptive feature mixing of the two streams (eq. 2)."""

    enabled: Annotated[bool, Doc("Off: 0.5 / 0.5 mean of the two streams (first row of the paper's ablation).")] = True
    weight: Annotated[Literal["patch", "channel"], Doc("Mixing weight per patch (paper) or per channel.")] = "patch"
    hidden_divisor: Annotated[
        int, Ge(1), Le(1024), Doc("Hidden width of the mixing MLP is C over this (spec A2; unsaid).")
    ] = 4
    heads: Annotated[int, Ge(1), Le(64), Doc("Self-attention heads (paper: 4).")] = 4
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
        Le(512),
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
        int, Ge(0), Le(2048), Doc("Width both streams are projected to; 0: none if equal, else the larger (spec A0).")
    ] = 0
    mirror_average: Annotated[bool, Doc("Predict the mean of a group's maps and of its mirrored features' maps.")] = (
        False
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Stage 2: training on pseudo-labels (eq. 9, 10)."""

    epochs: Annotated[int, Ge(1), Le(1_000_000), Doc("Passes over all groups (paper: 100).")] = 100
    min_steps: Annotated[
        int,
        Ge(0),
        Le(10_000_000),
        Doc("Small collections get more epochs until so many steps are done; 0: epochs alone decide."),
    ] = 0
    batch_images: Annotated[int, Ge(1), Le(512), Doc("One step = one group of at most so many images (paper: 24).")] = (
        24
    )
    learning_rate: Annotated[float, Ge(1e-8), Le(1.0), Doc("Adam's step size (paper: 1e-4).")] = 1e-4
    weight_decay: Annotated[float, Ge(0.0), Le(1.0), Doc("L2 decay inside Adam.")] = 0.0
    bce_weight: Annotated[float, Ge(0.0), Le(1000.0), Doc("Weight of the cross-entropy (eq. 9).")] = 1.0
    iou_weight: Annotated[float, Ge(0.0), Le(1000.0), Doc("Weight of the soft IoU loss (eq. 10).")] = 1.0
    label_weights: Annotated[
        Literal["confidence", "equal"],
        Doc("Weight of an image in the loss: its label's confidence, sqrt(f O), or equal (eq. 9, 10: plain means)."),
    ] = "confidence"
    label_smoothing: Annotated[
        float,
        Ge(0.0),
        Le(0.99),
        Doc(
            "Targets of the cross-entropy become (1 - s) t + s / 2, so that a network copies its labels' faults later. "
            "0: as published."
        ),
    ] = 0.0
    ema_decay: Annotated[
        float,
        Ge(0.0),
        Le(0.99999),
        Doc("Predict with an average of the network over its steps, each keeping this share of it. 0: as published."),
    ] = 0.0
    mirror: Annotated[bool, Doc("A visit of a group sees its features and targets mirrored, with chance one half.")] = (
        False
    )
    rounds: Annotated[
        int,
        Ge(1),
        Le(4),
        Doc(
            "Rounds of training: from the second on, targets are the blend of labels and the network so far, and "
            "training goes on from it. 1: as published."
        ),
    ] = 1
    round_share: Annotated[float, *Share, Doc("The network's share in the targets of a further round.")] = 0.5
    iou_eps: Annotated[float, Ge(1e-12), Le(1.0), Doc("Added to the union in eq. 10 (CFPAM: 1e-7).")] = 1e-7
    checkpoint_every: Annotated[
        int, Ge(1), Le(1_000_000), Doc("Epochs between two checkpoints a killed run resumes from.")
    ] = 1
    keep_checkpoints: Annotated[int, Ge(1), Le(1000), Doc("How many of the latest checkpoints stay on disk.")] = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineConfig:
    """All stages."""

    seed: Annotated[
        int, Ge(0), Le(2**63 - 1), Doc("Seed of everything random; group and image order are part of it.")
    ] = 123
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
            "neither is clearly better; or always one of them. With a checkpoint its probe stands for the pseudo-label."
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
        float, *Share, Doc("The network's share in that mean, which is one of logits; the rest is the pseudo-label's.")
    ] = 0.25
    data: DataConfig = field(default_factory=DataConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    pseudo: PseudoConfig = field(default_factory=PseudoConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    confidence: ConfidenceConfig = field(default_factory=ConfidenceConfig)
    baselines: BaselinesConfig = field(default_factory=BaselinesConfig)
