"""From an argument vector to a command: settings of preset and file are the defaults that flags are laid over."""

from __future__ import annotations

import argparse
import dataclasses
import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, cast, get_type_hints

import tyro

from umscosod.cli import arguments as args
from umscosod.cli.options import RARE, Command, Configured
from umscosod.config import PipelineConfig
from umscosod.config.io import DEFAULT_PRESET, REMOVED, change_config, load_config
from umscosod.config.schema import iter_settings
from umscosod.errors import ConfigError, UmscosodError, shorten

DESCRIPTION = "Find and segment the object that recurs in a group of photographs: no annotation, no class name."

_MAX_DIGITS = 100
_OF_COMMANDS = ("umscosod.cli.arguments", "umscosod.cli.options")


def _family(name: str, description: str, commands: Any) -> Any:
    """Put commands under one name: ``features estimate``."""
    return Annotated[Any, tyro.conf.subcommand(name, description=description, constructor_factory=lambda: commands)]


_FEATURES: Any = (
    Annotated[args.FeaturesEstimate, tyro.conf.subcommand("estimate")]
    | Annotated[args.FeaturesEncode, tyro.conf.subcommand("encode")]
    | Annotated[args.FeaturesPrune, tyro.conf.subcommand("prune")]
)
_WEIGHTS: Any = (
    Annotated[args.WeightsList, tyro.conf.subcommand("list")]
    | Annotated[args.WeightsGet, tyro.conf.subcommand("get")]
    | Annotated[args.WeightsVerify, tyro.conf.subcommand("verify")]
    | Annotated[args.WeightsImport, tyro.conf.subcommand("import")]
)
_PLUGIN: Any = (
    Annotated[args.PluginInstall, tyro.conf.subcommand("install")]
    | Annotated[args.PluginInfo, tyro.conf.subcommand("info")]
)
_COMMANDS: Any = (
    args.Label
    | args.Steer
    | args.Pseudo
    | args.Train
    | args.Predict
    | args.Refine
    | args.Evaluate
    | args.Bench
    | args.Ablate
    | args.Discover
    | args.Pretrain
    | args.Export
    | args.ExportModel
    | _family("features", "The feature cache: estimate its size, fill it, prune it.", _FEATURES)
    | _family("weights", "Weights of the backbones: list, download, verify, import them.", _WEIGHTS)
    | args.Doctor
    | args.Presets
    | _family("plugin", "The FiftyOne plugin.", _PLUGIN)
)
_STAND_LAST = {"overwrite": 1, "settings": 2, "console": 3, "config": 4}
"""Places of the fields in which the help of a command ends."""
_SHORT = {
    "device": "device",
    "seed": "seed",
    "backbone": "features.backbone",
    "weights": "features.weights",
    "method": "method",
}
"""Flags that are short for ``--config.NAME``."""


def parse(arguments: Sequence[str]) -> tuple[Command, PipelineConfig]:
    """Read a command line.

    Parameters
    ----------
    arguments : sequence of str
        Without the program's name.

    Returns
    -------
    command : one of the dataclasses of `umscosod.cli.arguments`
    config : PipelineConfig
        Defaults, then preset, then file, then the flags given; the defaults for commands that have no settings.

    Raises
    ------
    SystemExit
        0 after help, 2 where the line is not understood.
    ConfigError
        The preset, the file or a value is wrong.
    """
    _refuse_removed(arguments)
    base = load_config(*_peek(arguments))
    command: Command = tyro.cli(
        _COMMANDS,
        prog="umscosod",
        description=DESCRIPTION,
        args=["--help" if argument == "--help-all" else argument for argument in arguments],
        registry=_registry(base, hides_rare=bool({"-h", "--help"} & set(arguments)) and "--help-all" not in arguments),
    )
    if not isinstance(command, Configured):
        return command, base
    return command, _apply_short_flags(command, base)


def _refuse_removed(arguments: Sequence[str]) -> None:
    """Name the flag of a setting that earlier versions had; tyro would suggest flags that are spelt alike."""
    for argument in arguments:
        flag = argument.partition("=")[0]
        for start, prefix in (("--config.", ""), ("--grouping.", "grouping.")):
            name = prefix + flag.removeprefix(start).replace(".no-", ".").replace("-", "_")
            if flag.startswith(start) and name in REMOVED:
                why = "it changed no result" if REMOVED[name] is None else f"its value is fixed at {REMOVED[name]}"
                raise ConfigError(f"{name} is no setting any more; {why}; remove {flag}")


