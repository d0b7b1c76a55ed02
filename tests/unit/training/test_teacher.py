"""The average of a network over its steps: what it holds, and that a killed run loses nothing of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from tests.unit.training.conftest import Collection
from umscosod.config import DecoderConfig, NetworkConfig, PipelineConfig
from umscosod.network.model import build_network
from umscosod.training.loop import Teacher, train_network

NETWORK = NetworkConfig(decoder=DecoderConfig(channels=8))


def test_the_average_starts_fast_and_ends_at_its_decay() -> None:
    student = build_network(NETWORK, 8, 8, 0)
    teacher = Teacher(student, 0.5)
    with torch.no_grad():
        for weights in student.parameters():
            weights.fill_(0.0)
        for weights in teacher.model.parameters():
            weights.fill_(1.0)
    teacher.follow(student, 1)  # keeps 2 / 11
    values = torch.cat([weights.flatten() for weights in teacher.model.parameters()])
    torch.testing.assert_close(values, torch.full_like(values, 2 / 11))
    teacher.follow(student, 1000)  # keeps 0.5
    values = torch.cat([weights.flatten() for weights in teacher.model.parameters()])
    torch.testing.assert_close(values, torch.full_like(values, 1 / 11))


def test_no_decay_is_no_copy() -> None:
    student = build_network(NETWORK, 8, 8, 0)
    teacher = Teacher(student, 0.0)
    before = [weights.clone() for weights in student.parameters()]
    teacher.follow(student, 1)
    assert teacher.model is student
    assert all(torch.equal(*pair) for pair in zip(before, student.parameters(), strict=True))


@pytest.mark.parametrize("step", [3, 7])
def test_a_killed_run_ends_with_the_same_teacher(
    collection: Collection, config: PipelineConfig, tmp_path: Path, step: int
) -> None:
    class Kill(BaseException):
        pass

    def kill(done: int, total: int, stage: str) -> None:
        if done == step:
            raise Kill

    averaged = dataclasses.replace(config, train=dataclasses.replace(config.train, ema_decay=0.8))
    whole = train_network(*collection, averaged, tmp_path / "whole")
    with pytest.raises(Kill):
        train_network(*collection, averaged, tmp_path / "cut", kill)
    resumed = train_network(*collection, averaged, tmp_path / "cut")
    names = (whole.checkpoint / "model.safetensors", resumed.checkpoint / "model.safetensors")
    assert names[0].read_bytes() == names[1].read_bytes()
    metrics = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "cut"))
    assert next(metrics) == next(metrics)
    plain = train_network(*collection, config, tmp_path / "plain")
    assert not torch.equal(next(whole.model.parameters()), next(plain.model.parameters()))
