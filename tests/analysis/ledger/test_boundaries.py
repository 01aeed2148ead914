import dataclasses

import numpy as np

from dppo_jax.analysis.ledger import boundaries
from tests.support import ledger_records as records

_MU = np.array([0.1, 0.4, 0.9])


def _loss(rule, divergence='binary_tv', anchor='rollout', **bounds):
  loss = records.rule().loss
  return dataclasses.replace(
    loss,
    rule=rule,
    divergence=divergence,
    anchor=anchor,
    bounds=dataclasses.replace(loss.bounds, **bounds),
  )


def _found(loss):
  return [pi for _, pi in boundaries.of_rule(loss, _MU)]


def test_a_clip_is_a_multiple_of_mu():
  above, below = _found(_loss('ratio_clip', clip_low=0.2, clip_high=0.28))
  np.testing.assert_allclose(above[:2], 1.28 * _MU[:2])
  assert np.isnan(above[2])  # No pi is above 1.
  np.testing.assert_allclose(below, 0.8 * _MU)


def test_tv_is_a_distance_from_mu():
  above, below = _found(_loss('divergence', delta_low=0.2, delta_high=0.3))
  np.testing.assert_allclose(above[:2], _MU[:2] + 0.3, atol=1e-6)
  assert np.isnan(above[2])
  assert np.isnan(below[0])
  np.testing.assert_allclose(below[1:], _MU[1:] - 0.2, atol=1e-6)


def test_kl_at_the_boundary_is_delta():
  loss = _loss('divergence', 'binary_kl', delta_low=0.05, delta_high=0.05)
  for pi in _found(loss):
    kl = _MU * np.log(_MU / pi) + (1 - _MU) * np.log((1 - _MU) / (1 - pi))
    np.testing.assert_allclose(kl[np.isfinite(pi)], 0.05, rtol=1e-3)


def test_what_the_plane_does_not_decide_is_not_drawn():
  bounds = {'delta_low': 0.2, 'delta_high': 0.2}
  assert not _found(_loss('none'))
  assert not _found(_loss('divergence', 'topk_tv', **bounds))
  assert not _found(_loss('divergence', anchor='recomputed', **bounds))
