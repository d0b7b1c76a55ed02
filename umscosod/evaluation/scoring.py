"""Scores files: reads pairs, checks, measures and reports them.

There are two definitions, each equal to its tool: ``cosod`` (eval-co-sod; `umscosod.evaluation.cosod`) and ``sod``
(PySODMetrics; `umscosod.evaluation.sod`). They differ by up to 0.008 in MAE and 1e-3 elsewhere, so always name the
definition of a score. Adaptive F, adaptive E and IoU are PySODMetrics' in both.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

from umscosod.data.foreign import ReadMask
from umscosod.data.images import open_picture, reading
from umscosod.data.mask_rules import MaskRule, MaskValue
from umscosod.data.resize import is_same_aspect
from umscosod.errors import ConfigError, DataError, count_of
from umscosod.evaluation import cosod, sod
from umscosod.evaluation.histogram import check_pair, compute_centroid, compute_joint_histogram
from umscosod.evaluation.reading import Readers, decide_truth_rule, open_readers
from umscosod.evaluation.scores import (
    Curves,
    Definition,
    ImageMeasures,
    ImageScores,
    MeanOfGroups,
    Scores,
    check_definition,
)
from umscosod.evaluation.trees import Pairing, pair_trees
from umscosod.progress import ProgressFn, ignore_progress
from umscosod.types import BoolArray, ByteArray

logger = logging.getLogger(__name__)


def compute_measures(
    pred_HW: ByteArray, gt_HW: ByteArray, definition: Definition = "cosod", *, ignored_HW: BoolArray | None = None
) -> ImageMeasures:
    """Measure one prediction against its ground truth.

    Parameters
    ----------
    pred_HW : ndarray, uint8, (H, W)
        Soft map or 0/255 mask.
    gt_HW : ndarray, uint8, (H, W)
        Mask; the definition says what values between 0 and 255 mean.
    definition : {"cosod", "sod"}
    ignored_HW : ndarray, bool, (H, W), optional
        Pixels that leave every measure, as if the image did not have them; see the notes.

    Returns
    -------
    ImageMeasures
        All in [0, 1], except E, which reaches N / (N - 1) for N pixels. Never NaN. For an image of a single pixel E is
        divided by the definition's epsilon and is meaningless, as in both tools.

    Raises
    ------
    DataError
        They are not two 8-bit grey pictures of one size, or no pixel is left.
    ConfigError
        Unknown definition.

    Notes
    -----
    All measures are computed from counts of pixels by prediction level, ground-truth level and quadrant. Ignored pixels
    are not counted: N is the number of the others (MAE, E), the map is stretched by their smallest and greatest value,
    the centroid is that of the object among them, and a quadrant of the S-measure has their mean, deviation and share.
    So no value at an ignored pixel, of either picture, changes a score. To set both to background there would not do:
    it adds right pixels to N.

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
    if ignored_HW is not None:
        _check_ignored(ignored_HW, gt_HW)
    is_object_HW = cosod.is_object(gt_HW) if definition == "cosod" else sod.is_object(gt_HW)
    if ignored_HW is not None:
        is_object_HW = is_object_HW & ~ignored_HW
    split_rc = compute_centroid(is_object_HW, single_precision=definition == "cosod")
    if definition == "sod":
        split_rc = (split_rc[0] + 1, split_rc[1] + 1)
    joint = compute_joint_histogram(pred_HW, gt_HW, split_rc, ignored_HW)
    binary = sod.BinaryCounts.from_histogram(joint)
    f_adaptive, e_adaptive = sod.compute_adaptive(binary, pred_HW if ignored_HW is None else pred_HW[~ignored_HW])
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


def _check_ignored(ignored_HW: BoolArray, gt_HW: ByteArray) -> None:
    if ignored_HW.dtype != np.bool_ or ignored_HW.shape != gt_HW.shape:
        raise DataError(f"ignored pixels must be bool {gt_HW.shape}, got {ignored_HW.dtype} {ignored_HW.shape}")
    if ignored_HW.all():
        raise DataError("every pixel of the ground truth is ignored, so that nothing is left to score; remove the pair")


SIXTEEN_BIT_MAX = 65535


