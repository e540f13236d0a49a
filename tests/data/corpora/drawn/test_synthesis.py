"""Sounds made by rule: finite, within full scale, varied, and the same from the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from mint.data.corpora.drawn.synthesis import synthesise


@pytest.mark.parametrize(("length", "rate"), [(15600, 16000), (4000, 8000), (48000, 48000)])
def test_sounds_can_be_heard(length: int, rate: int) -> None:
    for index in range(20):
        sound = synthesise(3, index, length, rate)
        assert sound.shape == (length,)
        assert sound.dtype == np.float32
        assert 0.02 < np.abs(sound).max() <= 1.0
        assert np.isfinite(sound).all()


def test_a_sound_follows_from_seed_and_index() -> None:
    first = synthesise(0, 7, 8000, 16000)
    assert (first == synthesise(0, 7, 8000, 16000)).all()
    assert not np.allclose(first, synthesise(0, 8, 8000, 16000))
    assert not np.allclose(first, synthesise(1, 7, 8000, 16000))
