"""Settings are read strictly, laid over each other in order, and written so that they come back equal."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import os
import re
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from umscosod.config import CrfConfig, GroupingConfig, PipelineConfig, RefineConfig, TrainConfig
from umscosod.config.io import (
    REMOVED,
    change_config,
    config_to_dict,
    dump_config,
    load_config,
    load_stored,
    preset_names,
    preset_values,
    validate_config,
)
from umscosod.config.schema import Setting, check_section, check_value, iter_settings, settings
from umscosod.errors import ConfigError
from umscosod.network.afmm import HEADS
from umscosod.network.fram import ALPHA
from umscosod.network.losses import IOU_EPS
from umscosod.refine.rrbe import EMPTY_SHARE


def write(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def values_of(setting: Setting) -> st.SearchStrategy[Any]:
    """Any value that the declaration of a setting allows."""
    if get_origin(setting.kind) is not None and get_origin(setting.kind) is not tuple:
        return st.sampled_from(get_args(setting.kind))
    if setting.kind is bool:
        return st.booleans()
    if setting.kind is str:
        return st.text(st.characters(exclude_characters="\0"), max_size=12)
    limits = dict(setting.limits)
    low, high = limits.get(">=", limits.get(">")), limits.get("<=", limits.get("<"))
    if setting.kind is int:
        return st.integers(min_value=low, max_value=high)
    numbers = st.floats(
        min_value=low,
        max_value=high,
        exclude_min=">" in limits,
        exclude_max="<" in limits,
        allow_nan=False,
        allow_infinity=False,
    )
    if setting.kind is float:
        return numbers
    kinds = get_args(setting.kind)
    sizes = {} if kinds[-1] is Ellipsis else {"min_size": len(kinds), "max_size": len(kinds)}
    return st.lists(numbers, **({"max_size": 4} | sizes)).map(tuple)


configurations = st.sets(st.sampled_from(sorted(settings())), max_size=8).flatmap(
    lambda names: st.fixed_dictionaries({name: values_of(settings()[name]) for name in sorted(names)})
)


@given(values=configurations)
def test_what_is_written_comes_back_equal(values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    config = load_config(overrides=values)
    path = write(tmp_path_factory.getbasetemp(), dump_config(config))
    assert load_config(file=path) == config
    validate_config(config)


def test_defaults_are_valid_and_every_setting_has_a_meaning() -> None:
    validate_config(PipelineConfig())
    assert load_config() == PipelineConfig()
    assert [name for name, setting in settings().items() if not setting.meaning] == []


def test_order_is_defaults_preset_file_overrides(tmp_path: Path) -> None:
    file = write(tmp_path, "train:\n  epochs: 7\n  batch_images: 3\n")
    config = load_config("smoke", file, {"train.batch_images": 2, "refine": {"crf": {"size_px": 64}}})
    assert config.network.decoder.channels == 8  # preset
    assert config.train.epochs == 7  # file over preset
    assert config.train.batch_images == 2  # override over file
    assert config.refine.crf.size_px == 64
    assert config.refine.crf.iterations == 1  # a sibling of an override keeps the preset's value
    assert config.train.learning_rate == TrainConfig().learning_rate


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"refine": {"crf": {"iteratons": 3}}},
            "unknown key 'refine.crf.iteratons'; did you mean 'refine.crf.iterations'?",
        ),
        ({"epochs": 3}, "unknown key 'epochs'; did you mean 'train.epochs'?"),
        ({"zzz": 3}, "unknown key 'zzz'; the sections are confidence, "),
        ({"train.epochs": 0}, "train.epochs must be >= 1 and <= 1000000, got 0"),
        ({"train.epochs": True}, "train.epochs must be a whole number, got True"),
        ({"train.epochs": 2.0}, "train.epochs must be a whole number, got 2.0"),
        ({"train.learning_rate": 0}, "train.learning_rate must be >= 1e-08 and <= 1.0, got 0"),
        ({"train.learning_rate": float("nan")}, "train.learning_rate must be a finite number, got nan"),
        ({"train.learning_rate": "fast"}, "train.learning_rate must be a finite number, got 'fast'"),
        ({"network.cfmm.init": "kaimin"}, "network.cfmm.init must be one of identity, kaiming, got 'kaimin'"),
        ({"network.cfmm.rm_relu": 6}, "network.cfmm.rm_relu must be one of always, eval, got 6"),
        ({"refine.enabled": 1}, "refine.enabled must be true or false, got 1"),
        ({"refine.th_clamp": [0.1]}, "refine.th_clamp must be a list of 2 numbers, got [0.1]"),
        ({"pseudo.hac_thresholds": [0.4, "x"]}, "pseudo.hac_thresholds must be a finite number, got 'x'"),
        ({"features.weights": None}, "features.weights must be text, got None (write '' for none)"),
        ({"keep": "better"}, "keep must be one of blend, network, pseudo, got 'better'"),
        ({"keep_margin": 0.3}, "keep_margin is no setting any more; its value is fixed at 0.2; remove it (got 0.3)"),
        ({"refine.crf": 3}, "refine.crf is a section and must hold settings by name, got 3"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value_and_bound(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=values)
    assert str(caught.value).startswith(message)


def test_stored_settings_of_an_earlier_version_are_read_where_they_mean_the_same() -> None:
    values = config_to_dict(PipelineConfig(seed=7))
    values["keep"], values["keep_margin"], values["refine"]["agreement_ridge"] = "better", 0.2, 0.1
    assert load_stored(values, "here") == PipelineConfig(seed=7, keep="blend")
    values["train"]["rounds"] = 2
    with pytest.raises(ConfigError, match=r"^here: train\.rounds is no setting any more"):
        load_stored(values, "here")
    with pytest.raises(ConfigError, match=r"^here: seed must be"):
        load_stored({"seed": -1}, "here")


def test_yaml_numbers_lists_and_empty_sections(tmp_path: Path) -> None:
    """YAML 1.1 reads 1e-4 as text; a section with all its lines commented out is None."""
    text = "train:\n  learning_rate: 1e-4\nrefine:\n  th_clamp: [0, 2]\nnetwork:\nfeatures.backbone: embedded\n"
    config = load_config(file=write(tmp_path, text))
    assert config.train.learning_rate == 1e-4
    assert config.refine.th_clamp == (0.0, 2.0)
    assert config.features.backbone == "embedded"
    assert load_config(file=write(tmp_path, "")) == PipelineConfig()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: [", "not valid YAML"),
        ("- 1", "must hold settings by name"),
        ("train: {epocs: 1}", "unknown key 'train.epocs'; did you mean 'train.epochs'?"),
        ("!!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(file=path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def assert_refused(file: Path, part: str) -> None:
    """One line of bounded length that names the file."""
    with pytest.raises(ConfigError) as caught:
        load_config(file=file)
    message = str(caught.value)
    assert part in message
    assert str(file) in message
    assert "\n" not in message
    assert len(message) < len(str(file)) + 400


ALIAS_BOMB = "a: &a [0, 0]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in itertools.pairwise("abcdefghijklmnop"))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("train.epochs: !!int abc", "settings take no tags (!) (line 1, column 15)"),
        ("train.epochs: !!float abc", "settings take no tags"),
        ("train: !!timestamp abc", "settings take no tags"),
        ("refine.enabled: !!bool abc", "settings take no tags"),
        ("train: !!binary xx", "settings take no tags"),
        ("!!python/object/apply:os.system ['x']", "settings take no tags"),
        ("train.epochs: 0x_", "'0x_' cannot be read as a number (line 1, column 15)"),
        ("train.epochs: " + "9" * 5000, "cannot be read as a number (line 1, column 15)"),
        ("train.epochs: 0x" + "f" * 6000, "got a whole number of more than 80 digits"),
        ("train.learning_rate: 1" + ":59" * 9000 + ".5", "cannot be read as a number"),
        ("train.learning_rate: 1.0e+400", "train.learning_rate must be a finite number, got inf"),
        ("train.learning_rate: .nan", "train.learning_rate must be a finite number, got nan"),
        ("train.epochs: 2026-99-99", "train.epochs must be a whole number, got '2026-99-99'"),
        ("[" * 3000, "nested too deeply for settings"),
        ("- " * 3000 + "a", "nested too deeply for settings"),
        ("{a: " * 3000, "nested too deeply for settings"),
        ("pseudo.hac_thresholds: &x [0.1]", "settings take no anchors (&) and aliases (*)"),
        (ALIAS_BOMB, "settings take no anchors (&) and aliases (*)"),
        ("seed: \0", "not valid YAML: unacceptable character #x0000"),
        ("\tseed: 3", "not valid YAML: found character '\\t' that cannot start any token (line 1, column 1)"),
        ("seed: 1\nseed: 2", "not valid YAML: 'seed' is given twice (line 2, column 1)"),
        ("train: {epochs: 1}\ntrain.epochs: 2", "train.epochs is given twice, nested and dotted"),
        ("1: 2", "unknown key '1'"),
        ("~: 2", "unknown key 'None'"),
        ("? [a]\n: b", "not valid YAML: found unhashable key"),
        ("x" * 1000 + ": 1", "unknown key 'xxx"),
        ("seed: " + "x" * 5000, "seed must be a whole number, got 'xxx"),
        ("pseudo.hac_thresholds: [" + "[1], " * 5000 + "]", "must be a finite number, got [1]"),
        ("seed: 1\n---\nseed: 2", "not valid YAML: but found another document"),
        ('device: "\\UFFFFFFFF"', "an escape in quotes names a character that does not exist"),
        ('features.cache_dir: "a\\0b"', "features.cache_dir must be text without NUL characters, got 'a\\x00b'"),
        ("#" * 300_000, "has more than 200,000 bytes"),
    ],
)
def test_hostile_yaml_is_refused_in_one_short_line(tmp_path: Path, text: str, part: str) -> None:
    assert_refused(write(tmp_path, text), part)


def test_what_is_no_text_file_is_refused_without_waiting(tmp_path: Path) -> None:
    (tmp_path / "utf16.yaml").write_bytes("seed: 3".encode("utf-16"))
    os.mkfifo(tmp_path / "fifo.yaml")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    assert_refused(tmp_path / "utf16.yaml", "cannot be read: 'utf-8' codec can't decode")
    assert_refused(tmp_path / "fifo.yaml", "is no regular file")
    assert_refused(tmp_path, "is no regular file")
    assert_refused(tmp_path / "loop.yaml", "cannot be read")
    with (tmp_path / "wide.yaml").open("wb") as stream:
        stream.truncate(100 * 2**20)
    assert_refused(tmp_path / "wide.yaml", "has more than 200,000 bytes")


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    (tmp_path / "bom.yaml").write_bytes("seed: 3".encode("utf-8-sig"))
    assert load_config(file=tmp_path / "bom.yaml").seed == 3


def test_a_folder_named_by_a_date_is_text(tmp_path: Path) -> None:
    assert load_config(file=write(tmp_path, "features.cache_dir: 2026-01-02")).features.cache_dir == "2026-01-02"


def test_values_are_shortened_in_messages_whatever_they_are() -> None:
    for value in (10**5000, -(10**5000), "9" * 5000, [0] * 10**6, [[[[[[0]]]]]] * 99, {"a": "b" * 999}):
        with pytest.raises(ConfigError) as caught:
            check_value("train.learning_rate", value)
        assert len(str(caught.value)) < 150


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read"):
        load_config(file=tmp_path / "none.yaml")


def test_a_configuration_built_in_python_is_checked() -> None:
    bad = dataclasses.replace(PipelineConfig(), refine=RefineConfig(crf=CrfConfig(iterations=101)))
    with pytest.raises(ConfigError, match=r"refine\.crf\.iterations must be >= 1 and <= 100, got 101"):
        validate_config(bad)
    with pytest.raises(ConfigError, match="refine must be a RefineConfig"):
        validate_config(dataclasses.replace(PipelineConfig(), refine=TrainConfig()))  # type: ignore[arg-type]


def numeric_settings() -> dict[str, Setting]:
    """Every number, and list of numbers, of `PipelineConfig` and `GroupingConfig`."""
    every = [*settings().values(), *iter_settings(GroupingConfig, "grouping.")]
    return {one.name: one for one in every if one.kind in (int, float) or get_origin(one.kind) is tuple}


def value_like(setting: Setting, number: float) -> Any:
    """The number as the setting takes it: alone or in a list of the right length."""
    if setting.kind in (int, float):
        return number
    kinds = get_args(setting.kind)
    return [number] if kinds[-1] is Ellipsis else [number] * len(kinds)


def check(setting: Setting, value: Any) -> Any:
    if setting.name in settings():
        return check_value(setting.name, value)
    return check_section(GroupingConfig(**{setting.name.removeprefix("grouping."): value}), "grouping")


@pytest.mark.parametrize("name", numeric_settings())
def test_every_number_has_two_finite_bounds_that_are_valid_themselves(name: str) -> None:
    setting = numeric_settings()[name]
    signs, limits = zip(*setting.limits, strict=True)
    assert signs == (">=", "<=")
    assert all(math.isfinite(limit) and abs(limit) < 2**63 for limit in limits)
    for limit in limits:
        check(setting, value_like(setting, limit))
    for beyond in (limits[0] - 1, limits[1] * 2 + 1):
        with pytest.raises(ConfigError, match=re.escape(f"{name} must be {setting.bounds}, got ")):
            check(setting, value_like(setting, beyond))


EXTREMES = [
    1e300,
    -1e300,
    1e-30,
    -1e-30,
    math.nan,
    math.inf,
    -math.inf,
    10**18,
    -(10**18),
    10**400,
    -(10**400),
    10**5000,
]


@pytest.mark.parametrize("name", numeric_settings())
def test_an_extreme_number_is_taken_or_refused_but_never_breaks_the_check(name: str) -> None:
    setting = numeric_settings()[name]
    low, high = (limit for _, limit in setting.limits)
    for number in EXTREMES:
        for value in (number, value_like(setting, number)):
            with contextlib.suppress(ConfigError):
                check(setting, value)
                assert low <= number <= high


def test_messages_about_extreme_numbers_are_one_short_line() -> None:
    for name in numeric_settings():
        for number in EXTREMES:
            message = refusal_of(numeric_settings()[name], number)
            assert len(message) < 300
            assert "\n" not in message


def refusal_of(setting: Setting, value: Any) -> str:
    """What is said of a value, or nothing where it is taken."""
    try:
        check(setting, value)
    except ConfigError as error:
        return str(error)
    return ""


def test_true_is_no_choice_of_a_number() -> None:
    with pytest.raises(ConfigError, match="one of"):
        check_value("network.cfmm.rm_relu", True)


@pytest.mark.parametrize("name", preset_names())
def test_each_preset_is_valid_and_holds_no_more_than_settings(name: str) -> None:
    validate_config(load_config(name))
    assert set(preset_values(name)) <= set(settings())


def test_an_unknown_preset_names_the_nearest() -> None:
    assert set(preset_names()) == {"paper", "full", "fast", "smoke"}
    with pytest.raises(ConfigError, match="unknown preset 'papr'; did you mean 'paper'"):
        load_config("papr")


def test_the_paper_preset_has_the_published_values() -> None:
    """The column 'paper' of the method specification, not what the defaults happen to be."""
    config = load_config("paper")
    assert (config.features.backbone, config.features.second_backbone) == ("dino_vitb8", "dinov2_vitb14_reg")
    assert (config.train.epochs, config.train.learning_rate, config.train.batch_images) == (100, 1e-4, 24)
    assert (config.train.label_weights, config.refine.skip_empty) == ("equal", False)
    assert (PipelineConfig().train.label_weights, PipelineConfig().refine.skip_empty) == ("confidence", True)
    assert (config.seed, config.keep, config.features.size_px) == (123, "network", 224)
    cfmm = config.network.cfmm
    assert (cfmm.init, cfmm.seed_prior, cfmm.rm_relu) == ("kaiming", "none", "eval")
    assert config.network.fram.amp_norm == "none"
    assert (ALPHA, HEADS, IOU_EPS, EMPTY_SHARE) == (3.0, 4, 1e-7, 0.95)
    refine, crf = config.refine, config.refine.crf
    assert (refine.th0, refine.alpha_c, refine.th_clamp, refine.keep_best) == (0.5, 1.0, (0.0, 2.0), False)
    assert (refine.sim_th, refine.empty_floor) == (0.75, 1.0)
    assert (crf.unary, crf.confidence, crf.iterations, crf.size_px) == ("hard", 0.995, 10, 224)
    assert (crf.gaussian_xy_px, crf.gaussian_compat) == (10.0, 10.0)
    assert (crf.bilateral_xy_px, crf.bilateral_rgb, crf.bilateral_compat) == (10.0, 3.0, 10.0)


def test_dumped_text_is_plain_yaml_with_every_setting() -> None:
    content = yaml.safe_load(dump_config(PipelineConfig()))
    assert content["refine"]["th_clamp"] == list(PipelineConfig().refine.th_clamp)
    assert set(content) == {field.name for field in dataclasses.fields(PipelineConfig)}


def test_settings_are_laid_over_a_configuration_as_strictly_as_over_the_defaults() -> None:
    given = load_config("smoke", overrides={"seed": 7, "pseudo.hac_thresholds": [0.5, 0.25]})
    assert change_config(given, {}) == given
    changed = change_config(given, {"network": {"fram": {"enabled": False}}, "refine.crf.iterations": 3})
    assert (changed.network.fram.enabled, changed.refine.crf.iterations) == (False, 3)
    assert (changed.seed, changed.pseudo, changed.features) == (7, given.pseudo, given.features)
    assert given.network.fram.enabled
    with pytest.raises(ConfigError, match=r"unknown key 'network.fram.enable'; did you mean 'network.fram.enabled'"):
        change_config(given, {"network.fram.enable": False})
    with pytest.raises(ConfigError, match="seed"):
        change_config(dataclasses.replace(given, seed=-1), {})


def test_there_are_no_more_settings_than_a_person_can_look_through() -> None:
    assert len([*settings(), *iter_settings(GroupingConfig, "grouping.")]) <= 80


OF_AN_EARLIER_VERSION = """\
features: {backbone: embedded, embedded: {slope: 2.0, gradient_scales: [0.125, 0.3125, 0.625]}}
network: {mirror_average: false, fram: {alpha: 3, enabled: false}}
baselines: {tokencut: {tau: 0.2}}
train.iou_eps: 1.0e-07
"""


def test_a_file_of_an_earlier_version_is_taken_where_its_values_are_those_of_today(tmp_path: Path) -> None:
    config = load_config(file=write(tmp_path, OF_AN_EARLIER_VERSION))
    assert config == load_config(overrides={"features.backbone": "embedded", "network.fram.enabled": False})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "slope: 2.0",
            "slope: 3.0",
            "features.embedded.slope is no setting any more; its value is fixed at 2.0; remove it",
        ),
        ("false", "true", "network.mirror_average is no setting any more; its value is fixed at False; remove it"),
        ("tau: 0.2", "tau: x", "baselines.tokencut.tau is no setting any more; its value is fixed at 0.2; remove it"),
        ("tau", "tua", "unknown key 'baselines.tokencut.tua'"),
    ],
)
def test_another_value_of_a_setting_that_is_gone_is_refused_in_one_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = write(tmp_path, OF_AN_EARLIER_VERSION.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        load_config(file=path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_no_setting_of_today_is_listed_as_gone() -> None:
    assert not REMOVED.keys() & {*settings(), *(one.name for one in iter_settings(GroupingConfig, "grouping."))}
