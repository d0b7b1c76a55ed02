"""How long a job will take; torch-free, so that a form can ask at every keystroke."""

from __future__ import annotations

from collections.abc import Sequence

from umscosod.config import FeaturesConfig, PipelineConfig
from umscosod.features.backbone import AUTO, choose_auto
from umscosod.features.specs import VIT_SPECS, is_vit_name

_WIDTHS = (0, 384, 768, 1024)
"""Token widths of the first stream that the tables below are for; 0: without weights. Others count as the nearest."""
_FEATURES_S = (0.04, 0.30, 1.1, 4.0)
"""Encoding an image in both streams."""
_LABELS_S = (0.02, 0.04, 0.05, 0.06)
"""Pseudo-label of an image."""
_REFINE_S = (0.03, 0.03, 0.03, 0.03)
"""Refinement of an image, DenseCRF included."""

_NETWORK_WIDTHS = (40, 128, 384, 768, 1024)
"""Widths of the network that these tables are for."""
_STEP_S = (0.04, 0.05, 0.13, 0.25, 0.33)
"""One image in one step of training."""
_PREDICT_S = (0.02, 0.02, 0.04, 0.08, 0.11)
"""One pass of the network over an image."""


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
        from whole jobs for features without weights and a ViT-S in float32; scaled up for a ViT-B, of which only the
        encoding was measured, and for a ViT-L. Too long for CPUs with bfloat16, far too long for a GPU.
    """
    width = first_width(config.features)
    at = _nearest(_WIDTHS[1:], width) + 1 if width else 0
    at_network = _nearest(_NETWORK_WIDTHS, min(width, config.network.max_width or width))
    stages = {"features": n_images * _FEATURES_S[at], "pseudo-labels": n_images * _LABELS_S[at]}
    if train and config.method == "ums":
        epoch_steps = -(-max(1, n_groups) // max(1, config.train.groups_per_step))
        epochs = max(config.train.epochs, -(-config.train.min_steps // epoch_steps))
        stages["training"] = epochs * n_images * _STEP_S[at_network]
    stages["prediction"] = n_images * _PREDICT_S[at_network]
    return {**stages, "refinement": n_images * _REFINE_S[at]}


def _nearest(widths: Sequence[int], width: int) -> int:
    return min(range(len(widths)), key=lambda at: abs(widths[at] - width))


def first_name(features: FeaturesConfig) -> str:
    """Name of the first stream, with what ``auto`` would take on this machine; empty: that of a file, not opened."""
    if features.backbone != AUTO:
        return features.backbone
    if features.weights:
        return ""
    second = "" if features.second_backbone == AUTO else features.second_backbone
    return choose_auto(second or features.second_weights)


def first_width(features: FeaturesConfig) -> int:
    """Token width of the first stream that a job would use on this machine; 0 for features without weights.

    No file is opened and no model is built: a weight file given with ``auto`` counts as a ViT-S, an architecture
    that the table does not have as a ViT-B.
    """
    name = first_name(features) or "dinov2_vits14"
    if name in VIT_SPECS:
        return VIT_SPECS[name].dim
    return VIT_SPECS["dino_vitb8"].dim if is_vit_name(name) else 0
