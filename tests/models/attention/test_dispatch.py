import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax import parallel
from dppo_jax.models.attention import dispatch
from dppo_jax.models.attention.sources import KeySource
from dppo_jax.models.policy import make_policy
from tests.support import attention_cases as cases
from tests.support import factories


def _attend(implementation, mesh=None):
  return lambda query, sources: dispatch.attend(
    query, sources, implementation, mesh
  )


def _chosen(platform, implementation, **sizes):
  case = cases.shared_prompt(**sizes)
  query = case.arrays[0]
  sources = case.sources(case.arrays)
  return dispatch._choose(platform, implementation, query, sources)


def test_few_scores_are_held_and_many_are_not():
  assert _chosen('cpu', 'auto') == 'materialised'
  assert _chosen('cpu', 'auto', length=129, head_dim=2) == 'blockwise'


def test_a_forced_implementation_runs():
  for name in ('blockwise', 'materialised'):
    assert _chosen('cpu', name) == name
  cases.agree(cases.shared_prompt(), _attend('blockwise'))


def test_a_decode_step_holds_the_scores_of_a_short_cache_only():
  one = dict(length=1, head_dim=2)
  assert _chosen('cpu', 'auto', prompt_length=128, **one) == 'materialised'
  assert _chosen('cpu', 'auto', prompt_length=129, **one) == 'blockwise'
  assert _chosen('tpu', 'auto', prompt_length=1024, **one) == 'materialised'


@pytest.mark.parametrize(
  ('implementation', 'shape'),
  [
    ('materialised', None),
    ('blockwise', None),
    ('blockwise', (2, 1, 2)),  # Rows and heads are divided.
    ('blockwise', (1, 1, 4)),  # Heads are not: left to the compiler.
  ],
)
def test_one_layer_of_a_cache_of_all(implementation, shape):
  """To the bit what that layer's keys give; 200 columns are two blocks."""
  num_layers, rows, size = 3, 4, 200
  query = cases.normal(rows, 1, 4, 8)
  cache = [cases.normal(num_layers, rows, 2, size, 8, seed=s) for s in (1, 2)]
  written = np.arange(size) < np.array([0, 1, 130, 200])[:, None]
  one = np.ones((1, 1), np.int32)
  ids = written.astype(np.int32)
  mesh = None
  if shape is not None:
    mesh = parallel.make_mesh(*shape, jax.devices()[: math.prod(shape)])
  attend = jax.jit(_attend(implementation, mesh))
  for layer in (0, 2):
    apart = [KeySource(*(x[layer] for x in cache), ids, one, is_causal=False)]
    number = jnp.asarray(layer)
    among = [KeySource(*cache, ids, one, is_causal=False, layer=number)]
    np.testing.assert_array_equal(attend(query, among), attend(query, apart))


def test_unknown_implementation():
  with pytest.raises(ValueError, match=r"model\.attention: unknown 'flash'"):
    dispatch.check('flash', 'cpu')


def test_an_implementation_that_the_platform_lacks():
  with pytest.raises(
    ValueError, match=r"model\.attention: 'splash' runs on tpu"
  ):
    dispatch.check('splash', 'cpu')
  dispatch.check('splash', 'tpu')


def test_what_a_kernel_does_not_take_runs_by_blocks_and_is_said_once(caplog):
  sizes = dict(length=129, head_dim=40)
  dispatch._say_once.cache_clear()
  assert _chosen('tpu', 'splash', **sizes) == 'blockwise'
  assert _chosen('tpu', 'auto', **sizes) == 'blockwise'
  assert [r.getMessage() for r in caplog.records] == [
    'model.attention: splash does not take a head_dim of 40, which is no'
    ' multiple of 64; blockwise attention runs instead.'
  ]
  assert _chosen('tpu', 'auto', length=129, head_dim=64) == 'splash'


def test_kernels_of_gpus_take_whole_rows_only(caplog):
  dispatch._say_once.cache_clear()
  case = cases.shared_prompt(length=129, head_dim=64)
  query = case.arrays[0].astype(jnp.bfloat16)
  sources = case.sources(case.arrays)
  choose = dispatch._choose
  assert choose('gpu', 'auto', query, sources[1:]) == 'triton'
  assert choose('gpu', 'auto', query, sources) == 'blockwise'
  assert not caplog.records
  assert choose('gpu', 'triton', query, sources) == 'blockwise'
  (record,) = caplog.records
  assert 'triton does not take keys other than' in record.getMessage()
  with pytest.raises(
    ValueError, match=r"model\.attention: 'triton' runs on gpu"
  ):
    dispatch.check('triton', 'cpu')


def test_kernels_of_gpus_hold_no_scores():
  count = functools.partial(dispatch.num_scores, 'gpu', rows=3, width=1000)
  for name in ('auto', 'triton'):
    assert count(name, lengths=[1000]) == 0
    assert count(name, lengths=[500, 1000]) == 3 * 256 * 256


def _shapes(function, *args):
  """Shapes of all buffers in the optimised HLO of a function."""
  text = jax.jit(function).lower(*args).compile().as_text()
  found = set(re.findall(r'\w\d+\[([\d,]+)\]', text))
  return [[int(size) for size in shape.split(',')] for shape in found]


def _holds_scores(shape):
  """Of 131 queries over 131 keys of their own and 67 of a prompt."""
  return shape.count(131) > 1 or {131, 67} <= {*shape}


def test_no_buffer_of_queries_times_keys():
  """Of the gradient of a pass over prompts and completions, under remat."""
  config = factories.transformer_config(remat='full')
  policy = make_policy(config)
  params = factories.make_params(config)
  prompts, mask = jnp.ones((2, 67), jnp.int32), jnp.ones((2, 67), bool)
  completions = jnp.ones((4, 131), jnp.int32)

  def loss(params):
    hidden, _ = policy.apply_grouped_routed(
      params, prompts, mask, completions, None, None
    )
    return jnp.sum(hidden)

  shapes = _shapes(jax.grad(loss), params)
  assert any(131 in shape for shape in shapes)
  assert not [shape for shape in shapes if _holds_scores(shape)]
  # Nor a buffer of as many elements under another shape.
  assert max(map(math.prod, shapes)) < 4 * 4 * 131 * 131


def test_all_scores_are_found_where_they_are_held():
  case = cases.shared_prompt(prompt_length=67, length=131)
  attend = _attend('materialised')
  shapes = _shapes(lambda x: attend(x[0], case.sources(x)), case.arrays)
  assert any(map(_holds_scores, shapes))
