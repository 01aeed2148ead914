"""Names of results, and the numerics of the authors' code by hand."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.conformance import authors
from dppo_jax.ops.trust_regions import TRUST_REGIONS

_GOLDEN = pathlib.Path(__file__).parents[1] / 'testdata' / 'golden'


def test_every_name_in_the_files_is_known():
  for path in _GOLDEN.glob('*.npz'):
    with np.load(path, allow_pickle=False) as archive:
      for key in archive.files:
        assert ('/' not in key) == (authors.parse(key) is None), key


def test_every_mode_is_in_the_files():
  with np.load(_GOLDEN / 'small_11.npz', allow_pickle=False) as archive:
    found = {authors.parse(key) for key in archive.files} - {None}
  assert {(r.implementation, r.mode) for r in found} == {
    (implementation, mode)
    for implementation, rows in authors.MODES.items()
    for mode in rows
  }


def test_a_name_is_read():
  key = 'stable_rl/loss/dppo_binary_tv_recompute/C=5/seq-mean-token-sum'
  result = authors.parse(key)
  assert result == authors.Result(
    implementation='stable_rl',
    mode='dppo_binary_tv_recompute',
    kind='loss',
    anchor='recomputed',  # Of the rule; the weight stays pi / mu.
    weight_anchor='rollout',
    ratio_cap=5.0,
    aggregation='sequence_mean_token_sum',
  )
  old = authors.parse('verl/grad_pi_logits/cispo/anchor=old')
  assert old.kind == 'gradient'
  assert old.anchor == old.weight_anchor == 'recomputed'


@pytest.mark.parametrize(
  'key',
  [
    'stable_rl/mask/dppo_hellinger',
    'stable_rl/mask',
    'stable_rl/loss/ppo/C=five/token-mean',
    'stable_rl/loss/ppo/C=-1/token-mean',
    'stable_rl/loss/ppo/cap=5/token-mean',
    'stable_rl/loss/ppo/C=5/token-median',
    'stable_rl/entropy/ppo/C=5/token-mean',
    'trl/loss/binary_tv',
    'verl/loss/gspo/anchor=reference',
    'verl/loss/gspo/rollout',
    'verl/mask/gspo/anchor=old',
    'unirl/mask/default',
    'openrlhf/mask/ppo',
    'mu_logits',
  ],
)
def test_other_names_are_not(key):
  assert authors.parse(key) is None


@pytest.mark.parametrize(
  ('key', 'expected'),
  [
    (
      'stable_rl/grad_pi_logits/ppo/C=5/token-mean',
      ['stable_rl/loss/ppo/C=5/token-mean', 'stable_rl/mask/ppo'],
    ),
    ('stable_rl/loss/ppo/C=5/token-mean', ['stable_rl/mask/ppo']),
    ('verl/loss/gspo/anchor=old', ['verl/grad_pi_logits/gspo/anchor=old']),
    ('verl/grad_pi_logits/gspo/anchor=old', ['verl/loss/gspo/anchor=old']),
    ('trl/mask/binary_tv', []),
  ],
)
def test_partners(key, expected):
  assert list(authors.partners(key, authors.parse(key))) == expected


def test_rows_name_rules():
  for rows in authors.MODES.values():
    for row in rows.values():
      assert row.rule in TRUST_REGIONS


@pytest.mark.parametrize('compiled', [False, True])
def test_complements_at_certainty(compiled):
  # 1 + 1e-8 is 1 in f32: the compiler must not add the constants up.
  offset, clamped = (
    jax.jit(fn) if compiled else fn
    for fn in (authors.offset_complement, authors.clamped_complement)
  )
  log_probs = jnp.log(jnp.array([1.0, 0.75]))
  np.testing.assert_allclose(
    offset(log_probs), np.log([1e-8, 0.25 + 1e-8]), rtol=1e-6
  )
  np.testing.assert_allclose(
    clamped(log_probs), np.log([2.0**-23, 0.25]), rtol=1e-6
  )


def test_a_masked_token_counts_at_its_clip():
  bounds = authors.VERL['vanilla_dual_clip'].bounds
  ratios = jnp.array([[1.5, 1.1, 0.5, 0.9, 4.0, 0.5]])
  advantages = jnp.array([[2.0, 2.0, -2.0, -2.0, -2.0, 2.0]])
  keep = jnp.array([[0.0, 1.0, 0.0, 1.0, 0.0, 1.0]])
  np.testing.assert_allclose(
    authors.clipped_value(ratios, advantages, keep, bounds),
    [[-2.56, -2.2, 1.6, 1.8, 6.0, -1.0]],
    rtol=1e-6,
  )


def test_soft_value():
  bounds = authors.VERL['sapo'].bounds
  ratios, advantages = jnp.array([[1.0, 2.0]]), jnp.array([[1.0, -1.0]])
  np.testing.assert_allclose(
    authors.soft_value(ratios, advantages, jnp.ones((1, 2)), bounds),
    [[-2.0, 4 / 1.05 / (1 + np.exp(-1.05))]],
    rtol=1e-6,
  )


@pytest.mark.parametrize(
  ('mode', 'delta', 'w_min', 'least'),
  [
    ('default', 0.2, 0.8, 0.02),
    ('dense', 0.15, 0.8, 0.015),
    ('w1', 0.15, 1.0, 0.02),
    ('tight', 0.1, 0.6, 0.005),
  ],
)
def test_budgets(mode, delta, w_min, least):
  # Few tokens of the files lie where these numbers decide.
  row = authors.UNIRL[mode]
  bounds = row.bounds
  assert row.rule == 'cppo_dynamic'
  assert (bounds.delta_low, bounds.delta_high) == (delta, delta)
  assert (bounds.w_min, bounds.budget) == (w_min, least)


@pytest.mark.parametrize(
  ('rows', 'mode', 'low', 'high'),
  [
    (authors.STABLE_RL, 'dppo_binary_tv', 0.15, 0.15),
    (authors.STABLE_RL, 'dppo_binary_tv_recompute', 0.15, 0.15),
    (authors.STABLE_RL, 'dppo_binary_kl', 0.05, 0.05),
    (authors.STABLE_RL, 'dppo_binary_kl_recompute', 0.05, 0.05),
    (authors.STABLE_RL, 'dppo_topk_tv', 0.15, 0.2),
    (authors.STABLE_RL, 'dppo_topk_kl', 0.05, 0.08),
    (authors.TRL, 'binary_tv', 0.15, 0.15),
    (authors.TRL, 'binary_kl', 0.05, 0.05),
    (authors.TRL, 'topk_tv', 0.15, 0.2),
    (authors.TRL, 'topk_kl', 0.05, 0.08),
    (authors.VERL, 'dppo_tv', 0.15, 0.15),
    (authors.VERL, 'dppo_kl', 0.05, 0.05),
  ],
)
def test_divergence_bounds(rows, mode, low, high):
  bounds = rows[mode].bounds
  assert (bounds.delta_low, bounds.delta_high) == (low, high)


@pytest.mark.parametrize(
  ('rows', 'mode', 'clip', 'alpha'),
  [
    (authors.STABLE_RL, 'ppo', (0.2, 0.28), (0.0, 0.0)),
    (authors.STABLE_RL, 'ppo_recompute', (0.2, 0.28), (0.0, 0.0)),
    (authors.STABLE_RL, 'ppo_ablation_positive', (0.2, 0.28), (0.0, 0.1)),
    (authors.STABLE_RL, 'ppo_ablation_negative', (0.2, 0.28), (0.1, 0.0)),
    (authors.STABLE_RL, 'ppo_ablation_both', (0.2, 0.28), (0.1, 0.1)),
    (authors.VERL, 'gspo', (3e-4, 4e-4), (0.0, 0.0)),
    (authors.VERL, 'gspo_wide', (0.05, 0.1), (0.0, 0.0)),
    (authors.VERL, 'vanilla_dual_clip', (0.2, 0.28), (0.0, 0.0)),
  ],
)
def test_ratio_bounds(rows, mode, clip, alpha):
  bounds = rows[mode].bounds
  assert (bounds.clip_low, bounds.clip_high) == clip
  assert (bounds.alpha_low, bounds.alpha_high) == alpha
