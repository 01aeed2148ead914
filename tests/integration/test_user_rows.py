"""From a researcher's file and a model's tokenizer to a trained policy."""

import json
import math
import pathlib
import shutil

import numpy as np
import pytest

from dppo_jax.rewards import verifiers
from dppo_jax.runtime.reporting import summary
from dppo_jax.runtime.storage import metrics_log, workdir
from tests.support import runs

_TOKENIZER = pathlib.Path(__file__).parents[1] / 'testdata' / 'tokenizer'


def _even(completion, example):
  """Right where the number of letters is even, as the row asks."""
  right = len(completion) % 2 == int(example['answer'])
  return verifiers.RIGHT if right else verifiers.WRONG


@pytest.fixture
def settings(tmp_path, monkeypatch):
  row = verifiers.VerifierSpec(_even, 'answer', '')
  monkeypatch.setitem(verifiers.VERIFIERS, 'even', row)

  def write(name, start):
    rows = [
      {'q': {'text': f'What is {i}?'}, 'gold': i % 2, 'grade': f'G{i % 3}'}
      for i in range(start, start + 12)
    ]
    path = tmp_path / name
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return str(path)

  def make(**overrides):
    options = dict(
      num_steps=3,
      data__mixture=(
        ('rows', write('a.jsonl', 0), 3.0),
        ('rows', write('b.jsonl', 50), 1.0),
      ),
      data__fields__prompt='q.text',
      data__fields__answer='gold',
      data__fields__level='grade',
      data__tokenizer=str(_TOKENIZER),
      data__chat_template=True,
      data__system_prompt='Be brief.',
      data__prompt_template='{prompt} Answer in a word.',
      data__max_prompt_length=60,
      data__dynamic_sampling='resample',
      data__max_resampling=2,
      evaluation__source='rows',
      evaluation__files=write('c.jsonl', 80),
      evaluation__every_n_steps=0,
      rewards__verifier='even',
      sampling__stop_strings=tuple('aehinorst'),
      checkpoints__every_n_steps=1,
    )
    result = runs.smallest()
    flat = {**options, **overrides}
    result.update_from_flattened_dict(
      {path.replace('__', '.'): value for path, value in flat.items()}
    )
    return result

  return make


def test_a_run_on_rows_and_its_exact_resumption(settings, tmp_path):
  whole = tmp_path / 'whole'
  facts = runs.run(settings(), whole)
  assert facts['steps'] == 3
  assert facts['skipped_updates'] == 0
  rows = runs.rows(whole)
  trained = [row for row in rows if 'rewards/mean' in row]
  assert max(row['rollout/batches'] for row in trained) > 1
  for row in trained:
    assert all(math.isfinite(float(value)) for value in row.values())
    assert 0 <= row['rewards/sampled_mean'] <= 1
  samples = [
    json.loads(line)
    for line in (whole / metrics_log.SAMPLES_FILE).read_text().splitlines()
  ]
  assert all(s['prompt'].startswith('What is ') for s in samples)
  stopped = [s['completion'].endswith(tuple('aehinorst')) for s in samples]
  assert any(stopped)

  short = shutil.copytree(whole, tmp_path / 'short')
  shutil.rmtree(short / workdir.CHECKPOINTS / '3')
  (short / summary.SUMMARY_FILE).unlink(missing_ok=True)
  runs.run(settings(), short)
  runs.assert_same(short, whole, settings())


def test_dropped_groups_do_not_count(settings, tmp_path):
  """With all groups equal nothing is trained on, and nothing breaks."""
  common = dict(num_steps=1, optimizer__weight_decay=0.0)
  facts = runs.run(
    settings(
      **common,
      data__dynamic_sampling='drop',
      rewards__verifier='exact_match',
    ),
    tmp_path / 'drop',
  )
  assert facts['skipped_updates'] == 0
  (row,) = [r for r in runs.rows(tmp_path / 'drop') if 'rewards/mean' in r]
  assert row['rewards/zero_variance_groups'] == 1.0
  assert row['loss/total'] == 0.0
  assert row['trust_region/fraction_masked'] == 0.0
  assert row['rollout/batches'] == 1
  assert np.isfinite(row['optimizer/gradient_norm'])
