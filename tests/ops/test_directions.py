import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.base import Signals
from dppo_jax.ops import directions
from tests.support import factories


def _signals(**fields):
  def row(values):
    return np.asarray(values, np.float32)[None]

  zeros = np.zeros(9)
  plain = dict(
    advantages=[1, 1, 1, -1, -1, -1, 0, 0, 0],
    log_probs=[-1, -3, -2, -1, -3, -2, -1, -3, -2],
    anchor_log_probs=[-2] * 9,
    divergence=zeros,
  )
  arrays = {name: row(values) for name, values in {**plain, **fields}.items()}
  return Signals(mask=np.ones((1, 9), bool), **arrays)


def test_moves_away():
  got = directions.moves_away(_signals())
  assert got.dtype == bool
  np.testing.assert_array_equal(got[0], [1, 0, 0, 0, 1, 0, 0, 0, 0])


def test_the_rate_decides_what_raises_the_divergence():
  signals = _signals(rate=[-1, 2, 0, -1, 2, 0, -1, 2, 0])
  bounds = factories.bounds()
  bounds = dataclasses.replace(bounds, direction='predictive')
  got = directions.applies_to(signals, bounds)
  np.testing.assert_array_equal(got[0], [0, 1, 0, 1, 0, 0, 0, 0, 0])
  bounds = dataclasses.replace(bounds, advantage_sign='negative')
  got = directions.applies_to(signals, bounds)
  np.testing.assert_array_equal(got[0], [0, 0, 0, 1, 0, 0, 0, 0, 0])


def test_without_a_rate_nothing_is_predicted():
  bounds = dataclasses.replace(factories.bounds(), direction='predictive')
  with pytest.raises(ValueError, match='needs the rate of the divergence'):
    directions.applies_to(_signals(), bounds)


def test_unlikely_tokens_are_exempt():
  bounds = dataclasses.replace(
    factories.bounds(), direction='any', alpha_high=0.2
  )
  got = directions.applies_to(_signals(), bounds)
  likely = jnp.exp(-2.0) >= 0.2
  assert not likely
  np.testing.assert_array_equal(got[0], [0, 0, 0, 1, 1, 1, 1, 1, 1])
