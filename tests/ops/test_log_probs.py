from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.ops import log_probs
from tests.support.examples import examples

_few = examples(20)


def _log_softmax(logits):
  logits = np.asarray(logits, np.float64)
  shifted = logits - logits.max(-1, keepdims=True)
  return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


@jax.jit
def _token_stats(logits, tokens, top_ids=None, temperature=1.0):
  return log_probs.token_stats(
    logits,
    tokens,
    top_ids=top_ids,
    temperature=temperature,
    with_entropy=True,
  )


def _case():
  """Logits [2, 3, 5] with sampled tokens and K = 2 recorded ids."""
  generator = np.random.default_rng(0)
  logits = generator.normal(size=(2, 3, 5)).astype(np.float32) * 3
  tokens = generator.integers(0, 5, (2, 3))
  top_ids = np.argsort(-logits, axis=-1)[..., :2]
  return logits, jnp.asarray(tokens), jnp.asarray(top_ids)


def test_predicting_picks_the_state_before_each_token():
  # A state that knows its own column: column t predicts column t + 1.
  hidden = np.broadcast_to(np.arange(6.0)[None, :, None], (2, 6, 3))
  for first_token in (1, 2, 5):
    states = log_probs.predicting(hidden, first_token)
    assert states.shape == (2, 6 - first_token, 3)
    np.testing.assert_array_equal(
      states[0, :, 0] + 1, np.arange(first_token, 6)
    )


@pytest.mark.parametrize('trailing', [(), (2,), (2, 3)])
def test_align_puts_completion_columns_back_in_their_place(trailing):
  values = np.arange(1.0, 1 + np.prod((2, 3, *trailing)), dtype=np.float32)
  values = values.reshape(2, 3, *trailing)
  aligned = log_probs.align(values, 7)
  assert aligned.shape == (2, 7, *trailing)
  np.testing.assert_array_equal(aligned[:, :4], 0.0)
  np.testing.assert_array_equal(aligned[:, 4:], values)


def test_align_undoes_the_choice_of_columns():
  tokens = np.arange(14.0, dtype=np.float32).reshape(2, 7)
  hidden = (tokens + 1.0)[..., None]  # The state before token t says t.
  predicted = log_probs.predicting(hidden, 4)[..., 0]
  np.testing.assert_array_equal(
    log_probs.align(predicted, 7)[:, 4:], tokens[:, 4:]
  )


@pytest.mark.parametrize('temperature', [0.5, 1.0, 2.0])
def test_token_stats_against_float64(temperature):
  logits, tokens, top_ids = _case()
  stats = _token_stats(logits, tokens, top_ids, temperature)
  want = _log_softmax(logits / temperature)
  sampled = np.take_along_axis(want, np.asarray(tokens)[..., None], -1)
  top = np.take_along_axis(want, np.asarray(top_ids), -1)
  np.testing.assert_allclose(stats.log_probs, sampled[..., 0], atol=2e-6)
  np.testing.assert_allclose(stats.top_log_probs, top, atol=2e-6)
  np.testing.assert_allclose(
    stats.entropy, -(np.exp(want) * want).sum(-1), atol=2e-6
  )
  np.testing.assert_array_equal(stats.top_ids, top_ids)


def test_token_stats_gives_what_is_asked_for():
  logits, tokens, top_ids = _case()
  bare = log_probs.token_stats(
    logits, tokens, top_ids=None, temperature=1.0, with_entropy=False
  )
  assert bare.top_ids is None
  assert bare.top_log_probs is None
  assert bare.entropy is None
  full = _token_stats(logits, tokens, top_ids)
  np.testing.assert_array_equal(bare.log_probs, full.log_probs)
  assert full.log_probs.shape == full.entropy.shape == (2, 3)
  assert full.top_log_probs.shape == (2, 3, 2)


def test_token_stats_work_in_f32_whatever_the_logits_are():
  logits, tokens, top_ids = _case()
  rounded = jnp.asarray(logits, jnp.bfloat16)
  low = _token_stats(rounded, tokens, top_ids, 0.7)
  high = _token_stats(rounded.astype(jnp.float32), tokens, top_ids, 0.7)
  for got, want in zip(
    jax.tree.leaves(low), jax.tree.leaves(high), strict=True
  ):
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got, want)
  assert low.log_probs.dtype == jnp.float32


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@_few
@given(
  logits=hnp.arrays(np.float32, (4, 7), elements=st.floats(-1, 1, width=32)),
  scale=st.sampled_from([0.0, 1e-3, 1.0, 30.0, 1e4, 1e30]),
)
def test_no_log_prob_is_above_zero(dtype, logits, scale):
  logits = (logits * np.float32(scale)).astype(dtype)
  # Every entry of every row, as the sampled token and as a recorded one.
  every = np.arange(7)
  stats = _token_stats(
    np.broadcast_to(logits[:, None], (4, 7, 7)),
    np.broadcast_to(every, (4, 7)),
    np.broadcast_to(every, (4, 7, 7)),
  )
  for values in (stats.log_probs, stats.top_log_probs):
    assert (np.asarray(values) <= 0.0).all()
    assert np.isfinite(values).all()
  mass = np.exp(np.asarray(stats.top_log_probs, np.float64)).sum(-1)
  np.testing.assert_allclose(mass, 1.0, atol=2e-6)
  assert (np.asarray(stats.entropy) >= 0.0).all()


