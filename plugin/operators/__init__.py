"""The operators: each has a form and makes one call of the library."""

from .evaluate import Compare, Evaluate
from .group import GroupByClass
from .label import Label
from .review import AcceptMask, RejectMask, Review, SendBackMask
from .runs import DeleteRun, ListRuns
from .steps import GeneratePseudoMasks, Predict, Refine, Train
from .transfer import Export, ImportPredictions
from .weights import GetWeights

OPERATORS: tuple[type, ...] = (
    GroupByClass,
    Label,
    GeneratePseudoMasks,
    Train,
    Predict,
    Refine,
    Evaluate,
    Compare,
    ImportPredictions,
    Export,
    GetWeights,
    ListRuns,
    DeleteRun,
    Review,
    AcceptMask,
    RejectMask,
    SendBackMask,
)
