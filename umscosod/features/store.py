"""Weight files on this machine: where they lie, whether they can be read, which one a backbone takes; torch-free."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from umscosod.data.files import why_unreadable
from umscosod.errors import CacheError, WeightsError, reason_of
from umscosod.features.cache import file_sha256
from umscosod.features.records import expected_sha256, weights_dir
from umscosod.features.specs import HF_HUB, VitSpec

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
PICKLED = (".pth", ".pt", ".bin")
CURE = "fetch the file again, or save its tensors as .safetensors"


def find_weights(spec: VitSpec) -> Path | None:
    """Look for weights on this machine, without network.

    Parameters
    ----------
    spec : VitSpec

    Returns
    -------
    Path or None
        Of a ``local-dir:`` the file inside. Of others the first of: a file in our own folder
        (`umscosod.features.hub.import_weights` puts it there), timm's file in the Hugging Face cache, the authors' file
        in torch.hub's folder. None: there is none.
    """
    if spec.folder:
        paths = (expand_user(spec.folder) / name for name in HUB_FILES)
        return next((path for path in paths if path.is_file()), None)
    for path in own_files(spec.name):
        if path.is_file():
            return path
    if (cached := find_cached(hub_repository(spec))) is not None:
        return cached
    if (torch := sys.modules.get("torch")) is not None:
        hub = Path(torch.hub.get_dir())
    else:  # the rule that torch documents
        cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        hub = Path(os.environ.get("TORCH_HOME") or f"{cache}/torch").expanduser() / "hub"
    original = hub / "checkpoints" / spec.original_file
    return original if original.is_file() else None


def own_files(name: str) -> tuple[Path, ...]:
    """Every path that the weights of a backbone may have in our own folder; none where there is no home folder."""
    try:
        folder = weights_dir()
    except CacheError:
        return ()
    return tuple(folder / f"{name}{suffix}" for suffix in (".safetensors", *PICKLED))


def find_cached(repository: str) -> Path | None:
    """Weights of a repository in the Hugging Face cache, which timm and others fill too; None: there are none."""
    from huggingface_hub import try_to_load_from_cache

    for name in HUB_FILES:
        found = try_to_load_from_cache(repository, name)
        if isinstance(found, str):  # neither None nor the marker of a file known to be absent
            return Path(found)
    return None


def hub_repository(spec: VitSpec) -> str:
    """Name of the repository on the Hugging Face hub that holds the weights."""
    return spec.name.removeprefix(HF_HUB) if spec.name.startswith(HF_HUB) else f"timm/{spec.timm_name}"


def check_weights_file(file: str) -> None:
    """Refuse what `umscosod.features.weights.read_state_dict` would refuse at once; no tensor is read.

    Raises
    ------
    WeightsError
        The file is missing, not a regular file, of an unknown kind, or its list of tensors is damaged.
    """
    path = expand_user(file)
    check_regular_file(path, cure="check the weight file")
    check_ending(path)
    if path.suffix.lower() == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy"):
                pass
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"weights {path} cannot be read: {reason_of(error)}; {CURE}") from None


def check_ending(path: Path) -> None:
    """Refuse a kind of file that is not known; WeightsError."""
    suffix = path.suffix.lower()
    if suffix not in (".safetensors", *PICKLED):
        raise WeightsError(f"weights {path}: unknown ending {suffix!r}; expected .safetensors, {', '.join(PICKLED)}")


def check_regular_file(path: Path, what: str = "no weights at", cure: str = "check the path") -> None:
    """Refuse what is missing or not a regular file, so that a FIFO or a device is never waited for.

    Raises
    ------
    WeightsError
        `what`, the path, the reason, `cure`.
    """
    if reason := why_unreadable(path):
        raise WeightsError(f"{what} {path} ({reason}); {cure}")


def expand_user(file: str) -> Path:
    """Replace a leading ``~``; WeightsError where there is no such user."""
    try:
        return Path(file).expanduser()
    except RuntimeError as error:
        raise WeightsError(f"weights {file}: {error}; write the whole path") from None


def obtain_weights(spec: VitSpec, file: str = "", *, option: str = "--weights") -> Path:
    """Settle which file the weights come from; no network is used.

    Parameters
    ----------
    spec : VitSpec
    file : str
        The user's own file; ``""``: what `find_weights` finds.
    option : str
        Name of the option that gives `file`, for the message.

    Returns
    -------
    Path

    Raises
    ------
    WeightsError
        There are none.
    """
    if file:
        path = expand_user(file)
        check_regular_file(path, f"no weights of {spec.name} at", f"check {option}")
        return path
    if (found := find_weights(spec)) is not None:
        return found
    if spec.folder:
        raise WeightsError(f"no weights in {expand_user(spec.folder)}: expected {' or '.join(HUB_FILES)}")
    authors = f"{spec.original_file}, or " if spec.original_file else ""
    raise WeightsError(
        f"no weights of {spec.name} on this machine; run: umscosod weights get {spec.name} "
        f"(or pass {option} FILE: {authors}timm's {spec.timm_name})"
    )


def hash_weights(path: Path) -> str:
    """SHA-256 of a weight file, in hexadecimal.

    Raises
    ------
    WeightsError
        The file cannot be read, or it is not the one that was recorded when it was downloaded or imported.
    """
    check_regular_file(path)
    try:
        found = file_sha256(path)
    except OSError as error:
        raise WeightsError(f"weights {path} cannot be read ({error.strerror}); check its permissions") from error
    if (expected := expected_sha256(path)) not in ("", found):
        raise WeightsError(
            f"weights {path} are damaged or were changed: sha256 {found[:12]}..., recorded {expected[:12]}...; remove "
            "the file, then run 'umscosod weights get' or 'import' again"
        )
    return found
