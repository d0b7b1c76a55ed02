"""Pictures whose figures are right by the definition and yet not what the user wants: said once, by count."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from PIL import Image

from umscosod.data.resize import is_same_aspect
from umscosod.evaluation.sod import GT_LEVEL
from umscosod.types import ByteArray

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
