"""Reads groups of images from folders, lists and CSV files."""

from __future__ import annotations

import csv
import io
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import NamedTuple

from umscosod.data.addresses import CHAIN, is_address, show_address, whole_name
from umscosod.data.files import GUARDED, LONGEST, LONGEST_PATH, OWN_FOLDERS, check_place, real_path
from umscosod.data.folders import Found, describe_untaken, iter_images, log_untaken, refuse_images_in
from umscosod.data.images import PICTURE_SUFFIXES, check_regular, readable_suffixes
from umscosod.data.naming import assign_outputs, natural_key, shared_stems, unique_tails
from umscosod.errors import DataError, MissingDependencyError, one_line, reason_of, shorten
from umscosod.types import NAMES, ImageGroup, ImageRef, check_relative

Images = str | Path | Sequence[ImageGroup]
"""A folder with one sub-folder a group, a ``.csv`` or ``.parquet`` list of path and group, or groups made before."""

logger = logging.getLogger(__name__)

_SHOWN = 5  # number of examples in a message
_LETTERS = 100  # of a name that is too long


def groups_from_folder(
    root: str | os.PathLike[str], *, exclude: Iterable[str | os.PathLike[str]] = ()
) -> list[ImageGroup]:
    """Make a group of every folder that holds images.

    Parameters
    ----------
    root : path
        Images directly in it form one group with the name of the folder. If it (or a folder below) has the layout of
        a benchmark, ``image/GROUP/x.jpg`` beside ``gt/GROUP/x.png``, only the images are read, and names omit the
        ``image`` part.
    exclude : iterable of path
        Folders to omit, such as the output folder.

    Returns
    -------
    list of ImageGroup
        Groups and images in natural order (2 before 10, case ignored, exact name last), on every file system.
        Group names and image ids are relative POSIX paths, spelt as on disk. Files are not opened: a damaged file
        shows when it is decoded.

    Raises
    ------
    DataError
        `root` is not a folder, or there is no image in it.
    """
    root = Path(root)
    untaken: Counter[str] = Counter()
    found = list(iter_images(root, exclude=exclude, untaken=untaken))
    if not found:
        accepted = " ".join(sorted(readable_suffixes()))
        others = f"; {describe_untaken(untaken)}" if untaken else ""
        raise DataError(f"{root}: no images found, in the folder or below it; accepted extensions: {accepted}{others}")
    log_untaken(root, untaken)
    return groups_of(found, root)


def groups_of(found: Sequence[Found], root: Path) -> list[ImageGroup]:
    """Make one group per folder of the images found below `root`."""
    folders = {image.name.rpartition("/")[0] for image in found}
    top = root.resolve().name.replace("\\", "_") or "images"
    while top in folders:
        top += " (top)"
    rows = []
    for image in found:
        rows.append((image.name, image.path, image.name.rpartition("/")[0] or top, image.name))
    return _build(rows)


def groups_from_list(pairs: Iterable[tuple[str | os.PathLike[str], str]]) -> list[ImageGroup]:
    """Make groups from pairs of path and group name.

    Parameters
    ----------
    pairs : iterable of (path, str)
        Relative paths start at the working directory. An image may be in several groups.

    Returns
    -------
    list of ImageGroup
        In natural order. Image ids are ``group/file``, with as many folders in between as distinguish two files.

    Raises
    ------
    DataError
        The list is empty, a path or group is empty, a group name could point outside the output folder, or an image
        occurs twice in one group. The message names the position of the pair (from 1).
    """
    rows = [(f"item {number}", os.fspath(path), group) for number, (path, group) in enumerate(pairs, start=1)]
    return groups_from_labelled(rows, "the list")