def _peek(arguments: Sequence[str]) -> tuple[str, Path | None]:
    """Find ``--preset`` and ``--config-file`` ahead of the real parsing, which reports whatever is wrong with them."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", nargs="?", const=DEFAULT_PRESET, default=DEFAULT_PRESET)
    parser.add_argument("--config-file", "--config_file", type=lambda text: _read_path([text]), nargs="?")
    found, _ = parser.parse_known_args(list(arguments))
    return found.preset, found.config_file


def _registry(base: PipelineConfig, *, hides_rare: bool) -> tyro.constructors.ConstructorRegistry:
    """Teach tyro the settings: the defaults are `base`, and each help text says the bounds.

    With `hides_rare` the help leaves out what is marked as `RARE`; it is understood all the same.
    """
    registry = tyro.constructors.ConstructorRegistry()
    registry.primitive_rule(lambda info: _primitive_rule(info, Path, "PATH", _read_path))
    registry.primitive_rule(lambda info: _primitive_rule(info, int, "INT", _read_whole_number))
    registry.struct_rule(lambda info: _settings_rule(info, base))
    registry.struct_rule(lambda info: _command_rule(info, hides_rare=hides_rare))
    return registry


def _primitive_rule(
    info: tyro.constructors.PrimitiveTypeInfo, kind: type, metavar: str, read: Callable[[list[str]], Any]
) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """Have one word on the command line read by a function of ours."""
    if info.type is not kind:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, kind),
        str_from_instance=lambda value: [str(value)],
    )


def _settings_rule(
    info: tyro.constructors.StructTypeInfo, base: PipelineConfig
) -> tyro.constructors.StructConstructorSpec | None:
    section = info.type
    if not dataclasses.is_dataclass(section) or section.__module__ != PipelineConfig.__module__:
        return None
    default = base if section is PipelineConfig else info.default
    hints = get_type_hints(section)
    helps = {
        one.name: f"{one.meaning} [{one.bounds}]" if one.bounds else one.meaning
        for one in iter_settings(cast(type, section))
    }
    return tyro.constructors.StructConstructorSpec(
        instantiate=section,
        fields=tuple(
            tyro.constructors.StructFieldSpec(
                name=field.name,
                type=hints[field.name],
                default=getattr(default, field.name),
                helptext=helps.get(field.name, hints[field.name].__doc__),
            )
            for field in dataclasses.fields(section)
        ),
    )


def _command_rule(
    info: tyro.constructors.StructTypeInfo, *, hides_rare: bool
) -> tyro.constructors.StructConstructorSpec | None:
    if not dataclasses.is_dataclass(info.type) or info.type.__module__ not in _OF_COMMANDS:
        return None
    hints = get_type_hints(info.type, include_extras=True)
    specs = []
    for field in sorted(dataclasses.fields(info.type), key=lambda field: _STAND_LAST.get(field.name, 0)):
        hint, default = hints[field.name], field.default
        if hides_rare and RARE in getattr(hint, "__metadata__", ()):
            hint = Annotated[hint, tyro.conf.Suppress]
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        elif default is dataclasses.MISSING:
            default = tyro.MISSING
        specs.append(tyro.constructors.StructFieldSpec(name=field.name, type=hint, default=default))
    return tyro.constructors.StructConstructorSpec(instantiate=info.type, fields=tuple(specs))


def _read_path(given: list[str]) -> Path:
    """Refuse ``""``, often a shell's variable that is not set: a Path would make the current folder of it."""
    if not given[0]:
        raise UmscosodError("a path on the command line is empty (''); name a folder or file, or leave its flag out")
    return Path(given[0])


def _read_whole_number(given: list[str]) -> int:
    """Refuse what Python's own message on it would advise to raise a limit of the interpreter for."""
    if len(given[0]) > _MAX_DIGITS:
        raise UmscosodError(
            f"a number on the command line has {len(given[0])} characters ({shorten(given[0], 20)}); no setting takes "
            f"one of more than {_MAX_DIGITS}"
        )
    return int(given[0])


def _apply_short_flags(command: Configured, base: PipelineConfig) -> PipelineConfig:
    """Lay ``--seed`` and the like over the configuration, and check all of it.

    Raises
    ------
    ConfigError
        The long flag was given too, with another value.
    """
    shorts = {**vars(command.settings), "method": getattr(command, "method", None)}
    given = {}
    for short, name in _SHORT.items():
        value = shorts[short]
        if value is None:
            continue
        before, now = map(operator.attrgetter(name), (base, command.config))
        if now not in (before, value):
            raise ConfigError(f"--{short} {value} and --config.{name} {now} contradict each other; give one of them")
        given[name] = value
    return change_config(command.config, given)
