"""One file from the Hugging Face hub: resumed, checked against the hub's sha256, in its cache only when whole."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umscosod.errors import UmscosodError, WeightsError, one_line, reason_of
from umscosod.features.cache import file_sha256, format_bytes

if TYPE_CHECKING:
    from huggingface_hub.file_download import HfFileMetadata

AGAIN = "run the same command again: it goes on where it stopped"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_TRANSPORT = ("builtins", "huggingface_hub")


class MissingFileError(WeightsError):
    """A repository does not hold the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HubFile:
    """A file of the hub in its cache.

    Attributes
    ----------
    path : Path
    sha256 : str
    commit : str
        Of the repository.
    is_stated : bool
        The hub stated this hash. False: a mirror stated none, and this is the hash of what came.
    """

    path: Path
    sha256: str
    commit: str
    is_stated: bool


def hub_page(repository: str) -> str:
    """Address of a repository, on the hub that ``HF_ENDPOINT`` names."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{repository}"


def ask_size(repository: str, filename: str) -> int:
    """Size of a file of the hub, in bytes; 0 where the hub does not say.

    Raises
    ------
    WeightsError
        See `download_file`.
    """
    with _plain_errors(repository, filename):
        return _ask(repository, filename).size or 0


def download_file(repository: str, filename: str, report: Callable[[int, int], None]) -> HubFile:
    """Bring a file into the Hugging Face cache, which ``HF_HOME`` moves.

    huggingface_hub makes the requests, so that ``HF_ENDPOINT``, ``HF_HUB_OFFLINE``, ``HF_TOKEN`` and proxies hold. Its
    own download no longer resumes from one call to the next (since 1.x), and checks the size but not the hash. So the
    bytes go into ``blobs/SHA256.incomplete`` of its cache, as its earlier versions had it, which no reader finds. The
    file gets its name, and the link that readers follow, when its hash is right.

    Parameters
    ----------
    repository : str
        ``OWNER/NAME``.
    filename : str
    report : callable
        Called with the bytes that are here and those of the whole file (0: not known); may raise
        `umscosod.errors.Cancelled`.

    Returns
    -------
    HubFile

    Raises
    ------
    MissingFileError
        The repository has no such file.
    WeightsError
        Offline, no such repository, no access, a cut connection, a full disk, or a wrong hash: one line with the cure.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.file_download import repo_folder_name

    with _plain_errors(repository, filename), _quiet_hub():
        known = _ask(repository, filename)
        stated = known.etag or ""
        if not _SHA256.fullmatch(stated):  # a small file that is no LFS object, or a mirror
            path = Path(hf_hub_download(repository, filename))  # the newest is asked for  # nosec B615
            return HubFile(path=path, sha256=file_sha256(path), commit=known.commit_hash or "", is_stated=False)
        blobs = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model") / "blobs"
        if not _is_whole(blobs / stated, stated):
            _fetch(repository, filename, known, blobs / stated, report)
        path = Path(hf_hub_download(repository, filename))  # it makes the link: the hash is right  # nosec B615
        return HubFile(path=path, sha256=stated, commit=known.commit_hash or "", is_stated=True)


def _ask(repository: str, filename: str) -> HfFileMetadata:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    if constants.HF_HUB_OFFLINE:
        raise WeightsError(
            f"HF_HUB_OFFLINE is set, so {repository} cannot be asked; unset it, or fetch the file elsewhere and run: "
            "umscosod weights import FILE"
        )
    return get_hf_file_metadata(hf_hub_url(repository, filename))


def _is_whole(blob: Path, sha256: str) -> bool:
    return blob.is_file() and file_sha256(blob) == sha256


