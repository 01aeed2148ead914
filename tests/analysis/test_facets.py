import dataclasses

import numpy as np

from dppo_jax.analysis import facets
from dppo_jax.analysis.panels import Panel, Series
from dppo_jax.runtime.reporting import palette

_TEN = (
  *('PG-IS', 'PG-TIS', 'MiniRL', 'MiniRL-TIS', 'GRPO-ClipHigher'),
  *('DPPO-Binary-TV', 'DPPO-Binary-KL', 'DPPO-TopK-TV', 'DPPO-TopK-KL'),
  'CPPO',
)


def _panel(labels, kind='line'):
  series = [
    Series(label=label, x=np.arange(2.0), y=np.arange(2.0), kind=kind)
    for label in labels
  ]
  return Panel(title='Reward', x_label='x', y_label='y', series=series)


def test_ten_curves_are_taken_apart_by_family():
  parts = facets.apart(_panel(_TEN))
  assert all(len(part.series) <= facets.MAX_CURVES for part in parts)
  assert [one.label for part in parts for one in part.series] == list(_TEN)
  assert {part.row for part in parts} == {'Reward'}
  assert [part.title for part in parts] == [
    'Reward: no trust region',
    'Reward: ratio clip',
    'Reward: DPPO',
    'Reward: CPPO',
  ]


def test_runs_of_no_family_are_taken_apart_as_well():
  parts = facets.apart(_panel([f'run {i}' for i in range(12)]))
  assert [len(part.series) for part in parts] == [4, 4, 4]


def test_few_curves_and_bars_stay_together():
  for panel in (_panel(_TEN[:4]), _panel(_TEN, 'bars')):
    assert facets.apart(panel) == [panel]


def test_names_are_those_of_the_palette():
  panel = facets.named(_panel(['DPPO', 'TV 0.1', 'other']))
  assert [one.label for one in panel.series] == [
    palette.NAMES['DPPO'],
    'DPPO-Binary-TV 0.1',
    'other',
  ]


def test_groups_are_split_and_renamed():
  first, second = facets.split(
    _panel(['a 1', 'a 2', 'b 1']),
    {'a': {'a 1': '1', 'a 2': '2'}, 'b': {'b 1': '1'}},
  )
  assert [one.label for one in first.series] == ['1', '2']
  assert [one.label for one in second.series] == ['1']
  assert (first.title, first.row) == ('Reward: a', 'Reward')


def test_bars_take_the_labels_of_their_groups():
  names = ('a: one', 'b: two', 'other')
  panel = dataclasses.replace(_panel(names, 'bars'), ticks=names)
  groups = {'a': {'a: one': 'one'}, 'b': {'b: two': 'two'}}
  got = facets.relabel(panel, groups)
  assert [one.label for one in got.series] == ['one', 'two', 'other']
  assert got.ticks == names
