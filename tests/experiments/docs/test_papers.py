import importlib
import pathlib

import pytest

from dppo_jax.configs.presets import PRESETS
from dppo_jax.experiments.docs import papers

_PACKAGE = pathlib.Path(__file__).parents[3] / 'dppo_jax'
_STATEMENTS = papers.DPPO + papers.CPPO


@pytest.mark.parametrize('row', _STATEMENTS, ids=lambda row: row.what)
def test_functions_presets_and_claims_are_there(row):
  for function in row.functions:
    if '/' in function:
      assert (_PACKAGE / function).is_file()
    else:
      module, name = function.split('.')
      assert hasattr(importlib.import_module(f'dppo_jax.ops.{module}'), name)
  assert set(row.presets) <= set(PRESETS)
  assert bool(papers.verdict(row)) == bool(row.figure)


def test_every_figure_is_in_the_tables():
  there = {path.name for path in papers.RESULTS.iterdir()}
  of_no_paper = {'fair_trial'}
  assert {row.figure for row in _STATEMENTS} - {''} == there - of_no_paper


def test_a_claim_that_is_not_there_is_named():
  row = papers.Statement('x', 'y', figure='stability', claim='Pigs fly')
  with pytest.raises(
    ValueError, match=r"stability: no claim begins with 'Pigs"
  ):
    papers.verdict(row)
