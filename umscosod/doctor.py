"""What is wrong with this machine, and the cure. Everything is tried for real where that is cheap."""

from __future__ import annotations

import importlib
import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from umscosod.errors import UmscosodError, count_of, one_line

LOW_DISK_BYTES = 1_000_000_000
_OPENCV = ("opencv-python", "opencv-python-headless")
_GB = 1e9


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """Outcome of one check.

    Attributes
    ----------
    name : str
    ok : bool or None
        None: something optional is missing, and the rest works without it.
    message : str
        What was found.
    cure : str
        What to do; ``""`` where nothing need be done.
    """

    name: str
    ok: bool | None
    message: str
    cure: str = ""


def run_checks() -> list[Check]:
    """Run every check; none raises.

    Returns
    -------
    list of Check
        What is required first, then what is optional.
    """
    return [
        check_python(),
        check_torch(),
        check_opencv(),
        *check_disk(),
        check_cache(),
        check_crf(),
        check_gpu(),
        check_weights(),
        check_database(),
        check_plugin(),
    ]


def format_checks(checks: Sequence[Check]) -> str:
    """Table of outcomes, each cure below what it cures, and a last line that sums up."""
    marks = {True: "ok", False: "BROKEN", None: "missing"}
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{marks[check.ok]:<8} {check.name:<{width}}  {check.message}")
        if check.cure:
            lines.append(f"{'':<8} {'':<{width}}  cure: {check.cure}")
    broken = sum(check.ok is False for check in checks)
    missing = sum(check.ok is None for check in checks)
    lines += ["", f"{broken} broken, {missing} optional missing, {len(checks) - broken - missing} ok"]
    return "\n".join(lines)


def _fine(name: str, message: str) -> Check:
    return Check(name=name, ok=True, message=message)


def _broken(name: str, message: str, cure: str) -> Check:
    return Check(name=name, ok=False, message=message, cure=cure)


def _missing(name: str, message: str, cure: str) -> Check:
    return Check(name=name, ok=None, message=message, cure=cure)


def check_python() -> Check:
    """Python itself, and this package; an older Python than it needs cannot import it."""
    package = _version("umscosod") or "from a checkout, not installed"
    return _fine("python", f"Python {platform.python_version()}, umscosod {package}")


def check_torch() -> Check:
    """Whether torch, torchvision and timm import together; versions that do not match fail here."""
    names = ("torch", "torchvision", "timm")
    versions = ", ".join(f"{name} {_version(name) or 'missing'}" for name in names)
    if problem := _import_problem(*names):
        cure = "pip install --upgrade torch torchvision timm, all three in one command so that their versions match"
        return _broken("torch", f"{versions}: {problem}", cure)
    return _fine("torch", versions)


def check_opencv() -> Check:
    """Whether the two OpenCV distributions, which write one folder ``cv2``, are one version, and it is theirs."""
    found = {name: _version(name) for name in _OPENCV}
    versions = ", ".join(f"{name} {version or 'missing'}" for name, version in found.items())
    installed = [version for version in found.values() if version]
    if not installed:
        return _broken("opencv", versions, "pip install 'opencv-python>=4.10,<5'")
    both = " ".join(f"{name}=={installed[0]}" for name in _OPENCV)
    cure = f"pip uninstall -y {' '.join(_OPENCV)} && pip install {both}"
    if problem := _import_problem("cv2"):
        cure = f"{cure}; Debian and Ubuntu may also need: apt-get install libgl1 libglib2.0-0"
        return _broken("opencv", f"{versions}: {problem}", cure)
    cv2: Any = importlib.import_module("cv2")
    loaded = str(cv2.__version__)
    if len(set(installed)) > 1 or not installed[0].startswith(loaded):
        return _broken("opencv", f"{versions}; cv2 says {loaded}: they overwrite each other", cure)
    return _fine("opencv", f"{versions}; cv2 {loaded}")


def check_disk() -> list[Check]:
    """Free space for the feature cache and for the working folder."""
    from umscosod.features.cache import FeatureCache

    checks = []
    cure = (
        "make room, work in another folder, or set UMSCOSOD_CACHE to another disk (umscosod features prune --max-gb N)"
    )
    places: dict[str, Callable[[], int]] = {
        "disk, cache": lambda: FeatureCache().free_bytes(),
        "disk, here": lambda: shutil.disk_usage(Path.cwd()).free,
    }
    for name, ask in places.items():
        try:
            free = ask()
        except (UmscosodError, OSError) as error:
            checks.append(_broken(name, str(error), cure))
            continue
        message = f"{free / _GB:.1f} GB free"
        checks.append(_fine(name, message) if free >= LOW_DISK_BYTES else _broken(name, message, cure))
    return checks


