"""How an export calls an image."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from umscosod.export.items import ExportItem

# Control characters and halves of pairs (bytes of a name that is no valid text): XML knows none, HTML shows none.
_UNKNOWN_TO_MARKUP = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def name_image(item: ExportItem, root: Path | None) -> str:
    """File name of an image, as readers put it together with the folder of images.

    Parameters
    ----------
    item : ExportItem
    root : Path, optional
        Folder that names are relative to; an image outside it keeps its whole path.

    Examples
    --------
    >>> item = ExportItem(image=Path("/photos/cat/1.jpg"), output="cat/1.png", group="cat", mask=Path("m.png"))
    >>> name_image(item, Path("/photos")), name_image(item, Path("/other"))
    ('cat/1.jpg', '/photos/cat/1.jpg')
    """
    if root is not None and item.image.is_relative_to(root):
        return item.image.relative_to(root).as_posix()
    return item.image.as_posix()


def name_beside(item: ExportItem, folder: str, suffix: str) -> str:
    """Name of a file of an item's own, below a folder: the output's name with another suffix.

    Two images that share a stem differ here too, as their outputs do.

    Examples
    --------
    >>> item = ExportItem(image=Path("cat/1.jpg"), output="cat/1.jpg.png", group="cat", mask=Path("m.png"))
    >>> name_beside(item, "labels", ".txt"), name_beside(item, "images", ".jpg")
    ('labels/cat/1.jpg.txt', 'images/cat/1.jpg.jpg')
    """
    return (PurePosixPath(folder) / item.output).with_suffix(suffix).as_posix()


def clean_markup(text: str) -> str:
    r"""Show a ``?`` for each character that XML and HTML cannot hold.

    Examples
    --------
    >>> clean_markup("cat/1\x1b[31m.jpg")
    'cat/1?[31m.jpg'
    """
    return _UNKNOWN_TO_MARKUP.sub("?", text)
