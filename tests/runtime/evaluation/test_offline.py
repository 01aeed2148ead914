import json

import chex
import numpy as np
import pytest

from dppo_jax.configs import default
from dppo_jax.rewards.verdicts import Verdict
from dppo_jax.runtime.evaluation import accuracy, offline
from dppo_jax.runtime.evaluation.evaluate import Answers, Evaluation
from dppo_jax.runtime.programs import state as programs_state
from dppo_jax.runtime.storage import workdir
from tests.support import runs


def test_a_config_is_restored_with_overrides(finished):
  overrides = {'split': 'test', 'num_samples': 4, 'top_p': None}
  config = offline.restore_config(default.get_config(), finished, overrides, 1)
  expected = runs.config(evaluation__split='test', evaluation__num_samples=4)
  assert config.to_dict() == expected.to_dict()


def _evaluation_of(tmp_path, overrides, **recorded):
  settings = runs.config(
    **{
      'data__source': 'gsm8k',
      'sft__num_steps': 0,
      'evaluation__files': 'held_out.jsonl',
      'evaluation__split': 'train',
      'evaluation__fields__answer': 'gold',
      **recorded,
    }
  )
  workdir.check_config(tmp_path, settings.to_dict())
  config = offline.restore_config(default.get_config(), tmp_path, overrides, 1)
  section = config.evaluation
  return section.files, section.split, section.fields.answer


@pytest.mark.parametrize(
  ('overrides', 'expected'),
  [
    # What was recorded stays where nothing else is asked for.
    ({}, ('held_out.jsonl', 'train', 'gold')),
    ({'source': 'data'}, ('held_out.jsonl', 'train', 'gold')),
    ({'split': 'train'}, ('held_out.jsonl', 'train', 'gold')),
    # Another source is not read from the files of the old one.
    ({'source': 'math'}, ('', 'train', '')),
    ({'source': 'aime_2025'}, ('', 'train', '')),
    ({'source': 'rows', 'files': 'x.jsonl'}, ('x.jsonl', 'train', '')),
    # Nor is another split.
    ({'split': 'test'}, ('', 'test', 'gold')),
  ],
)
def test_another_source_or_split_has_files_of_its_own(
  tmp_path, overrides, expected
):
  assert _evaluation_of(tmp_path, overrides) == expected


def test_a_source_without_the_recorded_split_is_read_from_its_test(tmp_path):
  for source, split in (
    ('gsm8k', 'test'),
    ('aime_2024, math', 'test'),
    ('aqua', 'validation'),
    ('aime_2024', 'validation'),
  ):
    folder = tmp_path / source
    folder.mkdir()
    recorded = {'evaluation__split': 'validation'}
    _, found, _ = _evaluation_of(folder, {'source': source}, **recorded)
    assert found == split


def test_a_mesh_of_other_devices_is_laid_out_anew(tmp_path):
  workdir.check_config(
    tmp_path, runs.config(mesh__data=2, mesh__fsdp=2, mesh__tensor=2).to_dict()
  )

  def mesh(num_devices):
    config = offline.restore_config(
      default.get_config(), tmp_path, {}, num_devices
    )
    return config.mesh.to_dict()

  assert mesh(8) == {'data': 2, 'fsdp': 2, 'tensor': 2, 'expert': 1}
  assert mesh(1) == {'data': -1, 'fsdp': 1, 'tensor': 1, 'expert': 1}


def test_a_run_or_a_config_to_evaluate(tmp_path):
  config = runs.config(data__source='math', evaluation__files='x.jsonl')
  overrides = {'source': 'aime_2025', 'num_samples': 3, 'top_p': None}
  opened = offline.open_config(config, None, overrides, 1)
  assert opened is config
  section = config.evaluation
  assert (section.source, section.num_samples) == ('aime_2025', 3)
  assert section.files == ''  # Of the other source.
  for given in ((None, None), (config, tmp_path)):
    with pytest.raises(ValueError, match=r'^--workdir: .*, or a config whose'):
      offline.open_config(*given, {}, 1)


