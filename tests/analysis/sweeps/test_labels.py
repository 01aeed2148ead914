import pathlib

import pytest

from dppo_jax.analysis.sweeps import labels
from dppo_jax.configs import presets


def _label(*configs):
  paths = [pathlib.Path(f'/runs/{i}') for i in range(len(configs))]
  return labels.label_runs(paths, configs)


def test_runs_are_labeled_by_what_differs():
  assert _label(
    {'seed': 0, 'trust_region.divergence': 'binary_tv', 'model.d_ff': 8},
    {'seed': 1, 'trust_region.divergence': 'topk_tv', 'model.d_ff': 8},
  ) == ['divergence=binary_tv, seed=0', 'divergence=topk_tv, seed=1']


def test_two_bounds_that_are_one_have_one_name():
  names = 'trust_region.delta_low', 'trust_region.delta_high'

  def both(low, high):
    return dict(zip(names, (low, high), strict=True))

  assert _label(both(0.1, 0.1), both(0.25, 0.25)) == ['delta=0.1', 'delta=0.25']
  assert _label(both(0.1, 0.2), both(0.2, 0.3)) == [
    'delta_low=0.1, delta_high=0.2',
    'delta_low=0.2, delta_high=0.3',
  ]


def test_many_differences_are_told_by_the_fewest_keys():
  first = presets.PRESETS['grpo']
  second = presets.PRESETS['dppo_binary_tv']
  assert _label(first, second) == ['rule=ratio_clip', 'rule=divergence']
  base = {f'model.key_{i}': 0 for i in range(9)}
  other = {f'model.key_{i}': 1 for i in range(9)}
  assert _label(
    {**base, 'trust_region.rule': 'cppo', 'seed': 0},
    {**other, 'trust_region.rule': 'cppo', 'seed': 1},
    {**other, 'trust_region.rule': 'none', 'seed': 1},
  ) == [
    'rule=cppo, key_0=0',
    'rule=cppo, key_0=1',
    'rule=none, key_0=1',
  ]


def test_what_changes_no_number_is_no_difference():
  one = {'writers.wandb': True, 'data.data_dir': 'a', 'seed': 0}
  two = {'writers.wandb': False, 'data.data_dir': 'b', 'seed': 0}
  assert labels.differing([one, two]) == []
  assert _label(one, two) == ['0', '1']


def test_a_key_that_one_has_not_is_absent():
  assert _label({'seed': 0, 'a.b': 1}, {'seed': 0}) == ['b=1', 'b=absent']


def test_long_values_are_no_label():
  assert _label({'data.files': 'x' * 99}, {'data.files': 'y' * 99}) == [
    '0',
    '1',
  ]


@pytest.mark.parametrize(
  ('paths', 'expected'),
  [
    (['/a/one', '/a/two'], ['one', 'two']),
    (['/a/run', '/b/run'], ['a/run', 'b/run']),
    (['/x/a/run', '/y/a/run', '/z'], ['x/a/run', 'y/a/run', '/z']),
  ],
)
def test_folders_are_told_apart_by_their_last_parts(paths, expected):
  found = labels.from_folders([pathlib.Path(path) for path in paths])
  assert [name.lstrip('/') for name in found] == [
    name.lstrip('/') for name in expected
  ]


def test_runs_of_one_config_are_named_by_their_folders():
  config = {'seed': 0}
  assert labels.label_runs(
    [pathlib.Path('/runs/a'), pathlib.Path('/runs/b')], [config, config]
  ) == ['a', 'b']
