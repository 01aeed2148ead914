import jax
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


_LOGITS = np.random.default_rng(0).normal(0, 5, (3, 40)).astype(np.float32)


def _law(logits, temperature, top_p):
  allowed = filters.allowed(jnp.asarray(logits), temperature, top_p)
  return np.asarray(jax.nn.softmax(allowed / temperature))


def test_without_a_nucleus_everything_is_allowed():
  got = filters.allowed(jnp.asarray(_LOGITS), 0.3, 1.0)
  np.testing.assert_array_equal(got, _LOGITS)


@pytest.mark.parametrize('top_p', [0.1, 0.5, 0.9])
def test_what_is_allowed_stays_as_it_is(top_p):
  got = np.asarray(filters.allowed(jnp.asarray(_LOGITS), 1.5, top_p))
  kept = np.isfinite(got)
  assert not kept.all()
  assert kept.any(axis=1).all()
  np.testing.assert_array_equal(got[kept], _LOGITS[kept])


def test_the_nucleus_is_that_of_the_law_at_the_temperature():
  """[.5 .3 .2] squared is [.25 .09 .04] / .38, whose first has mass .66."""
  logits = np.log(np.array([[0.5, 0.3, 0.2]], np.float32))
  got = _law(logits, 0.5, 0.6)
  np.testing.assert_allclose(got, [[1.0, 0.0, 0.0]], atol=1e-6)
  got = _law(logits, 1.0, 0.6)
  np.testing.assert_allclose(got, [[0.625, 0.375, 0.0]], atol=1e-6)


def test_of_ties_for_the_likeliest_the_first_is_drawn():
  logits, uniform = jnp.array([[1.0, 3.0, 2.0, 3.0]]), jnp.array([0.9])
  got = filters.or_likeliest(jnp.array(True), logits, uniform)
  assert got[0].tolist() == [[-np.inf, 3.0, -np.inf, 3.0]]
  assert got[1].tolist() == [0.0]
  got = filters.or_likeliest(jnp.array(False), logits, uniform)
  np.testing.assert_array_equal(got[0], logits)
  np.testing.assert_array_equal(got[1], uniform)
