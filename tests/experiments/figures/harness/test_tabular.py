"""The exact integers of the tabular problem."""

import math

import pytest

from dppo_jax.analysis.table import Points
from dppo_jax.experiments.figures.harness import tabular

# Refreshes from p0 = .1, .01, .001, 1e-4, 1e-5, as a prototype counted them.
_BY_MASK = {
  'GRPO-ClipHigher': (7, 16, 25, 35, 44),
  'DPPO-Binary-TV': (2, 3, 3, 3, 3),
  'DPPO-Binary-KL': (3, 5, 5, 5, 5),
  'PG-IS': (1, 1, 1, 1, 1),
}
_BY_GRADIENT = {
  'GRPO-ClipHigher': (6, 14, 23, 32, 8, 16, 26, 53),
  'DPPO-Binary-TV': (1, 2, 2, 5, 2, 4, 12, 39),
  'DPPO-Binary-KL': (2, 2, 3, 6, 3, 5, 13, 39),
  'PG-IS': (1, 1, 2, 5, 1, 3, 11, 38),
}


@pytest.mark.parametrize('name', tabular.RULES)
def test_refreshes_by_mask(name):
  violated = tabular.RULES[name]
  found = tuple(tabular.by_mask(violated, start) for start in tabular.STARTS)
  assert found == _BY_MASK[name]


@pytest.mark.parametrize('start', tabular.STARTS)
def test_refreshes_by_mask_are_those_of_the_formulas(start):
  clip = math.log(0.5 / start) / math.log(1 + tabular.EPSILON_HIGH)
  tv = (0.5 - start) / tabular.DELTA_TV
  # A step beyond the bound may save the last refresh.
  for name, exact in (('GRPO-ClipHigher', clip), ('DPPO-Binary-TV', tv)):
    found = tabular.by_mask(tabular.RULES[name], start)
    assert abs(found - math.ceil(exact)) <= 1, name


@pytest.mark.parametrize('name', tabular.RULES)
def test_refreshes_by_gradient(name):
  violated = tabular.RULES[name]
  found = tuple(tabular.by_gradient(violated, *o) for o in tabular.OPTIMIZERS)
  assert found == _BY_GRADIENT[name]


def test_the_first_refresh_of_kl_gains_1_minus_exp_minus_delta():
  violated = tabular.RULES['DPPO-Binary-KL']
  bound = 1 - math.exp(-tabular.DELTA_KL)
  assert not violated(1e-12, bound - 1e-6)
  assert violated(1e-12, bound + 1e-6)


def test_rows_have_every_rule_and_problem():
  rows = list(tabular.rows())
  problems = len(tabular.STARTS) + len(tabular.OPTIMIZERS)
  assert len(rows) == len(tabular.RULES) * problems
  named = {(r['problem'], r['variant'], r['label']): r for r in rows}
  assert len(named) == len(rows)
  clip = named['ascent', 'GRPO-ClipHigher', '1e-05']
  assert (clip['refreshes'], clip['start']) == (44, 1e-5)


def test_rows_of_runs_come_first_with_the_same_columns():
  found = list(tabular.beside([{'variant': 'TV', 'seed': 0, 'reward': 0.5}]))
  assert {tuple(row) for row in found} == {tuple(found[0])}
  assert found[0]['problem'] == 'transformer'
  assert [row['variant'] for row in found[1:]] == [
    row['variant'] for row in tabular.rows()
  ]
  assert list(tabular.beside([])) == []


def test_panels_show_the_counts():
  trained = [{'variant': 'TV', 'seed': 0, 'reward': 0.5}]
  table = [
    {k: str(v) for k, v in row.items()} for row in tabular.beside(trained)
  ]
  ascent, gradient = tabular.counted(Points(table))
  shown = {one.label: tuple(one.y) for one in ascent.series}
  assert shown == _BY_MASK
  assert {one.label: tuple(one.y) for one in gradient.series} == _BY_GRADIENT
