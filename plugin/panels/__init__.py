"""Panels: what the built-in ones lack."""

from .review import ReviewMasks

PANELS: tuple[type, ...] = (ReviewMasks,)