def open_grey(path: Path, suspicious: Suspicious | None = None) -> Image.Image:
    """Open one picture in Pillow's mode ``L``.

    Colour becomes luma, transparency is dropped (as both tools do); 16-bit grey is scaled to 8 bits.

    Parameters
    ----------
    path : Path
    suspicious : Suspicious, optional
        Records a picture that lost its content in the conversion.

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
    """Scale 16-bit grey to 8 bits: 65535 becomes 255, rounded to the nearest."""
    values = np.asarray(picture, dtype=np.int64)
    if values.min() < 0 or values.max() > SIXTEEN_BIT_MAX:
        raise DataError(f"{path}: values from {values.min()} to {values.max()} are not 16-bit grey; save as 8 bits")
    return Image.fromarray(((values * 255 + SIXTEEN_BIT_MAX // 2) // SIXTEEN_BIT_MAX).astype(np.uint8))


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictures:
    """Prediction and ground truth of one pair, of one size.

    Attributes
    ----------
    pred_HW, gt_HW : ndarray, uint8, (H, W)
    ignored_HW : ndarray, bool, (H, W), or None
        See `compute_measures`.
    """

    pred_HW: ByteArray
    gt_HW: ByteArray
    ignored_HW: BoolArray | None = None


def read_pair(pred: Path, gt: Path, readers: Readers, suspicious: Suspicious) -> Pictures:
    """Read prediction and ground truth at the size of the ground truth.

    Raises
    ------
    DataError
        See `open_grey` and `umscosod.data.foreign.MaskReader.read`.
    """
    truth = readers.truth.read(gt)
    return fit_to_truth(open_prediction(pred, readers, suspicious), truth, suspicious, pred)


def open_prediction(path: Path, readers: Readers, suspicious: Suspicious) -> Image.Image:
    """Open a prediction in Pillow's mode ``L``: soft maps and 0/255 as they are, other masks by their rule."""
    if readers.prediction is None:
        return open_grey(path, suspicious)
    return Image.fromarray(readers.prediction.read(path).grey_HW)


def fit_to_truth(prediction: Image.Image, truth: ReadMask, suspicious: Suspicious, path: Path) -> Pictures:
    """Return both at the size of the ground truth.

    A prediction of another size is resized by Pillow's bilinear filter on 8 bits, which smooths when it shrinks.

    Parameters
    ----------
    prediction : Image of mode ``L``
    truth : ReadMask
    suspicious : Suspicious
        Records a prediction of another aspect, under its `path`.

    Returns
    -------
    Pictures
        Read-only views if nothing was resized.

    Examples
    --------
    >>> grey, truth = Image.new("L", (4, 2), 100), ReadMask(grey_HW=np.zeros((1, 2), np.uint8))
    >>> fit_to_truth(grey, truth, Suspicious(), Path("a.png")).pred_HW.tolist()
    [[100, 100]]
    """
    height, width = truth.grey_HW.shape
    if prediction.size != (width, height):
        suspicious.look_at_sizes(prediction, (width, height), path)
        prediction = prediction.resize((width, height), Image.Resampling.BILINEAR)
    return Pictures(pred_HW=np.asarray(prediction), gt_HW=truth.grey_HW, ignored_HW=truth.ignored_HW)


_SUSPICIONS = {
    "single": "ground truths are a single pixel ({path} is one): E divides by N - 1 there, so E of its group and of "
    "the data set mean nothing; remove the pair",
    "dim": "predictions have no value above 1, so that MAE takes them for nearly black ({path} is one); masks must be "
    "0 and 255 (in 16 bits 0 and 65535), not 0 and 1",
    "lost": "predictions of 16 bits have values above 0 but none that 8 bits keep, so they count as empty ({path} "
    "is one); masks must be 0 and 255 (in 16 bits 0 and 65535), not 0 and 1",
    "bent": "predictions have another aspect than their ground truth and are stretched to its size, as the tools do "
    "({path} is one): one of the two may be turned or cut",
    "hidden": "predictions are of one colour and have their mask in the alpha channel, which the tools behind the "
    "figures drop ({path} is one); save the mask as grey, 0 and 255",
}


