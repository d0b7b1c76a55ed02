"""Hyper-parameters of stage 1, the pseudo-labels: re-exported by ``config.py``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le
from typing_extensions import Doc

from umscosod.config_features import Share


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
