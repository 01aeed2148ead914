import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.sampling import filters

_PROBS = np.array([[0.5, 0.1, 0.25, 0.15], [0.1, 0.2, 0.3, 0.4]], np.float32)


def _kept(probs, top_p):
  got = filters.nucleus(jnp.log(jnp.asarray(probs, jnp.float32)), top_p)
  return np.isfinite(np.asarray(got)).tolist()


@pytest.mark.parametrize(
  ('top_p', 'kept'),
  [
    (0.01, [[1, 0, 0, 0], [0, 0, 0, 1]]),
    (0.45, [[1, 0, 0, 0], [0, 0, 1, 1]]),
    (0.6, [[1, 0, 1, 0], [0, 0, 1, 1]]),
    (0.8, [[1, 0, 1, 1], [0, 1, 1, 1]]),
    (0.95, [[1, 1, 1, 1], [1, 1, 1, 1]]),
    (1.0, [[1, 1, 1, 1], [1, 1, 1, 1]]),
  ],
)
def test_nucleus_is_the_smallest_set_that_holds_the_mass(top_p, kept):
  assert _kept(_PROBS, top_p) == np.array(kept, bool).tolist()


def test_nucleus_keeps_log_probs_as_they_are():
  log_probs = jnp.log(_PROBS)
  got = np.asarray(filters.nucleus(log_probs, 0.8))
  kept = np.isfinite(got)
  np.testing.assert_array_equal(got[kept], np.asarray(log_probs)[kept])
  assert np.isneginf(got[~kept]).all()


def test_ties_with_the_last_one_stay():
  assert _kept([[0.4, 0.2, 0.2, 0.2]], 0.5) == [[True] * 4]
  assert _kept([[0.4, 0.2, 0.2, 0.2]], 0.3) == [[True, False, False, False]]


def _law(logits, temperature, top_p):
  return np.asarray(filters.law(jnp.asarray(logits), temperature, top_p))


_LOGITS = np.random.default_rng(0).normal(0, 5, (3, 40)).astype(np.float32)


@pytest.mark.parametrize('temperature', [0.3, 1.0, 2.0])
def test_law_without_a_nucleus_is_a_softmax(temperature):
  scaled = _LOGITS.astype(np.float64) / temperature
  expected = scaled - np.log(np.exp(scaled).sum(1, keepdims=True))
  got = _law(_LOGITS, temperature, 1.0)
  np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
  assert (got <= 0).all()


@pytest.mark.parametrize('top_p', [0.1, 0.5, 0.9, 1.0])
def test_law_is_normalized(top_p):
  law = _law(_LOGITS, 1.5, top_p)
  np.testing.assert_allclose(np.exp(law).sum(1), 1.0, atol=1e-6)
  assert np.isneginf(law).any() == (top_p < 1.0)


def test_law_renormalizes_after_the_temperature():
  """[.5 .3 .2] squared is [.25 .09 .04] / .38, whose first has mass .66."""
  logits = np.log(np.array([[0.5, 0.3, 0.2]], np.float32))
  got = np.exp(_law(logits, 0.5, 0.6))
  np.testing.assert_allclose(got, [[1.0, 0.0, 0.0]], atol=1e-6)
  got = np.exp(_law(logits, 1.0, 0.6))
  np.testing.assert_allclose(got, [[0.625, 0.375, 0.0]], atol=1e-6)


def test_law_of_bfloat16_logits_is_f32():
  got = filters.law(jnp.asarray(_LOGITS, jnp.bfloat16), 1.0, 1.0)
  assert got.dtype == jnp.float32
  np.testing.assert_allclose(np.exp(np.asarray(got)).sum(1), 1.0, atol=1e-6)


def test_nucleus_needs_rows():
  with pytest.raises(AssertionError):
    filters.nucleus(jnp.zeros(4), 0.5)
