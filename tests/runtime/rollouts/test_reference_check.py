"""References of the data are looked at once, and refused beyond a share."""

import json
import re

import pytest

from dppo_jax.rewards.references import Unverifiable
from dppo_jax.runtime.rollouts import reference_check
from dppo_jax.runtime.rollouts.verify import open_pool
from tests.support import runs

_FEW = Unverifiable(1000, {'no': 'malformed', 'A: 1': "'1' is wrong"}, 40)


def test_few_are_told():
  (told,) = reference_check.check({'training': _FEW}, 0.05)
  assert told == (
    '40 of 1,000 training references are accepted by no verifier:'
    " 'no' (malformed), 'A: 1' ('1' is wrong)"
  )
  fine = Unverifiable(1000, {}, 0)
  assert reference_check.check({'training': fine}, 0.0) == []


def test_many_are_refused():
  with pytest.raises(
    ValueError, match=r'^data\.max_unverifiable: 40 of 1,000 held-out .* 0\.03'
  ):
    reference_check.check({'held-out': _FEW}, 0.03)


def test_a_long_list_is_cut():
  many = Unverifiable(20, {str(i): 'wrong' for i in range(20)}, 20)
  text = reference_check.describe('training', many, num_shown=2)
  assert text.endswith("'0' (wrong), '1' (wrong) and 18 more")


def _settings(folder, answers, **overrides):
  for name, prefix in (('train', ''), ('held', 'so ')):
    (folder / f'{name}.jsonl').write_text(
      ''.join(
        json.dumps({'prompt': f'{prefix}{i} 1', 'answer': answer}) + '\n'
        for i, answer in enumerate(answers)
      )
    )
  return runs.smallest(
    data__source='rows',
    data__files=str(folder / 'train.jsonl'),
    evaluation__files=str(folder / 'held.jsonl'),
    data__tokenizer=str(runs.ROOT / 'tests' / 'testdata' / 'tokenizer'),
    data__max_prompt_length=40,
    rewards__verifier='numeric',
    **overrides,
  )


def test_the_tasks_of_this_package_are_not_asked():
  experiment = runs.experiment()
  with open_pool(experiment.rewards) as pool:
    assert reference_check.examine(experiment, runs.parts(), pool) == {}


def test_a_run_refuses_data_that_it_cannot_judge(tmp_path):
  settings = _settings(tmp_path, ['1', 'two', 'three', '4'])
  message = "2 of 4 training references .*'two' (malformed)"
  with pytest.raises(
    ValueError,
    match=re.escape('data.max_unverifiable: ')
    + message.replace('(', r'\(').replace(')', r'\)'),
  ):
    runs.run(settings, tmp_path / 'run')
  assert not list((tmp_path / 'run' / 'checkpoints').iterdir())


def test_both_parts_are_examined(tmp_path):
  settings = _settings(tmp_path, ['1', 'two', '3', '4'])
  experiment = runs.experiment(settings)
  with open_pool(experiment.rewards) as pool:
    found = reference_check.examine(experiment, runs.parts(settings), pool)
  assert {name: each.share for name, each in found.items()} == {
    'training': 0.25,
    'held-out': 0.25,
  }
