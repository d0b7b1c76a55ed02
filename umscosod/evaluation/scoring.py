"""Score files: pairs read, checked, measured.

Two definitions, each equal to its tool: ``cosod`` (eval-co-sod; `umscosod.evaluation.cosod`) and ``sod``
(PySODMetrics; `umscosod.evaluation.sod`). They differ by up to 0.008 in MAE and 1e-3 elsewhere, so a figure means
nothing without the name of its definition. Adaptive F, adaptive E and IoU are PySODMetrics' under both.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from umscosod.data.images import open_picture, reading
from umscosod.data.resize import is_same_aspect
from umscosod.errors import DataError
from umscosod.evaluation import cosod, sod
from umscosod.evaluation.histogram import check_pair, compute_centroid, compute_joint_histogram
from umscosod.evaluation.scores import (
    Curves,
    Definition,
    ImageMeasures,
    ImageScores,
    MeanOfGroups,
    Scores,
    check_definition,
)
from umscosod.evaluation.sod import GT_LEVEL
from umscosod.evaluation.trees import Pairing, pair_trees
from umscosod.progress import ProgressFn, ignore_progress
from umscosod.types import ByteArray


def compute_measures(pred_HW: ByteArray, gt_HW: ByteArray, definition: Definition = "cosod") -> ImageMeasures:
    """Measure one prediction against its ground truth.

    Parameters
    ----------
    pred_HW : ndarray, uint8, (H, W)
        Soft map or 0/255 mask.
    gt_HW : ndarray, uint8, (H, W)
        Mask; see the definition on what values between 0 and 255 mean.
    definition : {"cosod", "sod"}

    Returns
    -------
    ImageMeasures
        All in [0, 1], bar E, which reaches N / (N - 1) for N pixels. Never NaN. An image of a single pixel divides
        E by the definition's epsilon and is meaningless, as in both tools.

    Raises
    ------
    DataError
        Not two 8-bit grey pictures of one size.
    ConfigError
        Unknown definition.

    Examples
    --------
    >>> import numpy as np
    >>> gt = np.array([[255, 255, 0, 0]] * 4, np.uint8)
    >>> result = compute_measures(np.array([[255, 0, 0, 0]] * 4, np.uint8), gt)
    >>> result.mae, result.iou  # 4 of 16 pixels wrong; 4 of 8 object pixels found
    (0.25, 0.5)
    >>> round(float(result.curves.f_T.max()), 6)  # P = 1, R = 1/2: 0.65 / 0.8
    0.8125
    """
    check_definition(definition)
    check_pair(pred_HW, gt_HW)
    if definition == "cosod":
        split_rc = compute_centroid(cosod.is_object(gt_HW), single_precision=True)
    else:
        row, column = compute_centroid(sod.is_object(gt_HW), single_precision=False)
        split_rc = (row + 1, column + 1)
    joint = compute_joint_histogram(pred_HW, gt_HW, split_rc)
    binary = sod.BinaryCounts.from_histogram(joint)
    f_adaptive, e_adaptive = sod.compute_adaptive(binary, pred_HW)
    if definition == "cosod":
        mae, curves = cosod.compute_mae(joint), cosod.compute_curves(joint)
        s, is_s_undefined = cosod.compute_s(joint)
    else:
        mae, curves = sod.compute_mae(binary), sod.compute_curves(binary)
        s, is_s_undefined = sod.compute_s(joint, binary.p_V)
    return ImageMeasures(
        mae=mae,
        f_adaptive=f_adaptive,
        e_adaptive=e_adaptive,
        s=s,
        iou=sod.compute_iou(binary),
        is_s_undefined=is_s_undefined,
        curves=curves,
    )


SIXTEEN_BIT_MAX = 65535


def open_grey(path: Path, suspicious: Suspicious | None = None) -> Image.Image:
    """One picture in Pillow's mode ``L``.

    Colour becomes luma, transparency is dropped (as both tools do); 16-bit grey is scaled to 8 bits.

    Parameters
    ----------
    path : Path
    suspicious : Suspicious, optional
        Remembers a picture that lost its content on the way.

    Raises
    ------
    DataError
        The file is missing, damaged, empty, or holds 32-bit values.
    """
    with reading("picture", path, "make the file again or remove the pair"), open_picture(path) as picture:
        if picture.mode == "F":
            raise DataError(f"{path}: 32-bit values cannot be scored; save the map as 8-bit grey (0 to 255)")
        grey = scale_16_bit(picture, path) if picture.mode.startswith("I") else picture.convert("L")
        if suspicious is not None:
            suspicious.look_at_file(picture, grey, path)
        return grey


def scale_16_bit(picture: Image.Image, path: Path) -> Image.Image:
    """16-bit grey to 8 bits, 65535 becoming 255, rounded to the nearest."""
    values = np.asarray(picture, dtype=np.int64)
    if values.min() < 0 or values.max() > SIXTEEN_BIT_MAX:
        raise DataError(f"{path}: values from {values.min()} to {values.max()} are not 16-bit grey; save as 8 bits")
    return Image.fromarray(((values * 255 + SIXTEEN_BIT_MAX // 2) // SIXTEEN_BIT_MAX).astype(np.uint8))


def read_pair(pred: Path, gt: Path, suspicious: Suspicious | None = None) -> tuple[ByteArray, ByteArray]:
    """Prediction and ground truth at the size of the ground truth.

    Returns
    -------
    (ndarray, ndarray), uint8, (H, W) each
        See `fit_to_truth`.

    Raises
    ------
    DataError
        See `open_grey`.
    """
    truth, prediction = open_grey(gt, suspicious), open_grey(pred, suspicious)
    if suspicious is not None:
        suspicious.look_at_sizes(prediction, truth, pred)
    return fit_to_truth(prediction, truth)


def fit_to_truth(prediction: Image.Image, truth: Image.Image) -> tuple[ByteArray, ByteArray]:
    """Both as arrays of the size of the ground truth.

    A prediction of another size is resized by Pillow's bilinear filter on 8 bits, which smooths when it shrinks.

    Parameters
    ----------
    prediction, truth : Image of mode ``L``

    Returns
    -------
    (ndarray, ndarray), uint8, (H, W) each
        Read-only views where nothing was resized.

    Examples
    --------
    >>> black, grey = Image.new("L", (2, 1), 0), Image.new("L", (4, 2), 100)
    >>> [array.shape for array in fit_to_truth(grey, black)]
    [(1, 2), (1, 2)]
    """
    if prediction.size != truth.size:
        prediction = prediction.resize(truth.size, Image.Resampling.BILINEAR)
    return np.asarray(prediction), np.asarray(truth)


logger = logging.getLogger(__name__)


class Suspicious:
    """Pictures met in an evaluation that should be named at its end.

    Attributes
    ----------
    faint : list of Path
        Ground truths that count as empty though they are not all 0.
    single : list of Path
        Ground truths of one pixel.
    dim : list of Path
        Predictions without a value above 1.
    lost : list of Path
        Pictures of 16 bits that are all 0 in 8 bits.
    bent : list of Path
        Predictions of another aspect than their ground truth.
    hidden : list of Path
        Pictures of one colour whose alpha channel, which the tools drop, is none.
    """

    def __init__(self) -> None:
        self.faint: list[Path] = []
        self.single: list[Path] = []
        self.dim: list[Path] = []
        self.lost: list[Path] = []
        self.bent: list[Path] = []
        self.hidden: list[Path] = []

    def look_at_file(self, picture: Image.Image, grey: Image.Image, path: Path) -> None:
        """Remember a picture that lost its content on the way from the file to 8-bit grey."""
        lowest, highest = grey.getextrema()
        if lowest != highest:
            return
        if picture.mode.startswith("I") and highest == 0 and np.asarray(picture).any():
            self.lost.append(path)
        if picture.has_transparency_data:
            first, last = picture.convert("RGBA").getchannel("A").getextrema()
            if first != last:
                self.hidden.append(path)

    def look_at_sizes(self, prediction: Image.Image, truth: Image.Image, path: Path) -> None:
        """Remember a prediction that is made for another picture."""
        if not is_same_aspect(prediction.size, truth.size):
            self.bent.append(path)

    def look_at(self, gt_HW: ByteArray, path: Path) -> None:
        """Remember a ground truth."""
        if 0 < gt_HW.max() <= GT_LEVEL:
            self.faint.append(path)
        if gt_HW.size == 1:
            self.single.append(path)

    def look_at_prediction(self, pred_HW: ByteArray, path: Path) -> None:
        """Remember a prediction."""
        if pred_HW.max() == 1:
            self.dim.append(path)

    def notes(self) -> list[str]:
        """One line for each kind met."""
        kinds = (
            (
                self.faint,
                "ground truths have values above 0 but none above {level}, so they count as empty ({path} is one); "
                "masks must be 0 and 255 (in 16 bits 0 and 65535), not 0 and 1",
            ),
            (
                self.single,
                "ground truths are a single pixel ({path} is one): E divides by N - 1 there, so E of its group and of "
                "the data set mean nothing; remove the pair",
            ),
            (
                self.dim,
                "predictions have no value above 1, so that MAE takes them for nearly black ({path} is one); masks "
                "must be 0 and 255 (in 16 bits 0 and 65535), not 0 and 1",
            ),
            (
                self.lost,
                "pictures of 16 bits have values above 0 but none that 8 bits keep, so they count as empty ({path} is "
                "one); masks must be 0 and 255 (in 16 bits 0 and 65535), not 0 and 1",
            ),
            (
                self.bent,
                "predictions have another aspect than their ground truth and are stretched to its size, as the tools "
                "do ({path} is one): one of the two may be turned or cut",
            ),
            (
                self.hidden,
                "pictures are of one colour and have their mask in the alpha channel, which the tools behind the "
                "figures drop ({path} is one); save the mask as grey, 0 and 255",
            ),
        )
        return [f"{len(paths)} {text.format(level=GT_LEVEL, path=paths[0])}" for paths, text in kinds if paths]

    def warn(self) -> None:
        """Log the notes."""
        for note in self.notes():
            logger.warning("%s", note)


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """All scores of one comparison.

    Attributes
    ----------
    definition : {"cosod", "sod"}
        What the figures mean; never quote them without it.
    pred_root, gt_root : Path
        The folders really compared.
    dataset : Scores
    groups : dict of str to Scores
        By name of the folder, sorted.
    images : tuple of ImageScores
        Sorted by name.
    curves : Curves
        Mean precision, recall, F and E of the data set at each threshold.
    group_curves : dict of str to Curves
    extra_predictions : int
        Predictions without a ground truth; not scored.
    """

    definition: Definition
    pred_root: Path
    gt_root: Path
    dataset: Scores
    groups: dict[str, Scores]
    images: tuple[ImageScores, ...]
    curves: Curves
    group_curves: dict[str, Curves]
    extra_predictions: int


@dataclass(kw_only=True, slots=True)
class Tally:
    """Scores of pairs, added one by one.

    Attributes
    ----------
    definition : {"cosod", "sod"}
    images : list of ImageScores
        One a pair.
    means : MeanOfGroups
    suspicious : Suspicious
        Pictures that are probably not what the user meant.
    """

    definition: Definition
    images: list[ImageScores] = field(default_factory=list)
    means: MeanOfGroups = field(default_factory=MeanOfGroups)
    suspicious: Suspicious = field(default_factory=Suspicious)

    def add(self, name: str, group: str, pred_HW: ByteArray, gt_HW: ByteArray, *, pred: Path, gt: Path) -> None:
        """Score one pair; the paths are for messages."""
        measures = compute_measures(pred_HW, gt_HW, self.definition)
        self.suspicious.look_at(gt_HW, gt)
        self.suspicious.look_at_prediction(pred_HW, pred)
        self.means.add(group, measures)
        self.images.append(ImageScores.from_measures(name, group, measures))


def evaluate(
    pred: str | os.PathLike[str],
    gt: str | os.PathLike[str],
    *,
    definition: Definition = "cosod",
    progress: ProgressFn = ignore_progress,
) -> Evaluation:
    """Score a tree of maps or masks against a tree of ground truths.

    Parameters
    ----------
    pred : path
        Folder of 8-bit maps or masks; an output folder of ``umscosod label`` stands for its ``masks``.
    gt : path
        Folder of ground truths, or a data set's root that holds one named ``gt``.
    definition : {"cosod", "sod"}
        ``cosod``: eval-co-sod's arithmetic, that of the papers' tables. ``sod``: PySODMetrics'.
    progress : callable
        Called as ``(done, total, "evaluate")`` after each pair.

    Returns
    -------
    Evaluation
        Memory: one row an image and five curves a group; no picture is kept.

    Raises
    ------
    DataError
        A prediction is missing, a file cannot be read, or a folder does not hold what it should.
    ConfigError
        Unknown definition.
    """
    check_definition(definition)  # before any file is read
    return score_pairs(pair_trees(pred, gt), definition=definition, progress=progress)


def score_pairs(
    pairing: Pairing, *, definition: Definition = "cosod", progress: ProgressFn = ignore_progress
) -> Evaluation:
    """Score pairs of files; see `evaluate`.

    Raises
    ------
    DataError
        A file cannot be read.
    ConfigError
        Unknown definition.
    """
    check_definition(definition)
    tally = Tally(definition=definition)
    means = tally.means
    for done, pair in enumerate(pairing.pairs, start=1):
        pred_HW, gt_HW = read_pair(pair.pred, pair.gt, tally.suspicious)
        tally.add(pair.name, pair.group, pred_HW, gt_HW, pred=pair.pred, gt=pair.gt)
        progress(done, len(pairing.pairs), "evaluate")
    tally.suspicious.warn()
    return Evaluation(
        definition=definition,
        pred_root=pairing.pred_root,
        gt_root=pairing.gt_root,
        dataset=means.dataset.scores(),
        groups={name: mean.scores() for name, mean in sorted(means.groups.items())},
        images=tuple(tally.images),
        curves=means.dataset.curves(),
        group_curves={name: mean.curves() for name, mean in sorted(means.groups.items())},
        extra_predictions=len(pairing.extra),
    )
