import numpy as np
import pytest

from dppo_jax.experiments.bench import slot_batching
from tests.support import factories

_LIMIT = 24


@pytest.fixture(scope='module')
def shape():
  return slot_batching.SlotBatchingShape(
    model=factories.transformer_config(vocab_size=_LIMIT + 16),
    prompts=16,
    group_size=4,
    prompt_length=3,
    new_tokens=_LIMIT,
    num_slots=4,
    median=4.0,
    sigma=0.8,
    top_k=2,
  )


def test_the_law_of_lengths(shape):
  probabilities = slot_batching.length_distribution(shape)
  assert probabilities.shape == (_LIMIT,)
  np.testing.assert_allclose(probabilities.sum(), 1)
  assert (
    probabilities[-1] > probabilities[-2]
  )  # What is longer ends at the limit.
  assert abs(probabilities[:4].sum() - 0.5) < 0.1


def test_both_samplers_draw_the_same_lengths_from_it(shape):
  variants = slot_batching.make_variants(shape)
  plain, refilled = [
    variants[name]() for name in (slot_batching.STATIC, slot_batching.REFILLED)
  ]
  np.testing.assert_array_equal(plain.tokens, refilled.tokens)
  lengths = np.asarray(plain.completion_mask).sum(axis=1)
  drawn = np.asarray(plain.tokens)[:, shape.prompt_length]
  np.testing.assert_array_equal(lengths, drawn)  # The first token says it.
  numbers = np.arange(1, _LIMIT + 1)
  probabilities = slot_batching.length_distribution(shape)
  mean = probabilities @ numbers
  deviation = np.sqrt((probabilities @ numbers**2 - mean**2) / len(lengths))
  assert abs(lengths.mean() - mean) < 4 * deviation
  share = slot_batching.useful_share(plain)
  assert share == pytest.approx((lengths - 1).mean() / (lengths.max() - 1))
  assert slot_batching.useful_share(refilled) > max(0.8, 2 * share)
