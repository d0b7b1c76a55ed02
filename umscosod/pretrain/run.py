"""From a folder of photographs to a weight file: label them, then teach a network their masks."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from umscosod.device import resolve_device
from umscosod.features.starter_weights import save_starter, sha256_of
from umscosod.pretrain.loop import Recipe, train_starter
from umscosod.pretrain.pictures import read_pictures
from umscosod.pretrain.targets import make_targets
from umscosod.progress import ProgressFn, ignore_progress

logger = logging.getLogger(__name__)

_KEPT_BACK = 0.05  # share of the photographs that nothing is learnt from, to choose between recipes by


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainReport:
    """Outcome of `pretrain`.

    Attributes
    ----------
    file : Path
    sha256 : str
        Of the file.
    photos : int
        Photographs that were read.
    seconds : float
        Wall time of this call; a resumed run counts only what was left.
    """

    file: Path
    sha256: str
    photos: int
    seconds: float


def pretrain(
    photos: Path,
    out: Path,
    *,
    recipe: Recipe | None = None,
    seed: int = 123,
    device: str = "auto",
    progress: ProgressFn = ignore_progress,
) -> PretrainReport:
    """Train starter weights on a folder of photographs; nobody's labels are needed.

    A run that was killed goes on where it was when it is started again with the same arguments, and ends at the same
    weights. What it needs for that lies in ``<out>.work`` beside the file and may be removed at the end.

    Parameters
    ----------
    photos : Path
        Folder; all pictures below it are taken.
    out : Path
        Weight file to write, ``.safetensors``.
    recipe : Recipe, optional
    seed : int
        Equal seeds, photographs and recipes give equal files on the CPU.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    progress : callable
        Called as the stages ``pictures``, ``targets`` and ``training``.

    Returns
    -------
    PretrainReport

    Raises
    ------
    DataError
        There are no photographs, or a file cannot be written.
    """
    started = time.monotonic()
    recipe, place = recipe or Recipe(), resolve_device(device)
    work = out.with_name(f"{out.name}.work")
    pictures = read_pictures(photos, work, progress)
    count = len(pictures.array_NSS3)
    usable = count - round(_KEPT_BACK * count)  # in the order of hashes, which is one of chance
    labelled = work / f"targets-{_digest(pictures.list_sha256, seed, recipe.labelled)}"
    targets = make_targets(pictures.array_NSS3[:usable], recipe.labelled, seed, labelled, progress)

    def tell(done: int, loss: float) -> None:
        logger.info("%d of %d steps, loss %.4f", done, recipe.steps, loss)
        progress(done, recipe.steps, "training")

    state = work / f"training-{_digest(pictures.list_sha256, seed, asdict(recipe))}.pt"
    network = train_starter(pictures.array_NSS3, targets, recipe, seed=seed, state_file=state, device=place, tell=tell)
    details = {"recipe": asdict(recipe), "seed": seed, "photos": count, "list": pictures.list_sha256}
    save_starter(network.cpu(), out, details)
    return PretrainReport(
        file=out, sha256=sha256_of(out.read_bytes()), photos=count, seconds=time.monotonic() - started
    )


def _digest(*deciding: object) -> str:
    """Name what decides an outcome, for the file that keeps it."""
    return hashlib.sha256(json.dumps(deciding).encode()).hexdigest()[:16]
