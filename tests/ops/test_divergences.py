"""Divergences against float64: lump the tokens, then TV or KL of the rest.

The papers' six rows are compared with that definition. Tests marked `_ROWS`
read the table, and hold for every row of it.
"""

import functools

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.base import TokenStats
from dppo_jax.ops.divergences import (
  DIVERGENCES,
  of_the_sampled_token,
  replace_kth,
  tv_bounds,
)
from tests.support.examples import examples

_few = examples(15)
_VOCABULARY = 6
_logits = hnp.arrays(
  np.float64, (2, 3, _VOCABULARY), elements=st.floats(-3, 3, width=16)
)
_tokens = hnp.arrays(np.int32, (2, 3), elements=st.integers(0, _VOCABULARY - 1))
_ks = st.sampled_from([1, 3, _VOCABULARY])
_ROWS = pytest.mark.parametrize('name', DIVERGENCES)
_DEFINED = pytest.mark.parametrize(
  'name',
  [f'{a}_{b}' for a in ('binary', 'topk', 'exact') for b in ('tv', 'kl')],
)
# Largest value by unit.
_LARGEST = {'probability': 1.0, 'nats': np.inf}
_KINDS = pytest.mark.parametrize('kind', ['tv', 'kl'])


def _log_softmax(logits):
  shifted = logits - logits.max(-1, keepdims=True)
  return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def _most_likely(log_mu, k):
  return np.argsort(-log_mu, axis=-1, kind='stable')[..., :k]


def _stats(log_p, tokens, top_ids, dtype=jnp.float32):
  def at(ids):
    return jnp.asarray(np.take_along_axis(log_p, ids, -1), dtype)

  return TokenStats(
    log_probs=at(tokens[..., None])[..., 0],
    top_ids=None if top_ids is None else jnp.asarray(top_ids),
    top_log_probs=None if top_ids is None else at(top_ids),
  )


def _recorded_ids(row, log_mu, k):
  """Ids that the sampler would record for a row: i32 [B, T, K] or None."""
  sizes = {'nothing': 0, 'top_k': k, 'hidden': log_mu.shape[-1]}
  size = sizes[row.records]
  return _most_likely(log_mu, size) if size else None


@functools.cache
def _compiled(name, code):
  """The row, on the paper's atoms or on those of the authors' code."""
  fn = DIVERGENCES[name].fn
  if not code:
    return jax.jit(fn)
  return jax.jit(
    lambda tokens, anchor, current: fn(
      tokens, replace_kth(tokens, anchor), replace_kth(tokens, current)
    )
  )


def _measure(name, log_mu, log_pi, tokens, k, top_ids=None, code=False):
  """The row's D, from what it says that it needs: f64 [B, T]."""
  row = DIVERGENCES[name]
  if top_ids is None or row.records == 'nothing':
    top_ids = _recorded_ids(row, log_mu, k)
  anchor = _stats(log_mu, tokens, top_ids)
  current = _stats(log_pi, tokens, top_ids)
  out = _compiled(name, code)(jnp.asarray(tokens), anchor, current)
  assert out.shape == tokens.shape
  assert out.dtype == jnp.float32
  return np.asarray(out, np.float64)


def _by_definition(name, log_mu, log_pi, token, k):
  """D of one token position, in float64, from the two whole laws."""
  mu, pi = np.exp(log_mu), np.exp(log_pi)
  family, kind = name.split('_')
  explicit = {
    'binary': {int(token)},
    'topk': {int(token), *map(int, _most_likely(log_mu, k))},
    'exact': set(range(mu.size)),
  }[family]
  rest = [a for a in range(mu.size) if a not in explicit]
  ids = sorted(explicit)
  mu = np.append(mu[ids], mu[rest].sum())
  pi = np.append(pi[ids], pi[rest].sum())
  if kind == 'tv':
    return 0.5 * np.abs(mu - pi).sum()
  held = mu > 0
  return (mu[held] * np.log(mu[held] / pi[held])).sum()


