"""From a folder of photographs to a weight file: hand-made maps first, then rounds of training and relabelling."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from umscosod.data.files import open_atomic
from umscosod.device import derive_seed, numpy_generator, one_blas_thread, resolve_device
from umscosod.features.group import Whitening
from umscosod.features.starter_network import StarterNetwork
from umscosod.features.starter_weights import save_starter, sha256_of
from umscosod.pretrain.loop import Round, predict, start_network, train_round
from umscosod.pretrain.pictures import Pictures, read_pictures
from umscosod.pretrain.targets import TARGET_SIDE, Targets, handmade_maps, snap, whitening_of
from umscosod.progress import ProgressFn, ignore_progress
from umscosod.types import ByteArray, FloatArray

logger = logging.getLogger(__name__)

_GROUP = 24  # photographs that share a classifier when their contrast is sharpened
_WHITENED = 400  # photographs whose descriptors give the statistics
_KEPT_BACK = 0.05  # share of the photographs that nothing is learnt from, to choose between recipes by
_BATCH = 16  # photographs that the network labels at once


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What `pretrain` does.

    Attributes
    ----------
    rounds : tuple of Round
        Each starts from the network of the one before.
    labelled : tuple of int
        Photographs that get a target before each round; 0: the targets of the round before serve again.
    view_px : int
        Side at which the network looks at a photograph to label it; a multiple of 32.
    """

    rounds: tuple[Round, ...] = (
        Round(steps=500, side_px=96),
        Round(steps=1200, side_px=96, paste=0.3),
    )
    labelled: tuple[int, ...] = (2400, 0)
    view_px: int = 128


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
        Called as the stages ``pictures``, ``targets-R`` and ``round-R``.

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
    details = {"recipe": asdict(recipe), "seed": seed, "photos": len(pictures.array_NSS3), "list": pictures.list_sha256}
    network: StarterNetwork | None = None
    teacher, taught = network, 0
    for number, plan in enumerate(recipe.rounds):
        run = work / f"round-{number}-{_digest(recipe, number, seed, pictures)}"
        file = run / "network.pt"
        following = start_network(derive_seed(seed, "pretrain")) if network is None else network
        if recipe.labelled[number]:
            teacher, taught = network, number
        if file.is_file():
            network = _read_network(file)
            continue
        targets = _targets(pictures, teacher, recipe, taught, seed, work, place, progress)

        def tell(done: int, loss: float, number: int = number, plan: Round = plan) -> None:
            logger.info("round %d: %d of %d steps, loss %.4f", number, done, plan.steps, loss)
            progress(done, plan.steps, f"round-{number}")

        network = train_round(
            following,
            pictures.array_NSS3,
            targets,
            plan,
            seed=seed,
            number=number,
            state_file=run / "state.pt",
            device=place,
            tell=tell,
        )
        with open_atomic(file) as stream:
            torch.save(network.cpu().state_dict(), stream)
    assert network is not None
    save_starter(network, out, details)
    return PretrainReport(
        file=out,
        sha256=sha256_of(out.read_bytes()),
        photos=len(pictures.array_NSS3),
        seconds=time.monotonic() - started,
    )


def _digest(recipe: Recipe, number: int, seed: int, pictures: Pictures) -> str:
    """Name what decides a round: a recipe that differs in later rounds alone takes this one as it is."""
    earlier = [asdict(plan) for plan in recipe.rounds[: number + 1]]
    told = [seed, pictures.list_sha256, recipe.view_px, recipe.labelled[: number + 1], earlier]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def _read_network(file: Path) -> StarterNetwork:
    network = StarterNetwork()
    network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return network.eval()


def _targets(
    pictures: Pictures,
    network: StarterNetwork | None,
    recipe: Recipe,
    number: int,
    seed: int,
    work: Path,
    device: torch.device,
    progress: ProgressFn,
) -> Targets:
    """Make, or read, the targets of a round; they are kept in parts, so that a killed run loses little."""
    count = len(pictures.array_NSS3)
    usable = count - round(_KEPT_BACK * count)  # in the order of hashes, which is one of chance
    wanted = min(recipe.labelled[number], usable)
    order = numpy_generator(seed, "pretrain", "labelled", number).permutation(usable)[:wanted]
    before = _digest(recipe, number - 1, seed, pictures) if number else f"{seed}-{pictures.list_sha256[:16]}"
    make_maps = _handmade(pictures) if network is None else _learnt(pictures, network, recipe.view_px, device)
    maps_NTT = np.zeros((count, TARGET_SIDE, TARGET_SIDE), np.uint8)
    weights_N = np.zeros(count, np.float32)
    size = _GROUP * 10
    for start in range(0, wanted, size):
        chosen = np.sort(order[start : start + size])
        file = work / f"targets-{number}-{before}" / f"{start:06d}.npz"
        if not file.is_file():
            with one_blas_thread():
                _write_part(file, chosen, make_maps, pictures)
        with np.load(file) as part:
            maps_NTT[chosen], weights_N[chosen] = part["maps"], part["weights"]
        progress(min(start + size, wanted), wanted, f"targets-{number}")
    return Targets(maps_NTT=maps_NTT, weights_N=weights_N)


MakeMaps = Callable[[npt.NDArray[np.int64]], Iterator[FloatArray]]


def _write_part(file: Path, chosen: npt.NDArray[np.int64], make_maps: MakeMaps, pictures: Pictures) -> None:
    snapped = [
        snap(map_hw, pictures.array_NSS3[index]) for index, map_hw in zip(chosen, make_maps(chosen), strict=True)
    ]
    content = io.BytesIO()
    np.savez(
        content,
        maps=np.stack([one for one, _ in snapped]),
        weights=np.array([trust for _, trust in snapped], np.float32),
    )
    with open_atomic(file) as stream:
        stream.write(content.getvalue())


def _handmade(pictures: Pictures) -> MakeMaps:
    count = len(pictures.array_NSS3)
    some = np.linspace(0, count - 1, min(_WHITENED, count)).astype(int)

    @cache
    def whitening() -> Whitening:
        return whitening_of([pictures.array_NSS3[index] for index in some])

    def make(chosen: npt.NDArray[np.int64]) -> Iterator[FloatArray]:
        for start in range(0, len(chosen), _GROUP):
            group: Sequence[ByteArray] = [pictures.array_NSS3[index] for index in chosen[start : start + _GROUP]]
            yield from handmade_maps(group, whitening())

    return make


def _learnt(pictures: Pictures, network: StarterNetwork, view_px: int, device: torch.device) -> MakeMaps:
    network = network.to(device).eval()

    def make(chosen: npt.NDArray[np.int64]) -> Iterator[FloatArray]:
        for start in range(0, len(chosen), _BATCH):
            batch = [
                cv2.resize(pictures.array_NSS3[index], (view_px, view_px), interpolation=cv2.INTER_AREA)
                for index in chosen[start : start + _BATCH]
            ]
            yield from predict(network, torch.from_numpy(np.stack(batch)).to(device)).cpu().numpy()

    return make
