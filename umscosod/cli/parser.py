"""From an argument vector to a command: settings of preset and file are the defaults that flags are laid over."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, cast, get_type_hints

import tyro

from umscosod.cli.arguments import (
    Ablate,
    Bench,
    Command,
    Discover,
    Doctor,
    Evaluate,
    Export,
    FeaturesCommand,
    Label,
    PluginCommand,
    Predict,
    Presets,
    Pseudo,
    Refine,
    Train,
)
from umscosod.cli.options import RARE, Settings
from umscosod.config import GroupingConfig, PipelineConfig
from umscosod.config.io import DEFAULT_PRESET, REMOVED, load_config, validate_config
from umscosod.config.schema import iter_settings, section_types
from umscosod.errors import ConfigError, UmscosodError, shorten

DESCRIPTION = "Find and segment the object that recurs in a group of photographs: no annotation, no class name."

_MAX_DIGITS = 100
_OF_COMMANDS = ("umscosod.cli.arguments", "umscosod.cli.options")

_COMMANDS: Any = (
    Annotated[Label, tyro.conf.subcommand("label")]
    | Annotated[Pseudo, tyro.conf.subcommand("pseudo")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Refine, tyro.conf.subcommand("refine")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
    | Annotated[Ablate, tyro.conf.subcommand("ablate")]
    | Annotated[Discover, tyro.conf.subcommand("discover")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[
        Any,
        tyro.conf.subcommand(
            "features",
            description="The feature cache: estimate its size, fill it, prune it.",
            constructor_factory=lambda: cast(type, FeaturesCommand),
        ),
    ]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
    | Annotated[Presets, tyro.conf.subcommand("presets")]
    | Annotated[
        Any,
        tyro.conf.subcommand(
            "plugin", description="The FiftyOne plugin.", constructor_factory=lambda: cast(type, PluginCommand)
        ),
    ]
)


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
    config = getattr(command, "config", base)
    if (settings := getattr(command, "settings", None)) is not None:
        config = _apply_short_flags(settings, config, base)
    if (method := getattr(command, "method", None)) is not None:
        _refuse_contradiction("method", method, config.method, base.method)
        config = dataclasses.replace(config, method=method)
    validate_config(config)
    return command, config


def _refuse_removed(arguments: Sequence[str]) -> None:
    """Name the flag of a setting that earlier versions had; tyro would suggest flags that are spelt alike."""
    for argument in arguments:
        flag = argument.partition("=")[0]
        for start, prefix in (("--config.", ""), ("--grouping.", "grouping.")):
            name = prefix + flag.removeprefix(start).replace(".no-", ".").replace("-", "_")
            if flag.startswith(start) and name in REMOVED:
                raise ConfigError(
                    f"{name} is no setting any more; its value is fixed at {REMOVED[name]}; remove {flag}"
                )


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
    registry.primitive_rule(_path_rule)
    registry.primitive_rule(_whole_number_rule)
    registry.struct_rule(lambda info: _settings_rule(info, base))
    if hides_rare:
        registry.struct_rule(_command_rule)
    return registry


def _path_rule(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    if info.type is not Path:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=_read_path,
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda value: [str(value)],
    )


def _whole_number_rule(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    if info.type is not int:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=_read_whole_number,
        is_instance=lambda value: type(value) is int,
        str_from_instance=lambda value: [str(value)],
    )


def _settings_rule(
    info: tyro.constructors.StructTypeInfo, base: PipelineConfig
) -> tyro.constructors.StructConstructorSpec | None:
    section = info.type
    if not isinstance(section, type) or section not in section_types() | {GroupingConfig}:
        return None
    default = base if section is PipelineConfig else info.default
    hints = get_type_hints(section)
    helps = {setting.name: f"{setting.meaning}{_bounds_text(setting.bounds)}" for setting in iter_settings(section)}
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


def _command_rule(info: tyro.constructors.StructTypeInfo) -> tyro.constructors.StructConstructorSpec | None:
    if not dataclasses.is_dataclass(info.type) or info.type.__module__ not in _OF_COMMANDS:
        return None
    hints = get_type_hints(info.type, include_extras=True)
    return tyro.constructors.StructConstructorSpec(
        instantiate=info.type,
        fields=tuple(
            tyro.constructors.StructFieldSpec(
                name=field.name, type=_suppress(hints[field.name]), default=_default_of(field)
            )
            for field in dataclasses.fields(info.type)
        ),
    )


def _suppress(hint: Any) -> Any:
    """Hide an argument from the help if it is marked as rare."""
    return Annotated[hint, tyro.conf.Suppress] if RARE in getattr(hint, "__metadata__", ()) else hint


def _default_of(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return tyro.MISSING if field.default is dataclasses.MISSING else field.default


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


def _bounds_text(bounds: str) -> str:
    return f" [{bounds}]" if bounds else ""


def _apply_short_flags(settings: Settings, config: PipelineConfig, base: PipelineConfig) -> PipelineConfig:
    """Lay ``--seed`` and the like over the configuration.

    Raises
    ------
    ConfigError
        The long flag was given too, with another value.
    """
    for flag, value, now, before in (
        ("device", settings.device, config.device, base.device),
        ("seed", settings.seed, config.seed, base.seed),
        ("features.backbone", settings.backbone, config.features.backbone, base.features.backbone),
        ("features.weights", settings.weights, config.features.weights, base.features.weights),
    ):
        _refuse_contradiction(flag, value, now, before)
    given = {name: getattr(settings, name) for name in ("device", "seed") if getattr(settings, name) is not None}
    features = {
        name: getattr(settings, name) for name in ("backbone", "weights") if getattr(settings, name) is not None
    }
    return dataclasses.replace(config, **given, features=dataclasses.replace(config.features, **features))


def _refuse_contradiction(flag: str, value: str | int | None, now: str | int, before: str | int) -> None:
    """Raise where the short flag and the long one were both given, with two values."""
    if value is not None and now not in (before, value):
        short = flag.rpartition(".")[2]
        raise ConfigError(f"--{short} {value} and --config.{flag} {now} contradict each other; give one of them")