@pytest.mark.parametrize(
  ('mu', 'pi', 'tv', 'kl'),
  [
    (1e-4, 1e-2, 0.0099, 0.00949),
    (0.99, 0.80, 0.19, 0.18100),
    (0.5, 0.65, 0.15, 0.04716),
    (0.9, 0.7, 0.2, 0.11632),
    (0.1, 0.3, 0.2, 0.11632),
  ],
)
def test_binary_reference_values(mu, pi, tv, kl):
  log_mu = np.log([[[mu, 1 - mu]]])
  log_pi = np.log([[[pi, 1 - pi]]])
  tokens = np.zeros((1, 1), np.int32)
  for name, want in (('binary_tv', tv), ('binary_kl', kl)):
    got = _measure(name, log_mu, log_pi, tokens, 0)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


_MU = np.log([0.5, 0.2, 0.15, 0.1, 0.05])
_PI = np.log([0.3, 0.3, 0.2, 0.15, 0.05])


@pytest.mark.parametrize(
  ('token', 'family', 'k', 'tv', 'kl'),
  [
    (0, 'exact', 5, 0.2, 0.090621),
    (4, 'exact', 5, 0.2, 0.090621),
    (0, 'binary', 0, 0.2, 0.087177),
    (0, 'topk', 1, 0.2, 0.087177),
    (0, 'topk', 2, 0.2, 0.088015),
    (0, 'topk', 3, 0.2, 0.088015),
    (4, 'binary', 0, 0.0, 0.0),
    (4, 'topk', 1, 0.2, 0.089937),
    (4, 'topk', 2, 0.2, 0.090202),
    (4, 'topk', 3, 0.2, 0.090621),
  ],
)
def test_reference_values_of_five_tokens(token, family, k, tv, kl):
  tokens = np.full((1, 1), token, np.int32)
  for kind, want in (('tv', tv), ('kl', kl)):
    got = _measure(
      f'{family}_{kind}', _MU[None, None], _PI[None, None], tokens, k
    )
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
  ('token', 'k', 'tv', 'kl'),
  [
    (0, 1, 0.2, 0.087177),
    (0, 2, 0.2, 0.088015),
    (0, 3, 0.2, 0.088015),
    (4, 1, 0.0, 0.0),
    (4, 2, 0.2, 0.089937),
    (4, 3, 0.2, 0.090202),
  ],
)
def test_reference_values_of_the_authors_code(token, k, tv, kl):
  tokens = np.full((1, 1), token, np.int32)
  mu, pi = _MU[None, None], _PI[None, None]
  for name, want in (('topk_tv', tv), ('topk_kl', kl)):
    got = _measure(name, mu, pi, tokens, k, code=True)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)


@given(_logits, _logits, _tokens, _ks)
@_few
def test_bounds_of_the_exact_tv_hold(mu, pi, tokens, k):
  log_mu, log_pi = _log_softmax(mu), _log_softmax(pi)
  ids = _most_likely(log_mu, k)
  lower, upper = (
    np.asarray(bound)
    for bound in tv_bounds(
      jnp.asarray(tokens),
      _stats(log_mu, tokens, ids),
      _stats(log_pi, tokens, ids),
    )
  )
  exact = 0.5 * np.abs(np.exp(log_mu) - np.exp(log_pi)).sum(-1)
  assert (lower <= exact + 1e-6).all()
  assert (exact <= upper + 1e-6).all()
  if k == _VOCABULARY:
    np.testing.assert_allclose(upper, lower, atol=1e-6)


def test_replace_kth_by_hand():
  stats = TokenStats(
    log_probs=jnp.array([[-1.0, -2.0]]),
    top_ids=jnp.array([[[5, 3], [5, 3]]]),
    top_log_probs=jnp.array([[[-0.5, -1.0], [-0.6, -0.9]]]),
    entropy=jnp.ones((1, 2)),
  )
  got = replace_kth(jnp.array([[5, 7]]), stats)
  np.testing.assert_array_equal(got.top_ids, [[[5, 3], [5, 7]]])
  want = np.float32([[[-0.5, -1.0], [-0.6, -2.0]]])
  np.testing.assert_array_equal(got.top_log_probs, want)
  np.testing.assert_array_equal(got.log_probs, stats.log_probs)
  np.testing.assert_array_equal(got.entropy, stats.entropy)