def groups_from_rows(rows: Iterable[tuple[str, str | os.PathLike[str], object]]) -> list[ImageGroup]:
    """Make groups from the rows of a data set with its own ids, such as FiftyOne's samples.

    Parameters
    ----------
    rows : iterable of (id, filepath, group)
        `id` becomes the image id and must be unique; `group` may be text or a number.

    Returns
    -------
    list of ImageGroup
        In natural order of group and file name. Output names are as in `groups_from_list`.

    Raises
    ------
    DataError
        As `groups_from_list`; the message names rows by their id. A group of None is an error too.
    """
    listed = list(rows)
    labelled = [
        (f"sample {image_id}", os.fspath(path), "" if group is None else str(group)) for image_id, path, group in listed
    ]
    return groups_from_labelled(labelled, "the data set", ids=[image_id for image_id, _, _ in listed])


def groups_from_labelled(
    rows: Sequence[tuple[str, str, str]], origin: str, *, ids: Sequence[str] | None = None
) -> list[ImageGroup]:
    """Check rows of (where, path, group), name the outputs, and build groups; `ids` replace names from paths."""
    problems: list[str] = []
    checked: list[tuple[str, str]] = []
    first_seen: dict[tuple[str, str], str] = {}
    for where, path, group in rows:
        name = PurePosixPath(group.strip()).as_posix()
        problem = _row_problem(path, group.strip())
        pair = (name, whole_name(path, has_addresses=ids is None))
        if not problem and ids is None and pair in first_seen:
            problem = f"{show_address(path)} is in group {name!r} already ({first_seen[pair]})"
        if problem:
            problems.append(f"{where}: {problem}")
        first_seen.setdefault(pair, where)
        checked.append(pair)
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise DataError(f"{origin}: {'; '.join(problems[:_SHOWN])}{more}; correct these and run again")
    if not rows:
        raise DataError(f"{origin}: has no rows; give at least one image and its group")
    tails = unique_tails(checked)
    unusable = [
        f"{where}: {show_address(path)}" for (where, path, _), tail in zip(rows, tails, strict=True) if "\\" in tail
    ]
    if ids is None and unusable:
        shown = "; ".join(unusable[:_SHOWN]) + ("; ..." if len(unusable) > _SHOWN else "")
        raise DataError(f"{origin}: {shown}: a backslash in the name; write folders with /, or rename the file")
    if ids is None and len(set(tails)) < len(tails):
        twice = Counter(tails).most_common(1)[0][0]
        raise DataError(f"{origin}: two images would both be called {twice!r}; rename one of the groups")
    if ids is not None:
        tails = _with_distinct_names(tails, ids, origin)
    return _build(
        [
            (name if ids is None else ids[index], Path(path), group, name)
            for index, ((group, path), name) in enumerate(zip(checked, tails, strict=True))
        ],
        {at: path for at, (_, path, _) in enumerate(rows) if ids is None and is_address(path)},
    )


def _row_problem(path: str, group: str) -> str:
    if not path:
        return "the path is empty"
    if "\x00" in path:
        return f"the path {path!r} has a NUL"
    if is_address(path) and CHAIN in path:
        return f"{show_address(path)}: {CHAIN} joins addresses, which is not read; give the address of the image itself"
    if not group or PurePosixPath(group).as_posix() == ".":
        return f"{show_address(path)} has no group"
    try:
        check_relative(group, "group name")
    except DataError as error:
        return str(error)
    if any(len(part.encode("utf-8", NAMES)) > LONGEST for part in group.split("/")):
        return f"the group name {shorten(group, 20)} has a part of more than {LONGEST} bytes, too long for a folder"
    return ""


def _with_distinct_names(tails: Sequence[str], ids: Sequence[str], origin: str) -> list[str]:
    """Return one name per sample: samples may share a file, so repeated names begin with the sample's id."""
    if len(set(ids)) < len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise DataError(f"{origin}: id {twice!r} occurs twice; ids must be unique")
    counts = Counter(tails)
    named = []
    for tail, image_id in zip(tails, ids, strict=True):
        check_relative(image_id, "image id")
        parts = PurePosixPath(tail)
        named.append((parts.parent / image_id / parts.name).as_posix() if counts[tail] > 1 else tail)
    return named


