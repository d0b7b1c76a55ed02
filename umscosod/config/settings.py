"""Every hyper-parameter, said once: default, bounds, meaning and where it comes from.

No section of `PipelineConfig`: how groups were found decides no mask once they are given, so that a result stays valid,
and its folder stays usable, whatever is set here.

Defaults are the published constants but where a meaning says what was adapted, and why.

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


@dataclass(frozen=True, kw_only=True, slots=True)
class PseudoConfig:
    """Stage 1, CM-SPLG: pseudo-labels from attention and masks that co-occur."""

    proposer: Annotated[Literal["hac", "coco-json"], Doc("Maker of instance masks (spec B).")] = "hac"
    detections: Annotated[str, Doc("COCO-format file of masks (RLE or polygons) for proposer=coco-json.")] = ""
    detections_images: Annotated[
        str, Doc("COCO file whose images list names the ids of a bare results list; empty: ids are names or numbers.")
    ] = ""
    hac_thresholds: Annotated[
        tuple[float, ...],
        Ge(-1.0),
        Le(1.0),
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
    max_area_share: Annotated[float, *Share, Doc("Largest mask, as a share of the image.")] = 0.8
    max_corners: Annotated[int, Ge(0), Le(4), Doc("Masks that hold more image corners than this are background.")] = 2
    nms_iou: Annotated[float, *Share, Doc("Of two masks with a larger IoU only the first is kept.")] = 0.9
    parent_coverage: Annotated[
        float,
        Ge(0.01),
        Le(1.0),
        Doc("Share of a mask that its parent covers: gives whole, part, subpart (HASSOD: 0.9)."),
    ] = 0.9
    max_level: Annotated[int, Ge(0), Le(2), Doc("Deepest level of the masks used: 0 whole, 1 part, 2 subpart.")] = 1
    max_group_masks: Annotated[
        int,
        Ge(1),
        Le(20_000),
        Doc("Masks of a group that are clustered at most (memory grows with the square); best overlap first."),
    ] = 6000
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
    clean_gain: Annotated[
        float, Ge(1.0), Le(16.0), Doc("Steepness of a cleaned map about 0.5: how much of it DenseCRF takes as settled.")
    ] = 4.0
    clean_rounds: Annotated[
        int,
        Ge(1),
        Le(10),
        Doc("Prototypes of what the labels cover, then, a round each, of what the maps before cover."),
    ] = 2
    probe: Annotated[
        Literal["linear", "none"],
        Doc(
            "Then fit one linear classifier of patches to the labels of all groups and take its maps: too stiff to "
            "learn a label's faults, and every group's background is negative for the others. none: as published."
        ),
    ] = "linear"
    probe_ridge: Annotated[
        float,
        Ge(1e-6),
        Le(1000.0),
        Doc("Ridge of the probe, for patches of unit variance: the stiffer, the less it copies labels."),
    ] = 0.5
    probe_patches: Annotated[
        int, Ge(100), Le(1_000_000), Doc("Patches of the collection the probe is fitted on, drawn at random.")
    ] = 15000
    probe_slope: Annotated[
        float,
        Ge(0.01),
        Le(100.0),
        Doc(
            "Steepness of the probe's maps on a ViT, per standard deviation of its logits: how much of a map DenseCRF "
            "takes as settled."
        ),
    ] = 12.0
    probe_slope_whitened: Annotated[
        float,
        Ge(0.01),
        Le(100.0),
        Doc("The same for tokens whitened over the collection (embedded), which tell less and leave more to colours."),
    ] = 0.6
    weak_overlap: Annotated[float, *Share, Doc("Best overlap (eq. 1) below which a pseudo-label is called weak.")] = (
        0.05
    )
    weak_weight: Annotated[float, *Share, Doc("Loss weight of a weak pseudo-label; 0 leaves it out.")] = 0.5


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
    crf: CrfConfig = field(default_factory=CrfConfig)


CUE_CLIP = 3.0
"""Standard deviations at which a cue is cut, so that none decides alone: part of the calibration, and no setting."""


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
    mixed_images: Annotated[
        int, Ge(2), Le(100_000), Doc("Smaller groups are never called mixed: too little to go by.")
    ] = 4
    absent: Annotated[
        Literal["flag", "empty", "off"],
        Doc("An image unlike the rest of its group: lower its confidence and say so; leave its mask empty; or ignore."),
    ] = "flag"
    absent_level: Annotated[
        float, *Share, Doc("An image is called unlike where the calibrated share of members is below this.")
    ] = 0.25
    doubt_cap: Annotated[
        float,
        *Share,
        Doc(
            "A mask in doubt gets at most low times this, rising with its own estimate to low: always low, yet ranked."
        ),
    ] = 0.8
    dims: Annotated[int, Ge(2), Le(4096), Doc("Principal directions of a group's tokens that the cues look at.")] = 64
    ridge: Annotated[float, Ge(1e-6), Le(1000.0), Doc("Ridge of the scatters within images, in mean variances.")] = 0.3
    agreement_ridge: Annotated[
        float,
        Ge(1e-6),
        Le(1000.0),
        Doc("Ridge, in mean variances, of the classifier that predicts an image from the others."),
    ] = 0.1
    kinship_ridge: Annotated[
        float,
        Ge(1e-6),
        Le(1000.0),
        Doc("Ridge, in mean variances, of the whitening over the group that foregrounds of embedded are compared in."),
    ] = 0.1
    nearest: Annotated[
        int, Ge(1), Le(1000), Doc("Foregrounds of other images that an image is compared with: the nearest.")
    ] = 3
    match_patches: Annotated[
        int, Ge(1), Le(20_000), Doc("Patches of an image, evenly spaced, that are matched to others'.")
    ] = 200
    match_images: Annotated[
        int, Ge(2), Le(1000), Doc("Images of a group, evenly spaced, that are matched to one another.")
    ] = 24
    touch_share: Annotated[float, *Share, Doc("Share of a side of the image from which a mask touches it.")] = 0.1
    ring_share: Annotated[
        float, Ge(0.001), Le(0.5), Doc("Width, as a share of the image, of the ring that colours are compared with.")
    ] = 0.05
    colour_bins: Annotated[int, Ge(2), Le(16), Doc("Bins of each channel of the colour histograms.")] = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupingConfig:
    """Groups discovered in an unsorted collection, and the check of groups that are given."""

    stream: Annotated[Literal["both", "first", "second"], Doc("Which of the two streams describes an image.")] = "both"
    attention_power: Annotated[
        float,
        Ge(0.0),
        Le(8.0),
        Doc("Exponent of the attention map as weight of the patches: object more than background; 0: whole image."),
    ] = 1.0
    shrinkage: Annotated[
        float,
        Ge(1e-6),
        Le(1000.0),
        Doc(
            "Ridge, in mean variances, of the whitening of patch tokens over the collection: few strong directions "
            "that all images share must not drown the rest."
        ),
    ] = 0.1
    min_size: Annotated[
        int, Ge(1), Le(100_000), Doc("Fewest images of a group; also the size below which a group is small.")
    ] = 3
    max_groups: Annotated[int, Ge(2), Le(1000), Doc("Most groups tried where their number is chosen.")] = 40
    enough_separation: Annotated[
        float,
        Ge(0.01),
        Le(1.0),
        Doc(
            "Where their number is chosen: the fewest groups whose mean silhouette reaches this share of the best; "
            "1: the best itself, which tends to many small groups."
        ),
    ] = 0.8
    join_similarity: Annotated[
        float,
        Ge(-1.0),
        Le(1.0),
        Doc("Cosine to the nearest group's mean below which an image is left over."),
    ] = 0.0
    rounds: Annotated[
        int, Ge(0), Le(1000), Doc("Reassignments of all images to the nearest group after the cut, at most.")
    ] = 10
    sample_images: Annotated[
        int,
        Ge(2),
        Le(20_000),
        Doc(
            "Images in the tree; of larger collections a random sample, to whose groups the others are assigned "
            "(memory grows with the square: 3000 take 40 MB)."
        ),
    ] = 3000
    mixed_draws: Annotated[
        int, Ge(20), Le(100_000), Doc("Random draws from the collection that a group's cohesion is compared with.")
    ] = 200
    mixed_images: Annotated[
        int,
        Ge(2),
        Le(100_000),
        Doc("Images of a draw at most: what chance gives so many changes little; time grows with their square."),
    ] = 200
    mixed_quantile: Annotated[
        float,
        Ge(0.001),
        Le(1.0),
        Doc("A group is mixed unless the lower quartile of its pairs lies above this quantile of the draws'."),
    ] = 0.95


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
    """Baselines that ``method`` chooses among."""

    attention: AttentionConfig = field(default_factory=AttentionConfig)
    tokencut: TokenCutConfig = field(default_factory=TokenCutConfig)
    dvfdvd: DvfdvdConfig = field(default_factory=DvfdvdConfig)
    scosparc: ScosparcConfig = field(default_factory=ScosparcConfig)


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
    baselines: BaselinesConfig = field(default_factory=BaselinesConfig)