@_KINDS
@_few
@given(mu=_logits, pi=_logits, tokens=_tokens, k=_ks)
def test_the_codes_atoms_lie_between_binary_and_the_papers(
  kind, mu, pi, tokens, k
):
  mu, pi = _log_softmax(mu), _log_softmax(pi)
  binary = _measure(f'binary_{kind}', mu, pi, tokens, 0)
  code = _measure(f'topk_{kind}', mu, pi, tokens, k, code=True)
  paper = _measure(f'topk_{kind}', mu, pi, tokens, k)
  exact = _measure(f'exact_{kind}', mu, pi, tokens, 0)
  for coarse, fine in ((binary, code), (code, paper), (paper, exact)):
    assert (coarse <= fine + 1e-6).all()
  if k == 1:
    np.testing.assert_allclose(code, binary, atol=1e-6)
  listed = (_most_likely(mu, k) == tokens[..., None]).any(-1)
  np.testing.assert_array_equal(code[listed], paper[listed])


@pytest.mark.parametrize('rest', [1e-7, 3e-7, 8e-7, 2e-6])
def test_binary_kl_is_below_topk_kl_at_the_edge(rest):
  # Both leave over the same mass, however little it is.
  tokens = np.zeros((1, 1), np.int32)
  mu, pi = np.log([[[0.5, 0.5]]]), np.log([[[1 - rest, rest]]])
  binary = _measure('binary_kl', mu, pi, tokens, 0)
  topk = _measure('topk_kl', mu, pi, tokens, 1)
  assert (binary <= topk + 1e-6).all(), (binary, topk)


@_DEFINED
@_few
@given(mu=_logits, pi=_logits, tokens=_tokens, k=_ks)
def test_row_is_its_definition(name, mu, pi, tokens, k):
  mu, pi = _log_softmax(mu), _log_softmax(pi)
  got = _measure(name, mu, pi, tokens, k)
  want = [
    [
      _by_definition(name, mu[b, t], pi[b, t], tokens[b, t], k)
      for t in range(tokens.shape[1])
    ]
    for b in range(tokens.shape[0])
  ]
  np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-6)


@_ROWS
@_few
@given(mu=_logits, tokens=_tokens, k=_ks)
def test_no_divergence_from_oneself(name, mu, tokens, k):
  mu = _log_softmax(mu)
  np.testing.assert_array_equal(_measure(name, mu, mu, tokens, k), 0.0)


@_ROWS
@_few
@given(mu=_logits, shift=_logits, tokens=_tokens, k=_ks)
def test_divergence_is_not_negative(name, mu, shift, tokens, k):
  # A policy that hardly moved, where rounding would show.
  got = _measure(
    name, _log_softmax(mu), _log_softmax(mu + 1e-4 * shift), tokens, k
  )
  assert (got >= 0.0).all()


@_ROWS
@_few
@given(mu=_logits, pi=_logits, tokens=_tokens, k=_ks)
def test_float32_is_close_to_float64(name, mu, pi, tokens, k):
  """The same function at twice the precision; an integrand is summed."""
  mu, pi = _log_softmax(mu), _log_softmax(pi)
  got = _measure(name, mu, pi, tokens, k)
  row = DIVERGENCES[name]
  with jax.enable_x64(True):
    if row.integrand is not None:
      terms = row.integrand(jnp.exp(mu), jnp.exp(pi), jnp.asarray(mu - pi))
      want = jnp.sum(terms, axis=-1)
    else:
      ids = _recorded_ids(row, mu, k)
      anchor, current = (
        _stats(log_p, tokens, ids, jnp.float64) for log_p in (mu, pi)
      )
      want = _compiled(name, False)(jnp.asarray(tokens), anchor, current)
    want = np.asarray(want)
  assert want.dtype == np.float64
  np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-6)


@_ROWS
@_few
@given(mu=_logits, pi=_logits, tokens=_tokens, k=_ks)
def test_a_divergence_is_at_most_what_its_unit_allows(name, mu, pi, tokens, k):
  largest = _LARGEST[DIVERGENCES[name].unit] + 1e-6
  for scale in (1.0, 20.0):
    laws = _log_softmax(scale * mu), _log_softmax(scale * pi)
    got = _measure(name, *laws, tokens, k)
    assert np.isfinite(got).all()
    assert (got <= largest).all()


