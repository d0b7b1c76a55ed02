"""Provides the folders that exports write into: names, files, trees."""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from umscosod.data.files import EXPORT_FILE, check_place, is_leftover, open_atomic
from umscosod.data.folders import refuse_images_in
from umscosod.errors import DataError, reason_of
from umscosod.export.items import Counts, ExportItem
from umscosod.types import check_relative

# Control characters and lone surrogates (bytes of a name that is no valid text): XML and HTML cannot hold them.
_UNKNOWN_TO_MARKUP = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def name_image(item: ExportItem, root: Path | None) -> str:
    """Return the file name of an image, relative to the folder of images that a reader knows.

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
    """Return the name of an item's own file below a folder: the output's name with another suffix.

    Images that share a stem get different names, as their outputs do.

    Examples
    --------
    >>> item = ExportItem(image=Path("cat/1.jpg"), output="cat/1.jpg.png", group="cat", mask=Path("m.png"))
    >>> name_beside(item, "labels", ".txt"), name_beside(item, "images", ".jpg")
    ('labels/cat/1.jpg.txt', 'images/cat/1.jpg.jpg')
    """
    return (PurePosixPath(folder) / item.output).with_suffix(suffix).as_posix()


def clean_markup(text: str) -> str:
    r"""Replace each character that XML and HTML cannot hold by a ``?``.

    Examples
    --------
    >>> clean_markup("cat/1\x1b[31m.jpg")
    'cat/1?[31m.jpg'
    """
    return _UNKNOWN_TO_MARKUP.sub("?", text)


def path_inside(root: str | os.PathLike[str], name: str) -> Path:
    """Return the path of an output, after a check that it is below the output folder.

    Parameters
    ----------
    root : path
        The output folder; need not exist yet.
    name : str
        Relative POSIX path, such as ``"masks/cat/0007.png"``.

    Raises
    ------
    DataError
        `name` is absolute or points outside, or a linked folder in it points outside.

    Examples
    --------
    >>> path_inside("out", "masks/cat/7.png").as_posix()
    'out/masks/cat/7.png'
    """
    check_relative(name, "output name")
    path = Path(root, name)
    try:
        outside = not path.parent.resolve().is_relative_to(Path(root).resolve())
    except (OSError, RuntimeError) as error:  # a loop of links
        raise DataError(f"{path}: cannot be resolved ({error}); remove the link") from error
    if outside:
        raise DataError(
            f"{path}: a link on the way leads out of the output folder {root}; remove it or choose another folder"
        )
    return path


RECORD = EXPORT_FILE
"""File that lists the files of an export, so that the next export knows what it may replace."""
SCHEMA = 1


class ExportFolder:
    """The folder of an export under construction; `open_export` makes one.

    Attributes
    ----------
    out : Path
        The folder as the user named it, for messages.
    form : str
        Name of the format, for the record.
    counts : Counts
        Written into the record ``export.json`` at the end.
    """

    def __init__(self, out: Path, staging: Path, form: str) -> None:
        self.out, self.staging, self.form = out, staging, form
        self.counts = Counts()
        self.names: list[str] = []

    def add(self, name: str) -> Path:
        """Return the path for the file `name` (relative, POSIX), and make its folder.

        Raises
        ------
        DataError
            The name points outside the folder, or was given before.
        """
        path = path_inside(self.staging, name)
        if os.path.lexists(path) or name == RECORD:
            raise DataError(f"{name}: the export has a file of this name already; rename one of the two images")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.names.append(name)
        return path


@contextmanager
def open_export(out: str | os.PathLike[str], form: str, *, overwrite: bool) -> Iterator[ExportFolder]:
    """Collect the files of an export in a hidden folder; at the end move them to `out` by atomic renames.

    Parameters
    ----------
    out : path
        A new or empty folder. With `overwrite` it may hold an earlier export, whose files are removed, and other files,
        which stay.
    form : str
        Name of the format, for the record.
    overwrite : bool

    Raises
    ------
    DataError
        `out` is a file, is not empty (without `overwrite`), or holds a file of the same name that no export wrote.
    """
    check_place(out, "export", "--to")
    out = Path(out)
    refuse_images_in(out, what="the folder")
    _check_free(out, overwrite=overwrite)
    staging = out / f".{uuid.uuid4().hex}.tmp"
    try:
        staging.mkdir(parents=True)
    except OSError as error:
        raise DataError(f"cannot make a folder in {out}: {reason_of(error)}; check its permissions") from error
    try:
        folder = ExportFolder(out, staging, form)
        yield folder
        _publish(folder)
    except OSError as error:
        raise DataError(f"cannot export to {out}: {reason_of(error)}; check the folder and the disk") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _check_free(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder in use, and remove the unfinished files of a killed export."""
    if not out.exists():
        return
    if not out.is_dir():
        raise DataError(f"{out} is a file; give a folder for the export")
    try:
        entries = list(out.iterdir())
        for entry in entries:
            if is_leftover(entry.name):
                shutil.rmtree(entry, ignore_errors=True)
    except OSError as error:
        raise DataError(f"{out}: cannot be listed ({error.strerror}); check its permissions") from error
    others = sorted(entry.name for entry in entries if not is_leftover(entry.name))
    if others and not overwrite:
        raise DataError(f"{out} is not empty (it holds {others[0]}); choose another folder, or overwrite")


def _publish(folder: ExportFolder) -> None:
    """Move the files to `out`, after removing those of the earlier export.

    Meanwhile the record lists old and new files, so that an export killed here can be replaced too.
    """
    out, names = folder.out, folder.names
    old = _recorded(out)
    for name in names:
        target = path_inside(out, name)
        if name not in old and os.path.lexists(target):
            raise DataError(
                f"{target} is in the way and was not written by an export; move it or choose another folder"
            )
    _write_record(folder, sorted(old | set(names)))
    for name in old - set(names):
        _remove(out, name)
    for name in names:
        target = path_inside(out, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        (folder.staging / name).replace(target)
    _write_record(folder, names)


def _recorded(out: Path) -> frozenset[str]:
    """Return the names that earlier exports wrote here; none without a readable record."""
    try:
        record = json.loads((out / RECORD).read_text(encoding="utf-8"))
        return frozenset(str(name) for name in record["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()


def _write_record(folder: ExportFolder, names: Sequence[str]) -> None:
    counts = folder.counts
    document = {
        "schema": SCHEMA,
        "format": folder.form,
        "images": counts.n_images,
        "objects": counts.n_objects,
        "empty": counts.n_empty,
        "turned": counts.n_turned,
        "dropped_regions": counts.n_dropped,
        "left_out": len(counts.skipped),
        "files": names,
    }
    with open_atomic(folder.out / RECORD) as stream:
        stream.write((json.dumps(document, indent=1) + "\n").encode("ascii"))


def _remove(out: Path, name: str) -> None:
    path = path_inside(out, name)
    if path.is_symlink() or path.is_file():
        path.unlink()
    for parent in PurePosixPath(name).parents[:-1]:
        folder = out / parent
        if folder.is_symlink() or not folder.is_dir() or any(folder.iterdir()):
            return
        folder.rmdir()
