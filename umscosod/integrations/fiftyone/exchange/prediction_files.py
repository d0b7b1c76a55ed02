"""Which file of a folder of predictions belongs to which sample: found by group and name, never guessed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from umscosod.data.walk import walk_files
from umscosod.errors import DataError
from umscosod.evaluation.pictures import open_grey
from umscosod.evaluation.trees import SUFFIXES, name_some
from umscosod.export.files import path_inside
from umscosod.export.report import read_report
from umscosod.types import Labelled, Status

REPORT = "report.json"
_LOOKED_AT = 16  # files, evenly spread, that decide between masks and maps


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A sample that looks for its prediction.

    Attributes
    ----------
    id : str
    image : Path
    group : str
        Value of the group field; without one the name of the image's folder.
    """

    id: str
    image: Path
    group: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What a folder holds for one name.

    Attributes
    ----------
    name : str
        Relative POSIX path of the picture, or of the image in a report.
    picture : Path or None
        Mask or map of another method.
    mask, map : Path or None
        Of an output folder of ours.
    row : Labelled or None
        Its row of the report.
    """

    name: str
    picture: Path | None = None
    mask: Path | None = None
    map: Path | None = None
    row: Labelled | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Matching:
    """Outcome of `PredictionFolder.match`.

    Attributes
    ----------
    found : dict of str to Prediction
        By sample id.
    problems : dict of str to str
        Reasons by sample id: nothing there, or more than one candidate.
    unused : tuple of str
        Names in the folder that no sample asked for.
    """

    found: dict[str, Prediction]
    problems: dict[str, str]
    unused: tuple[str, ...]


class PredictionFolder:
    """An index of a folder ``GROUP/NAME.png``, ``NAME.png``, or an output folder of ``umscosod label``.

    Parameters
    ----------
    folder : Path
    by_folder : bool
        Groups are named by the images' folders: then ``a/cat`` also finds ``cat/1.png``. Otherwise names of groups
        match exactly.

    Raises
    ------
    DataError
        Not a folder, or nothing in it.
    """

    def __init__(self, folder: Path, *, by_folder: bool) -> None:
        if not folder.is_dir():
            raise DataError(f"{folder} is no folder; give the folder that holds GROUP/NAME.png")
        self.folder, self._by_folder = folder, by_folder
        self.is_ours = (folder / REPORT).is_file()
        self._by_id: dict[str, Prediction] = {}
        self._by_stem: dict[str, list[tuple[PurePosixPath, Prediction]]] = defaultdict(list)
        predictions = _read_results(folder) if self.is_ours else _walk(folder)
        self.names: list[str] = []
        for group, prediction in predictions:
            self.names.append(prediction.name)
            file = PurePosixPath(prediction.name)
            stems = {file.stem}
            if prediction.row is not None:
                self._by_id[prediction.row.image_id] = prediction
                stems |= {file.name, PurePosixPath(prediction.row.output).stem}
            for stem in stems:
                self._by_stem[stem].append((group, prediction))
        if not self.names:
            raise DataError(f"no predictions in {folder}: looked for {', '.join(sorted(SUFFIXES))} in it and below")

    def match(self, samples: Iterable[Wanted]) -> Matching:
        """Find the prediction of each sample.

        A file fits by its name without suffix, or by the image's whole name (``7.jpg.png``); files of the sample's
        group come before files at the top of the folder. A file that fits several samples is given to none.
        """
        found: dict[str, Prediction] = {}
        problems: dict[str, str] = {}
        for sample in samples:
            if not sample.group:
                problems[sample.id] = f"{sample.image.name}: it has no group"
                continue
            candidates = self._candidates(sample)
            if len(candidates) == 1:
                found[sample.id] = candidates[0]
            elif candidates:
                names = name_some(sorted(candidate.name for candidate in candidates))
                problems[sample.id] = f"{sample.image.name}: several predictions fit ({names}); keep one of them"
            else:
                problems[sample.id] = f"{sample.image.name}: no prediction {sample.group}/{sample.image.stem}"
        takers = Counter(prediction.name for prediction in found.values())
        for sample_id, prediction in list(found.items()):
            if takers[prediction.name] > 1:
                del found[sample_id]
                problems[sample_id] = f"{prediction.name} fits {takers[prediction.name]} samples; sort it into groups"
        used = {prediction.name for prediction in found.values()}
        return Matching(found=found, problems=problems, unused=tuple(name for name in self.names if name not in used))

    def _candidates(self, sample: Wanted) -> list[Prediction]:
        if (own := self._by_id.get(sample.id)) is not None:
            return [own]
        image = PurePosixPath(sample.image.as_posix())
        named = [entry for key in {image.stem, image.name} for entry in self._by_stem.get(key, ())]
        distinct = {prediction.name: (group, prediction) for group, prediction in named}.values()
        exact = [prediction for group, prediction in distinct if group == PurePosixPath(sample.group)]
        if exact:  # of a report the image's whole name is known, so that 7.jpg and 7.bmp are told apart
            return [one for one in exact if one.row and PurePosixPath(one.name).name == image.name] or exact
        if self._by_folder:
            folders = image.parent.parts
            near = [one for group, one in distinct if group.parts and folders[-len(group.parts) :] == group.parts]
            if near:
                return near
        return [prediction for group, prediction in distinct if not group.parts]


def looks_like_masks(predictions: Mapping[str, Prediction]) -> bool:
    """Whether pictures hold two values only, 0 and 255 or 0 and 1; some, evenly spread, are looked at."""
    pictures = [one.picture for one in predictions.values() if one.picture is not None]
    for path in pictures[:: max(1, len(pictures) // _LOOKED_AT)]:
        try:
            values = np.unique(np.asarray(open_grey(path)))
        except DataError:  # told when its turn comes
            continue
        if not (set(values) <= {0, 255} or set(values) <= {0, 1}):
            return False
    return True


def _walk(folder: Path) -> Iterable[tuple[PurePosixPath, Prediction]]:
    for path in walk_files(folder):
        if path.suffix.lower() in SUFFIXES:
            relative = path.relative_to(folder).as_posix()
            yield PurePosixPath(relative).parent, Prediction(name=relative, picture=path)


def _read_results(folder: Path) -> Iterable[tuple[PurePosixPath, Prediction]]:
    """Rows of a report with their files; the files are looked for when they are needed."""
    masks = folder / ("masks" if (folder / "masks").is_dir() else "pseudo")
    for row in read_report(folder / REPORT):
        is_there = row.status is not Status.FAILED
        yield (
            PurePosixPath(row.group),
            Prediction(
                name=row.image_id,
                mask=path_inside(masks, row.output) if is_there else None,
                map=path_inside(folder / "maps", row.output) if is_there and (folder / "maps").is_dir() else None,
                row=row,
            ),
        )
