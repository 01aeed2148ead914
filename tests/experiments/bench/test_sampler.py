import jax
import numpy as np

from dppo_jax.experiments.bench import sampler


def test_both_tails_record_the_same_law():
  shape = sampler.SamplerShape(
    rows=4, width=16, vocabulary=700, top_k=5, dtype='float32'
  )
  variants = sampler.make_variants(shape)
  assert variants[sampler.PRODUCT]().shape == (4, 700)
  _, stats = variants['sampling']()
  *_, (values, ids) = variants['categorical, log_softmax, top_k']()
  np.testing.assert_allclose(stats.top_log_probs, values, atol=1e-5)
  np.testing.assert_array_equal(stats.top_ids, ids)
  _, bare = variants['sampling, no top-K']()
  assert bare.top_ids is None
  assert jax.tree.leaves(bare)
