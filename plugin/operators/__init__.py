"""Operators: a form and one call each."""

from .label import Label
from .review import AcceptMask, RejectMask, Review, SendBackMask
from .runs import DeleteRun, ListRuns
from .steps import GeneratePseudoMasks, Predict, Refine, Train

OPERATORS: tuple[type, ...] = (
    Label,
    GeneratePseudoMasks,
    Train,
    Predict,
    Refine,
    ListRuns,
    DeleteRun,
    Review,
    AcceptMask,
    RejectMask,
    SendBackMask,
)
