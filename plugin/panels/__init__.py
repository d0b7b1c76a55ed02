"""Panels: what the built-in ones lack."""

PANELS: tuple[type, ...] = ()
