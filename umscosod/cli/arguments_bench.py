"""Arguments of the sub-commands that compare: on data sets with ground truth."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from typing_extensions import Doc

from umscosod.cli.options import Config, Console, Flat, Out, Overwrite, Settings, Switch, Talk
from umscosod.config import PipelineConfig

Data = Annotated[
    tuple[Path, ...],
    tyro.conf.Positional,
    tyro.conf.arg(metavar="DATA"),
    Doc("Data sets, BENCH with BENCH/image/GROUP and BENCH/gt/GROUP, or a folder of several."),
]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Run several methods on data sets with ground truth, one refinement for all; tables and a page of differences."""

    data: Data
    out: Out
    methods: Annotated[
        str,
        tyro.conf.arg(metavar="NAMES"),
        Doc(
            "Separated by commas: attention, tokencut, dvfdvd, scosparc, pseudo, ums; all; or name=FOLDER, the maps of "
            "another program."
        ),
    ] = "all"
    as_is: Annotated[bool, Switch, Doc("Score the maps of name=FOLDER as they are, without our refinement.")] = False
    shown: Annotated[int, Doc("Pictures of each data set on the page, where methods disagree most.")] = 8
    overwrite: Overwrite = False
    settings: Flat = field(default_factory=Settings)
    console: Talk = field(default_factory=Console)
    config: Config = field(default_factory=PipelineConfig)


@dataclass(frozen=True, kw_only=True)
class Ablate:
    """Leave parts of the method out, on data sets with ground truth and with several seeds: what each is worth."""

    data: Data
    out: Out
    study: Annotated[
        Literal["modules", "labels", "all"],
        Doc(
            "modules: AFMM, CFMM, FRAM and RRBE as in the paper's Table 3, trained with each seed; labels: what makes "
            "the pseudo-labels, nothing trained; or both."
        ),
    ] = "all"
    seeds: Annotated[int, Doc("Seeds of training: that of the settings and those after it.")] = 3
    overwrite: Overwrite = False
    settings: Flat = field(default_factory=Settings)
    console: Talk = field(default_factory=Console)
    config: Config = field(default_factory=PipelineConfig)