def check_cache() -> Check:
    """Size of the feature cache."""
    from umscosod.features.cache import FeatureCache, format_bytes

    name = "feature cache"
    try:
        stats = FeatureCache().stats()
    except (UmscosodError, OSError) as error:
        return _broken(name, str(error), "set UMSCOSOD_CACHE to a folder of yours")
    return _fine(name, f"{stats.root}: {count_of(stats.files, 'file')}, {format_bytes(stats.bytes)}")


def check_crf() -> Check:
    """Whether DenseCRF can be imported; refinement goes on without it."""
    from umscosod.refine.crf import CURE

    if problem := _import_problem("pydensecrf.densecrf"):
        return _missing("dense CRF", f"{problem}; masks are refined without it", CURE)
    return _fine("dense CRF", f"pydensecrf2 {_version('pydensecrf2') or 'of unknown version'}")


def check_gpu() -> Check:
    """Whether torch sees an accelerator."""
    if problem := _import_problem("torch"):
        return _missing("GPU", f"unknown: {problem}", "mend torch first")
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        return _fine("GPU", f"CUDA {torch.version.cuda}: {names}")
    if torch.backends.mps.is_available():
        return _fine("GPU", "MPS")
    cure = "none needed: everything runs on the CPU; with an NVIDIA card, install its driver and a CUDA build of torch"
    return _missing("GPU", "torch sees no CUDA or MPS device", cure)


def check_weights() -> Check:
    """Which weights are at hand; without any, features without weights take their place."""
    if problem := _import_problem("torch", "timm"):
        return _missing("weights", f"unknown: {problem}", "mend torch first")
    from umscosod.features.hub import SETS, list_weights

    try:
        here = [offer.name for offer in list_weights() if offer.path is not None]
    except UmscosodError as error:
        what, _, cure = str(error).rpartition("; ")
        return _broken("weights", what, cure)
    if set(SETS["paper"]) <= set(here):
        return _fine("weights", ", ".join(here))
    cure = "umscosod weights get paper (the pair of the paper), or small"
    found = f"{', '.join(here)}, but not the pair of the paper" if here else "none: features without weights are used"
    return _missing("weights", found, cure)


def check_database() -> Check:
    """Whether FiftyOne has a database, told without importing it; only the plugin needs one."""
    from umscosod.integrations.database import configured_uri, find_mongod, require_database

    try:
        require_database()
    except (UmscosodError, OSError) as error:
        what, _, cure = str(error).partition(" Run: ")
        return _missing("FiftyOne", what, f"only the plugin needs it: {cure}")
    database = "database address is set (not tried)" if configured_uri() else find_mongod()
    return _fine("FiftyOne", f"fiftyone {_version('fiftyone') or 'of unknown version'}, {database}")


def check_plugin() -> Check:
    """Whether FiftyOne finds the plugin: the link in its plugins folder leads here."""
    from umscosod.integrations.plugin_link import LINK_NAME, find_plugin_source, find_plugins_dir, is_installed

    name, link = "FiftyOne plugin", find_plugins_dir() / LINK_NAME
    try:
        source, is_linked = find_plugin_source(), is_installed()
    except (UmscosodError, OSError) as error:
        return _missing(name, str(error), "install umscosod anew, or run it from a checkout")
    if is_linked:
        return _fine(name, f"{link} -> {source}")
    if link.is_symlink():
        message = f"{link} leads to {link.readlink()}, not to {source}"
        return _missing(name, message, "umscosod plugin install --overwrite")
    if link.exists():
        return _missing(name, f"{link} is there and is not a link", "move it away, then: umscosod plugin install")
    return _missing(name, f"not linked into {link.parent}", "only for use in the App: umscosod plugin install")


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _import_problem(*modules: str) -> str:
    """Why one of the modules cannot be imported; ``""`` if all can. Broken binaries raise more than ImportError."""
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:
            return f"{module} cannot be imported ({type(error).__name__}: {one_line(str(error))})"
    return ""
