import dataclasses

import jax
import numpy as np

from dppo_jax.experiments.bench import rollout
from tests.support import factories


def test_rollouts_of_every_kind():
  shape = rollout.RolloutShape(
    model=factories.transformer_config(dtype='bfloat16'),
    rows=2,
    prompt_length=3,
    new_tokens=4,
    top_k=5,
  )
  variants = rollout.make_variants(shape)
  drawn = variants[rollout.DECODE]()
  assert drawn.completion_mask[:, 3:].all()
  assert drawn.tokens.shape == (2, 3 + 2 + 4)
  assert variants[rollout.BARE]().stats.top_ids is None
  assert variants[rollout.PREFILL]().tokens.shape == (2, 3 + 2)
  copied = jax.tree.leaves(variants[rollout.COPY]())
  size = sum(leaf.size for leaf in copied)
  assert {leaf.dtype for leaf in copied} == {np.dtype('bfloat16')}
  alone = dataclasses.replace(shape, rows=0)
  assert rollout.decode_bytes(alone) == 2 * size
  # Keys and values of 2 layers, 2 heads of 6, after 3 + 4 / 2 tokens.
  cached = 2 * 5 * 2 * 2 * 2 * 6 * 2
  assert rollout.decode_bytes(shape) == 2 * size + cached
