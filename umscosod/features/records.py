"""Our own folder of weights, and what is recorded of weight files: hash, source, whether their training is known."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umscosod.data.files import open_atomic, read_json
from umscosod.errors import DataError, WeightsError
from umscosod.features.cache import expand_root, user_folder

RECORDS_FILE = "records.json"
_MAX_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PINNED = re.compile(r"-([0-9a-f]{8})\.(?:pth|pt|safetensors)")


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsRecord:
    """What is known of a weight file since it was downloaded, imported or first verified.

    Attributes
    ----------
    path : str
        Absolute.
    sha256 : str
        64 hexadecimal digits.
    source : str
        Repository and commit, or the file that was imported.
    is_training_known : bool
        False: the file was imported, and shapes tell the architecture only.
    """

    path: str
    sha256: str
    source: str
    is_training_known: bool = True


def weights_dir() -> Path:
    """Our own folder of weights.

    Returns
    -------
    Path
        ``$UMSCOSOD_WEIGHTS``; else ``weights`` in `umscosod.features.cache.user_folder`. Not created here, and never
        touched by `umscosod.features.cache.FeatureCache.prune`.

    Raises
    ------
    CacheError
        The user has no home folder.
    """
    chosen = os.environ.get("UMSCOSOD_WEIGHTS")
    return expand_root(chosen) if chosen else user_folder() / "weights"


def read_records() -> dict[str, WeightsRecord]:
    """What is recorded, by name of the backbone.

    Raises
    ------
    CacheError
        The user has no home folder.
    WeightsError
        The file of records is damaged.
    """
    file = weights_dir() / RECORDS_FILE
    if not os.path.lexists(file):
        return {}
    try:
        content = read_json(file, _MAX_BYTES)
        return {str(name): _to_record(values) for name, values in content.items()}
    except (DataError, AttributeError, TypeError, ValueError) as error:
        raise WeightsError(
            f"the records of weights in {file} are damaged ({error}); remove that file, then run: "
            "umscosod weights verify"
        ) from error


def _to_record(values: Any) -> WeightsRecord:
    record = WeightsRecord(**values)
    texts = (record.path, record.sha256, record.source)
    if not all(isinstance(text, str) for text in texts) or not _SHA256.fullmatch(record.sha256):
        raise ValueError("a record lacks a path, a hash or a source")
    return record


def write_record(name: str, record: WeightsRecord) -> None:
    """Record a file as the weights of a backbone; what was recorded under that name is replaced.

    Raises
    ------
    DataError
        The folder cannot be written.
    """
    records = {**read_records(), name: record}
    content = {each: dataclasses.asdict(records[each]) for each in sorted(records)}
    with open_atomic(weights_dir() / RECORDS_FILE) as stream:
        stream.write(json.dumps(content, indent=1).encode())


def expected_sha256(path: Path) -> str:
    """Hash that a file must have: the recorded one, or the one that the Hugging Face cache names its file by.

    Returns
    -------
    str
        64 hexadecimal digits; ``""`` where none is known.
    """
    if (record := _find_record(path)) is not None:
        return record.sha256
    real = Path(os.path.realpath(path))
    return real.name if real.parent.name == "blobs" and _SHA256.fullmatch(real.name) else ""


def pinned_start(original_file: str) -> str:
    """First 8 digits of the sha256 that authors put into the name of their file, as those of DINOv3; ``""``: none.

    Examples
    --------
    >>> pinned_start("dinov3_vits16_pretrain_lvd1689m-08c60483.pth"), pinned_start("dino_vitbase8_pretrain.pth")
    ('08c60483', '')
    """
    found = _PINNED.search(original_file)
    return found[1] if found else ""


def training_note(path: Path) -> str:
    """What results must say of a weight file; ``""``: nothing."""
    record = _find_record(path)
    if record is None or record.is_training_known:
        return ""
    return f"weights {path.name} were imported: their training is not known, and with it whether it was free of labels"


def _find_record(path: Path) -> WeightsRecord | None:
    absolute = os.path.abspath(path)  # noqa: PTH100 - links stay as they are
    return next((record for record in read_records().values() if record.path == absolute), None)
