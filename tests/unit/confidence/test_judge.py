from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.unit.confidence.toys import make_evidence
from umscosod.confidence.cues import GroupEvidence, Stream
from umscosod.confidence.judge import MIXED, UNLIKE, judge_evidence
from umscosod.config import ConfidenceConfig

CONFIG = ConfidenceConfig()
SAME, MIX = [0] * 10, list(range(10))


def permute(evidence: GroupEvidence, order: list[int]) -> GroupEvidence:
    streams = tuple(
        Stream(tokens_NPD=stream.tokens_NPD[order], share_NP=stream.share_NP[order]) for stream in evidence.streams
    )
    return replace(
        evidence,
        masks_NHW=evidence.masks_NHW[order],
        pictures_NHW3=evidence.pictures_NHW3[order],
        streams=streams,
        prototype_NF=evidence.prototype_NF[order],
    )


@pytest.mark.parametrize("is_whitened", [False, True])
def test_a_group_with_one_object_is_trusted(is_whitened: bool) -> None:
    judged = judge_evidence(make_evidence(SAME, is_whitened=is_whitened), CONFIG)
    assert not judged.is_mixed
    assert all(CONFIG.low < one.confidence <= 1.0 and not one.is_withdrawn for one in judged.masks)


def test_a_mixed_group_is_flagged_and_its_masks_keep_their_order() -> None:
    evidence = make_evidence(MIX)
    judged, ignored = judge_evidence(evidence, CONFIG), judge_evidence(evidence, replace(CONFIG, mixed="off"))
    assert judged.is_mixed
    assert not ignored.is_mixed
    for one, other in zip(judged.masks, ignored.masks, strict=True):
        assert one.confidence == other.confidence
        assert one.reason.startswith(MIXED)
        assert not one.is_withdrawn
    assert all(one.is_withdrawn for one in judge_evidence(evidence, replace(CONFIG, mixed="empty")).masks)


def test_a_foreign_image_is_doubted_alone() -> None:
    evidence = make_evidence([0, 0, 0, 0, 1, 0, 0, 0, 0, 0])
    judged = judge_evidence(evidence, replace(CONFIG, mixed="off"))
    assert [one.is_unlike for one in judged.masks] == [at == 4 for at in range(10)]
    assert judged.masks[4].confidence < CONFIG.low
    assert UNLIKE in judged.masks[4].reason
    emptied = judge_evidence(evidence, replace(CONFIG, mixed="off", absent="empty"))
    assert [one.is_withdrawn for one in emptied.masks] == [at == 4 for at in range(10)]


def test_order_does_not_matter() -> None:
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    evidence = make_evidence([0, 0, 0, 1, 0, 0, 2, 0, 0, 0])
    plain, turned = judge_evidence(evidence, CONFIG), judge_evidence(permute(evidence, order), CONFIG)
    assert turned.is_mixed == plain.is_mixed
    for at, index in enumerate(order):
        assert turned.masks[at].confidence == pytest.approx(plain.masks[index].confidence, abs=1e-9)
        assert turned.masks[at].reason == plain.masks[index].reason


def test_one_image_and_two_and_no_tokens() -> None:
    alone = judge_evidence(make_evidence([0]), CONFIG)
    assert (alone.is_mixed, alone.cues) == (False, {})
    assert 0.0 < alone.masks[0].confidence <= 1.0
    assert "agreement" not in alone.masks[0].cues
    assert len(judge_evidence(make_evidence([0, 0]), CONFIG).masks) == 2
    blind = judge_evidence(replace(make_evidence(SAME), streams=()), CONFIG)
    assert not blind.is_mixed
    assert all(0.0 < one.confidence <= 1.0 for one in blind.masks)


@pytest.mark.parametrize("fill", [False, True])
def test_an_empty_or_full_mask_has_no_confidence_and_takes_no_part(fill: bool) -> None:
    evidence = make_evidence(SAME)
    masks = evidence.masks_NHW.copy()
    masks[3] = fill
    streams = tuple(
        replace(stream, share_NP=np.where(np.arange(10)[:, None] == 3, float(fill), stream.share_NP))
        for stream in evidence.streams
    )
    judged = judge_evidence(replace(evidence, masks_NHW=masks, streams=streams), CONFIG)
    assert judged.masks[3].confidence == 0.0
    assert all(one.confidence > CONFIG.low for at, one in enumerate(judged.masks) if at != 3)
    assert np.isfinite(list(judged.cues.values())).all()


def test_reasons_are_told_where_confidence_is_low_only() -> None:
    evidence = make_evidence(SAME)
    masks = evidence.masks_NHW.copy()
    masks[0] = False
    masks[0, 40:] = True  # a band like a background, which the picture does not show
    judged = judge_evidence(replace(evidence, masks_NHW=masks), CONFIG)
    assert judged.masks[0].confidence < min(one.confidence for one in judged.masks[1:])
    for one in judged.masks:
        assert bool(one.reason) == (one.confidence < CONFIG.low or one.is_unlike)
