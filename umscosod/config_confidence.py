"""Settings of the confidence of a mask and of the doubts about a group: re-exported by ``config.py``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le
from typing_extensions import Doc

from umscosod.config_features import Share

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
