"""What is wrong with this machine, and the cure. Everything is tried for real where that is cheap."""

from __future__ import annotations

import importlib
import importlib.util
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from umscosod.errors import UmscosodError, count_of, one_line

OLDEST_PYTHON = (3, 11)
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
    checks = [
        check_python(),
        check_torch(),
        check_opencv(),
        *check_disk(),
        check_cache(),
        check_crf(),
        check_gpu(),
        *check_weights(),
        check_database(),
        check_plugin(),
    ]
    return checks


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


def check_python() -> Check:
    """Python itself, and this package."""
    version = platform.python_version()
    is_new_enough = sys.version_info >= OLDEST_PYTHON
    return Check(
        name="python",
        ok=is_new_enough,
        message=f"Python {version}, umscosod {_version('umscosod') or 'from a checkout, not installed'}",
        cure="" if is_new_enough else "install Python 3.11 or 3.12 and make a new environment with it",
    )


def check_torch() -> Check:
    """Whether torch, torchvision and timm import together; versions that do not match fail here."""
    names = ("torch", "torchvision", "timm")
    versions = ", ".join(f"{name} {_version(name) or 'missing'}" for name in names)
    if problem := _import_problem(*names):
        cure = "pip install --upgrade torch torchvision timm, all three in one command so that their versions match"
        return Check(name="torch", ok=False, message=f"{versions}: {problem}", cure=cure)
    return Check(name="torch", ok=True, message=versions)


def check_opencv() -> Check:
    """Whether the two OpenCV distributions, which write one folder ``cv2``, are one version, and it is theirs."""
    found = {name: _version(name) for name in _OPENCV}
    versions = ", ".join(f"{name} {version or 'missing'}" for name, version in found.items())
    installed = [version for version in found.values() if version]
    if not installed:
        return Check(name="opencv", ok=False, message=versions, cure="pip install 'opencv-python>=4.10,<5'")
    cure = _opencv_cure(installed[0])
    if problem := _import_problem("cv2"):
        cure = f"{cure}; Debian and Ubuntu may also need: apt-get install libgl1 libglib2.0-0"
        return Check(name="opencv", ok=False, message=f"{versions}: {problem}", cure=cure)
    cv2: Any = importlib.import_module("cv2")
    loaded = str(cv2.__version__)
    if len(set(installed)) > 1 or not installed[0].startswith(loaded):
        return Check(
            name="opencv", ok=False, message=f"{versions}; cv2 says {loaded}: they overwrite each other", cure=cure
        )
    return Check(name="opencv", ok=True, message=f"{versions}; cv2 {loaded}")


def check_disk() -> list[Check]:
    """Free space for the feature cache and for the working folder."""
    checks = []
    cure = (
        "make room, work in another folder, or set UMSCOSOD_CACHE to another disk (umscosod features prune --max-gb N)"
    )
    for name, ask in (
        ("disk, cache", _free_for_cache),
        ("disk, here", _free_here),
    ):
        try:
            free = ask()
        except (UmscosodError, OSError) as error:
            checks.append(Check(name=name, ok=False, message=str(error), cure=cure))
            continue
        is_enough = free >= LOW_DISK_BYTES
        message = f"{free / _GB:.1f} GB free"
        checks.append(Check(name=name, ok=is_enough, message=message, cure="" if is_enough else cure))
    return checks


def check_cache() -> Check:
    """Size of the feature cache."""
    from umscosod.features.cache import FeatureCache, format_bytes

    try:
        stats = FeatureCache().stats()
    except (UmscosodError, OSError) as error:
        return Check(name="feature cache", ok=False, message=str(error), cure="set UMSCOSOD_CACHE to a folder of yours")
    return Check(
        name="feature cache",
        ok=True,
        message=f"{stats.root}: {count_of(stats.files, 'file')}, {format_bytes(stats.bytes)}",
    )


