import json

import pytest

from dppo_jax.analysis import before_after


def _run(folder, seed, ends, cost=8.0):
  """A finished run of two steps, as its files tell it."""
  folder.mkdir()
  (folder / 'config.json').write_text(json.dumps({'seed': seed}))
  key = 'evaluation/sampled_accuracy'
  rows = []
  for step, mean in zip((0, 2), ends, strict=False):
    rows.append(
      {
        'step': step,
        key: mean,
        f'{key}_low': mean - 0.05,
        f'{key}_high': mean + 0.05,
        'evaluation/greedy_accuracy': mean / 2,
      }
    )
  for step in (1, 2):
    rows.insert(1, {'step': step, 'rewards/mean': 0.5, 'time/step_cpu_s': cost})
  text = ''.join(json.dumps(row) + '\n' for row in rows)
  (folder / 'metrics.jsonl').write_text(text)
  samples = [
    {
      'step': step,
      'prompt': 'An example\n1 + 1 =',
      'completion': f' {step}\n',
      'reward': float(step == 2),
    }
    for step in (1, 2)
  ]
  text = ''.join(json.dumps(row) + '\n' for row in samples)
  (folder / 'samples.jsonl').write_text(text)
  return folder


@pytest.fixture
def folders(tmp_path):
  return [
    _run(tmp_path / 'a', 3, (0.125, 0.5)),
    _run(tmp_path / 'b', 4, (0.25, 0.375), cost=0.5),
  ]


def test_numbers_by_hand(folders):
  found = before_after.summarize(folders)
  assert found['mean_rise'] == 0.25
  assert found['least_rise'] == 0.125
  assert found['runs'][0] == {
    'seed': 3,
    'num_steps': 2,
    'step_cpu_s': 16.0,
    'sampled': [[0.125, 0.075, 0.175], [0.5, 0.45, 0.55]],
    'greedy': [0.0625, 0.25],
  }
  assert found['runs'][1]['step_cpu_s'] == 1.0


def test_the_text_shows_both_ends(folders):
  text = before_after.describe(folders, 4)
  assert (
    'seed 3: sampled 0.125 [0.075, 0.175] -> 0.500 [0.450, 0.550];'
    ' greedy 0.062 -> 0.250; 2 steps, 16 CPU-s'
  ) in text
  assert 'rises by +0.250 on average, by +0.125 at least' in text
  assert "Samples of step 1\n  1 + 1 =' 1\\n'  0\n" in text
  assert text.endswith("Samples of step 2\n  1 + 1 =' 2\\n'  1")


def test_a_picture_of_both_ends(folders, tmp_path):
  before_after.draw(folders, tmp_path / 'picture')
  assert (tmp_path / 'picture.png').stat().st_size > 10_000
  assert 'seed 4' in (tmp_path / 'picture.svg').read_text()


def test_an_unfinished_run_is_told(tmp_path):
  folder = _run(tmp_path / 'a', 0, (0.125,))
  with pytest.raises(ValueError, match='has 1 of the two evaluations'):
    before_after.summarize([folder])
