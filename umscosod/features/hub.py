"""The verbs of ``umscosod weights``: what there is, download, verify, import. The one room that uses the network."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from umscosod.data.files import lock_folder, open_atomic, real_path
from umscosod.errors import ConfigError, WeightsError, reason_of
from umscosod.features.cache import file_sha256
from umscosod.features.download import HubFile, MissingFileError, ask_size, download_file, hub_page
from umscosod.features.records import (
    WeightsRecord,
    expected_sha256,
    pinned_start,
    read_records,
    training_note,
    weights_dir,
    write_record,
)
from umscosod.features.specs import HF_HUB, TIMM, VIT_SPECS, VitSpec
from umscosod.features.store import (
    HUB_FILES,
    check_weights_file,
    expand_user,
    find_cached,
    find_weights,
    hash_weights,
    hub_repository,
    own_files,
)
from umscosod.progress import ProgressFn, ignore_progress

SETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"paper": ("dino_vitb8", "dinov2_vitb14_reg"), "small": ("dino_vits8", "dinov2_vits14_reg")}
)
"""Pairs of backbones that have a name."""
FREE_LICENCES = ("Apache-2.0", "MIT")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_MB = 1e6


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsOffer:
    """Weights that there are, here or on the hub.

    Attributes
    ----------
    name : str
        Of the backbone, as ``--backbone`` takes it.
    repository : str
        ``OWNER/NAME`` on the Hugging Face hub.
    address : str
        Of its page, where the licence is.
    size_mb : int
        In MB (1e6 bytes); 0 where it is not known.
    licence : str
        ``""``: not known; see `address`.
    is_label_free : bool or None
        None: not known.
    path : Path or None
        Where the weights lie on this machine; None: nowhere.
    sha256 : str
        Recorded hash of that file; ``""`` where none is.
    note : str
        What to know of that file.
    """

    name: str
    repository: str
    address: str
    size_mb: int
    licence: str
    is_label_free: bool | None
    path: Path | None
    sha256: str
    note: str

    @property
    def has_free_licence(self) -> bool:
        """Apache-2.0 or MIT; any other licence is to be read before use."""
        return self.licence in FREE_LICENCES

    def describe(self) -> str:
        """Say size, source and licence in a line, and what to know before use."""
        size = f"{self.size_mb} MB" if self.size_mb else "size not known"
        licence = f"licence {self.licence}" if self.licence else "licence: see that page"
        words = [f"{self.name}: {size} from {self.address}, {licence}"]
        if self.licence and not self.has_free_licence:
            words.append("read it there before you use them")
        if self.is_label_free is False:
            words.append("trained with labels of people")
        return "; ".join(words)


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredWeights:
    """Weights that were downloaded, imported, or were here already.

    Attributes
    ----------
    name : str
    path : Path
    sha256 : str
    is_new : bool
        False: they were here.
    notes : tuple of str
    """

    name: str
    path: Path
    sha256: str
    is_new: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifiedWeights:
    """Outcome of the check of one file.

    Attributes
    ----------
    name : str
    path : Path
    is_sound : bool
    message : str
        What was found, or what is wrong and what to do.
    """

    name: str
    path: Path
    is_sound: bool
    message: str


def list_weights() -> tuple[WeightsOffer, ...]:
    """List every backbone that has weights, and what was downloaded by the name of a repository; no network is used.

    Raises
    ------
    WeightsError
        The file of records is damaged.
    """
    others = [name for name in read_records() if name not in VIT_SPECS]
    return (*map(_offer_of, VIT_SPECS.values()), *map(_offer_of_repository, others))


def plan_weights(names: Iterable[str]) -> tuple[WeightsOffer, ...]:
    """Resolve what `get_weights` takes; the hub is asked only for the size of what `list_weights` does not name.

    Parameters
    ----------
    names : iterable of str
        Names of backbones, ``paper``, ``small``, ``hf-hub:OWNER/NAME`` or ``timm:NAME``.

    Raises
    ------
    ConfigError
        A name is not known, or there is none.
    WeightsError
        As `get_weights`.
    """
    offers = tuple(map(_resolve, dict.fromkeys(each for name in names for each in SETS.get(name, (name,)))))
    if not offers:
        raise ConfigError(f"no weights are named; known names: {_known_names()}")
    return offers


def get_weights(names: Iterable[str], *, progress: ProgressFn = ignore_progress) -> tuple[StoredWeights, ...]:
    """Download weights into the Hugging Face cache; what is here is only hashed. Asks nothing.

    Parameters
    ----------
    names : iterable of str
        As for `plan_weights`.
    progress : callable
        Gets MB (1e6 bytes); may raise `umscosod.errors.Cancelled`: the next call resumes.

    Returns
    -------
    tuple of StoredWeights
        In the order of the names.

    Raises
    ------
    ConfigError
        A name is not known.
    WeightsError
        Offline, no such repository, no access, a cut connection, a full disk, or a wrong hash. No part of a file is
        left where it would be found.
    DataError
        Another process downloads weights, or our own folder cannot be written.
    """
    offers = plan_weights(names)
    with lock_folder(weights_dir()):
        return tuple(_get(offer, progress) for offer in offers)


def verify_weights(*, progress: ProgressFn = ignore_progress) -> tuple[VerifiedWeights, ...]:
    """Read each weight file that is here, compare its hash with the recorded one, and fit it to its architecture.

    A file without a recorded hash, such as one of torch.hub, has its hash recorded now, so that later changes show.

    Raises
    ------
    WeightsError
        The file of records is damaged.
    DataError
        Our own folder cannot be written.
    """
    here = [(offer.name, offer.path) for offer in list_weights() if offer.path is not None]
    found = []
    for index, (name, path) in enumerate(here):
        progress(index, len(here), f"verify, {name}")
        found.append(_verify(name, path))
    return tuple(found)


def import_weights(file: str | os.PathLike[str], name: str | None = None, *, link: bool = False) -> StoredWeights:
    """Put a weight file into our own folder, under the name of its backbone, where every command finds it.

    Parameters
    ----------
    file : path
        ``.safetensors``, ``.pth``, ``.pt`` or ``.bin``.
    name : str, optional
        Backbone; without it the one that the tensors fit.
    link : bool
        Link to the file in the place of a copy: it must stay where it is.

    Returns
    -------
    StoredWeights
        Unless the hash is known, a note says that the training is not.

    Raises
    ------
    ConfigError
        The name is not known.
    WeightsError
        The file cannot be read, fits no backbone, or fits several.
    DataError
        Our own folder cannot be written, or another process is at work there.
    """
    path = expand_user(os.fspath(file))
    check_weights_file(str(path))
    spec = _named_spec(name, path) if name else _recognise_one(path)
    with lock_folder(weights_dir()):
        return _store(path, spec, link=link)


def _offer_of(spec: VitSpec) -> WeightsOffer:
    return _offer(spec.name, hub_repository(spec), find_weights(spec), spec)


def _offer_of_repository(name: str) -> WeightsOffer:
    repository = name.removeprefix(HF_HUB)
    return _offer(name, repository, find_cached(repository), None)


def _offer(name: str, repository: str, path: Path | None, spec: VitSpec | None) -> WeightsOffer:
    size_mb = 0 if path is None else round(path.stat().st_size / _MB)
    return WeightsOffer(
        name=name,
        repository=repository,
        address=hub_page(repository),
        size_mb=size_mb or (spec.size_mb if spec else 0),
        licence=spec.licence if spec else "",
        is_label_free=spec.is_label_free if spec else None,
        path=path,
        sha256="" if path is None else expected_sha256(path),
        note="" if path is None else training_note(path),
    )


def _resolve(name: str) -> WeightsOffer:
    if name in VIT_SPECS:
        return _offer_of(VIT_SPECS[name])
    if name.startswith(TIMM):
        repository = f"timm/{name.removeprefix(TIMM)}"
    elif name.startswith(HF_HUB):
        repository = name.removeprefix(HF_HUB)
    else:
        near = difflib.get_close_matches(name.lower(), (*SETS, *VIT_SPECS), n=1)
        suggestion = f", did you mean {near[0]!r}?" if near else "."
        raise ConfigError(f"no weights are named {name!r}{suggestion} Known names: {_known_names()}")
    if not _REPOSITORY.fullmatch(repository):
        raise ConfigError(f"{name!r} names no repository; write hf-hub:OWNER/NAME or timm:NAME")
    for spec in VIT_SPECS.values():
        if hub_repository(spec) == repository:
            return _offer_of(spec)
    offer = _offer_of_repository(f"{HF_HUB}{repository}")
    if offer.path is not None:
        return offer
    size = next(filter(None, (_size_of(repository, file) for file in HUB_FILES)), 0)
    return WeightsOffer(
        name=offer.name,
        repository=repository,
        address=offer.address,
        size_mb=round(size / _MB),
        licence="",
        is_label_free=None,
        path=None,
        sha256="",
        note="",
    )


def _size_of(repository: str, filename: str) -> int:
    with contextlib.suppress(MissingFileError):
        return ask_size(repository, filename)
    return 0


def _known_names() -> str:
    return f"{', '.join((*SETS, *VIT_SPECS))}, hf-hub:OWNER/NAME, timm:NAME"


def _get(offer: WeightsOffer, progress: ProgressFn) -> StoredWeights:
    if offer.path is not None:
        try:
            sha256 = hash_weights(offer.path)
        except WeightsError:
            if offer.path != find_cached(offer.repository):  # a file of the user, which only they remove
                raise
        else:
            notes = (offer.note,) if offer.note else ()
            return StoredWeights(name=offer.name, path=offer.path, sha256=sha256, is_new=False, notes=notes)

    def report(done: int, total: int) -> None:
        progress(round(done / _MB), round(max(total, done) / _MB), f"{offer.name} (MB)")

    fetched = _download(offer, report)
    source = f"{offer.repository}@{fetched.commit[:12]}"
    write_record(
        offer.name,
        WeightsRecord(path=os.path.abspath(fetched.path), sha256=fetched.sha256, source=source),  # noqa: PTH100
    )
    notes = () if fetched.is_stated else (f"{offer.address} stated no sha256: the hash of what came is recorded",)
    return StoredWeights(name=offer.name, path=fetched.path, sha256=fetched.sha256, is_new=True, notes=notes)


def _download(offer: WeightsOffer, report: Callable[[int, int], None]) -> HubFile:
    if offer.name.startswith(HF_HUB):  # the architecture of others is in it
        download_file(offer.repository, "config.json", lambda done, total: None)
    first, second = HUB_FILES
    try:
        return download_file(offer.repository, first, report)
    except MissingFileError:
        return download_file(offer.repository, second, report)


def _verify(name: str, path: Path) -> VerifiedWeights:
    is_recorded = bool(expected_sha256(path))
    try:
        sha256 = hash_weights(path)
        if name in VIT_SPECS:
            _check_fit(VIT_SPECS[name], path)
    except WeightsError as error:
        return VerifiedWeights(name=name, path=path, is_sound=False, message=str(error))
    if not is_recorded:
        write_record(name, WeightsRecord(path=os.path.abspath(path), sha256=sha256, source="found here"))  # noqa: PTH100
    word = "as recorded" if is_recorded else "recorded now, as nothing was to compare with"
    note = f"; {text}" if (text := training_note(path)) else ""
    return VerifiedWeights(name=name, path=path, is_sound=True, message=f"sha256 {sha256[:12]} {word}{note}")


def _check_fit(spec: VitSpec, path: Path) -> None:
    import torch

    from umscosod.features.vit import load_vit

    load_vit(spec, path, torch.device("cpu"))


def _named_spec(name: str, path: Path) -> VitSpec:
    if name not in VIT_SPECS:
        raise ConfigError(f"--name {name!r} is no backbone; known names: {', '.join(VIT_SPECS)}")
    _check_fit(VIT_SPECS[name], path)
    return VIT_SPECS[name]


def _recognise_one(path: Path) -> VitSpec:
    from umscosod.features.weights import recognise

    found = recognise(path)
    if found is None:
        raise WeightsError(f"weights {path} fit none of {', '.join(VIT_SPECS)}; pass --name to see why")
    alike = [spec for spec in VIT_SPECS.values() if _shape(spec) == _shape(found)]
    if len(alike) == 1:
        _check_fit(found, path)
        return found
    fitting = [spec for spec in alike if _fits(spec, path)]
    if len(fitting) != 1:
        names = ", ".join(spec.name for spec in fitting or alike)
        raise WeightsError(f"weights {path} fit the shapes of {names} alike; pass --name with the one that they are of")
    return fitting[0]


def _shape(spec: VitSpec) -> tuple[int, int, int]:
    return spec.dim, spec.patch_px, spec.prefix_tokens


def _fits(spec: VitSpec, path: Path) -> bool:
    try:
        _check_fit(spec, path)
    except WeightsError:
        return False
    return True


def _store(source: Path, spec: VitSpec, *, link: bool) -> StoredWeights:
    sha256 = file_sha256(source)
    pinned = pinned_start(spec.original_file)
    is_known = bool(pinned and sha256.startswith(pinned)) or sha256 == _hash_on_record(spec)
    target = weights_dir() / f"{spec.name}{source.suffix.lower()}"
    if link:
        _link(source, target)
    elif _copy(source, target) != sha256:
        target.unlink()
        raise WeightsError(f"weights {source} were changed while they were copied; run the same command again")
    for other in own_files(spec.name):
        if other != target:
            other.unlink(missing_ok=True)
    record = WeightsRecord(
        path=os.path.abspath(target),  # noqa: PTH100 - a link stays one
        sha256=sha256,
        source=f"imported from {source.absolute()}",
        is_training_known=is_known,
    )
    write_record(spec.name, record)
    notes = (note,) if (note := training_note(target)) else ()
    return StoredWeights(name=spec.name, path=target, sha256=sha256, is_new=True, notes=notes)


def _hash_on_record(spec: VitSpec) -> str:
    """Hash of the published weights of a backbone, as far as this machine knows it."""
    record = read_records().get(spec.name)
    if record is not None and record.is_training_known:
        return record.sha256
    cached = find_cached(hub_repository(spec))
    return "" if cached is None else expected_sha256(cached)


def _copy(source: Path, target: Path) -> str:
    digest = hashlib.sha256()
    with source.open("rb") as stream, open_atomic(target) as out:
        while part := stream.read(1 << 22):
            digest.update(part)
            out.write(part)
    return digest.hexdigest()


def _link(source: Path, target: Path) -> None:
    if real_path(source) == real_path(target):
        return
    temporary = target.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        temporary.symlink_to(source.absolute())
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise WeightsError(f"cannot link {target} to {source}: {reason_of(error)}; leave out --link") from error
