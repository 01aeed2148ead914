import functools

import jax
import pytest

from dppo_jax import parallel
from dppo_jax.models.attention import dispatch, sharded
from tests.support import attention_cases as cases


def _mesh(data, tensor):
  devices = jax.devices()[: data * tensor]
  return parallel.make_mesh(data, 1, tensor, devices=devices)


# Rows and heads split evenly; and rows that do not, left to the compiler.
@pytest.mark.parametrize(
  ('data', 'tensor', 'splits'), [(2, 2, True), (4, 1, False)]
)
def test_a_mesh_changes_nothing(data, tensor, splits):
  mesh = _mesh(data, tensor)
  case = cases.shared_prompt(length=24)
  sources = case.sources(case.arrays)
  assert sharded.splits(mesh, case.arrays[0], sources) == splits
  attend = functools.partial(
    dispatch.attend, implementation='blockwise', mesh=mesh
  )
  cases.agree(case, attend)


def test_heads_that_do_not_divide_are_left_to_the_compiler():
  case = cases.shared_prompt(length=8)
  sources = case.sources(case.arrays)
  assert not sharded.splits(_mesh(1, 4), case.arrays[0], sources)
  assert not sharded.splits(None, case.arrays[0], sources)
