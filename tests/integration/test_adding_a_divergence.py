"""A divergence of one's own: a function and its row, as the docs say.

Rows of each kind are added while the tests run, and every test that reads the
table takes them: there is no other place to edit.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.base import Batch, TokenStats
from dppo_jax.experiments.docs import tables
from dppo_jax.learner import standalone
from dppo_jax.ops import divergences
from dppo_jax.ops.divergences import DIVERGENCES, Divergence
from dppo_jax.ops.log_probs import log_complement
from tests.ops import test_divergences
from tests.support import runs


def _binary(tokens, anchor, current):
  """D = 1/2 ((sqrt mu - sqrt pi)^2 + (sqrt(1 - mu) - sqrt(1 - pi))^2)."""
  del tokens
  logs = anchor.log_probs, current.log_probs
  mu, pi = (jnp.exp(0.5 * log_p) for log_p in logs)
  not_mu, not_pi = (jnp.exp(0.5 * log_complement(log_p)) for log_p in logs)
  return 0.5 * ((mu - pi) ** 2 + (not_mu - not_pi) ** 2)


def _top_k(tokens, anchor, current):
  """D = 1/2 max |mu - pi| over the atoms of the anchor's top K."""
  mu, pi = (
    jnp.exp(divergences._atoms(tokens, stats)) for stats in (anchor, current)
  )
  return 0.5 * jnp.max(jnp.abs(mu - pi), axis=-1)


def _integrand(mu, pi, log_ratio):
  del pi
  return 0.5 * (jnp.sqrt(mu) * (1.0 - jnp.exp(-0.5 * log_ratio))) ** 2


def _exact(tokens, anchor, current):
  """D = 1/2 sum (sqrt mu - sqrt pi)^2 over the vocabulary."""
  del tokens
  return divergences._integral(_integrand, anchor, current)


_NEW = {
  'hellinger': Divergence(_binary, 'probability', 'nothing'),
  'largest': Divergence(_top_k, 'probability', 'top_k'),
  'exact_hellinger': Divergence(_exact, 'probability', 'hidden', _integrand),
}
_each = pytest.mark.parametrize('name', _NEW)


@pytest.fixture(autouse=True)
def _added(monkeypatch):
  for name, row in _NEW.items():
    monkeypatch.setitem(DIVERGENCES, name, row)


def _read_the_table():
  """Tests of tests/ops/test_divergences.py that run for every row."""
  return [
    test
    for test in vars(test_divergences).values()
    if any(
      mark.name == 'parametrize' and mark.args[1] is DIVERGENCES
      for mark in getattr(test, 'pytestmark', ())
    )
  ]


@pytest.mark.parametrize('name', ['largest', 'exact_hellinger'])
def test_the_property_tests_take_the_row(name):
  tests = _read_the_table()
  assert len(tests) == 7
  for test in tests:
    test(name=name)


@_each
def test_a_config_takes_it_and_is_checked_by_its_row(name):
  settings = {'trust_region__divergence': name}
  built = runs.experiment(runs.config(**settings))
  assert built.loss.divergence == name
  assert built.sampling.with_hidden == (name == 'exact_hellinger')
  with pytest.raises(ValueError, match=r'delta_low: .* is a probability'):
    runs.experiment(runs.config(trust_region__delta_low=1.1, **settings))
  bare = runs.config(sampling__top_k=0, **settings)
  if name == 'largest':
    with pytest.raises(ValueError, match="use 'binary_tv' or 'hellinger'"):
      runs.experiment(bare)
  else:
    runs.experiment(bare)


def test_the_loss_masks_by_it():
  """Two tokens of one law; only the second has moved."""
  mu, pi = np.log([0.5, 0.5]), np.log([0.9, 0.1])
  logits = jnp.asarray([[pi, mu, pi]], jnp.float32)
  zeros = jnp.zeros((1, 3), jnp.float32)
  batch = Batch(
    tokens=jnp.zeros((1, 3), jnp.int32),
    token_mask=jnp.ones((1, 3), bool),
    completion_mask=jnp.asarray([[False, True, True]]),
    advantages=zeros + 1.0,
    rollout=TokenStats(log_probs=zeros + np.float32(np.log(0.5))),
  )
  config = standalone.plain_config(
    'divergence', 'hellinger', delta_low=0.05, delta_high=0.05
  )
  loss = jax.jit(functools.partial(standalone.loss_from_logits, config))
  _, metrics = loss(logits, batch)
  by_hand = 1 - np.sqrt(0.5 * 0.9) - np.sqrt(0.5 * 0.1)
  assert float(metrics['trust_region/divergence_max']) == pytest.approx(
    by_hand, abs=1e-6
  )
  assert float(metrics['trust_region/fraction_masked']) == 0.5


def test_the_tables_name_it():
  text = tables.table('divergences')
  assert '| `largest` | D = 1/2 max \\|mu - pi\\| over the atoms' in text