def _fetch(
    repository: str, filename: str, known: HfFileMetadata, blob: Path, report: Callable[[int, int], None]
) -> None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    partial = blob.with_name(f"{blob.name}.incomplete")
    partial.parent.mkdir(parents=True, exist_ok=True)
    size = known.size or 0
    with _Partial(partial, lambda done: report(done, size)) as stream:
        have = stream.tell()
        if size and have > size:
            have = stream.truncate(0)
        _check_room(partial.parent, size - have)
        report(have, size)
        url = hf_hub_url(repository, filename, revision=known.commit_hash)
        while not size or have < size:
            before = have
            try:
                http_get(url, stream, resume_size=have, headers=build_hf_headers(), expected_size=known.size)
            except _transport_error():  # hubs before 1.0 give up at the first cut
                have = stream.tell()
                if have <= before:
                    raise
            else:
                break
    if (found := file_sha256(partial)) != blob.name:
        partial.unlink()
        raise WeightsError(
            f"{repository}/{filename}: the download has the sha256 {found[:12]}..., the hub states "
            f"{blob.name[:12]}...; it was removed; run the same command again, and suspect the proxy or mirror "
            "if this comes back"
        )
    partial.replace(blob)


class _Partial(io.BufferedWriter):
    """A file that is appended to and reports its size."""

    def __init__(self, path: Path, report: Callable[[int], None]) -> None:
        super().__init__(io.FileIO(path, "ab"))
        self._report = report

    def write(self, data: Any) -> int:
        written = super().write(data)
        self._report(self.tell())
        return written


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise WeightsError(
            f"{folder}: {format_bytes(free)} free, {format_bytes(needed)} needed; make room, or set "
            "HF_HOME to a folder on another disk"
        )


@contextlib.contextmanager
def _quiet_hub() -> Iterator[None]:
    """Have huggingface_hub draw no bars and say nothing of its retries: what matters comes as an error."""
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    logger = logging.getLogger("huggingface_hub")
    level, was_disabled = logger.level, are_progress_bars_disabled()
    logger.setLevel(logging.ERROR)
    if not was_disabled:
        disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if not was_disabled:
            enable_progress_bars()


@contextlib.contextmanager
def _plain_errors(repository: str, filename: str) -> Iterator[None]:
    """Turn what huggingface_hub raises into one line with the cure."""
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        yield
    except UmscosodError:
        raise
    except LocalEntryNotFoundError as error:
        raise WeightsError(_describe_cut(repository, error.__cause__ or error)) from error
    except EntryNotFoundError as error:
        raise MissingFileError(f"{hub_page(repository)} holds no {filename}; check the name") from error
    except HfHubHTTPError as error:
        raise WeightsError(_describe_refusal(repository, error)) from error
    except (OSError, _transport_error()) as error:
        if getattr(getattr(error, "response", None), "status_code", 0):
            raise WeightsError(_describe_refusal(repository, error)) from error
        if isinstance(error, OSError) and error.errno in _FULL:
            where = os.environ.get("HF_HOME") or "the Hugging Face cache"
            raise WeightsError(f"{repository}: the disk of {where} is full; make room, then {AGAIN}") from error
        if isinstance(error, OSError) and error.filename:
            raise WeightsError(f"cannot write {error.filename}: {reason_of(error)}; check HF_HOME") from error
        raise WeightsError(_describe_cut(repository, error)) from error


def _transport_error() -> type[Exception]:
    """Base of the errors of the library that huggingface_hub sends with: requests up to 0.x, then httpx."""
    from huggingface_hub.errors import HfHubHTTPError

    theirs = [base for base in HfHubHTTPError.__mro__ if base.__module__.partition(".")[0] not in _NOT_TRANSPORT]
    found: type[Exception] = theirs[-1]
    return found


def _describe_refusal(repository: str, error: Any) -> str:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    page, log_in = hub_page(repository), "set HF_TOKEN, or run: hf auth login"
    status = getattr(error.response, "status_code", 0)
    if isinstance(error, GatedRepoError):
        return f"{repository} is gated: accept its licence at {page}, then {log_in}"
    if isinstance(error, RepositoryNotFoundError):
        return f"{page}: no such repository, or a private one; check the name; for a private one {log_in}"
    if status in (401, 403):
        return f"{page} refused access ({status}): the token lacks the right or is not valid; {log_in}"
    if status == 404:
        return f"{page}: not found (404); check the name"
    return f"{page} answered {status}; wait a little, then {AGAIN}"


def _describe_cut(repository: str, error: BaseException) -> str:
    return f"{hub_page(repository)}: the connection failed ({one_line(reason_of(error))}); {AGAIN}"
