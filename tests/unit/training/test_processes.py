"""Processes that share a training: what each takes, and what they refuse. They run in tests/integration."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.unit.training.conftest import Collection
from umscosod.config import PipelineConfig
from umscosod.config.io import change_config
from umscosod.errors import ConfigError
from umscosod.training.checkpoint import load_state
from umscosod.training.loop import train_network
from umscosod.training.processes import ALONE, Processes, join_processes

PAIR = tuple(Processes(rank=rank, size=2) for rank in range(2))


def test_a_step_is_one_group_a_process_unless_more_are_asked_for() -> None:
    config = PipelineConfig()
    assert ALONE.settle(config).train.groups_per_step == 1
    assert [one.settle(config).train.groups_per_step for one in PAIR] == [2, 2]
    four = change_config(config, {"train.groups_per_step": 4})
    assert [one.settle(four) for one in (ALONE, *PAIR)] == [four, four, four]
    assert Processes(size=2, device="cuda:1").settle(config).device == "cuda:1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.groups_per_step": 1}, r"groups_per_step is 1, which 2 processes cannot .* a multiple of 2"),
        ({"train.groups_per_step": 5}, r"groups_per_step is 5, which 2 processes cannot"),
        ({"features.use_cache": False}, r"features\.use_cache is off, but 2 processes"),
    ],
)
def test_settings_that_several_processes_cannot_have_are_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PAIR[0].settle(change_config(PipelineConfig(), changes))


def test_every_group_of_a_step_has_one_process_and_the_first_always_has_one() -> None:
    for count in range(1, 6):
        shares = [one.share(tuple(range(count))) for one in PAIR]
        assert sorted(shares[0] + shares[1]) == list(range(count))
        assert 0 in shares[0]


def test_without_a_launcher_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_processes("auto") as processes:
        assert processes is ALONE
    monkeypatch.setenv("WORLD_SIZE", "1")  # torchrun --nproc-per-node 1
    with join_processes("auto") as processes:
        assert processes is ALONE


@pytest.mark.parametrize(
    ("device", "changes", "message"),
    [
        ("cuda:0", {}, "device 'cuda:0' cannot be shared by 2 processes; use --device auto, cuda or cpu"),
        ("mps", {}, "device 'mps' cannot be shared"),
        ("cuda", {"LOCAL_RANK": "1"}, "device 'cuda:1' is not available"),
        ("cpu", {}, r"WORLD_SIZE is 2, but the processes cannot be joined \(.*MASTER_ADDR.* torchrun"),
        ("cpu", {"RANK": ""}, r"RANK is '' and WORLD_SIZE '2'"),
        ("cpu", {"RANK": "2"}, r"RANK is '2' and WORLD_SIZE '2'"),
        ("cpu", {"WORLD_SIZE": "two"}, "WORLD_SIZE 'two'"),
    ],
)
def test_an_environment_or_a_device_that_fits_no_several_is_refused(
    monkeypatch: pytest.MonkeyPatch, device: str, changes: dict[str, str], message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    for name, text in {"RANK": "0", "WORLD_SIZE": "2", **changes}.items():
        monkeypatch.setenv(name, text)
    with pytest.raises(ConfigError, match=message), join_processes(device):
        pass


def test_the_gradient_of_a_step_is_the_mean_of_its_groups(
    collection: Collection, config: PipelineConfig, tmp_path: Path
) -> None:
    """After one step Adam's first moment is a tenth of the gradient."""

    def gradients(number: int, **changes: int) -> dict[int, torch.Tensor]:
        changed = change_config(config, {f"train.{name}": value for name, value in changes.items()})
        kept = [collection.features[number]] if number >= 0 else collection.features
        trained = train_network(kept, collection.labels, changed, tmp_path / f"{number}")
        assert trained.meta.step == 1
        moments = load_state(trained.checkpoint)["optimizer"]["state"]
        return {index: one["exp_avg"] * 10 for index, one in moments.items()}

    # all images of a group, so that its place in the order draws none
    single = [gradients(number, epochs=1, batch_images=5) for number in range(3)]
    for index, together in gradients(-1, epochs=1, batch_images=5, groups_per_step=3).items():
        mean = (single[0][index] + single[1][index] + single[2][index]) / 3
        torch.testing.assert_close(together, mean, rtol=0, atol=1e-5)
