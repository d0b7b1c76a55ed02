"""Operators: a form and one call each."""

from .label import Label

OPERATORS: tuple[type, ...] = (Label,)
