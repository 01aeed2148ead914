import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax import base

_FLOATS = np.zeros((2, 3), np.float32)
_STATS = base.TokenStats(log_probs=_FLOATS)
_ALL_STATS = base.TokenStats(
  log_probs=_FLOATS,
  top_ids=np.zeros((2, 3, 1), np.int32),
  top_log_probs=_FLOATS[..., None],
  entropy=_FLOATS,
)
_TOKENS = np.ones((2, 3), np.int32)
_MASK = np.ones((2, 3), bool)
_IDS = np.arange(2, dtype=np.int32)
# One of each with only what it must have, then those that may have more.
_EXAMPLES = [
  base.Prompts(tokens=_TOKENS, mask=_MASK, example_id=_IDS),
  _STATS,
  base.Rollout(
    tokens=_TOKENS,
    token_mask=_MASK,
    completion_mask=_MASK,
    stats=_STATS,
    group_id=_IDS,
    example_id=_IDS,
    truncated=np.zeros(2, bool),
  ),
  base.Batch(
    tokens=_TOKENS,
    token_mask=_MASK,
    completion_mask=_MASK,
    advantages=_FLOATS,
    rollout=_STATS,
  ),
  base.Demonstrations(tokens=_TOKENS, token_mask=_MASK, completion_mask=_MASK),
  base.Decisions(
    log_probs=_FLOATS,
    divergence=_FLOATS,
    keep=_FLOATS,
    diagnostics={'cppo/masked_by_budget': _FLOATS},
  ),
  base.TrainState(
    step=np.int32(0),
    params={'kernel': _FLOATS},
    opt_state=(),
    key=np.zeros(2, np.uint32),
  ),
  _ALL_STATS,
  base.Batch(
    tokens=_TOKENS,
    token_mask=_MASK,
    completion_mask=_MASK,
    advantages=_FLOATS,
    rollout=_STATS,
    recomputed=_STATS,
    reference=_STATS,
  ),
]
_each = pytest.mark.parametrize(
  'example', _EXAMPLES, ids=lambda e: type(e).__name__
)


@_each
def test_what_flows_goes_through_jit_unchanged(example):
  out = jax.jit(lambda x: x)(example)
  assert jax.tree.structure(out) == jax.tree.structure(example)
  for got, want in zip(
    jax.tree.leaves(out), jax.tree.leaves(example), strict=True
  ):
    assert got.dtype == want.dtype
    assert jnp.array_equal(got, want)


@_each
def test_every_field_given_is_data(example):
  # What is not a leaf would be compiled in, and would not be donated or saved.
  given = [
    value
    for field in dataclasses.fields(example)
    if (value := getattr(example, field.name)) is not None
  ]
  leaves = [leaf for value in given for leaf in jax.tree.leaves(value)]
  assert len(jax.tree.leaves(example)) == len(leaves)


@_each
def test_what_flows_is_frozen_and_built_by_name(example):
  field = dataclasses.fields(example)[0].name
  with pytest.raises(dataclasses.FrozenInstanceError):
    setattr(example, field, None)
  values = [getattr(example, f.name) for f in dataclasses.fields(example)]
  with pytest.raises(TypeError, match='positional'):
    type(example)(*values)
  assert getattr(dataclasses.replace(example, **{field: None}), field) is None


def test_optional_stats_are_absent_unless_given():
  assert len(jax.tree.leaves(_STATS)) == 1
  assert _STATS.top_ids is _STATS.top_log_probs is _STATS.entropy is None
  batch = next(e for e in _EXAMPLES if isinstance(e, base.Batch))
  assert batch.recomputed is batch.reference is None


def _key_data(key, stream, step):
  return tuple(
    np.asarray(jax.random.key_data(base.stream_key(key, stream, step))).tolist()
  )


def test_stream_keys_never_meet():
  seen = [
    _key_data(jax.random.key(seed), stream, step)
    for seed in (0, 1)
    for stream in base.Stream
    for step in (0, 1, 2, 3, 1000)
  ]
  assert len(set(seen)) == len(seen) == 2 * 7 * 5


def test_stream_key_is_a_function_of_its_arguments():
  key = jax.random.key(7)
  want = _key_data(key, base.Stream.SAMPLE, 3)
  assert _key_data(key, base.Stream.SAMPLE, jnp.int32(3)) == want
  compiled = jax.jit(base.stream_key, static_argnums=1)
  got = jax.random.key_data(compiled(key, base.Stream.SAMPLE, 3))
  assert tuple(got.tolist()) == want


def test_numbers_of_the_streams_are_part_of_a_run():
  # Renumbering them would change every run that is resumed.
  assert {stream.name: stream.value for stream in base.Stream} == {
    'INIT': 0,
    'SAMPLE': 1,
    'SHUFFLE': 2,
    'EVALUATE': 3,
    'RESAMPLE': 4,
    'SELECT': 5,
    'NOISE': 6,
  }
  key = jax.random.key(0)
  want = jax.random.fold_in(jax.random.fold_in(key, 1), 5)
  assert _key_data(key, base.Stream.SAMPLE, 5) == tuple(
    jax.random.key_data(want).tolist()
  )
