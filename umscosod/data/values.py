"""Values of JSON files that somebody else wrote: taken for what they are, or described for a message."""

from __future__ import annotations

import math

import numpy as np

from umscosod.errors import shorten


def whole_number(value: object) -> int | None:
    """Integer that a value from a JSON file stands for, such as 139 and 139.0; None for all else, true and false too.

    Examples
    --------
    >>> [whole_number(value) for value in (139, 139.0, 1.5, "139", True, float("nan"))]
    [139, 139, None, None, None, None]
    """
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    # from 2**53 on, neighbouring integers are one float
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else None


def describe_value(value: object) -> str:
    """Write a value from a file for a message as `shorten` does, but in JSON's words, and of what is nested the kind.

    Examples
    --------
    >>> describe_value("high"), describe_value(None), describe_value([1, 2]), describe_value([[1]])
    ("'high'", 'null', '[1, 2]', 'a list')
    """
    if value is None:
        return "null"
    if isinstance(value, list | tuple) and len(value) < 4 and not any(isinstance(one, list | dict) for one in value):
        return f"[{', '.join(map(describe_value, value))}]"
    if isinstance(value, list | tuple | dict):
        return "an object" if isinstance(value, dict) else "a list"
    return shorten(value, 40)


def finite_number(value: object) -> float | None:
    """Number that a value from a JSON file stands for; None for NaN, the infinities, true, false, text and all else.

    Examples
    --------
    >>> [finite_number(value) for value in (1, 0.5, 10**400, True, "1", float("nan"))]
    [1.0, 0.5, None, None, None, None]
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
