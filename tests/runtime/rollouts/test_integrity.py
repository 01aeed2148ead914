"""A sampler that is not what it should be, in one way at a time."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.base import TokenStats
from dppo_jax.learner import state as state_lib
from dppo_jax.learner.batches import make_batch
from dppo_jax.runtime.reporting.recorder import Stopwatch
from dppo_jax.runtime.rollouts import integrity
from dppo_jax.runtime.rollouts.ahead import RolloutQueue
from tests.support import runs


@functools.cache
def _sampled():
  """(experiment, its queue after a step was sampled, state, rollout)."""
  settings = runs.smallest(
    sampling__integrity_every_n_steps=1,
    sampling__precision='bfloat16',
    sampling__num_slots=4,
  )
  experiment, parts = runs.experiment(settings), runs.parts(settings)
  queue = RolloutQueue(experiment, parts)
  with runs.quick_compilation():
    state = state_lib.init_state(
      parts.policy, parts.optimizer, parts.shardings, 0
    )
    # Far enough from the start that the law is not flat.
    state = dataclasses.replace(
      state, params=jax.tree.map(lambda x: 3.0 * x, state.params)
    )
    queue.begin(state, Stopwatch())
    rollout = queue.take(state).rollout
  return experiment, queue, state, rollout


def _check(weights=None, rollout=None, state=None):
  """Metrics of one rollout, in whose place others may be given."""
  _, queue, first, sampled = _sampled()
  state = first if state is None else state
  with runs.quick_compilation():
    queue.integrity.synced(state)
    queue.integrity.sampled(
      queue._weight_sync(state.params) if weights is None else weights,
      sampled if rollout is None else rollout,
    )
    return queue.integrity.settle()


def _weights():
  _, queue, state, _ = _sampled()
  return jax.tree.map(jnp.copy, queue._weight_sync(state.params))


def test_a_sampler_as_it_should_be():
  found = _check()
  for name in ('log_probs', 'top_log_probs', 'entropy'):
    assert 0 < found[f'integrity/{name}'] < 2e-2
  assert _check() == found  # The digest among it.
  assert not _sampled()[1].integrity.settle()  # Nothing was sampled since.


def test_a_permuted_copy_is_named():
  weights = _weights()
  weights['embedding'] = weights['embedding'][::-1]
  with pytest.raises(
    integrity.SamplerError, match=r'^step 0: .*: embedding is permuted\. Noth'
  ):
    _check(weights)


def test_swapped_weights_are_named():
  weights = _weights()
  mlp = weights['layers']['mlp']
  mlp['gate'], mlp['up'] = mlp['up'], mlp['gate']
  with pytest.raises(
    integrity.SamplerError,
    match=r'layers\.mlp\.gate\.kernel holds layers\.mlp\.up\.kernel; ',
  ):
    _check(weights)


def test_a_stale_copy_is_named():
  state = _sampled()[2]
  _check()
  later = dataclasses.replace(
    state,
    step=state.step + 1,
    params=jax.tree.map(lambda x: 1.1 * x, state.params),
  )
  with pytest.raises(
    integrity.SamplerError, match=r'^step 1: .* those of step 0: a stale copy'
  ):
    _check(_weights(), state=later)


@pytest.mark.parametrize('name', ['log_probs', 'top_log_probs', 'entropy'])
def test_a_record_that_is_not_of_the_law_is_named(name):
  """Dropped, as an array of zeros; the weights are right."""
  rollout = _sampled()[3]
  dropped = {name: jnp.zeros_like(getattr(rollout.stats, name))}
  stats = dataclasses.replace(rollout.stats, **dropped)
  with pytest.raises(
    integrity.SamplerError, match=f'explains 0.5: {name} by [1-9]'
  ):
    _check(rollout=dataclasses.replace(rollout, stats=stats))


@pytest.mark.parametrize(
  ('overrides', 'limit'),
  [
    (dict(), 1e-3),
    (dict(sampling__temperature=0.5), 2e-3),
    (dict(sampling__temperature=2.0), 1e-3),
    (dict(sampling__precision='int8'), 0.5),
    (dict(model__dtype='bfloat16', sampling__temperature=0.5), 1.0),
  ],
  ids=str,
)
def test_limits_follow_the_size_of_the_logits(overrides, limit):
  experiment = runs.experiment(runs.smallest(**overrides))
  assert integrity.limit_of(experiment) == pytest.approx(limit)


def test_rounding_at_a_single_token_is_no_fault():
  """As measured of SmolLM2-135M in bfloat16, at temperature 0.6."""
  mask = jnp.array([[True, False, False]])
  zero = jnp.zeros((1, 3))
  recorded = TokenStats(
    log_probs=zero.at[0, 0].set(-0.31),
    top_log_probs=zero[..., None].at[0].set(-0.24),
    entropy=zero.at[0, 0].set(0.07),
  )
  scored = TokenStats(
    log_probs=zero, top_log_probs=zero[..., None], entropy=zero
  )
  found = integrity._apart(recorded, scored, mask)
  assert float(found['log_probs']) == pytest.approx(0.31 / 4)
  experiment = runs.experiment(
    runs.smallest(model__dtype='bfloat16', sampling__temperature=0.6)
  )
  integrity.check_canary(0, found, integrity.limit_of(experiment))


def test_what_is_no_number_is_refused():
  with pytest.raises(integrity.SamplerError, match='log_probs by nan'):
    integrity.check_canary(3, {'log_probs': np.nan, 'entropy': 0.0}, 0.1)


def test_steps_between_are_not_checked():
  experiment, queue, state, rollout = _sampled()
  experiment = runs.changed(experiment, sampling__integrity_every_n_steps=2)
  parts = runs.parts()
  check = integrity.IntegrityCheck(experiment, parts, queue._weight_sync)
  check.synced(dataclasses.replace(state, step=state.step + 1))
  check.sampled(state.params, rollout)
  assert check.settle() == {}


def _batch(**changes):
  rollout = _sampled()[3]
  stats = dataclasses.replace(rollout.stats, **changes)
  return make_batch(
    dataclasses.replace(rollout, stats=stats),
    jnp.zeros(len(rollout.tokens)),
    group_size=2,
    estimator='group_mean',
    recomputed=None,
    reference=None,
  )


def test_fields_are_counted():
  experiment = _sampled()[0]
  found = integrity.count_fields(experiment, _batch())
  assert found == {
    'integrity/fields_used': 3,
    'integrity/fields_recorded': 4,
  }


def test_a_field_that_was_not_recorded_is_named():
  experiment = _sampled()[0]
  with pytest.raises(
    integrity.SamplerError, match='reads top_log_probs, and the sampler reco'
  ):
    integrity.count_fields(experiment, _batch(top_log_probs=None))


@pytest.mark.parametrize(
  ('overrides', 'more'),
  [
    (dict(trust_region__divergence='binary_tv'), ()),
    (dict(trust_region__divergence='topk_kl'), ('top_ids', 'top_log_probs')),
    (dict(trust_region__anchor='recomputed'), ('top_ids',)),
    (dict(trust_region__divergence='exact_kl'), ('hidden',)),
    (
      dict(
        trust_region__divergence='binary_tv',
        trust_region__rule='estr',
        sampling__support_top_k=4,
      ),
      ('entropy', 'support'),
    ),
    (
      dict(
        trust_region__divergence='binary_tv',
        model__num_experts=4,
        model__num_experts_per_tok=2,
        learner__router_replay=True,
      ),
      ('routes',),
    ),
  ],
  ids=str,
)
def test_what_a_loss_reads(overrides, more):
  experiment = runs.experiment(runs.smallest(**overrides))
  used = integrity.used_fields(experiment)
  assert used == {'log_probs', *more}
  fields = {field.name for field in dataclasses.fields(TokenStats)}
  assert used <= fields | {'routes'}
