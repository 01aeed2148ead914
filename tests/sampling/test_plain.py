import jax
import jax.numpy as jnp
import numpy as np

from dppo_jax.sampling.decode import sample
from dppo_jax.sampling.plain import plain_sampling
from tests.support import factories, toy_policy


def _draw(**options):
  policy = toy_policy.make(lambda step: None)
  head = np.log(np.where(np.arange(8) == 5, 3.0, 1.0) * toy_policy.FLAT)
  params = {'head': jnp.asarray(head)[None], 'end_after': 3}
  drawn = sample(
    policy,
    factories.vocabulary_axes(),
    plain_sampling(5, **options),
    params,
    factories.make_prompts(2, 3),
    jax.random.PRNGKey(0),
  )
  return drawn, np.asarray(drawn.tokens)[:, 3:]


def test_no_token_ends_a_row():
  drawn, tokens = _draw(group_size=4, top_k=6)
  assert tokens.shape == (8, 5)
  assert drawn.completion_mask[:, 3:].all()
  assert (tokens[:, 2:] == factories.EOS_ID).all()
  assert len(np.unique(tokens[:, :2])) > 1


def test_the_law_is_the_policys():
  drawn, tokens = _draw(group_size=4, top_k=6)
  expected = np.where(tokens[:, :2] == 5, 3 / 8, 1 / 8)
  np.testing.assert_allclose(
    np.exp(drawn.stats.log_probs[:, 3:5]), expected, rtol=1e-6
  )
  assert drawn.stats.top_ids.shape == (8, 3 + 5, 6)


def test_the_likeliest():
  _, tokens = _draw(greedy=True)
  assert tokens.tolist() == [[5, 5] + 3 * [factories.EOS_ID]] * 2