def _build(
    rows: Sequence[tuple[str, Path, str, str]], addresses: Mapping[int, str] = MappingProxyType({})
) -> list[ImageGroup]:
    """Build groups from (id, path, group, distinct name to derive the output from); addresses are by row."""
    outputs = assign_outputs([name for _, _, _, name in rows])
    for folder, names in shared_stems(outputs).items():
        shown = [f"{PurePosixPath(name).name} -> {PurePosixPath(outputs[name]).name}" for name in names[:_SHOWN]]
        logger.warning(
            "folder %s: %d images share a stem; to keep their outputs apart these are named %s%s",
            folder,
            len(names),
            ", ".join(shown),
            ", ..." if len(names) > _SHOWN else "",
        )
    members: dict[str, list[tuple[str, ImageRef]]] = defaultdict(list)
    for at, (image_id, path, group, name) in enumerate(rows):
        image = ImageRef(id=image_id, path=path, output=outputs[name], address=addresses.get(at, ""))
        members[group].append((name, image))
    groups = []
    for group in sorted(members, key=natural_key):
        ordered = sorted(members[group], key=lambda item: natural_key(item[0]))
        groups.append(ImageGroup(name=group, images=tuple(image for _, image in ordered)))
        if len(ordered) == 1:
            logger.warning("group %r has one image only: nothing recurs, it is labelled by itself", group)
    return groups


_PATHS = ("path", "filepath", "file", "filename", "image")
_GROUPS = ("group", "label", "class", "category")
_DELIMITERS = (",", ";", "\t")
_Line = tuple[int, list[str]]


class _Table(NamedTuple):
    """A file split by one delimiter: numbered lines without blank ones, and path and group column by its header."""

    lines: list[_Line]
    columns: tuple[int, int] | None


def groups_from_images(
    images: str | os.PathLike[str], *, exclude: Iterable[str | os.PathLike[str]] = ()
) -> list[ImageGroup]:
    """Make groups from the user's IMAGES: a folder, or a list whose name ends in ``.csv`` or ``.parquet``.

    Parameters
    ----------
    images : path
    exclude : iterable of path
        Folders to omit from a folder.

    Raises
    ------
    DataError
        As `umscosod.data.groups.groups_from_folder`, `groups_from_csv` and `groups_from_parquet`.
    """
    if not os.fspath(images):
        raise DataError("IMAGES '' is empty; name a folder, or a .csv or .parquet list")
    path = Path(images)
    read = {".csv": groups_from_csv, ".parquet": groups_from_parquet}.get(path.suffix.lower())
    if read is not None and "\x00" not in str(path) and not os.path.isdir(path):  # noqa: PTH112 - as below
        return read(path)
    return groups_from_folder(path, exclude=exclude)


def groups_from_csv(path: str | os.PathLike[str]) -> list[ImageGroup]:
    """Make groups from a CSV file with the columns ``path`` and ``group``.

    Parameters
    ----------
    path : path
        A UTF-8 file. Its delimiter is the comma, semicolon or tab that splits all lines into equally many columns.
        Without a header line, the first two columns are used. A header names ``path`` (or ``filepath``, ``file``,
        ``filename``, ``image``) and ``group`` (or ``label``, ``class``, ``category``); then their order is free and
        other columns are ignored. Relative image paths start at the folder of this file. Blank lines are skipped.
        Spaces around a path are kept if a file of that name exists. A path may be an address, ``s3://bucket/1.jpg``;
        nothing is fetched here.

    Returns
    -------
    list of ImageGroup
        As `umscosod.data.groups.groups_from_list`.

    Raises
    ------
    DataError
        The file cannot be read or has no rows, its first line looks like an unknown header, or rows are bad: the
        message names them by line number.
    """
    path = Path(path)
    check_regular(path, "a .csv list")
    try:
        text = path.read_bytes().decode("utf-8-sig")
        table = max((_cut(text, delimiter) for delimiter in _DELIMITERS), key=lambda table: _fit(table, path.parent))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path}: cannot be read as CSV ({error}); save it as UTF-8 with columns path, group"
        ) from error
    if table.columns is None:
        _refuse_unknown_header(path, table)
    path_column, group_column = table.columns or (0, 1)
    lines = table.lines[1:] if table.columns else table.lines
    rows = []
    for line, cells in lines:
        padded = [*cells, *[""] * (max(path_column, group_column) + 1 - len(cells))]
        rows.append((f"line {line}", _locate(path.parent, padded[path_column]), padded[group_column]))
    return groups_from_labelled(rows, str(path))


