"""How long a job will take, and whether training pays; torch-free, so that a form can ask at every keystroke."""

from __future__ import annotations

from umscosod.config import FeaturesConfig, PipelineConfig
from umscosod.features.specs import VIT_SPECS
from umscosod.features.store import find_weights

_FEATURES_S = {0: 0.30, 384: 1.0, 768: 4.0}
"""Encoding an image in both streams, by token width of the first; 0: without weights."""
_LABELS_S = {0: 0.05, 384: 0.10, 768: 0.12}
"""Pseudo-label of an image."""
_STEP_S = {0: 0.055, 384: 0.13, 768: 0.25}
"""One image in one step of training."""
_PREDICT_S = {0: 0.02, 384: 0.04, 768: 0.08}
"""One pass of the network over an image."""
_REFINE_S = {0: 0.05, 384: 0.07, 768: 0.08}
"""Refinement of an image, DenseCRF included."""
_TRAINING_PAYS_FROM = 100
"""Images: a guess. The largest set that was measured has 98, and in the mean of five sets nothing was gained."""


def estimate_stages(n_images: int, config: PipelineConfig, *, train: bool, n_groups: int = 1) -> dict[str, float]:
    """Estimate the time of each stage of a job on two CPU cores with nothing cached.

    Parameters
    ----------
    n_images, n_groups : int
    config : PipelineConfig
    train : bool
        Whether the network is trained.

    Returns
    -------
    dict of str to float
        Seconds by the name that the stage reports its progress under, in the order of the stages. A guess: shared out
        from the whole jobs of docs/performance.md for features without weights and a ViT-S, and scaled up for a ViT-B,
        which was not measured. Far too long for a GPU.
    """
    width = first_width(config.features)
    stages = {"features": n_images * _FEATURES_S[width], "pseudo-labels": n_images * _LABELS_S[width]}
    if train and config.method == "ums":
        epochs = max(config.train.epochs, -(-config.train.min_steps // max(1, n_groups)))
        stages["training"] = epochs * n_images * _STEP_S[width]
    stages["prediction"] = n_images * _PREDICT_S[width]
    return {**stages, "refinement": n_images * _REFINE_S[width]}


def advise_training(n_images: int, width: int) -> tuple[bool, str]:
    """Whether a trained network may add to its pseudo-labels: ViT features and at least 100 images.

    Without weights nothing was gained on any set; with a ViT nothing in the mean over sets of 10 to 98 images, and
    larger ones were not measured: docs/accuracy.md.

    Parameters
    ----------
    n_images : int
    width : int
        Token width of the first stream; 0 for features without weights, see `first_width`.

    Returns
    -------
    pays : bool
    why : str
        The reason, in words.
    """
    if not width:
        return False, "with features without weights training adds nothing (mean IoU .646 with it, .651 without)"
    if n_images < _TRAINING_PAYS_FROM:
        return False, f"these are {n_images} images, and on sets below {_TRAINING_PAYS_FROM} the mean gain was nil"
    return True, "a network learns from the masks found so far and may better them"


def first_width(features: FeaturesConfig) -> int:
    """Token width of the first stream that a job would use on this machine; 0 for features without weights.

    A weight file given with ``auto`` counts as a ViT-S: it is not opened here.
    """
    name = features.backbone
    if name == "auto" and features.weights:
        return VIT_SPECS["dinov2_vits14"].dim
    if name == "auto":
        first = VIT_SPECS["dino_vitb8"]
        pair = (first,) if features.second_backbone not in ("", "auto") else (first, VIT_SPECS[first.partner])
        is_there = all(find_weights(spec) is not None for spec in pair)
        return first.dim if is_there else 0
    return VIT_SPECS[name].dim if name in VIT_SPECS else 0