class Suspicious:
    """Pictures of an evaluation that a warning names at its end: files by what is odd about them."""

    def __init__(self) -> None:
        self._found: dict[str, list[Path]] = {kind: [] for kind in _SUSPICIONS}

    def look_at_file(self, picture: Image.Image, grey: Image.Image, path: Path) -> None:
        """Record a picture that lost its content in the conversion to 8-bit grey."""
        lowest, highest = grey.getextrema()
        if lowest != highest:
            return
        if picture.mode.startswith("I") and highest == 0 and np.asarray(picture).any():
            self._found["lost"].append(path)
        if picture.has_transparency_data:
            first, last = picture.convert("RGBA").getchannel("A").getextrema()
            if first != last:
                self._found["hidden"].append(path)

    def look_at_sizes(self, prediction: Image.Image, truth_wh: tuple[int, int], path: Path) -> None:
        """Record a prediction that was made for another picture."""
        if not is_same_aspect(prediction.size, truth_wh):
            self._found["bent"].append(path)

    def look_at_pair(self, pred_HW: ByteArray, gt_HW: ByteArray, pred: Path, gt: Path) -> None:
        """Record a ground truth of one pixel, or a prediction that is nearly black."""
        if gt_HW.size == 1:
            self._found["single"].append(gt)
        if pred_HW.max() == 1:
            self._found["dim"].append(pred)

    def notes(self) -> list[str]:
        """Return one line for each kind of recorded picture."""
        return [
            f"{len(paths)} {_SUSPICIONS[kind].format(path=paths[0])}" for kind, paths in self._found.items() if paths
        ]

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
        Definition of the scores; quote it with every score.
    pred_root, gt_root : Path
        The compared folders.
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
    mask_rule : str
        How the ground truths were read; empty: grey as usual (0/255 or soft).
    ignored_share : float
        Share of all pixels that are ignored, in no measure.
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
    mask_rule: str = ""
    ignored_share: float = 0.0


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
    n_pixels : int
        Of all ground truths, ignored ones too.
    """

    definition: Definition
    images: list[ImageScores] = field(default_factory=list)
    means: MeanOfGroups = field(default_factory=MeanOfGroups)
    suspicious: Suspicious = field(default_factory=Suspicious)
    n_pixels: int = 0

    def add(self, name: str, group: str, pictures: Pictures, *, pred: Path, gt: Path) -> None:
        """Score one pair; the paths are for messages."""
        pred_HW, gt_HW, ignored_HW = pictures.pred_HW, pictures.gt_HW, pictures.ignored_HW
        if ignored_HW is not None and ignored_HW.all():
            raise DataError(f"{gt}: every pixel is ignored, so that nothing is left to score; remove the pair")
        measures = compute_measures(pred_HW, gt_HW, self.definition, ignored_HW=ignored_HW)
        self.n_pixels += gt_HW.size
        self.suspicious.look_at_pair(pred_HW, gt_HW, pred, gt)
        self.means.add(group, measures)
        self.images.append(ImageScores.from_measures(name, group, measures))


def evaluate(
    pred: str | os.PathLike[str],
    gt: str | os.PathLike[str],
    *,
    definition: Definition = "cosod",
    mask_value: MaskValue | None = None,
    progress: ProgressFn = ignore_progress,
) -> Evaluation:
    """Score a tree of maps or masks against a tree of ground truths.

    Parameters
    ----------
    pred : path
        Folder of 8-bit maps or masks; for an output folder of ``umscosod label`` its ``masks`` are used.
    gt : path
        Folder of ground truths, or a data set's root with a folder ``gt``. They may be of any kind, see the notes.
    definition : {"cosod", "sod"}
        ``cosod``: arithmetic of eval-co-sod, as in the papers' tables. ``sod``: arithmetic of PySODMetrics.
    mask_value : int, str or sequence, optional
        Ids in the ground truths that are foreground: 15, ``"1,2"``, ``"1-20"``, ``"#ff0000"``, or a list of them.
    progress : callable
        Called as ``(done, total, "evaluate")`` after each pair.

    Returns
    -------
    Evaluation
        Memory: one row an image and five curves a group; no picture is kept.

    Raises
    ------
    DataError
        A prediction is missing, a file cannot be read, a folder has unexpected contents, ground truths hold several
        ids and no `mask_value` is given, or every ground truth is empty.
    ConfigError
        Unknown definition, or a mask value that is none.

    Notes
    -----
    One rule is decided for all ground truths by their values (see `umscosod.data.mask_rules`): 0/255, soft maps, 0/1, a
    palette, one colour, ids. With ids, 255 means ignored, and such pixels leave every measure.
    """
    check_definition(definition)  # before any file is read
    return score_pairs(pair_trees(pred, gt), definition=definition, mask_value=mask_value, progress=progress)


def score_pairs(
    pairing: Pairing,
    *,
    definition: Definition = "cosod",
    mask_value: MaskValue | None = None,
    truth_rule: MaskRule | None = None,
    progress: ProgressFn = ignore_progress,
) -> Evaluation:
    """Score pairs of files; parameters and errors are those of `evaluate`.

    A rule that was decided before (`umscosod.evaluation.reading.decide_truth_rule`) is used as it is.
    """
    check_definition(definition)
    tally = Tally(definition=definition)
    means, suspicious, pairs = tally.means, tally.suspicious, pairing.pairs
    where = str(pairing.gt_root)
    rule = truth_rule or decide_truth_rule([pair.gt for pair in pairs], where, mask_value)
    readers = open_readers(rule, [pair.pred for pair in pairs])
    for done, pair in enumerate(pairs, start=1):
        pictures = read_pair(pair.pred, pair.gt, readers, suspicious)
        tally.add(pair.name, pair.group, pictures, pred=pair.pred, gt=pair.gt)
        progress(done, len(pairs), "evaluate")
    readers.truth.check_any(where)
    suspicious.warn()
    readers.warn()
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
        mask_rule=readers.sentence,
        ignored_share=readers.truth.n_ignored / tally.n_pixels,
    )


Measure = Literal["mae", "f_max", "f_mean", "f_adaptive", "e_max", "e_mean", "e_adaptive", "s", "iou"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
TITLES = ("MAE", "maxF", "meanF", "adpF", "maxE", "meanE", "adpE", "S", "IoU")
TOOLS = {
    "cosod": "cosod (eval-co-sod: 255 thresholds, MAE on the raw map)",
    "sod": "sod (PySODMetrics: 256 thresholds, all on the min-maxed map)",
}
DIGITS = 4


def format_table(evaluation: Evaluation) -> str:
    """Format a table of the data set and its groups, with the definition at the top.

    Returns
    -------
    str
        Lines of text without a final newline. Scores have four digits.
    """
    rows = [("group", "n", *TITLES), format_row("all images", evaluation.dataset)]
    rows += [format_row(name, scores) for name, scores in evaluation.groups.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [f"definition: {TOOLS[evaluation.definition]}", f"prediction: {evaluation.pred_root}"]
    lines.append(f"ground truth: {evaluation.gt_root}")
    if evaluation.mask_rule:
        lines.append(f"masks: {evaluation.mask_rule}")
    lines.append("")
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells]))
    if evaluation.dataset.undefined_s:
        lines += [
            "",
            f"S: {count_of(evaluation.dataset.undefined_s, 'image')} where the tool gives NaN, scored NaN-safe",
        ]
    if evaluation.ignored_share:
        lines += ["", f"ignored: {evaluation.ignored_share:.2%} of the pixels, in no measure"]
    if evaluation.extra_predictions:
        lines += ["", f"not scored: {count_of(evaluation.extra_predictions, 'prediction')} without a ground truth"]
    return "\n".join(lines)


def format_row(name: str, scores: Scores) -> tuple[str, ...]:
    """Return one row of the table as text."""
    return (name, str(scores.n), *(f"{getattr(scores, measure):.{DIGITS}f}" for measure in MEASURES))


def scores_to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Return scores as a dictionary for JSON.

    Returns
    -------
    dict
        ``definition``, ``undefined_s``, ``dataset`` and ``groups``; the last two with ``n`` and the nine measures. If
        the ground truths are not grey as usual, also ``mask_rule`` and ``ignored_share``.
    """
    told = {"mask_rule": evaluation.mask_rule, "ignored_share": evaluation.ignored_share}
    return {
        "definition": evaluation.definition,
        **(told if evaluation.mask_rule else {}),
        "undefined_s": evaluation.dataset.undefined_s,
        "dataset": figures_of(evaluation.dataset),
        "groups": {name: figures_of(scores) for name, scores in evaluation.groups.items()},
    }


def figures_of(scores: Scores) -> dict[str, float]:
    """Return ``n`` and the nine measures."""
    return {"n": scores.n, **{measure: getattr(scores, measure) for measure in MEASURES}}


def list_worst_first(evaluation: Evaluation, by: Measure = "iou") -> list[ImageScores]:
    """List images from the worst to the best.

    Parameters
    ----------
    by : str
        A measure; for ``mae`` high is bad, for the others low. Ties are ordered by MAE, then by name.

    Raises
    ------
    ConfigError
        Unknown measure.
    """
    if by not in MEASURES:
        raise ConfigError(f"unknown measure {by!r}; choose one of {', '.join(MEASURES)}")
    sign = -1.0 if by == "mae" else 1.0
    return sorted(evaluation.images, key=lambda image: (sign * getattr(image, by), -image.mae, image.name))


def make_finite(value: Any) -> Any:
    """Replace NaN, which JSON does not know, by null."""
    if isinstance(value, Mapping):
        return {key: make_finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [make_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