def groups_from_parquet(path: str | os.PathLike[str]) -> list[ImageGroup]:
    """Make groups from a Parquet file with the columns ``path`` and ``group``, or their other names.

    Parameters
    ----------
    path : path
        See `groups_from_csv` for the names of columns, and for relative paths.

    Returns
    -------
    list of ImageGroup
        As `umscosod.data.groups.groups_from_list`.

    Raises
    ------
    DataError
        The file cannot be read, lacks a column, or rows are bad: the message names them by number.
    MissingDependencyError
        pyarrow is not installed.
    """
    path = Path(path)
    check_regular(path, "a .parquet list")
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise MissingDependencyError(
            f"{path}: a .parquet list needs the package pyarrow; run: pip install pyarrow, or save it as .csv"
        ) from error
    try:
        listed = parquet.read_schema(path).names
    except (OSError, ArrowException) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({reason_of(error)}); save it anew") from error
    names = {name.strip().casefold(): name for name in reversed(listed)}
    found = [next((names[name] for name in known if name in names), None) for known in (_PATHS, _GROUPS)]
    if None in found:
        raise DataError(f"{path}: its columns are {shorten(listed)}; name two of them path and group")
    try:
        columns = [parquet.read_table(path, columns=[name]).column(0).cast("string").to_pylist() for name in found]
    except (OSError, ArrowException, UnicodeError) as error:
        wanted = f"the columns {found[0]} and {found[1]} must be text in UTF-8"
        raise DataError(f"{path}: {wanted} ({one_line(str(error))}); save it anew") from error
    paths, groups = (["" if cell is None else cell for cell in column] for column in columns)
    pairs = enumerate(zip(paths, groups, strict=True), start=1)
    return groups_from_labelled(
        [(f"row {n}", _locate(path.parent, cell), group) for n, (cell, group) in pairs], str(path)
    )


