"""Every setting, said once: default, bounds, meaning and source.

The command line, the App form and the docs read this file. "spec" is the project's method specification, "eq." an
equation of the paper; ``presets/paper.yaml`` lists where the paper's form differs from these defaults.

What a person may want to change, what a preset sets and what a study leaves out is here. Other numbers of the method
are constants beside the code that reads them; those that were settings once are listed in ``removed.json``.
`GroupingConfig` is no section of `PipelineConfig`: how groups were found decides no mask once they are given. How
settings are described is in ``schema``, how they are read and written in ``io``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Le
from typing_extensions import Doc

Share = (Ge(0.0), Le(1.0))


@dataclass(frozen=True, kw_only=True, slots=True)
class FeaturesConfig:
    """Stage 0: frozen features."""

    backbone: Annotated[
        str,
        Doc(
            "First stream: auto, embedded, starter, a short name such as dino_vitb8 ('umscosod weights list'), "
            "timm:NAME, hf-hub:OWNER/NAME or local-dir:FOLDER. auto takes what is on this machine, the paper's pair "
            "first."
        ),
    ] = "auto"
    weights: Annotated[
        str, Doc("Local weight file of the first stream (.safetensors or .pth); empty: what 'umscosod weights' lists.")
    ] = ""
    second_backbone: Annotated[
        str, Doc("Second stream; empty: the paper's partner if at hand, else a second granularity of the first.")
    ] = ""
    second_weights: Annotated[str, Doc("Local weight file of the second stream.")] = ""
    debias: Annotated[bool, Doc("Take out of a ViT's tokens what they share by place alone.")] = False
    size_px: Annotated[
        int, Ge(56), Le(1022), Doc("Side of the square picture a backbone sees, in pixels (spec A0; 224).")
    ] = 224
    batch_size: Annotated[int, Ge(1), Le(256), Doc("Images per pass of a ViT on CUDA or MPS; one on the CPU.")] = 8
    precision: Annotated[
        Literal["auto", "float32"], Doc("Arithmetic of a ViT. auto: bfloat16 where the device has instructions for it.")
    ] = "auto"
    cache_dir: Annotated[
        str, Doc("Folder of the content-addressed feature cache; empty: UMSCOSOD_CACHE or the user's cache folder.")
    ] = ""
    use_cache: Annotated[bool, Doc("Keep encoded features on disk, so that no image is ever encoded twice.")] = True


@dataclass(frozen=True, kw_only=True, slots=True)
class PseudoConfig:
    """Stage 1, CM-SPLG: pseudo-labels from attention and masks that co-occur."""

    proposer: Annotated[Literal["hac", "coco-json"], Doc("Source of instance masks (spec B).")] = "hac"
    detections: Annotated[str, Doc("COCO-format file of masks (RLE or polygons) for proposer=coco-json.")] = ""
    detections_images: Annotated[
        str, Doc("COCO file whose images list names the ids of a bare results list; empty: ids are names or numbers.")
    ] = ""
    hac_thresholds: Annotated[
        tuple[float, ...], Ge(-1.0), Le(1.0), Doc("Cosines at which merging is read out, high to low (HASSOD: these).")
    ] = (0.4, 0.2, 0.1)
    centre: Annotated[
        Literal["group", "none"],
        Doc(
            "Take the group's mean patch out of a ViT's keys and tokens before cosines: thresholds then hold for any "
            "backbone. none: as HASSOD on DINO keys."
        ),
    ] = "group"
    select: Annotated[
        Literal["co-saliency", "masks"],
        Doc(
            "What chooses a label: frequency and overlap with the attention (eq. 1); or, for ablations, the masks "
            "alone: the image's most frequent category (of equals the one with more masks), no attention in its map."
        ),
    ] = "co-saliency"
    category_distance: Annotated[
        float, Ge(1e-6), Le(2.0), Doc("Average-linkage cosine distance below which two masks are one category.")
    ] = 0.45
    min_score: Annotated[float, *Share, Doc("Lowest detector score of a mask (coco-json).")] = 0.3
    min_area_share: Annotated[float, *Share, Doc("Smallest mask, as a share of the image.")] = 0.005
    top_k: Annotated[
        int,
        Ge(1),
        Le(1_000_000),
        Doc("Only the k most frequent categories of an image compete (paper: k). 1 = frequency alone."),
    ] = 3
    clean: Annotated[
        Literal["auto", "prototype", "none"],
        Doc(
            "Before training and refinement, turn pseudo-labels into soft maps by contrast to the picture's border "
            "times nearness to the group's prototype. auto: not for features whose attention is fitted to the group "
            "already (embedded). none: as published."
        ),
    ] = "auto"
    probe: Annotated[
        Literal["linear", "none"],
        Doc(
            "Then fit one linear classifier of patches to the labels of all groups and take its maps: too stiff to "
            "learn a label's faults, and every group's background is negative for the others. none: as published."
        ),
    ] = "linear"
    weak_overlap: Annotated[float, *Share, Doc("Best overlap (eq. 1) below which a pseudo-label is weak.")] = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class CrfConfig:
    """DenseCRF (Kraehenbuehl and Koltun, arXiv 1210.5644); ``presets/paper.yaml`` holds SCoSPARC's hard constants."""

    enabled: Annotated[bool, Doc("Run DenseCRF on the refined regions.")] = True
    unary: Annotated[
        Literal["soft", "hard"],
        Doc("Start from the soft map, shifted so that the threshold is 0.5, or from the mask (SCoSPARC: hard)."),
    ] = "soft"
    half_size: Annotated[
        bool,
        Doc(
            "Run at half of size_px, with half the spatial deviations: a quarter of the pixels. A guided filter "
            "carries the result to full size. Off: as published."
        ),
    ] = True
    iterations: Annotated[int, Ge(1), Le(100), Doc("Mean-field steps (SCoSPARC: 10).")] = 10
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
    size_px: Annotated[
        int,
        Ge(32),
        Le(2048),
        Doc(
            "Side of the square of the result, whose pixels the deviations count. With half_size the CRF works on half "
            "of it."
        ),
    ] = 224
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
        float, Ge(0.0), Le(10.0), Doc("Weight of a map's lack of confidence, eq. 6 (paper: 1 drops faint objects).")
    ] = 0.25
    th_clamp: Annotated[
        tuple[float, float], Ge(-10.0), Le(10.0), Doc("Bounds of the threshold; 0 2 switches clamping off.")
    ] = (0.05, 0.95)
    empty_floor: Annotated[
        float, *Share, Doc("If nothing passes the threshold: keep >= 0.95 max(M) when max(M) exceeds this, else empty.")
    ] = 0.1
    region_filter: Annotated[bool, Doc("Drop connected components unlike the group prototype (eq. 7, 8).")] = True
    skip_empty: Annotated[
        bool,
        Doc(
            "Leave images with an empty mask out of the group prototype. Off, as published: one such image makes eq. 7 "
            "0/0, and no component of the group has a similarity above 0."
        ),
    ] = True
    sim_th: Annotated[
        float, Ge(-1.0), Le(1.0), Doc("Components with a cosine up to this go (eq. 8; paper: 0.75 drops parts too).")
    ] = 0.5
    keep_best: Annotated[bool, Doc("The best component of an image always stays.")] = True
    drop_regions_smaller_than: Annotated[
        float, *Share, Doc("Components under this share of the image go; 0: none.")
    ] = 0.0
    crf: CrfConfig = field(default_factory=CrfConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfidenceConfig:
    """What a mask's confidence is made of; the weights of the cues are in ``confidence/calibration.json``."""

    low: Annotated[float, *Share, Doc("A confidence below this is low, and its reasons are given in words.")] = 0.5
    mixed: Annotated[
        Literal["flag", "empty", "off"],
        Doc(
            "A group without a common object: flag it, which leaves confidences as they are; leave its masks empty; or "
            "do not look."
        ),
    ] = "flag"
    mixed_level: Annotated[
        float, *Share, Doc("A group is called mixed where the calibrated share of true groups is below this.")
    ] = 0.5
    absent: Annotated[
        Literal["flag", "empty", "off"],
        Doc("An image unlike the rest of its group: lower its confidence and say so; leave its mask empty; or ignore."),
    ] = "flag"
    absent_level: Annotated[
        float, *Share, Doc("An image is called unlike where the calibrated share of members is below this.")
    ] = 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupingConfig:
    """Groups discovered in an unsorted collection, and the check of groups that are given."""

    min_size: Annotated[
        int, Ge(1), Le(100_000), Doc("Fewest images of a group; also the size below which a group is small.")
    ] = 3
    max_groups: Annotated[int, Ge(2), Le(1000), Doc("Most groups tried where their number is chosen.")] = 40
    join_similarity: Annotated[
        float, Ge(-1.0), Le(1.0), Doc("Cosine to the nearest group's mean below which an image is left over.")
    ] = 0.0


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


@dataclass(frozen=True, kw_only=True, slots=True)
class CfmmConfig:
    """Consensus mining over the group (eq. 3)."""

    enabled: Annotated[bool, Doc("Off: the fused features pass through unchanged.")] = True
    init: Annotated[
        Literal["identity", "kaiming"],
        Doc("Start of the affinity's q and k. They get no gradient, so kaiming (ancestors) stays random."),
    ] = "identity"
    seed_prior: Annotated[
        Literal["attention", "none"], Doc("Multiply the min-maxed importance by the attention map before the argmax.")
    ] = "attention"
    rm_relu: Annotated[Literal["always", "eval"], Doc("When response maps are rectified (ancestors: eval).")] = "always"


@dataclass(frozen=True, kw_only=True, slots=True)
class FramConfig:
    """Feature refinement and amplification (eq. 4, 5)."""

    enabled: Annotated[bool, Doc("Off: the merged features go straight to the decoder.")] = True
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


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig:
    """Stage 2: the UMS network."""

    max_width: Annotated[int, Ge(0), Le(8192), Doc("Most channels, in steps of 4; 0: as the wider stream (A0).")] = 0
    afmm: AfmmConfig = field(default_factory=AfmmConfig)
    cfmm: CfmmConfig = field(default_factory=CfmmConfig)
    fram: FramConfig = field(default_factory=FramConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Stage 2: training on pseudo-labels (eq. 9, 10)."""

    epochs: Annotated[int, Ge(1), Le(1_000_000), Doc("Passes over all groups (paper: 100).")] = 100
    min_steps: Annotated[int, Ge(0), Le(10_000_000), Doc("Epochs are added up to so many steps; 0: none.")] = 0
    batch_images: Annotated[int, Ge(1), Le(512), Doc("One step is a group of at most so many images (paper: 24).")] = 24
    groups_per_step: Annotated[
        int,
        Ge(0),
        Le(4096),
        Doc(
            "Groups whose mean gradient is one step, a multiple of the number of processes; 0: one a process, so one "
            "in a usual run (paper: 1)."
        ),
    ] = 0
    learning_rate: Annotated[float, Ge(1e-8), Le(1.0), Doc("Adam's step size (paper: 1e-4).")] = 1e-4
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
    checkpoint_every: Annotated[
        int, Ge(1), Le(1_000_000), Doc("Epochs between two checkpoints a killed run resumes from.")
    ] = 1


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
        Literal["blend", "network", "pseudo"],
        Doc(
            "Whose maps are refined: blend, the mean of network and pseudo-label; or one of them. With a checkpoint "
            "its probe stands for the pseudo-label."
        ),
    ] = "blend"
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
