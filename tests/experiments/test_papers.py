"""Commands of the papers' figures, against what the papers say.

The table is tests/testdata/papers/settings.json, transcribed by hand.
"""

import importlib
import json
import math
import shlex

import pytest

from dppo_jax.configs import published
from dppo_jax.experiments.figures import __main__ as every_figure
from dppo_jax.experiments.figures import papers
from tests.support import runs

_TABLE = json.loads(
  (runs.ROOT / 'tests' / 'testdata' / 'papers' / 'settings.json').read_text()
)
_FIGURES = _TABLE['figures']
_CURVES = [
  pytest.param(name, number, id=f'{name}-{number}-{row["method"]}')
  for name, rows in _FIGURES.items()
  for number, row in enumerate(rows)
]
_DATA = {
  'DAPO-Math': ('dapo_math_17k', ''),
  '1,460 problems of MATH': ('rows', 'sanity.jsonl'),
  'UltraFeedback': ('rows', 'train_prefs*.parquet'),
}
_ESTIMATORS = {
  'mean of the group, no std': 'group_mean',
  'group-relative; std not said': 'group_mean',
}
_FILTERS = {'kept': 'off', 'left out': 'drop'}


def _parse(text):
  for kind in (int, float):
    try:
      return kind(text)
    except ValueError:
      continue
  return text


def _resolve(command):
  """The config that a printed command trains, and its workdir."""
  words = shlex.split(command)
  assert words[:2] == ['dppo', 'train']
  flags = dict(word.removeprefix('--').split('=', 1) for word in words[2:])
  name, _, preset = flags.pop('config').partition(':')
  workdir = flags.pop('workdir')
  config = importlib.import_module(f'dppo_jax.configs.{name}').get_config(
    preset
  )
  for key, value in flags.items():
    assert key.startswith('config.'), key
    path = key.removeprefix('config.')
    config.update_from_flattened_dict({path: _parse(value)})
  return config, workdir


def test_every_figure_has_its_runs():
  assert sorted(papers.RUNS) == sorted(_FIGURES) == every_figure.known()
  for name, commands in papers.RUNS.items():
    figure = importlib.import_module(
      f'dppo_jax.experiments.figures.{name}'
    ).FIGURE
    assert tuple(figure.pod) == commands
    assert len(commands) == len(_FIGURES[name]), name


def test_no_two_runs_share_a_folder():
  folders = {}
  for commands in papers.RUNS.values():
    for command in commands:
      config, workdir = _resolve(command)
      assert folders.setdefault(workdir, config) == config, workdir


@pytest.mark.parametrize(('name', 'number'), _CURVES)
def test_a_command_is_the_run_of_its_paper(name, number):
  row = _FIGURES[name][number]
  said = _TABLE['settings'][row['setting']]
  config, _ = _resolve(papers.RUNS[name][number])
  region, objective = config.trust_region, config.objective

  assert config.model.pretrained.rpartition('/')[2] == said['model']
  shape = next(
    shape
    for full, shape in published.SHAPES.items()
    if full.endswith(
      said['model']
      if said['model'] != 'Qwen3-30B-A3B'
      else 'Qwen3-30B-A3B-Base'
    )
  )
  assert config.model.num_layers == shape['num_layers']
  source, files = _DATA[said['data']]
  assert config.data.source == source
  assert config.data.files.endswith(files)
  assert config.num_steps == said['steps']
  assert config.advantages.estimator == _ESTIMATORS[said['advantages']]
  assert config.sampling.top_k == said.get('top_k', 20)
  for key, value in {
    'prompts': config.data.num_prompts,
    'completions': config.data.group_size,
    'updates': config.learner.num_minibatches,
    'max_prompt': config.data.max_prompt_length,
    'max_completion': config.sampling.max_completion_length,
    'learning_rate': config.optimizer.learning_rate,
    'temperature': config.sampling.temperature,
  }.items():
    if said.get(key) is not None:
      assert value == said[key], key
  if 'zero_variance' in said:
    assert config.data.dynamic_sampling == _FILTERS[said['zero_variance']]
  # Both sum over the tokens of a response, here over the longest of them.
  assert objective.aggregation == 'sequence_mean_token_sum_norm'
  assert objective.length_norm == 0.0
  assert config.rewards.truncated == config.evaluation.truncated == 'score'

  if 'evaluation' in said:
    how = said['evaluation']
    sources = [s.strip() for s in config.evaluation.source.split(',')]
    assert set(how['sources']) <= set(sources)
    assert config.evaluation.num_samples == how['samples']
    assert config.evaluation.temperature == how['temperature']
    assert config.evaluation.top_p == how['top_p']
    assert config.evaluation.num_prompts >= 30 * len(sources)
  if 'reward' in said:
    assert config.rewards.model.endswith(said['reward'])
    assert config.rewards.verifier == 'none'
    assert config.evaluation.reward == 'model'

  assert region.rule == row['rule']
  assert region.anchor == row.get('anchor', 'rollout')
  assert objective.importance == row.get('importance', 'token')
  if row.get('asymmetric_clip'):
    assert 0.0 < objective.ratio_floor < 1.0 < objective.ratio_cap < math.inf
  elif 'cap' in said:
    cap = row.get('cap', said['cap'])
    assert objective.ratio_cap == (math.inf if cap is None else cap)
    assert objective.ratio_floor == 0.0
  if 'delta' in row:
    assert region.delta_low == region.delta_high == row['delta']
  for key in (
    'divergence',
    'delta_low',
    'clip_low',
    'clip_high',
    'alpha_low',
    'alpha_high',
    'w_min',
    'weight_order',
  ):
    if key in row:
      assert region[key] == row[key], key
  if 'budget' in row:
    assert region.budget == float(row['budget'])
