"""Choice of the device: what exists is taken, what does not is refused with a cure."""

from __future__ import annotations

import contextlib
import logging
import threading
import time

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from umscosod.device import (
    autocast,
    choose_precision,
    deterministic_kernels,
    map_in_threads,
    map_on_cores,
    one_blas_thread,
    resolve_device,
)
from umscosod.errors import ConfigError


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    def set_up(cuda: int = 0, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return set_up


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(1, True, "cuda"), (1, False, "cuda"), (0, True, "mps"), (0, False, "cpu")]
)
def test_auto_takes_the_fastest_there_is_and_says_so(
    machine, caplog: pytest.LogCaptureFixture, cuda: int, mps: bool, expected: str
) -> None:
    machine(cuda, mps)
    with caplog.at_level(logging.INFO):
        assert resolve_device("auto").type == expected
        assert resolve_device() == resolve_device("auto")
    assert f"device auto: {expected}" in caplog.text


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:0", "cuda:1", "mps"])
def test_a_device_that_exists_is_taken(machine, name: str) -> None:
    machine(2, True)
    assert str(resolve_device(name)) == name


@pytest.mark.parametrize("name", ["cuda:2", "cuda:7"])
def test_a_cuda_number_beyond_the_last_is_refused(machine, name: str) -> None:
    machine(2)
    with pytest.raises(ConfigError, match=f"'{name}' is not available on this machine; use --device auto or cpu"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "meta"])
def test_a_device_that_is_not_here_is_refused(machine, name: str) -> None:
    machine()
    with pytest.raises(ConfigError, match=f"'{name}' is not available on this machine"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["", "gpu", "cuda:", "cuda:-1", "cuda:x", " cpu", "CPU", "cuda:128", "cuda:256"])
def test_a_name_that_is_none_is_unknown(machine, name: str) -> None:
    machine(2)  # cuda:256 must not pass for cuda:0
    with pytest.raises(ConfigError, match=f"device '{name}' is unknown; use auto, cpu"):
        resolve_device(name)


def test_autocast_is_off_on_the_cpu() -> None:
    with autocast(torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    assert isinstance(autocast(torch.device("mps")), contextlib.nullcontext)


@pytest.mark.parametrize("is_supported", [True, False])
def test_autocast_on_cuda_is_bfloat16_where_supported(monkeypatch: pytest.MonkeyPatch, is_supported: bool) -> None:
    asked = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: is_supported)
    monkeypatch.setattr(torch, "autocast", lambda *args, **options: asked.append((args, options)))
    context = autocast(torch.device("cuda"))
    assert isinstance(context, contextlib.nullcontext) != is_supported
    assert asked == ([(("cuda",), {"dtype": torch.bfloat16})] if is_supported else [])


@pytest.mark.parametrize(
    ("found", "precision"),
    [({"amx_bf16": True}, "bfloat16"), ({"avx512_bf16": True}, "bfloat16"), ({"avx512_f": True}, "float32")],
)
def test_a_vit_computes_in_bfloat16_where_a_cpu_has_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, bool], precision: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    cpu = torch.device("cpu")
    assert choose_precision("auto", cpu) == precision
    assert choose_precision("float32", cpu) == "float32"
    assert choose_precision("auto", torch.device("mps")) == "float32"
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # an older torch does not tell
    assert choose_precision("auto", cpu) == "float32"


@pytest.mark.parametrize(("is_supported", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_a_vit_computes_in_bfloat16_on_cuda_that_has_it(
    monkeypatch: pytest.MonkeyPatch, is_supported: bool, precision: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: is_supported)
    assert choose_precision("auto", torch.device("cuda")) == precision
    assert choose_precision("float32", torch.device("cuda")) == "float32"


@pytest.mark.parametrize("threads", [1, 3])
def test_items_are_mapped_in_order_by_threads_that_share_the_cores(threads: int) -> None:
    others: list[int] = []

    def work(item: int) -> tuple[int, int]:
        time.sleep(0.01 * (item % 3))
        stranger = threading.Thread(target=lambda: others.append(torch.get_num_threads()))
        stranger.start()
        stranger.join()
        return item, torch.get_num_threads()

    before = torch.get_num_threads()
    torch.set_num_threads(6)
    try:
        found = list(map_in_threads(work, iter(range(10)), threads))
        assert torch.get_num_threads() == 6
    finally:
        torch.set_num_threads(before)
    assert [item for item, _ in found] == list(range(10))
    assert [count for _, count in found] == [6 // threads] * 10
    assert others == [6] * 10  # threads of another job


def test_an_error_in_a_thread_ends_the_others_work() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 2:
            raise ValueError("item 2")
        time.sleep(0.01)
        return item

    with pytest.raises(ValueError, match="item 2"):
        list(map_in_threads(work, range(1000), 2))
    assert len(begun) < 10
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("umscosod-map")]


@pytest.mark.parametrize(
    ("told", "expected"), [("", 3), ("2,1", 2), (" 1", 1), ("0", 1), ("2", 2), ("9", 3), ("all", 3)]
)
def test_one_item_a_core_is_worked_on_with_one_thread_of_blas(
    monkeypatch: pytest.MonkeyPatch, told: str, expected: int
) -> None:
    monkeypatch.setattr("umscosod.device.count_cores", lambda: 3)
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    lock, at_once, most = threading.Lock(), 0, 0

    def work(item: int) -> tuple[int, set[int]]:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.02)
        with lock:
            at_once -= 1
        return item, {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}

    assert list(map_on_cores(work, iter(range(8)))) == [(item, {1}) for item in range(8)]
    assert most == expected
    assert list(map_on_cores(lambda _: len(threading.enumerate()), range(3), 1)) == [threading.active_count()] * 3
    with pytest.raises(ZeroDivisionError):
        list(map_on_cores(lambda item: 1 // item, (1, 0, 1)))
    begun = map_on_cores(lambda item: item, range(9))
    assert next(begun) == 0
    begun.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("umscosod-cores")]


def _kernels() -> tuple[bool, bool, bool]:
    fill = torch.utils.deterministic.fill_uninitialized_memory
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled(), fill


def test_overlapping_blocks_use_deterministic_kernels_to_the_end_of_the_last() -> None:
    before, cuda = _kernels(), torch.device("cuda")
    first, second = deterministic_kernels(cuda), deterministic_kernels(cuda)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert _kernels() == (True, True, False)
    second.__exit__(None, None, None)
    assert _kernels() == before == (False, False, True)


def test_a_setting_that_is_on_already_and_the_cpu_are_left_alone() -> None:
    with deterministic_kernels(torch.device("cpu")):
        assert not _kernels()[0]
    torch.use_deterministic_algorithms(True)
    try:
        with deterministic_kernels(torch.device("cuda")):
            assert _kernels() == (True, False, True)
        assert _kernels() == (True, False, True)
    finally:
        torch.use_deterministic_algorithms(False)


def test_one_blas_thread_holds_until_the_last_block_has_ended() -> None:
    def threads() -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    with threadpool_limits(2, user_api="blas"):
        before = threads()
        first, second = one_blas_thread(), one_blas_thread()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert threads() == {1}
        second.__exit__(None, None, None)
        assert threads() == before