@pytest.mark.parametrize('family', ['binary', 'topk', 'exact'])
def test_disjoint_laws_are_one_apart(family):
  mu = np.array([[[0.0, -60.0, -60.0]]])
  tokens = np.zeros((1, 1), np.int32)
  got = _measure(f'{family}_tv', mu, np.roll(mu, 1, axis=-1), tokens, 1)
  np.testing.assert_allclose(got, 1.0, rtol=1e-6)


@_ROWS
@_few
@given(
  mu=_logits,
  pi=_logits,
  tokens=_tokens,
  k=_ks,
  names=st.permutations(range(_VOCABULARY)),
  order=st.randoms(use_true_random=False),
)
def test_names_of_tokens_do_not_matter(name, mu, pi, tokens, k, names, order):
  mu, pi = _log_softmax(mu), _log_softmax(pi)
  size = _VOCABULARY if DIVERGENCES[name].records == 'hidden' else k
  top_ids = _most_likely(mu, size)
  want = _measure(name, mu, pi, tokens, k, top_ids)
  new_name = np.array(names)
  old_name = np.argsort(new_name)
  columns = order.sample(range(size), size)  # Nor does the order of the K.
  got = _measure(
    name,
    mu[..., old_name],
    pi[..., old_name],
    new_name[tokens],
    k,
    new_name[top_ids][..., columns],
  )
  np.testing.assert_allclose(got, want, atol=1e-6)


@_KINDS
@_few
@given(mu=_logits, pi=_logits, tokens=_tokens)
def test_finer_partitions_see_more(kind, mu, pi, tokens):
  mu, pi = _log_softmax(mu), _log_softmax(pi)
  ladder = [_measure(f'binary_{kind}', mu, pi, tokens, 0)]
  ladder += [
    _measure(f'topk_{kind}', mu, pi, tokens, k) for k in (1, 3, _VOCABULARY)
  ]
  exact = _measure(f'exact_{kind}', mu, pi, tokens, 0)
  for coarse, fine in zip(ladder, [*ladder[1:], exact], strict=True):
    assert (coarse <= fine + 1e-6).all()
  np.testing.assert_allclose(ladder[-1], exact, atol=1e-6)


@_few
@given(mu=_logits, pi=_logits, tokens=_tokens, k=_ks)
def test_pinsker(mu, pi, tokens, k):
  mu, pi = _log_softmax(mu), _log_softmax(pi)
  for family in ('binary', 'topk', 'exact'):
    tv = _measure(f'{family}_tv', mu, pi, tokens, k)
    kl = _measure(f'{family}_kl', mu, pi, tokens, k)
    assert (tv**2 <= kl / 2 + 1e-6).all()


@_few
@given(mu=_logits, pi=_logits, tokens=_tokens, k=st.sampled_from([1, 3]))
def test_what_topk_tv_misses_is_bounded_by_the_other_mass(mu, pi, tokens, k):
  mu, pi = _log_softmax(mu), _log_softmax(pi)
  ids = np.concatenate([_most_likely(mu, k), tokens[..., None]], axis=-1)
  rest = np.ones(mu.shape)
  np.put_along_axis(rest, ids, 0.0, axis=-1)
  slack = np.minimum((np.exp(mu) * rest).sum(-1), (np.exp(pi) * rest).sum(-1))
  topk = _measure('topk_tv', mu, pi, tokens, k)
  exact = _measure('exact_tv', mu, pi, tokens, k)
  assert (topk <= exact + 1e-6).all()
  assert (exact <= topk + slack + 1e-6).all()


@_DEFINED
def test_the_anchor_comes_first(name):
  # mu is the sharp law: KL(mu || pi) is far from KL(pi || mu).
  mu, pi = np.log([[[0.98, 0.01, 0.01]]]), np.log([[[0.4, 0.3, 0.3]]])
  tokens = np.zeros((1, 1), np.int32)
  got = _measure(name, mu, pi, tokens, 1)
  want = _by_definition(name, mu[0, 0], pi[0, 0], 0, 1)
  np.testing.assert_allclose(got, want, rtol=1e-5)
  if DIVERGENCES[name].unit == 'nats':
    swapped = _by_definition(name, pi[0, 0], mu[0, 0], 0, 1)
    assert abs(want - swapped) > 0.1


