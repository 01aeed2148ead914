import functools

import jax
import numpy as np
import pytest

from dppo_jax import parallel
from dppo_jax.models.attention import by_columns, dispatch
from tests.support import attention_cases as cases


def _mesh(data, tensor):
  devices = jax.devices()[: data * tensor]
  return parallel.make_mesh(data, 1, tensor, devices=devices)


# 4 and 8 devices share 2 and 8 parts of a row: more than there are heads.
@pytest.mark.parametrize(
  ('data', 'tensor', 'implementation'),
  [(2, 2, 'blockwise'), (1, 8, 'blockwise'), (2, 4, 'materialised')],
)
def test_a_row_on_several_devices_is_that_on_one(data, tensor, implementation):
  mesh = _mesh(data, tensor)
  case = cases.shared_prompt(prompt_length=40, length=48)
  sources = case.sources(case.arrays)
  assert by_columns.splits(mesh, case.arrays[0], sources)
  attend = functools.partial(
    dispatch.attend, implementation=implementation, mesh=mesh, columns=True
  )
  cases.agree(case, attend)


def test_every_device_keeps_its_own_queries():
  mesh = _mesh(1, 8)
  case = cases.shared_prompt(prompt_length=40, length=48)
  attend = functools.partial(
    dispatch.attend, implementation='blockwise', mesh=mesh, columns=True
  )
  compiled = jax.jit(
    lambda arrays: attend(arrays[0], case.sources(arrays))
  ).lower(case.arrays)
  out = compiled.compile().output_shardings
  assert out.spec == jax.sharding.PartitionSpec(None, 'tensor')


def test_what_the_axis_does_not_divide_is_left_to_the_heads():
  case = cases.shared_prompt(prompt_length=37, length=48)
  query, sources = case.arrays[0], case.sources(case.arrays)
  assert not by_columns.splits(_mesh(1, 8), query, sources)
  assert by_columns.splits(_mesh(1, 8), query, sources[1:])
  assert not by_columns.splits(_mesh(1, 8), query[:, :47], sources[1:])
  assert not by_columns.splits(_mesh(2, 1), query, sources)
  assert not by_columns.splits(None, query, sources)

  def attend(mesh):
    run = functools.partial(
      dispatch.attend, implementation='blockwise', columns=True, mesh=mesh
    )
    return jax.jit(lambda arrays: run(arrays[0], case.sources(arrays)))(
      case.arrays
    )

  np.testing.assert_allclose(attend(_mesh(1, 2)), attend(None), atol=1e-6)
