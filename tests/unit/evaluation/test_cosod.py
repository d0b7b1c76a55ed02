from __future__ import annotations

import numpy as np
import torch

from umscosod.evaluation import cosod


def test_thresholds_have_the_bits_of_linspace():
    wanted = torch.linspace(0, 1, 255).numpy()
    assert np.array_equal(cosod.make_thresholds(), wanted)
    plain = (np.arange(255) / 254).astype(np.float32)
    assert np.flatnonzero(plain != wanted).tolist() == [9, 13, 18, 26, 36, 52, 72, 104, 174, 238]


def test_raw_levels_have_the_bits_of_a_float32_division():
    wanted = (torch.arange(256, dtype=torch.uint8).float() / 255).numpy()
    assert np.array_equal(cosod.RAW_V, wanted)