def check_crf() -> Check:
    """Whether DenseCRF can be imported; refinement goes on without it."""
    from umscosod.refine.crf import CURE

    if problem := _import_problem("pydensecrf.densecrf"):
        return Check(name="dense CRF", ok=None, message=f"{problem}; masks are refined without it", cure=CURE)
    return Check(name="dense CRF", ok=True, message=f"pydensecrf2 {_version('pydensecrf2') or 'of unknown version'}")


def check_gpu() -> Check:
    """Whether torch sees an accelerator."""
    if problem := _import_problem("torch"):
        return Check(name="GPU", ok=None, message=f"unknown: {problem}", cure="mend torch first")
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        return Check(name="GPU", ok=True, message=f"CUDA {torch.version.cuda}: {names}")
    if torch.backends.mps.is_available():
        return Check(name="GPU", ok=True, message="MPS")
    cure = "none needed: everything runs on the CPU; with an NVIDIA card, install its driver and a CUDA build of torch"
    return Check(name="GPU", ok=None, message="torch sees no CUDA or MPS device", cure=cure)


def check_weights() -> list[Check]:
    """Whether weights of each vision transformer are at hand."""
    from umscosod.features.specs import VIT_SPECS

    if problem := _import_problem("torch", "timm"):
        return [Check(name="weights", ok=None, message=f"unknown: {problem}", cure="mend torch first")]
    from umscosod.features.specs import find_weights

    checks = []
    for spec in VIT_SPECS.values():
        name, path = f"weights {spec.name}", find_weights(spec)
        if path is not None:
            checks.append(Check(name=name, ok=True, message=str(path)))
            continue
        cure = f"pass --weights FILE ({spec.original_file}), or allow a download: --config.features.allow-download"
        checks.append(Check(name=name, ok=None, message="not on this machine", cure=cure))
    return checks


def check_database() -> Check:
    """Whether FiftyOne has a database, told without importing it; only the plugin needs one."""
    from umscosod.integrations.database import configured_uri, find_mongod, require_database

    name = "FiftyOne"
    try:
        require_database()
    except (UmscosodError, OSError) as error:
        what, _, cure = str(error).partition(" Run: ")
        return Check(name=name, ok=None, message=what, cure=f"only the plugin needs it: {cure}")
    version = _version("fiftyone") or "of unknown version"
    if configured_uri():
        return Check(name=name, ok=True, message=f"fiftyone {version}, database address is set (not tried)")
    return Check(name=name, ok=True, message=f"fiftyone {version}, {find_mongod()}")


def check_plugin() -> Check:
    """Whether FiftyOne finds the plugin: the link in its plugins folder leads here."""
    from umscosod.integrations.plugin_link import LINK_NAME, find_plugin_source, find_plugins_dir, is_installed

    name, link = "FiftyOne plugin", find_plugins_dir() / LINK_NAME
    try:
        source, is_linked = find_plugin_source(), is_installed()
    except (UmscosodError, OSError) as error:
        return Check(name=name, ok=None, message=str(error), cure="install umscosod anew, or run it from a checkout")
    if is_linked:
        return Check(name=name, ok=True, message=f"{link} -> {source}")
    if link.is_symlink():
        message = f"{link} leads to {link.readlink()}, not to {source}"
        return Check(name=name, ok=None, message=message, cure="umscosod plugin install --overwrite")
    if link.exists():
        message = f"{link} is there and is not a link"
        return Check(name=name, ok=None, message=message, cure="move it away, then: umscosod plugin install")
    message = f"not linked into {link.parent}"
    return Check(name=name, ok=None, message=message, cure="only for use in the App: umscosod plugin install")


def _free_for_cache() -> int:
    from umscosod.features.cache import FeatureCache

    return FeatureCache().free_bytes()


def _free_here() -> int:
    return shutil.disk_usage(Path.cwd()).free


def _opencv_cure(version: str) -> str:
    both = " ".join(f"{name}=={version}" for name in _OPENCV)
    return f"pip uninstall -y {' '.join(_OPENCV)} && pip install {both}"


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
