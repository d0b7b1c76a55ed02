"""Words after numbers."""

from __future__ import annotations


def count_of(count: int, noun: str, plural: str = "") -> str:
    """A count with its noun.

    Examples
    --------
    >>> count_of(1, "image"), count_of(2, "image"), count_of(2, "mask of 'cosal'", "masks of 'cosal'")
    ('1 image', '2 images', "2 masks of 'cosal'")
    """
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"
