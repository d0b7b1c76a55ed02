"""CFMM and FRAM beside their plain forms: memory, time, equal results.

Run ``python -m benchmarks.network``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.reference import network as plain
from benchmarks.rows import Given, Row, in_fresh_process, peak_bytes, show, times_in_turn
from umscosod.network import cfmm, fram

IMAGES, PATCHES, WIDTH = 24, 784, 384


def tokens(count: int) -> Tensor:
    """Random tokens of a group, seeded."""
    return torch.randn(count, PATCHES, WIDTH, generator=torch.Generator().manual_seed(0))


def ours(tokens_NPC: Tensor) -> Tensor:
    """Importance as the network computes it at the start: queries and keys are one object."""
    return cfmm.compute_importance(tokens_NPC, tokens_NPC, cfmm.BLOCK_IMAGES)


def dense(tokens_NPC: Tensor) -> Tensor:
    """The same from the whole affinity."""
    return plain.compute_importance(tokens_NPC, tokens_NPC)


def extra_bytes(work: Callable[[Tensor], Tensor], count: int) -> int:
    """Peak of memory above what the process holds before: warm, and with its input."""
    work(tokens(2))
    given = tokens(count)
    before = peak_bytes()
    work(given)
    return peak_bytes() - before


def rows(given: Given) -> Iterator[Row]:
    """Measure."""
    count = 8 if given.is_quick else IMAGES
    size = f"{count} x {PATCHES} tokens"
    is_whole = count == IMAGES
    used = {work: in_fresh_process(extra_bytes, work, count) for work in (ours, dense)}
    yield Row(
        name=f"CFMM: peak extra memory at {size}, of the dense form's",
        target=1 / 50 if is_whole else None,
        better="lower",
        figure=used[ours] / used[dense],
        detail=f"{used[ours] / 1e6:.0f} of {used[dense] / 1e6:,.0f} MB",
    )
    group = tokens(count)
    apart = float((ours(group) - dense(group)).abs().max() / dense(group).abs().max())
    assert apart < 1e-5, f"CFMM differs from its dense form by {apart:.1e}"
    seconds = times_in_turn(
        {"ours": partial(ours, group), "dense": partial(dense, group)}, rounds=1 if given.is_quick else 5
    )
    yield Row(
        name=f"CFMM: time at {size}, of the dense form's",
        target=0.85 if is_whole else None,
        better="lower",
        figure=seconds["ours"].wall / seconds["dense"].wall,
        detail=f"largest difference {apart:.0e} of the largest value",
    )
    yield time_ranks(rounds=3 if given.is_quick else 20)


def time_ranks(rounds: int) -> Row:
    """FRAM's ranks of one image, which are equal to the bit."""
    scores_QR = torch.randn(PATCHES, PATCHES, generator=torch.Generator().manual_seed(1))
    ways = {
        name: partial(compute, scores_QR, fram.ALPHA)
        for name, compute in (("ours", fram.compute_log_amplification), ("sorts", plain.compute_log_amplification))
    }
    torch.testing.assert_close(*(way() for way in ways.values()), rtol=0, atol=1e-5)
    seconds = times_in_turn(ways, rounds)
    return Row(
        name=f"FRAM: ranks of {PATCHES} x {PATCHES}: two sorts, ours",
        target=3,
        figure=seconds["sorts"].processor / seconds["ours"].processor,
    )


if __name__ == "__main__":
    from pathlib import Path

    show(rows(Given(images=Path())))