def test_without_a_run_the_policy_is_what_it_would_begin_with():
  settings = runs.smallest()
  experiment, parts = runs.experiment(settings), runs.parts(settings)
  with runs.quick_compilation():
    state = offline.open_policy(experiment, parts, None, 'latest')
    expected = programs_state.initial_state(
      experiment, parts, parts.optimizer, parts.shardings
    )
  assert int(state.step) == 0
  chex.assert_trees_all_equal(state.params, expected.params)


@pytest.fixture
def found():
  def answers(size, text):
    verdicts = [Verdict(float(i % 2), f'reason {i}') for i in range(2 * size)]
    return Answers(
      example_id=np.array([16384, 16385]),
      texts=[f'{text} {i}' for i in range(2 * size)],
      verdicts=verdicts,
      lengths=np.arange(2 * size),
      truncated=np.arange(2 * size) == 1,
    )

  metrics = {
    'evaluation/sampled_accuracy': 0.5,
    'evaluation/pass_at_k': 2 / 3,
    'evaluation/length_mean': 2.5,
    'evaluation/truncated': 0.25,
  }
  sampled = answers(3, 'drawn')
  statistics = accuracy.summarize(sampled.rewards(), 100, 0.9, 0)
  return Evaluation(metrics, sampled, answers(1, 'likeliest'), statistics)


_FACTS = {
  'step': 6,
  'evaluation': {
    'split': 'test',
    'temperature': 0.5,
    'top_p': 1.0,
    'confidence': 0.9,
    'num_resamples': 100,
  },
}


def test_problems_keep_their_completions(found):
  parts = runs.parts()
  first, second = offline.problems(parts, found)
  (example,) = parts.held_out.examples([16385])
  assert second.items() > example.items()
  assert [c['completion'] for c in first['sampled']] == [
    'drawn 0',
    'drawn 1',
    'drawn 2',
  ]
  assert second['sampled'][0] == {
    'completion': 'drawn 3',
    'reward': 1.0,
    'reason': 'reason 3',
    'length': 3,
    'truncated': False,
  }
  assert second['greedy']['completion'] == 'likeliest 1'
  without = found._replace(greedy=None)
  assert 'greedy' not in offline.problems(parts, without)[0]


def test_the_console_shows_metrics_and_completions(found):
  parts = runs.parts()
  lines = offline.describe(_FACTS, parts, found, 1).splitlines()
  # The first of a fixed order of the problems, not of their own.
  (example,) = parts.held_out.examples([16385])
  assert lines == [
    'Step 6 on test: 2 prompts × 3 samples, temperature 0.5, top_p 1;'
    ' intervals of 0.9, by 100 resamples of the prompts',
    '  avg@3             0.5 [0.3333, 0.6667]',
    '  pass@1            0.5 [0.3333, 0.6667]',
    '  pass@2            0.8333 [0.6667, 1]',
    '  pass@3            1 [1, 1]',
    '  length, tokens    2.5',
    '  truncated, share  0.25',
    'Samples (reward, reason: prompt -> completion)',
    f'  1, reason 3: {example["prompt"]} -> drawn 3',
  ]


def test_the_file_holds_everything(tmp_path, found):
  path = tmp_path / 'new' / 'out.json'
  offline.write_problems(path, _FACTS, runs.parts(), found)
  record = json.loads(path.read_text())
  assert record['step'] == 6
  assert record['evaluation/pass_at_k'] == 2 / 3
  assert record['average'] == found.statistics.average._asdict()
  assert [each['value'] for each in record['pass_at']] == pytest.approx(
    [1 / 2, 5 / 6, 1]
  )
  assert len(record['problems']) == 2


def test_results_go_to_the_folder_and_the_rest_where_it_is_asked(
  tmp_path, found
):
  built = runs.experiment()
  arguments = built, _FACTS, runs.parts(), found
  said = offline.write(tmp_path, None, *arguments)
  (path,) = tmp_path.rglob('*.jsonl')
  assert said == f'Results: {path}'
  out = tmp_path / 'out.json'
  said = offline.write(tmp_path, out, *arguments)
  assert said.splitlines() == [f'Results: {path}', f'Problems: {out}']
  assert json.loads(out.read_text())['step'] == 6
