import pytest

from dppo_jax.models.attention import dispatch
from tests.support import attention_cases as cases


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


def test_unknown_implementation():
  with pytest.raises(ValueError, match=r"model\.attention: unknown 'flash'"):
    dispatch.check('flash', 'cpu')
