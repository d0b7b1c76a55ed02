"""Writes and reads ``report.json``: the result of every image, with the same bytes for the same run."""

from __future__ import annotations

import functools
import json
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from umscosod import __version__
from umscosod.data.files import describe_damage, open_atomic
from umscosod.data.naming import natural_key
from umscosod.errors import DataError, shorten
from umscosod.export.items import Tally
from umscosod.types import Labelled, Status, check_relative

SCHEMA = 1
"""Version of the file's structure; increases when a field is renamed or removed."""

_PACKAGES = (
    *("numpy", "scipy", "scikit-image", "pillow", "opencv-python", "pydensecrf2"),
    *("torch", "torchvision", "timm", "safetensors", "pycocotools"),
)
_KEPT = ("group", "output", "status", "confidence", "threshold", "source", "reason")
_KEYS = {"image_id": "image", **{name: name for name in _KEPT}, "is_mixed": "mixed_group"}
_DIGITS = 6  # float32 has about seven; more would show noise of the conversion


def write_report(
    path: Path,
    rows: Iterable[Labelled],
    config: Mapping[str, Any],
    *,
    backbones: Sequence[str] = (),
) -> dict[str, Any]:
    """Write the report of a run, completely or not at all.

    The report has no dates, durations or host names, so that runs with equal results give equal bytes. Rows are in
    natural order of group and output.

    Parameters
    ----------
    path : Path
        Usually ``OUT/report.json``.
    rows : iterable of Labelled
        One for every requested image, with any status.
    config : mapping
        The resolved settings, as JSON types.
    backbones : sequence of str
        Ids of the streams used (name, weights hash, size, layer and facet).

    Returns
    -------
    dict
        The totals: see `umscosod.export.items.Tally.as_dict`.

    Raises
    ------
    DataError
        An image occurs twice, a number is not finite, `config` holds a type unknown to JSON, or the file cannot be
        written.
    """
    ordered = sorted(rows, key=lambda row: (natural_key(row.group), natural_key(row.output)))
    tally = Tally()
    groups: dict[str, Tally] = {}
    seen: set[tuple[str, str]] = set()
    for row in ordered:
        if (row.group, row.image_id) in seen:
            raise DataError(f"{path}: image {row.image_id!r} has two rows in the report; label it once")
        seen.add((row.group, row.image_id))
        tally.add(row)
        groups.setdefault(row.group, Tally()).add(row)
    totals = tally.as_dict()
    document = {
        "schema": SCHEMA,
        "totals": totals,
        "groups": {name: _without_groups(part.as_dict()) for name, part in groups.items()},
        "backbones": list(backbones),
        "versions": dict(sorted(package_versions().items())),
        "config": config,
        "images": [_image_row(path, row) for row in ordered],
    }
    with open_atomic(path) as stream:
        stream.write(_to_json(path, document))
    return totals


def read_report(path: Path) -> tuple[Labelled, ...]:
    """Read the rows that `write_report` wrote.

    Raises
    ------
    DataError
        The file is missing, is no report or of another schema, or a name in it points outside the folder of results.
    """
    if not path.exists():
        raise DataError(f"{path.parent} holds no {path.name}; give an output folder of 'umscosod label'")
    if not path.is_file():  # reading a pipe would block
        raise DataError(f"{path}: is not a regular file; give an output folder of 'umscosod label'")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["schema"] == SCHEMA:
            return tuple(build_row({name: row.get(key) for name, key in _KEYS.items()}) for row in document["images"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = describe_damage(error)
        raise DataError(f"{path}: is no report of ours, or is damaged ({reason}); label again") from error
    raise DataError(f"{path}: is a report of schema {shorten(document['schema'], 40)}, expected {SCHEMA}; label again")


def build_row(values: Mapping[str, Any]) -> Labelled:
    """Build a row from the values of a file, after a check of each value.

    Parameters
    ----------
    values : mapping
        The fields of `Labelled` by name; None if the file has no value.

    Raises
    ------
    DataError
        A field is missing or of another kind, a number is not in [0, 1], or a name is not a plain relative one.
    """
    for name in ("image_id", "group", "output", "status", "reason", "source"):
        if not isinstance(values.get(name), str):
            raise DataError(f"{_KEYS[name]} cannot be {shorten(values.get(name), 40)}")
    for name in ("confidence", "threshold"):
        value = values.get(name)
        # a boolean is a number too; NaN is in no range
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
            raise DataError(f"{name} cannot be {shorten(value, 40)}")
    check_relative(values["image_id"], "image id")
    check_relative(values["output"], "output name")
    if not isinstance(values.get("is_mixed") or False, bool):
        raise DataError(f"mixed_group cannot be {shorten(values['is_mixed'], 40)}")
    try:
        status = Status(values["status"])
    except ValueError as error:
        raise DataError(str(error)) from None
    figures = {name: float(values[name]) for name in ("confidence", "threshold")}
    return Labelled(**{**values, **figures, "status": status, "is_mixed": bool(values.get("is_mixed"))})


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on, if installed."""
    return dict(_find_versions())


@functools.cache  # a look at what is installed takes 10 ms
def _find_versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "umscosod": __version__}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _image_row(path: Path, row: Labelled) -> dict[str, Any]:
    if row.confidence is None or not (math.isfinite(row.confidence) and math.isfinite(row.threshold)):
        raise DataError(
            f"{path}: image {row.image_id!r} has confidence {row.confidence} and threshold {row.threshold}; "
            "both must be finite"
        )
    values = {key: getattr(row, name) for name, key in _KEYS.items()}
    return {**values, **{name: round(float(values[name]), _DIGITS) for name in ("confidence", "threshold")}}


def _without_groups(totals: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in totals.items() if key not in ("groups", "mixed_groups")}
    return {"mixed": bool(totals["mixed_groups"]), **kept}


def _to_json(path: Path, document: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: the settings cannot be written as JSON ({error})") from error
    try:
        return (text + "\n").encode("utf-8")
    except UnicodeEncodeError:  # a file name is not valid text on this system: escape everything
        return (json.dumps(document, indent=1, allow_nan=False) + "\n").encode("ascii")
