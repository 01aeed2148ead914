"""The lines that remain of an evaluation."""

import dataclasses
import json

import numpy as np
import pytest

from dppo_jax.rewards.verdicts import Verdict
from dppo_jax.runtime.evaluation import accuracy, results
from dppo_jax.runtime.evaluation.evaluate import Answers, Evaluation
from tests.support import runs


class _Stream:
  def examples(self, ids):
    return [
      {'example_id': int(i), **({'prompt': f'who? {i} é'} if i != 8 else {})}
      for i in ids
    ]


@pytest.fixture
def found():
  rewards = [1.0, 0.0, 0.5, 0.0, 0.0, 0.0]
  reasons = ['right', 'wrong', 'half', 'empty', 'wrong', 'wrong']
  answers = Answers(
    example_id=np.array([7, 8]),
    texts=['a', 'b' * 30_000, 'c', 'd', 'e', 'f'],
    verdicts=[Verdict(*each) for each in zip(rewards, reasons, strict=True)],
    lengths=np.arange(6),
    truncated=np.zeros(6, bool),
  )
  statistics = accuracy.summarize(answers.rewards(), 10, 0.9, 0)
  return Evaluation({}, answers, None, statistics)


def test_another_source_or_file_has_a_name_of_its_own(tmp_path):
  def name(**section):
    config = dataclasses.replace(runs.experiment().evaluation, **section)
    return results.results_path(tmp_path, 5, config, 30).name

  names = [
    name(),
    name(source='aime_2024'),
    name(source='aime_2025'),
    name(source='aime_2024, aime_2025'),
    name(source='rows', files='a/x.jsonl'),
    name(source='rows', files='b/x.jsonl'),
  ]
  assert len(set(names)) == len(names)
  assert names[0].startswith('step5_validation_30x')
  assert names[1].startswith('step5_aime_2024_validation_30x')
  assert names[3].startswith('step5_aime_2024_aime_2025_validation_30x')
  assert names[4].startswith('step5_rows_x_')


def test_a_line_a_problem(tmp_path, found):
  config = runs.experiment(
    runs.config(
      evaluation__num_samples=3,
      evaluation__temperature=0.7,
      evaluation__top_p=0.95,
    )
  ).evaluation
  path = results.write_results(tmp_path, 5, config, _Stream(), found)
  assert path == (
    tmp_path
    / 'evaluations'
    / 'step5_validation_2x3_temperature0.7_top_p0.95.jsonl'
  )
  assert [json.loads(line) for line in path.read_text().splitlines()] == [
    {
      'example_id': 7,
      'prompt': 'who? 7 é',
      'num_samples': 3,
      'correct': 2,
      'reward': 0.5,
      'reasons': {'half': 1, 'right': 1, 'wrong': 1},
      'failure': {
        'completion': f'{"b" * 10_000} [10,000 characters] {"b" * 10_000}',
        'reason': 'wrong',
        'length': 1,
        'truncated': False,
      },
    },
    {
      'example_id': 8,
      'num_samples': 3,
      'correct': 0,
      'reward': 0.0,
      'reasons': {'empty': 1, 'wrong': 2},
      'failure': {
        'completion': 'd',
        'reason': 'empty',
        'length': 3,
        'truncated': False,
      },
    },
  ]
  # The same evaluation again replaces its file, another has its own.
  results.write_results(tmp_path, 5, config, _Stream(), found)
  other = dataclasses.replace(config, split='test')
  results.write_results(tmp_path, 5, other, _Stream(), found)
  assert len(list((tmp_path / 'evaluations').iterdir())) == 2


def test_a_training_keeps_every_evaluation(finished):
  names = sorted(path.name for path in (finished / 'evaluations').iterdir())
  assert names == [
    'step0_validation_32x1_temperature1_top_p1.jsonl',
    'step3_validation_16x1_temperature1_top_p1.jsonl',
    'step6_validation_32x1_temperature1_top_p1.jsonl',
  ]
