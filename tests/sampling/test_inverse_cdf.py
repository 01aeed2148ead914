import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.sampling import column_blocks, inverse_cdf

# One level, one block more than one level takes, a ragged last block, many.
_SIZES = [20, 256, 257, 1000, 5000]
_PART = 1024
_SMALLEST, _LARGEST = 0.0, 1.0 - 2.0**-24


@jax.jit
def _draw(laws, uniforms):
  blocks = column_blocks.split(laws, -jnp.inf, 'cpu')
  sums = column_blocks.by_row(jnp.sum(jnp.exp(blocks), axis=3))
  target = uniforms * jnp.sum(sums, axis=1)
  shift = jnp.zeros(len(laws))
  tokens, found = inverse_cdf.draw(blocks, shift, sums, target)
  at_token = jnp.take_along_axis(laws, tokens[:, None], axis=1)[:, 0]
  return jnp.where(found == at_token, tokens, -1)


def _law(size, seed=0, scale=2.0):
  rng = np.random.default_rng((seed, size))
  logits = scale * rng.standard_normal(size)
  return (logits - np.log(np.exp(logits).sum())).astype(np.float32)


def _draws(law, uniforms):
  """Tokens drawn from one law by many uniforms, in parts of one size."""
  parts = -(-len(uniforms) // _PART)
  padded = np.resize(uniforms.astype(np.float32), parts * _PART)
  laws = np.broadcast_to(law, (_PART, len(law)))
  drawn = [_draw(laws, part) for part in padded.reshape(parts, _PART)]
  return np.concatenate(drawn)[: len(uniforms)]


def _grid(count):
  return (np.arange(count) + 0.5) / count


@pytest.mark.parametrize('size', _SIZES)
def test_equals_a_search_of_the_cumulative_sum(size):
  law = _law(size)
  uniforms = _grid(4096).astype(np.float32).astype(np.float64)
  sums = np.cumsum(np.exp(law.astype(np.float64)))
  sums /= sums[-1]
  expected = np.searchsorted(sums, uniforms, side='right')
  got = _draws(law, uniforms)
  assert got.dtype == np.int32
  differ = got != expected
  # Only where a boundary is nearer than the rounding of f32 sums.
  nearest = np.abs(sums[None] - uniforms[differ][:, None]).min(1)
  assert (nearest < 2e-6).all()
  assert differ.sum() <= 20


@pytest.mark.parametrize('size', [20, 1000])
def test_every_token_gets_its_share_of_a_grid(size):
  """Between neighbours of a grid no token gains or loses a whole point."""
  law, count = _law(size), 20_000
  counts = np.bincount(_draws(law, _grid(count)), minlength=size)
  probs = np.exp(law.astype(np.float64))
  assert np.abs(counts - count * probs / probs.sum()).max() < 1.1


@pytest.mark.parametrize('size', [20, 1000])
def test_chi_square_of_random_uniforms(size):
  law, count = _law(size, scale=1.0), 50_000
  uniforms = np.random.default_rng(5).random(count, np.float32)
  counts = np.bincount(_draws(law, uniforms), minlength=size)
  expected = count * np.exp(law.astype(np.float64))
  statistic = np.sum((counts - expected) ** 2 / expected)
  # Mean size - 1, variance 2 (size - 1): four deviations either way.
  assert abs(statistic - (size - 1)) < 4 * np.sqrt(2 * (size - 1))


@pytest.mark.parametrize('size', _SIZES)
@pytest.mark.parametrize('kind', ['scattered', 'ends', 'one', 'blocks'])
def test_never_draws_what_has_no_mass(size, kind):
  rng = np.random.default_rng(size)
  law = _law(size)
  tokens = np.arange(size)
  dead = {
    'scattered': rng.random(size) < 0.7,
    'ends': (tokens < size // 3) | (tokens > size // 2),
    'one': tokens != size - 2,
    'blocks': tokens // column_blocks.BLOCK % 2 == 0
    if size > column_blocks.BLOCK
    else tokens % 2 == 0,
  }[kind]
  law = np.where(dead, -np.inf, law)
  law = (law - np.log(np.exp(law).sum())).astype(np.float32)
  uniforms = np.concatenate([[_SMALLEST, 2.0**-24, _LARGEST], _grid(1021)])
  got = _draws(law, uniforms)
  assert not dead[got].any()
  # The two ends reach the first and the last token that has mass.
  assert got[0] == np.flatnonzero(~dead)[0]
  last = np.flatnonzero(~dead)[-1]
  tail = np.exp(law[got[2] :].astype(np.float64)).sum()
  assert got[2] == last or tail < np.exp(law[got[2]]) + 3e-6


def test_a_sum_must_exceed_the_uniform():
  """Each token owns [sum before it, its sum), closed on the left."""
  law = np.log(np.array([0.5, 0.25, 0.25], np.float32))
  uniforms = np.array([0.0, 0.4999, 0.5, 0.7499, 0.75, _LARGEST])
  assert _draws(law, uniforms).tolist() == [0, 0, 1, 1, 2, 2]


def test_a_sum_lifted_by_rounding_draws_nothing_without_mass(monkeypatch):
  """Sums in a tree, as on accelerators, may rise where nothing is added."""
  lifted = jnp.array([[0.5, 0.5 + 1e-3, 1.0]])
  monkeypatch.setattr(jnp, 'cumsum', lambda masses, axis: lifted)
  masses = jnp.array([[0.5, 0.0, 0.5]])
  index, _ = inverse_cdf.first_above(masses, jnp.array([0.5005]))
  assert index.tolist() == [2]


def test_tiny_probabilities_are_reached_and_no_more():
  """A mass of 1e-4 behind 999 others is drawn by the last uniforms only."""
  law = np.full(1000, np.log(0.9999 / 999), np.float32)
  law[-1] = np.log(1e-4)
  uniforms = np.array([0.99985, 0.99995, _LARGEST])
  assert _draws(law, uniforms).tolist() == [998, 999, 999]


def test_rows_are_independent():
  laws = np.stack([_law(257, seed) for seed in range(6)])
  uniforms = np.linspace(0.05, 0.95, 6).astype(np.float32)
  together = np.asarray(_draw(laws, uniforms))
  alone = [
    _draws(law, uniforms[row : row + 1])[0] for row, law in enumerate(laws)
  ]
  assert together.tolist() == alone


def test_unnormalized_rounding_is_absorbed():
  """Log-probs are rounded: their sum may be a little off 1, never the draw."""
  for shift in (-1e-5, 1e-5):
    law = _law(1000) + np.float32(shift)
    got = _draws(law, np.array([_SMALLEST, _LARGEST]))
    assert got[0] == 0
    assert got[1] == 999


def test_needs_rows():
  with pytest.raises(AssertionError):
    inverse_cdf.draw(
      jnp.zeros((1, 4)), jnp.zeros(1), jnp.zeros(1), jnp.zeros(())
    )
