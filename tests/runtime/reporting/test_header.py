import json
import pathlib
import shlex
import shutil
import sys

import pytest

from dppo_jax.runtime.reporting import header, summary
from dppo_jax.runtime.storage import metrics_log
from tests.support import runs


def test_the_summary_is_of_the_metrics(finished, tmp_path):
  rows = metrics_log.read_rows(finished / metrics_log.METRICS_FILE)
  trained = [row for row in rows if 'rewards/mean' in row]
  for row in trained[:2]:  # They compile.
    row['time/step_s'] = 100.0
  lines = ''.join(json.dumps(row) + '\n' for row in rows)
  (tmp_path / metrics_log.METRICS_FILE).write_text(lines)
  facts = header.summarize(runs.experiment(), runs.parts(), tmp_path)
  assert facts['steps'] == len(trained) == 6
  rewards = [row['rewards/mean'] for row in trained]
  assert facts['reward_mean'] == pytest.approx(sum(rewards) / 6)
  times = sorted(row['time/step_s'] for row in trained[2:])
  assert facts['step_s'] == pytest.approx((times[1] + times[2]) / 2)
  assert facts['held_out_before'] == rows[0]['evaluation/sampled_accuracy']
  assert facts['held_out_after'] == rows[-1]['evaluation/sampled_accuracy']
  assert facts['greedy_after'] == rows[-1]['evaluation/greedy_accuracy']
  assert facts['parameters'] == 6512
  assert facts['skipped_updates'] == 0
  assert 'verifier_failed' not in facts


def test_the_summary_reports_failed_verifiers(finished, tmp_path):
  rows = metrics_log.read_rows(finished / metrics_log.METRICS_FILE)
  trained = [row for row in rows if 'rewards/errors' in row]
  trained[0]['rewards/errors'], trained[0]['rewards/timeouts'] = 0.25, 0.75
  trained[1]['rewards/errors'] = 0.5
  lines = ''.join(json.dumps(row) + '\n' for row in rows)
  (tmp_path / metrics_log.METRICS_FILE).write_text(lines)
  facts = header.summarize(runs.experiment(), runs.parts(), tmp_path)
  assert facts['verifier_failed'] == pytest.approx(1.5 / 6)
  assert facts['verifier_failed_steps'] == 1


def test_the_end_writes_and_prints_the_summary(finished, tmp_path):
  metrics = (finished / metrics_log.METRICS_FILE).read_text()
  (tmp_path / metrics_log.METRICS_FILE).write_text(metrics)
  facts = {'step_s': 0.123456, 'tokens': 12345.6, 'steps': 1000, 'v': {'a': 1}}
  text = header.finish(tmp_path, facts, ['--config=a b.py'])
  lines = text.splitlines()
  assert lines[:4] == [
    'Summary',
    '  step_s  0.1235',
    '  tokens  12,346',
    '  steps   1,000',
  ]
  assert [line.split()[0] for line in lines[4:]] == [
    'Picture:',
    'Samples:',
    'Evaluate:',
    'Export:',
  ]
  export = shlex.split(lines[-1].removeprefix('Export:'))
  assert pathlib.Path(shutil.which(export[0])).is_file()
  assert export[-3:] == [
    f'--workdir={tmp_path}',
    f'--out={tmp_path}_hf',
    '--step=best',
  ]
  assert summary.read_summary(tmp_path) == facts
  assert (tmp_path / summary.PICTURE_FILE).read_bytes()[:4] == b'\x89PNG'
  assert json.loads((tmp_path / summary.SUMMARY_FILE).read_text())['v']


def _header(resumed_step=None, num_filtered=0, **overrides):
  settings = runs.config(**overrides)
  parts = runs.parts(settings)
  parts.prompts.num_filtered = num_filtered
  return header.header(
    runs.experiment(settings), parts, pathlib.Path('/run'), resumed_step
  ).splitlines()


def test_the_header_says_what_runs():
  lines = _header()
  assert lines[0] == 'task      running_sum, 16,384 prompts'
  assert lines[1] == 'held out  validation, 1,024 prompts'
  assert lines[-1] == 'workdir   /run'


def test_the_header_shows_cap_and_aggregation():
  overrides = {
    'objective__ratio_cap': 3.0,
    'objective__aggregation': 'sequence_mean_token_sum',
  }
  (line,) = (x for x in _header(**overrides) if x[:4] == 'loss')
  assert line == (
    'loss      score form, pi/mu by token, cap 3, floor 0 ·'
    ' sequence_mean_token_sum · advantage group_mean'
  )


