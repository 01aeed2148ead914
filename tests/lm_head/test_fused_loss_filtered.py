"""The pass over the vocabulary where a sampler cut it to a support."""

import numpy as np
import pytest

from dppo_jax import parallel
from dppo_jax.ops import divergences
from tests.support import head_cases
from tests.support.head_cases import directed, loss_config

# Of whom the drift is measured as well: not of the recomputed anchor.
_DRIFTING = ('topk_tv', 'exact_tv')
_FILTERED = [
  *(
    dict(
      divergence=name, anchor='rollout' if name in _DRIFTING else 'recomputed'
    )
    for name in divergences.DIVERGENCES
  ),
  dict(entropy_coefficient=0.05, rule='cppo', kl_coefficient=0.3),
  dict(importance='sequence', rule='gspo', divergence='topk_kl'),
  dict(divergence='topk_kl', bounds=directed('predictive')),
  dict(divergence='exact_tv', bounds=directed('predictive')),
  dict(centering='topk', ratio_cap=1.05, top_k_set='replace_kth'),
  dict(centering='exact', ratio_cap=1.05, entropy_coefficient=0.05),
]
_SHARDED = [
  (_FILTERED[0], (1, 1, 8)),
  (_FILTERED[3], (1, 1, 8)),
  (_FILTERED[6], (1, 2, 4)),
  (_FILTERED[-1], (1, 2, 4)),
]
_UNLIKELY = loss_config(entropy_coefficient=0.05, centering='topk')


@pytest.fixture(scope='module')
def filtered():
  return head_cases.filtered()


@pytest.fixture(scope='module')
def shared(filtered):
  configs = [loss_config(**overrides) for overrides in _FILTERED]
  return head_cases.SharedPrograms([*configs, _UNLIKELY], filtered)


@pytest.mark.parametrize('overrides', _FILTERED, ids=str)
def test_a_filtered_law_is_that_of_the_masked_logits(shared, overrides):
  config = loss_config(**overrides)
  got = shared.one_pass(config)
  assert float(got[0][1].divergence.max()) > 0
  shared.check(config, got)


@pytest.fixture(scope='module')
def sharded(filtered):
  configs = [loss_config(**overrides) for overrides, _ in _SHARDED]
  return head_cases.SharedPrograms(configs, filtered)


@pytest.mark.parametrize(('overrides', 'shape'), _SHARDED, ids=str)
def test_eight_devices_filter_the_same(shared, sharded, overrides, shape):
  """Many a device holds no token of a support."""
  config = loss_config(**overrides)
  mesh = parallel.make_mesh(*shape)
  shared.check(config, sharded.one_pass(config, 3, mesh))


def test_what_could_not_be_sampled_has_no_gradient(filtered, shared):
  (_, decisions), (d_head, _) = shared.one_pass(_UNLIKELY, 1000)
  mask, support = (
    np.asarray(x) for x in (filtered[2].mask, filtered[2].anchor.support)
  )
  seen = np.unique(support[mask])
  untouched = np.setdiff1d(np.arange(head_cases.SIZE), seen)
  assert untouched.size
  assert (np.asarray(d_head)[untouched] == 0).all()
  certain = mask & ((support >= 0).sum(-1) == 1)
  assert certain.any()
  assert (np.asarray(decisions.log_probs)[certain] == 0).all()
