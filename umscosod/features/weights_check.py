"""What can be said of a weight file before it is read. No torch here: forms ask at every keystroke."""

from __future__ import annotations

from pathlib import Path

from umscosod.data.files import why_unreadable
from umscosod.errors import WeightsError, reason_of

PICKLED = (".pth", ".pt", ".bin")
CURE = "fetch the file again, or save its tensors as .safetensors"


def check_weights_file(file: str) -> None:
    """Refuse what `umscosod.features.weights_file.read_state_dict` would refuse at once; no tensor is read.

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
