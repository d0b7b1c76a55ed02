"""Matches predictions to ground truth: two folder trees, by relative path without suffix."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from umscosod.data.folders import IMAGE_FOLDERS, MASK_FOLDERS, first_named, walk_files
from umscosod.errors import DataError

logger = logging.getLogger(__name__)

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
NAMED_IN_ERRORS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A ground truth and its prediction.

    Attributes
    ----------
    name : str
        Relative POSIX path of the ground truth without suffix, ``"cat/0007"``.
    group : str
        Its folder, ``"cat"``; ``"."`` for files at the root.
    pred, gt : Path
    """

    name: str
    group: str
    pred: Path
    gt: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairing:
    """All pairs of two trees.

    Attributes
    ----------
    pred_root, gt_root : Path
        The folders that were used.
    pairs : tuple of Pair
        In the order of their names.
    extra : tuple of str
        Predictions without a ground truth, as relative paths; they are not scored.
    """

    pred_root: Path
    gt_root: Path
    pairs: tuple[Pair, ...]
    extra: tuple[str, ...]


def pair_trees(pred: str | os.PathLike[str], gt: str | os.PathLike[str]) -> Pairing:
    """Pair each ground truth with its prediction.

    Parameters
    ----------
    pred : path
        Folder of maps or masks. In an output folder of ``umscosod label`` the sub-folder ``masks`` is used, and a log
        line says so; give ``OUT/maps`` to score the soft maps.
    gt : path
        Folder of ground truths, or a data set's root that holds one (see `find_gt_root`).

    Returns
    -------
    Pairing
        Names must be equal without the suffix, also in letter case. A prediction may keep the picture's suffix in its
        name (``a.jpg.png`` for ``a.png``).

    Raises
    ------
    DataError
        A folder is missing or holds no picture, a ground truth has no prediction, or two files share a name.
    """
    gt_root = find_gt_root(Path(gt))
    gt_files = index_pictures(gt_root, "ground truth")
    pred_root = find_pred_root(Path(pred), gt_root)
    pred_files = index_pictures(pred_root, "prediction")
    with_suffix: dict[str, list[str]] = {}
    for name in pred_files:
        inner = PurePosixPath(name)
        if inner.suffix.lower() in SUFFIXES:
            with_suffix.setdefault(str(inner.with_suffix("")), []).append(name)

    pairs, missing, used = [], [], set()
    for name, gt_path in sorted(gt_files.items()):
        candidates = [name] if name in pred_files else with_suffix.get(name, [])
        if len(candidates) > 1:
            both = ", ".join(str(pred_files[candidate]) for candidate in sorted(candidates))
            raise DataError(f"several predictions for ground truth {gt_path}: {both}; keep one of them")
        if not candidates:
            missing.append(name)
            continue
        used.add(candidates[0])
        group = str(PurePosixPath(name).parent)
        pairs.append(Pair(name=name, group=group, pred=pred_files[candidates[0]], gt=gt_path))
    if missing:
        raise DataError(
            f"{len(missing)} of {len(gt_files)} ground truths in {gt_root} have no prediction in {pred_root}: "
            f"{name_some(missing)}; predict them too, or give the folder whose sub-folders and names equal those of "
            "the ground truth"
        )
    extra = tuple(sorted(pred_files[name].relative_to(pred_root).as_posix() for name in pred_files.keys() - used))
    if extra:
        logger.warning("%d predictions in %s have no ground truth: %s", len(extra), pred_root, name_some(list(extra)))
    return Pairing(pred_root=pred_root, gt_root=gt_root, pairs=tuple(pairs), extra=extra)


def name_some(names: list[str]) -> str:
    """Name the first few of many names.

    >>> name_some(list("abcdefg"))
    'a, b, c, d, e, ...'
    """
    shown = ", ".join(names[:NAMED_IN_ERRORS])
    return f"{shown}, ..." if len(names) > NAMED_IN_ERRORS else shown


def find_gt_root(path: Path) -> Path:
    """Return the mask folder of a data set's root, else the folder itself.

    A root is a folder with a sub-folder ``gt`` (in any case), or with an image folder beside a mask folder under
    usual names of benchmarks, such as ``images`` and ``groundtruth``.

    Raises
    ------
    DataError
        The path is not a folder.
    """
    check_folder(path, "ground truth")
    names = sorted(child.name for child in path.iterdir() if child.is_dir())
    inner = first_named(names, MASK_FOLDERS if first_named(names, IMAGE_FOLDERS) else ("gt",))
    return path / inner if inner else path


def find_pred_root(path: Path, gt_root: Path) -> Path:
    """Return the sub-folder ``masks`` of an output folder, else the folder itself.

    Raises
    ------
    DataError
        The path is not a folder.
    """
    check_folder(path, "prediction")
    masks = path / "masks"
    # a group may be called "masks"
    if not masks.is_dir() or (gt_root / "masks").is_dir():
        return path
    logger.info("%s is an output folder: scoring its masks (give %s for the soft maps)", path, path / "maps")
    return masks


def check_folder(path: Path, what: str) -> None:
    """Refuse a path that is not a folder."""
    if not path.is_dir():
        state = "is a file" if path.exists() else "does not exist"
        raise DataError(f"{what} folder {path} {state}; give a folder with one sub-folder per group")


def index_pictures(root: Path, what: str) -> dict[str, Path]:
    """Return the pictures below a folder by relative POSIX path without suffix.

    Links are followed as in `umscosod.data.folders.walk_files`.

    Raises
    ------
    DataError
        There is none, two differ only in their suffix, or links make the folder endless.
    """
    found: dict[str, Path] = {}
    for path in walk_files(root):
        if path.suffix.lower() not in SUFFIXES:
            continue
        name = path.relative_to(root).with_suffix("").as_posix()
        if name in found:
            raise DataError(
                f"two {what} files for one name: {found[name]} and {path}; give a folder that holds one of each"
            )
        found[name] = path
    if not found:
        raise DataError(f"no {what} in {root}: looked for {', '.join(sorted(SUFFIXES))} in it and its sub-folders")
    return found