@_ROWS
def test_tokens_without_mass_change_nothing(name):
  tokens = np.array([[0, 4]], np.int32)
  mu, pi = np.stack([_MU, _MU])[None], np.stack([_PI, _PI])[None]
  none = np.full((1, 2, 2), -np.inf)
  got = _measure(
    name,
    np.concatenate([mu, none], axis=-1),
    np.concatenate([pi, none], axis=-1),
    tokens,
    7,
  )
  np.testing.assert_allclose(got, _measure(name, mu, pi, tokens, 5), atol=1e-6)


@_KINDS
def test_rounding_of_the_other_mass_masks_nothing(kind):
  # mu(other) = 6e-3, and pi's explicit tokens sum to 1 only by rounding.
  mu = np.log([[[0.9, 0.094, 0.006]]])
  pi = np.log([[[0.9, 0.1, 1e-30]]])
  tokens = np.zeros((1, 1), np.int32)
  bound = {'tv': 0.2, 'kl': 0.05}[kind]
  assert (_measure(f'topk_{kind}', mu, pi, tokens, 2) < bound).all()


def test_a_small_other_mass_counts():
  log_mu = np.log([[[0.99, 0.0098, 2e-4]]])
  log_pi = np.log([[[0.99, 0.009998, 2e-6]]])
  tokens = np.zeros((1, 1), np.int32)
  got = _measure('topk_kl', log_mu, log_pi, tokens, 2)
  want = _by_definition('exact_kl', log_mu[0, 0], log_pi[0, 0], 0, 3)
  assert want > 7e-4
  np.testing.assert_allclose(got, want, rtol=0, atol=3e-5)


def test_binary_kl_of_a_certain_token_has_a_floor():
  tokens = np.zeros((1, 1), np.int32)
  half, certain = np.log([[[0.5, 0.5]]]), np.array([[[0.0, -np.inf]]])
  got = _measure('binary_kl', half, certain, tokens, 0)
  want = 0.5 * np.log(0.5) + 0.5 * np.log(0.5 * 2.0**20)
  np.testing.assert_allclose(got, want, rtol=1e-6)
  got = _measure('binary_kl', certain, half, tokens, 0)
  want = np.log(2.0) + 2.0**-20 * np.log(2.0**-20 / 0.5)
  np.testing.assert_allclose(got, want, rtol=1e-6)


def test_probabilities_that_sum_above_one_leave_no_other_mass():
  # As bf16 would round them: three explicit tokens of mass 1.05 and 1.02.
  mu, pi = np.log([[[0.5, 0.3, 0.25]]]), np.log([[[0.5, 0.3, 0.22]]])
  got = _measure('topk_tv', mu, pi, np.zeros((1, 1), int), 3)
  np.testing.assert_allclose(got, 0.015, atol=1e-6)


@_ROWS
def test_row_says_what_the_sampler_must_record(name):
  row = DIVERGENCES[name]
  bare = TokenStats(log_probs=np.full((1, 2), -1.0, np.float32))
  tokens = np.zeros((1, 2), int)
  if row.records == 'nothing':
    divergence = row.fn(tokens, bare, bare)
    np.testing.assert_array_equal(divergence, 0.0)
  else:
    with pytest.raises(ValueError, match=r'sampling\.top_k: .* > 0'):
      row.fn(tokens, bare, bare)
    with pytest.raises(ValueError, match=r'sampling\.top_k: .* > 0'):
      replace_kth(jnp.asarray(tokens), bare)


def test_what_needs_nothing_recorded_is_found_by_its_unit():
  for unit in ('probability', 'nats'):
    names = of_the_sampled_token(unit)
    assert names
    for name in names:
      assert DIVERGENCES[name].unit == unit
      assert DIVERGENCES[name].records == 'nothing'


@_KINDS
def test_ids_and_log_probs_must_agree(kind):
  stats = TokenStats(
    log_probs=np.zeros((1, 2)),
    top_ids=np.zeros((1, 2, 1), int),
    top_log_probs=np.zeros((1, 2, 3)),
  )
  with pytest.raises(AssertionError):
    DIVERGENCES[f'topk_{kind}'].fn(np.zeros((1, 2), int), stats, stats)
  with pytest.raises(AssertionError):
    replace_kth(jnp.zeros((1, 2), int), stats)
