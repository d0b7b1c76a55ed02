"""Addresses of images in lists, such as ``s3://bucket/cat/1.jpg``: what they are, and what of them may be shown."""

from __future__ import annotations

import os
import re
from pathlib import Path

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://.", re.DOTALL)
CHAIN = "::"  # fsspec's, between addresses: ``zip://1.jpg::https://host/a.zip``


def is_address(path: str) -> bool:
    """Whether a path of a list is an address, which has to be fetched.

    Examples
    --------
    >>> is_address("s3://bucket/cat/1.jpg"), is_address("/data/cat/1.jpg"), is_address("C://cat/1.jpg")
    (True, False, False)
    """
    return _ADDRESS.match(path.rpartition(CHAIN)[2]) is not None and path[1] != ":"  # a drive of Windows


def show_address(path: str) -> str:
    """Show an address without what may be secret: user, password, query; a path as it is.

    Examples
    --------
    >>> show_address("https://me:word@host:81/cat/1.jpg?signature=abc"), show_address("cat/1.jpg?")
    ('https://host:81/cat/1.jpg', 'cat/1.jpg?')
    """
    if not is_address(path):
        return path
    scheme, _, rest = path.rpartition(CHAIN)[2].partition("://")
    host, slash, place = rest.partition("/")
    return f"{scheme.lower()}://{_until_query(host.rpartition('@')[2])}{slash}{_until_query(place)}"


def _until_query(text: str) -> str:
    return re.split("[?#]", text, maxsplit=1)[0]


def whole_name(path: str, *, has_addresses: bool) -> str:
    """Return the absolute path of a file; of an address the same for names: scheme, host, path, and no query."""
    if has_addresses and is_address(path):
        path = f"/{show_address(path).replace('://', '/', 1)}"
    return Path(os.path.abspath(path)).as_posix()  # noqa: PTH100 - resolve() would rename linked files
