"""Panels: what the built-in ones lack."""

from .compare import CompareModels
from .review import ReviewMasks

PANELS: tuple[type, ...] = (CompareModels, ReviewMasks)
