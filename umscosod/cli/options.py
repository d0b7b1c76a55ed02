"""Options that several sub-commands share: what is said, where settings come from, images and results."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from typing_extensions import Doc

from umscosod.config import PipelineConfig
from umscosod.config.io import DEFAULT_PRESET
from umscosod.errors import ConfigError

if TYPE_CHECKING:
    from umscosod.engine import RayEngine

Switch: Any = tyro.conf.FlagCreatePairsOff
RARE = "rare"
"""Mark of what ``--help`` leaves to ``--help-all``."""


def unset(metavar: str) -> Any:
    """A flag that is left out unless given: the help names no default."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


NAME, FILE, DIR, INT = (unset(metavar) for metavar in ("NAME", "FILE", "DIR", "INT"))


@dataclass(frozen=True, kw_only=True)
class Console:
    """What is said while it runs."""

    verbose: Annotated[
        bool, Switch, tyro.conf.arg(aliases=("-v",)), Doc("Say what is chosen and done, not only what is wrong.")
    ] = False
    debug: Annotated[bool, Switch, RARE, Doc("Show the whole traceback of an error.")] = False
    help_all: Annotated[bool, Switch, Doc("Show every flag: the rarer ones, and all settings.")] = False


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where settings come from: defaults, then preset, then file, then flags."""

    preset: Annotated[
        str,
        tyro.conf.arg(metavar="NAME"),
        Doc(
            "Named set of settings: fast (laptops), full (100 epochs, a wider network), paper (as published) or smoke "
            "(tests); 'umscosod presets' shows them."
        ),
    ] = DEFAULT_PRESET
    config_file: Annotated[
        Path | None,
        RARE,
        FILE,
        Doc("YAML file of settings, such as the config.yaml of an earlier run; only what differs need be in it."),
    ] = None
    device: Annotated[str | None, NAME, Doc("auto, cpu, cuda, cuda:N or mps. Short for --config.device.")] = None
    seed: Annotated[int | None, INT, Doc("Seed of everything random. Short for --config.seed.")] = None
    backbone: Annotated[
        str | None, NAME, Doc("Features: auto, embedded or the name of a ViT. Short for --config.features.backbone.")
    ] = None
    weights: Annotated[str | None, FILE, Doc("Local weight file of that ViT. Short for --config.features.weights.")] = (
        None
    )


Images = Annotated[
    Path,
    tyro.conf.Positional,
    tyro.conf.arg(metavar="IMAGES"),
    Doc("Folder with one sub-folder a group, or a .csv or .parquet list with the columns path and group."),
]
Out = Annotated[Path, tyro.conf.arg(metavar="OUT"), Doc("Folder for the results.")]
Overwrite = Annotated[
    bool,
    Switch,
    Doc("Replace results of other settings or images. Without it, the same command resumes what was interrupted."),
]


@dataclass(frozen=True, kw_only=True)
class Command:
    """What every sub-command takes. The help lists a command's own flags first."""

    console: Annotated[Console, tyro.conf.arg(name="")] = field(default_factory=Console)


@dataclass(frozen=True, kw_only=True)
class Configured(Command):
    """A sub-command with settings."""

    settings: Annotated[Settings, tyro.conf.arg(name="")] = field(default_factory=Settings)
    config: Annotated[PipelineConfig, RARE, Doc("Every setting; precedence: defaults < preset < file < flags.")] = (
        field(default_factory=PipelineConfig)
    )


@dataclass(frozen=True, kw_only=True)
class Job(Configured):
    """A sub-command that fills an output folder from images."""

    images: Images
    out: Out
    overwrite: Overwrite = False


@dataclass(frozen=True, kw_only=True)
class EngineJob(Job):
    """A job whose work may be done elsewhere."""

    engine: Annotated[
        Literal["local", "ray"],
        Doc("Where the work is done: in this process, or on Ray: this machine's, or that of --address."),
    ] = "local"
    address: Annotated[
        str | None,
        RARE,
        unset("HOST:PORT"),
        Doc("A Ray cluster that runs, or auto; images, --out and the feature cache are on storage that all share."),
    ] = None
    gpus_per_actor: Annotated[
        float | None,
        RARE,
        unset("SHARE"),
        Doc("Share of a GPU for each backbone on Ray; by default 1 where the device is CUDA, else 0."),
    ] = None

    def open_engine(self) -> AbstractContextManager[RayEngine | None]:
        """Give what does the work, for the length of a ``with`` block; None: this process.

        Raises
        ------
        ConfigError
            A flag of Ray's is given without it.
        MissingDependencyError
            Ray is not installed.
        """
        if self.engine == "ray":
            from umscosod.engine import RayEngine

            return RayEngine(self.address, gpus_per_actor=self.gpus_per_actor)
        for flag, value in (("--address", self.address), ("--gpus-per-actor", self.gpus_per_actor)):
            if value is not None:
                raise ConfigError(f"{flag} {value} is of use with --engine ray only; add that, or leave it out")
        return nullcontext()
