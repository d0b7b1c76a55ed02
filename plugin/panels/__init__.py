"""The panels: functions that the built-in ones lack."""

from .compare import CompareModels
from .progress import Progress
from .review import ReviewMasks

PANELS: tuple[type, ...] = (CompareModels, Progress, ReviewMasks)
