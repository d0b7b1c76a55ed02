"""The loop: it learns, it is reproducible to the bit, and a killed run ends as if it had not been killed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.training.conftest import Collection, build_collection
from umscosod.config import DecoderConfig, FramConfig, NetworkConfig, PipelineConfig, TrainConfig
from umscosod.config.io import change_config
from umscosod.config.schema import settings
from umscosod.errors import Cancelled, CheckpointError, DataError, UmscosodError
from umscosod.network.model import predict_maps
from umscosod.training.checkpoint import load_network
from umscosod.training.loop import TrainedNetwork, train_network
from umscosod.types import GroupFeatures


class _Kill(BaseException):
    """Stands for a process that dies: nothing in the library may catch it."""


def _stop_at(step: int, error: type[BaseException]):  # type: ignore[no-untyped-def]
    def progress(done: int, total: int, stage: str) -> None:
        if done == step:
            raise error(f"at step {done} of {total} ({stage})")

    return progress


def _assert_same(one: TrainedNetwork, two: TrainedNetwork, first_dir: Path, second_dir: Path) -> None:
    assert one.meta == two.meta
    states = one.model.state_dict(), two.model.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert (first_dir / "metrics.jsonl").read_bytes() == (second_dir / "metrics.jsonl").read_bytes()
    names = (one.checkpoint / "model.safetensors", two.checkpoint / "model.safetensors")
    assert names[0].read_bytes() == names[1].read_bytes()


def test_two_runs_give_equal_bits(collection: Collection, config: PipelineConfig, tmp_path: Path) -> None:
    one = train_network(*collection, config, tmp_path / "a")
    torch.manual_seed(99)
    two = train_network(*collection, config, tmp_path / "b")
    _assert_same(one, two, tmp_path / "a", tmp_path / "b")
    other = train_network(*collection, dataclasses.replace(config, seed=6), tmp_path / "c")
    assert not torch.equal(next(one.model.parameters()), next(other.model.parameters()))


@pytest.mark.parametrize("error", [_Kill, Cancelled])
@pytest.mark.parametrize("step", [1, 4, 6, 11])
def test_resume_is_bit_equal(
    collection: Collection, config: PipelineConfig, tmp_path: Path, step: int, error: type[BaseException]
) -> None:
    whole = train_network(*collection, config, tmp_path / "whole")
    with pytest.raises(error):
        train_network(*collection, config, tmp_path / "cut", _stop_at(step, error))
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as log:
        log.write('{"step": 99, "lo')  # a row torn by the kill
    resumed = train_network(*collection, config, tmp_path / "cut")
    assert resumed.resumed_step == (step if error is Cancelled else step - step % 3)
    _assert_same(whole, resumed, tmp_path / "whole", tmp_path / "cut")


def test_a_finished_run_is_not_trained_again(collection: Collection, config: PipelineConfig, tmp_path: Path) -> None:
    one = train_network(*collection, config, tmp_path)
    calls: list[int] = []
    two = train_network(*collection, config, tmp_path, lambda done, total, stage: calls.append(done))
    assert calls == []
    assert two.resumed_step == 12
    _assert_same(one, two, tmp_path, tmp_path)
    longer = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=5))
    assert train_network(*collection, longer, tmp_path).meta.step == 15


def test_another_run_is_not_resumed(collection: Collection, config: PipelineConfig, tmp_path: Path) -> None:
    train_network(*collection, config, tmp_path)
    faster = dataclasses.replace(config, train=dataclasses.replace(config.train, learning_rate=0.5))
    with pytest.raises(CheckpointError, match=r"train\.learning_rate: 0\.003 then, 0\.5 now"):
        train_network(*collection, faster, tmp_path)
    fewer = {name: label for name, label in collection.labels.items() if name != "group0/0.png"}
    with pytest.raises(CheckpointError, match="images and pseudo-labels"):
        train_network(collection.features, fewer, config, tmp_path)


def test_two_images_are_learned_by_heart(tmp_path: Path) -> None:
    features, labels = build_collection((2,))
    config = PipelineConfig(
        device="cpu",
        network=NetworkConfig(decoder=DecoderConfig(channels=8)),
        train=TrainConfig(epochs=120, learning_rate=1e-2, checkpoint_every=120),
    )
    result = train_network(features, labels, config, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 121))
    assert rows[-1]["loss"] < 0.3 * rows[0]["loss"]
    assert rows[-1]["loss"] == pytest.approx(rows[-1]["bce"] + rows[-1]["iou"], abs=1e-6)
    model, _ = load_network(tmp_path, (features[0].first.backbone_id, features[0].second.backbone_id))
    maps = predict_maps(model, features[0], torch.device("cpu"))
    np.testing.assert_array_equal(maps, predict_maps(result.model, features[0], torch.device("cpu")))
    for index, image in enumerate(features[0].group.images):
        mask = np.kron(labels[image.id].mask_hw, np.ones((4, 4), dtype=bool))
        found = maps[index] >= 0.5
        assert (found & mask).sum() / (found | mask).sum() > 0.8


def test_training_on_the_cpu_touches_nothing_of_the_process(
    collection: Collection, config: PipelineConfig, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    seen: list[tuple[bool, bool, bytes]] = []

    def look() -> tuple[bool, bool, bytes]:
        fill = torch.utils.deterministic.fill_uninitialized_memory
        return torch.are_deterministic_algorithms_enabled(), fill, torch.get_rng_state().numpy().tobytes()

    before = look()
    train_network(*collection, config, tmp_path, lambda done, total, stage: seen.append(look()))
    assert len(seen) == 12
    assert {*seen, look()} == {before}
    assert not before[0]


def test_no_operation_of_a_step_needs_a_deterministic_form_of_its_own(
    collection: Collection, config: PipelineConfig, tmp_path: Path
) -> None:
    network = NetworkConfig(decoder=DecoderConfig(channels=8, picture=True))
    config = dataclasses.replace(config, network=network)
    free = train_network(*collection, config, tmp_path / "free")
    torch.use_deterministic_algorithms(True)  # an operation without such a form now raises
    try:
        strict = train_network(*collection, config, tmp_path / "strict")
    finally:
        torch.use_deterministic_algorithms(False)
    _assert_same(free, strict, tmp_path / "free", tmp_path / "strict")


class _Lazy(Sequence[GroupFeatures]):  # type: ignore[misc]
    """Loads a group when asked and counts how often."""

    def __init__(self, features: list[GroupFeatures]) -> None:
        self.features = features
        self.loads = 0

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> GroupFeatures:  # type: ignore[override]
        self.loads += 1
        return self.features[index]

    def __iter__(self) -> Iterator[GroupFeatures]:
        return (self[index] for index in range(len(self)))


def test_lazy_features_are_loaded_once_a_step(collection: Collection, config: PipelineConfig, tmp_path: Path) -> None:
    lazy = _Lazy(collection.features)
    groups = [one.group for one in collection.features]
    train_network(lazy, collection.labels, config, tmp_path, groups=groups)
    assert lazy.loads == 12 + 1
    with pytest.raises(DataError, match="other images"):
        train_network(lazy, collection.labels, config, tmp_path / "b", groups=groups[::-1])


def test_a_loss_that_is_no_number_says_what_to_do(
    collection: Collection, config: PipelineConfig, tmp_path: Path
) -> None:
    network = dataclasses.replace(config.network, fram=FramConfig(amp_norm="none"))
    broken = dataclasses.replace(
        config, network=network, train=dataclasses.replace(config.train, learning_rate=1e30, epochs=10)
    )
    with pytest.raises(UmscosodError, match=r"the loss became .*amp_norm=row"):
        train_network(*collection, broken, tmp_path)


def test_the_picture_reaches_the_network(collection: Collection, config: PipelineConfig, tmp_path: Path) -> None:
    network = NetworkConfig(decoder=DecoderConfig(channels=4, picture=True))
    result = train_network(*collection, dataclasses.replace(config, network=network), tmp_path)
    assert result.model.decoder.stages[0][0].weight.shape[1] == 7


def _foreign_states(state: dict[str, Any]) -> dict[str, Any]:
    """What is wrong, and a state of which only that is."""
    moments = state["optimizer"]["state"]
    first = next(iter(moments))
    optimizer = state["optimizer"]

    def with_moment(**changes: Any) -> dict[str, Any]:
        return state | {"optimizer": optimizer | {"state": moments | {first: moments[first] | changes}}}

    return {
        "optimizer is missing": {name: value for name, value in state.items() if name != "optimizer"},
        "step is 99, meta.json says 3": state | {"step": 99},
        "step is '3', meta.json says 3": state | {"step": "3"},
        "torch.float64, expected (": with_moment(exp_avg=moments[first]["exp_avg"].double()),
        "optimizer has no state": state | {"optimizer": []},
        "optimizer: there is no parameter 999": state | {"optimizer": {"state": moments | {999: {}}}},
        "optimizer: there is no parameter 'a'": state | {"optimizer": {"state": {"a": {}}}},
        "expected ['exp_avg', 'exp_avg_sq', 'step']": state | {"optimizer": {"state": {first: {}}}},
        "exp_avg is (1, 1) torch.float32, expected (": with_moment(exp_avg=torch.zeros(1, 1)),
        "exp_avg_sq is 'x', expected (": with_moment(exp_avg_sq="x"),
        "exp_avg holds NaN or infinity": with_moment(exp_avg=moments[first]["exp_avg"] * float("nan")),
        "network is missing": {name: value for name, value in state.items() if name != "network"},
        "network holds []": state | {"network": {}},
        "network holds 5": state | {"network": 5},
    }


def test_a_foreign_state_is_refused_with_what_is_wrong(
    collection: Collection, config: PipelineConfig, tmp_path: Path
) -> None:
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=1, ema_decay=0.5))
    checkpoint = train_network(*collection, config, tmp_path).checkpoint
    longer = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=2))
    state = torch.load(checkpoint / "state.pt", weights_only=True)
    for wrong, content in _foreign_states(state).items():
        torch.save(content, checkpoint / "state.pt")
        with pytest.raises(CheckpointError) as caught:
            train_network(*collection, longer, tmp_path)
        message = str(caught.value)
        assert wrong in message
        assert "\n" not in message
        assert f"{checkpoint / 'state.pt'} is not the state of this training" in message
    torch.save(state, checkpoint / "state.pt")
    assert train_network(*collection, longer, tmp_path).resumed_step == 3


def test_the_step_size_of_a_state_is_not_taken_for_the_settings(
    collection: Collection, config: PipelineConfig, tmp_path: Path
) -> None:
    whole = train_network(*collection, config, tmp_path / "whole")
    with pytest.raises(_Kill):
        train_network(*collection, config, tmp_path / "cut", _stop_at(6, _Kill))
    for file in (tmp_path / "cut" / "checkpoints").glob("*/state.pt"):
        state = torch.load(file, weights_only=True)
        state["optimizer"]["param_groups"][0]["lr"] = "fast"
        torch.save(state, file)
    resumed = train_network(*collection, config, tmp_path / "cut")
    _assert_same(whole, resumed, tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize(
    "name",
    ["learning_rate", "label_smoothing", "ema_decay"],
)
def test_both_bounds_of_a_training_setting_give_finite_weights(
    collection: Collection, config: PipelineConfig, tmp_path: Path, name: str
) -> None:
    for number, (_, limit) in enumerate(settings()[f"train.{name}"].limits):
        changed = change_config(config, {"train.epochs": 1, f"train.{name}": limit})
        trained = train_network(*collection, changed, tmp_path / str(number))
        assert all(torch.isfinite(parameter).all() for parameter in trained.model.parameters())
