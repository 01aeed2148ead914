"""The command that evaluates a training, as a process of its own."""

import json

import pytest

from dppo_jax.runtime.storage import metrics_log
from tests.support import runs


@pytest.fixture(scope='module')
def looked_at(tmp_path_factory, finished):
  """What the command says of the finished run, and the file it writes."""
  out = tmp_path_factory.mktemp('evaluate') / 'out.json'
  before = {p: p.read_bytes() for p in finished.rglob('*') if p.is_file()}
  code, said, err = runs.end(
    runs.start('evaluate', f'--workdir={finished}', f'--out={out}')
  )
  assert code == 0, err
  after = {p: p.read_bytes() for p in finished.rglob('*') if p.is_file()}
  # The training wrote the same results after its last step.
  assert after == before
  return said, json.loads(out.read_text())


def test_it_finds_what_the_training_found(looked_at, finished):
  said, record = looked_at
  last = metrics_log.read_rows(finished / metrics_log.METRICS_FILE)[-1]
  assert last.pop('step') == record['step'] == 6
  assert 'evaluation/greedy_accuracy' in last
  assert last.items() <= record.items()
  assert 'Step 6 on validation: 32 prompts × 1 samples' in said
  low, high = (
    last[f'evaluation/sampled_accuracy_{end}'] for end in ('low', 'high')
  )
  line = f'avg@1             {last["evaluation/sampled_accuracy"]:.4g}'
  assert f'  {line} [{low:.4g}, {high:.4g}]' in said
  assert '  pass@1  ' in said
  assert f'Results: {finished / "evaluations" / "step6_validation_32x1_"}' in (
    said
  )


def test_the_metrics_are_those_of_the_problems(looked_at):
  _, record = looked_at
  problems = record['problems']
  assert len(problems) == 32
  rewards = [problem['sampled'][0]['reward'] for problem in problems]
  assert record['evaluation/sampled_accuracy'] == sum(rewards) / 32
  greedy = [problem['greedy']['reward'] for problem in problems]
  assert record['evaluation/greedy_accuracy'] == sum(greedy) / 32


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--workdir=/nowhere/at/all'], '--workdir: /nowhere/at/all holds no run'),
    ([], '--workdir: missing; name the run to evaluate, --workdir=DIR, or a'),
  ],
)
def test_no_run_to_look_at(arguments, message):
  code, _, err = runs.end(runs.start('evaluate', *arguments))
  assert code == 1
  assert err.splitlines()[-1].startswith(f'error: {message}')