def test_the_header_counts_what_was_left_out():
  assert _header(num_filtered=1234)[0].endswith(
    '16,384 prompts (1,234 longer than data.max_prompt_length=6 left out)'
  )


@pytest.mark.parametrize(
  ('rule', 'shown', 'hidden'),
  [
    ('divergence', 'topk_tv from the rollout policy · delta_low 0.2', 'clip'),
    ('ratio_clip', 'against the rollout policy · clip_low 0.2', 'delta'),
    ('none', 'none, against the rollout policy', 'delta'),
  ],
)
def test_the_header_shows_the_bounds_that_count(rule, shown, hidden):
  (line,) = (x for x in _header(trust_region__rule=rule) if x[:4] == 'rule')
  assert shown in line
  assert hidden not in line


def test_the_header_says_where_a_run_goes_on():
  assert _header(resumed_step=4)[-1] == 'Resuming from step 4 of 6.'
  assert _header(resumed_step=6)[-1] == 'Finished already: step 6 is the last.'


def test_the_header_reports_unread_keys(monkeypatch):
  told = ['config.json: nothing here reads a=1.', 'b']
  monkeypatch.setattr(
    header.published_notes, 'notes', lambda experiment, tokenizer: told
  )
  assert _header(resumed_step=4)[-4:] == [
    'workdir   /run',
    f'note      {told[0]}',
    'note      b',
    'Resuming from step 4 of 6.',
  ]


def test_parameters_are_those_of_the_model():
  experiment = runs.experiment(runs.config(model__num_layers=3))
  more = header.num_parameters(runs.parts(runs.config(model__num_layers=3)))
  model = experiment.model
  kv = 2 * model.num_kv_heads * model.head_dim * model.d_model
  attention = 2 * model.num_heads * model.head_dim * model.d_model + kv
  norms = 2 * model.d_model + 2 * model.head_dim
  layer = attention + 3 * model.d_model * model.d_ff + norms
  assert more - header.num_parameters(runs.parts()) == layer


@pytest.mark.parametrize('installed', [True, False])
def test_commands_are_those_of_this_environment(
  installed, tmp_path, monkeypatch
):
  python, script = tmp_path / 'python', tmp_path / 'dppo'
  python.touch()
  if installed:
    script.touch()
  monkeypatch.setattr(sys, 'executable', str(python))
  folder = tmp_path / 'run'
  folder.mkdir()
  evaluate, _ = (
    line.split()[1:] for line in header.next_commands(folder, ['--config=tiny'])
  )
  start = [str(script)] if installed else [str(python), '-m', 'dppo_jax']
  assert evaluate == [*start, 'evaluate', f'--workdir={folder}']


def _last(folder, *arguments):
  return header.next_commands(folder, arguments)[-1]


def test_a_finished_run_can_be_extended(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  recorded = {'num_steps': 60, 'sampling': {'lag': 0}}
  (tmp_path / 'config.json').write_text(json.dumps(recorded))
  line = _last(tmp_path, '--config=a b.py', '--config.num_steps=60', '--extend')
  name, _, command = line.partition(' ')
  assert name == 'Extend:'
  assert shlex.split(command)[-4:] == [
    'train',
    '--config=a b.py',
    '--config.num_steps=120',
    '--extend',
  ]
  recorded['sampling']['lag'] = 1  # It sampled nothing ahead of its end.
  (tmp_path / 'config.json').write_text(json.dumps(recorded))
  assert _last(tmp_path).startswith('Export:')


def test_paths_are_those_of_the_folder_one_is_in(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  folder = tmp_path / 'runs/a'
  folder.mkdir(parents=True)
  text = '\n'.join(header.next_commands(folder, []))
  assert '--workdir=runs/a --out=runs/a_hf' in text
  assert str(tmp_path) not in text


def test_a_command_on_the_path_is_named_as_one_types_it(tmp_path, monkeypatch):
  for name in ('python', 'dppo'):
    (tmp_path / name).touch(mode=0o755)
  monkeypatch.setattr(sys, 'executable', str(tmp_path / 'python'))
  monkeypatch.setenv('PATH', str(tmp_path))
  assert header._command('train', ['--config=tiny']) == (
    'dppo train --config=tiny'
  )
