"""Starter weights: a small network that learns from photographs alone what stands out in them."""

from umscosod.pretrain.loop import Recipe
from umscosod.pretrain.run import PretrainReport, pretrain

__all__ = ["PretrainReport", "Recipe", "pretrain"]