def test_a_certain_token_has_log_prob_zero():
  for top in (1e2, 1e4, 3e38):
    logits = jnp.array([[[0.0, top, 0.0]]])
    stats = _token_stats(logits, jnp.array([[1]]))
    assert stats.log_probs[0, 0] == 0.0
    assert stats.entropy[0, 0] == 0.0


def test_excluded_tokens_leave_entropy_and_its_gradient_finite():
  def stats_of(logits):
    return _token_stats(logits[None, None], jnp.array([[0]]))

  @jax.jit
  @jax.value_and_grad
  def entropy(logits):
    return stats_of(logits).entropy[0, 0]

  logits = jnp.array([1.0, 0.0, -2.0])
  excluded = jnp.array([1.0, -jnp.inf, 0.0, -2.0])
  value, gradient = entropy(logits)
  value_excluded, gradient_excluded = entropy(excluded)
  np.testing.assert_allclose(value_excluded, value, rtol=1e-6)
  np.testing.assert_allclose(gradient_excluded, np.insert(gradient, 1, 0.0))
  np.testing.assert_allclose(
    stats_of(excluded).log_probs, stats_of(logits).log_probs, rtol=1e-6
  )


def test_entropy_by_hand():
  uniform = jnp.full((2, 4), -jnp.log(4.0))
  np.testing.assert_allclose(log_probs.entropy(uniform), np.log(4.0), rtol=1e-6)
  certain = jnp.array([0.0, -jnp.inf])
  assert log_probs.entropy(certain) == 0.0


def test_entropy_gradient_is_that_of_the_formula():
  logits = np.array([0.3, -1.0, 2.0])

  @jax.jit
  @jax.grad
  def gradient(z):
    return log_probs.entropy(jax.nn.log_softmax(z))

  # dH/dz_a = -p_a (log p_a + H).
  log_p = _log_softmax(logits)
  p = np.exp(log_p)
  want = -p * (log_p - (p * log_p).sum())
  np.testing.assert_allclose(gradient(logits), want, atol=1e-6)


def test_token_stats_refuse_tokens_of_another_rank():
  with pytest.raises(AssertionError):
    _token_stats(jnp.zeros((2, 3)), jnp.zeros((2, 3), int))


def _grid():
  """Log-probs from just above the floor to the end of f32, dense at log 2."""
  floor = 1.5 * log_probs.COMPLEMENT_FLOOR
  return -np.concatenate(
    [
      np.geomspace(floor, 0.5, 20_000),
      np.linspace(0.5, 1.0, 20_000),
      np.linspace(0.6931, 0.6932, 2_000),
      np.geomspace(1.0, 85.0, 20_000),
    ]
  ).astype(np.float32)


@pytest.mark.parametrize('compiled', [False, True])
def test_log_complement_against_float64(compiled):
  x = _grid()
  fn = log_probs.log_complement
  got = np.asarray((jax.jit(fn) if compiled else fn)(x), np.float64)
  want = np.log1p(-np.exp(x.astype(np.float64)))
  # Measured: 3.3e-7, at log p = -0.42.
  np.testing.assert_allclose(got, want, rtol=4e-7)
  # The error of 1 - p itself. Measured: 5.9e-7, and 4.2e-7 from p = 0.95 on.
  error = np.abs(np.expm1(got - want))
  assert error.max() <= 7e-7
  assert error[x <= np.log(0.95)].max() <= 4.5e-7


@pytest.mark.parametrize('log_prob', [0.0, 1e-6, -1e-9, -(2.0**-23)])
def test_log_complement_has_a_floor(log_prob):
  got = log_probs.log_complement(jnp.float32(log_prob))
  np.testing.assert_allclose(got, np.log(2.0**-20), rtol=1e-6)


def test_log_complement_of_an_impossible_token_is_zero():
  assert log_probs.log_complement(jnp.float32(-jnp.inf)) == 0.0


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_log_complement_is_finite_with_its_gradient(dtype):
  x = [0.0, -1e-7, -0.6931472, -1.0, -80.0, -200.0, -np.inf]
  x = np.array(x).astype(jnp.dtype(dtype))
  value_and_gradient = jax.value_and_grad(log_probs.log_complement)
  value, gradient = jax.jit(jax.vmap(value_and_gradient))(x)
  assert value.dtype == jnp.float32
  assert np.isfinite(value).all()
  assert np.isfinite(gradient.astype(np.float32)).all()


def test_log_complement_gradient_is_that_of_the_formula():
  # d log(1 - p) / d log p = -p / (1 - p).
  x = _grid()[::1500]
  gradient = jax.jit(jax.vmap(jax.grad(log_probs.log_complement)))(x)
  want = 1.0 / np.expm1(-x.astype(np.float64))
  np.testing.assert_allclose(gradient, -want, rtol=1e-6)