def _cut(text: str, delimiter: str) -> _Table:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    lines = [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    names = [cell.strip().casefold() for cell in lines[0][1]] if lines else []
    found = [next((names.index(name) for name in known if name in names), None) for known in (_PATHS, _GROUPS)]
    return _Table(lines, None if found[0] is None or found[1] is None else (found[0], found[1]))


def _fit(table: _Table, folder: Path) -> tuple[bool, bool, bool, bool, bool]:
    """Score how well a delimiter fits; of equal ones the first is used, a comma."""
    widths = {len(cells) for _, cells in table.lines}
    is_wide = bool(widths) and min(widths) >= 2
    cells = table.lines[-1][1] if table.lines else [""]
    column = table.columns[0] if table.columns else 0
    is_there = column < len(cells) and _is_file(_locate(folder, cells[column]))
    return table.columns is not None, is_wide and len(widths) == 1, is_wide, max(widths, default=0) > 1, is_there


def _locate(folder: Path, cell: str) -> str:
    """Return the path of an image: the unchanged cell if such a file exists, else without the spaces around it."""
    if is_address(cell.strip()):
        return cell.strip()
    if cell != cell.strip() and _is_file(str(folder / cell)):
        return str(folder / cell)
    return str(folder / cell.strip()) if cell.strip() else ""


def _is_file(path: str) -> bool:
    return bool(path) and "\x00" not in path and os.path.isfile(path)  # noqa: PTH113 - Path() would drop a last slash


def _refuse_unknown_header(path: Path, table: _Table) -> None:
    """Refuse a first line that names no file and has no picture suffix: it is a header with unknown names."""
    if not table.lines:
        return
    line, cells = table.lines[0]
    first = _locate(path.parent, cells[0])
    is_header = PurePosixPath(first).suffix.lower() not in PICTURE_SUFFIXES and not os.path.lexists(first)
    if is_header and not is_address(first) and cells[0].strip() and len(cells) > 1 and "\x00" not in first:
        shown = ",".join(cells)
        raise DataError(
            f"{path}: line {line} {shown!r} names no image, and is no header with one of {', '.join(_PATHS)} and one "
            f"of {', '.join(_GROUPS)}; name the columns path and group"
        )


def find_groups(images: Images, out: Path, *, inputs: Sequence[Path] = ()) -> tuple[ImageGroup, ...]:
    """Take groups as they are, or find them in a folder or a ``.csv`` list; the output folder is left out.

    Parameters
    ----------
    images : path or sequence of ImageGroup
    out : Path
    inputs : sequence of Path
        What else the job reads; pictures below are no images.

    Raises
    ------
    DataError
        There are none, two have one name, the output folder cannot be one, or it holds images, or an input lies where
        results go.
    """
    check_place(out, "job")
    if not isinstance(images, str | Path):
        groups = tuple(images)
    else:
        if os.path.isdir(images):  # noqa: PTH112 - Path.is_dir raises on some names
            # before the search, which would leave a group's folder out
            refuse_images_in(out, exclude=[*(out / name for name in GUARDED), *inputs, Path(images)])
        groups = tuple(groups_from_images(images, exclude=[out]))
    if not groups:
        raise DataError("no groups to work on; give at least one ImageGroup")
    everything = [image for group in groups for image in group.images]
    _refuse_long_paths(everything, out)
    for what, names in (
        ("group name", [group.name for group in groups]),
        ("image id", [image.id for image in everything]),
        ("output", [image.output for image in everything]),
    ):
        name, count = Counter(names).most_common(1)[0]
        if count > 1:
            raise DataError(
                f"{what} {name!r} occurs {count} times; every group, image and output needs a name of its own"
            )
    _refuse_inputs(groups, out, inputs)
    return groups


def _refuse_long_paths(images: Sequence[ImageRef], out: Path) -> None:
    """A group's name may be as long as a path, and then no path is left for its results."""
    most = LONGEST_PATH - len(os.fsencode(out / "pseudo")) - 1
    long = [image for image in images if len(os.fsencode(image.output)) > most]
    if long:
        raise DataError(
            f"{len(long)} results would have paths of more than {LONGEST_PATH} bytes below --out, such as that of "
            f"{long[0].id[:_LETTERS]}...; give the group a shorter name, or nest its folders less deeply"
        )


def _refuse_inputs(groups: Sequence[ImageGroup], out: Path, others: Sequence[Path]) -> None:
    """No input may lie, or be linked from, where results go; and no folder of images may become one of results."""
    place, inside = real_path(out), []
    for other in others:
        if any(real_path(other).is_relative_to(real_path(out / name)) for name in OWN_FOLDERS):
            raise DataError(f"{other} lies among the results in {out}, which this job replaces; choose another --out")
    results = [real_path(out / name) for name in GUARDED]
    files = {(result.parent, result.name) for result in results}
    folders: dict[Path, bool] = {}  # whether each holds results
    real_folder = cache(lambda folder: real_path(Path(folder)))  # looked up once for all images in it
    for path in (image.path for group in groups for image in group.images):
        if os.path.islink(path):  # noqa: PTH114 - Path.is_symlink raises on some names
            real = real_path(path)
            folder, name = real.parent, real.name
        else:
            parent, name = os.path.split(path)
            folder = real_folder(parent)
        if folder not in folders:
            folders[folder] = any(folder.is_relative_to(result) for result in results)
            if folder.is_relative_to(place):
                inside.append(folder)
        if folders[folder] or (folder, name) in files:
            raise DataError(f"the image {path} lies among the results in {out}; choose another --out")
    roots = [Path(os.path.commonpath(inside))] if inside else []
    refuse_images_in(out, exclude=[*(out / name for name in GUARDED), *others, *roots])
