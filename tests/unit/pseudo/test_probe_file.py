"""A probe on disk: what is read is what was written, and what cannot be used is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from umscosod.errors import CheckpointError
from umscosod.pseudo.cleaning import LinearProbe, load_probe, save_probe

IDS = ("first-a", "second-b")
RNG = np.random.default_rng(0)
PROBE = LinearProbe(mean_F=RNG.normal(size=7), weights_F=RNG.normal(size=7), bias=-0.1, spread=1.0 / 3.0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_probe(tmp_path / "probe.safetensors", PROBE, IDS)
    return tmp_path / "probe.safetensors"


def test_what_is_read_is_what_was_written_to_the_last_bit(file: Path) -> None:
    read = load_probe(file, IDS)
    assert read is not None
    assert read.mean_F.tobytes() == PROBE.mean_F.tobytes()
    assert read.weights_F.tobytes() == PROBE.weights_F.tobytes()
    assert (read.bias, read.spread) == (PROBE.bias, PROBE.spread)


def test_one_probe_gives_one_files_bytes_and_nothing_is_left_beside_it(file: Path) -> None:
    before = file.read_bytes()
    for _ in range(5):
        save_probe(file, PROBE, IDS)
        assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_no_file_is_no_probe(tmp_path: Path) -> None:
    assert load_probe(tmp_path / "probe.safetensors", IDS) is None


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_file_cut_short_is_named(file: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"probe\.safetensors is damaged: .*train again, or remove"):
        load_probe(file, IDS)


def test_a_folder_in_its_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "probe.safetensors").mkdir()
    with pytest.raises(CheckpointError, match=r"probe\.safetensors is damaged"):
        load_probe(tmp_path / "probe.safetensors", IDS)


@pytest.mark.parametrize(
    ("probe", "reason"),
    [
        (replace(PROBE, weights_F=np.ones(6)), r"shapes \(7,\), \(6,\)"),
        (replace(PROBE, mean_F=np.ones((7, 1)), weights_F=np.ones((7, 1))), r"shapes \(7, 1\)"),
        (replace(PROBE, mean_F=np.full(7, np.nan)), "NaN"),
        (replace(PROBE, bias=np.inf), "infinity"),
        (replace(PROBE, spread=0.0), "spread of 0.0"),
    ],
)
def test_arrays_that_make_no_probe_are_named(file: Path, probe: LinearProbe, reason: str) -> None:
    save_probe(file, probe, IDS)
    with pytest.raises(CheckpointError, match=f"damaged: .*{reason}"):
        load_probe(file, IDS)


@pytest.mark.parametrize("metadata", [None, {"other": "1"}, {"backbone_ids": "["}])
def test_a_file_that_does_not_say_whose_it_is_is_damaged(file: Path, metadata: dict[str, str] | None) -> None:
    one = np.ones(1)
    save_file({"mean": one, "weights": one, "bias": one, "spread": one}, file, metadata)
    with pytest.raises(CheckpointError, match="damaged"):
        load_probe(file, IDS)


def test_arrays_that_lack_are_named(file: Path) -> None:
    save_file({"mean": np.ones(1)}, file, {"backbone_ids": "[]"})
    with pytest.raises(CheckpointError, match=r"damaged: .*weights"):
        load_probe(file, IDS)


def test_a_probe_of_other_backbones_is_refused(file: Path) -> None:
    with pytest.raises(CheckpointError, match=r"fitted on patches of .*second-b.* not of .*second-c.*train again"):
        load_probe(file, ("first-a", "second-c"))
