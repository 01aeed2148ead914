import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.experiments.bench import head
from tests.support import factories

_SHAPE = head.HeadShape(
  tokens=128,
  width=16,
  vocabulary=512,
  top_k=5,
  head_chunk_tokens=32,
  dtype='float32',
)


@pytest.fixture(scope='module')
def variants():
  return head.make_variants(_SHAPE)


def test_one_pass_and_materialized_are_the_same_loss(variants):
  """Otherwise their times could not be compared."""
  (loss, _), gradients = variants['Top-K TV'].run()
  (expected, _), others = variants[head.MATERIALIZED].run()
  assert float(loss) == pytest.approx(float(expected), rel=1e-4)
  assert factories.relative_distance(gradients, others) < 1e-5


def test_every_variant_runs_and_counts_its_memory(variants):
  assert len(variants) == 13
  for name, variant in variants.items():
    leaves = [x for x in jax.tree.leaves(variant.run()) if x.dtype != bool]
    assert all(np.isfinite(leaf).all() for leaf in leaves), name
  one, all_logits = variants['Top-K TV'], variants[head.MATERIALIZED]
  assert 0 < one.temporary < all_logits.temporary


def test_the_products_are_those_of_the_loss(variants):
  logits, d_x, d_head = variants[head.BARE].run()
  assert logits.shape == (_SHAPE.tokens, _SHAPE.vocabulary)
  assert d_x.shape == (_SHAPE.tokens, _SHAPE.width)
  assert d_head.shape == (_SHAPE.vocabulary, _SHAPE.width)
  assert logits.dtype == jnp.float32


def test_only_what_is_asked_for():
  made = head.make_variants(_SHAPE, ['PPO'])
  assert list(made) == [head.BARE, 'PPO']
  with pytest.raises(ValueError, match=r"--only: 'PPQ' is no variant. Known:"):
    head.make_variants(_SHAPE, ['PPQ'])
