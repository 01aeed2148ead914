import json
import signal
from unittest import mock

import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.runtime.storage import metrics_log
from tests.support import runs


def _metrics(step):
  return {'loss/total': np.float32(1 / (step + 3)), 'time/step': 0.25 * step}


def _run(workdir, first, last, start_step):
  with metrics_log.MetricWriter(workdir, start_step) as metrics:
    with metrics_log.SampleWriter(workdir, start_step) as samples:
      for step in range(first, last + 1):
        metrics.write(step, _metrics(step))
        samples.write(
          step,
          [
            metrics_log.Sample(f'{step}', 'été\n"', float(i), 'wrong length')
            for i in range(2)
          ],
        )


def _contents(workdir):
  return [
    (workdir / name).read_bytes()
    for name in (metrics_log.METRICS_FILE, metrics_log.SAMPLES_FILE)
  ]


def test_a_line_is_one_json_object(tmp_path):
  with metrics_log.MetricWriter(tmp_path / 'new', None) as writer:
    writer.write(3, {'loss/total': jnp.float32(0.1), 'rollout/tokens': 7})
    # Before closing: nothing written waits in the process.
    text = (tmp_path / 'new' / 'metrics.jsonl').read_text()
  assert text == '{"step": 3, "loss/total": 0.1, "rollout/tokens": 7}\n'


def test_a_sample_line(tmp_path):
  with metrics_log.SampleWriter(tmp_path, None) as writer:
    writer.write(2, [metrics_log.Sample('31', '13', 1.0, 'correct')])
  assert json.loads((tmp_path / 'samples.jsonl').read_text()) == {
    'step': 2,
    'prompt': '31',
    'completion': '13',
    'reward': 1.0,
    'reason': 'correct',
  }


@pytest.mark.parametrize('value', [1 / 3, 1e-30, 123456.789, -0.0])
def test_f32_reads_back_exactly(value):
  single = np.float32(value)
  assert (
    np.float32(json.loads(json.dumps(metrics_log.to_json(single)))) == single
  )


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_valid_json_and_read_back(tmp_path, value):
  with metrics_log.MetricWriter(tmp_path, None) as writer:
    writer.write(1, {'loss/total': jnp.float32(value)})
  text = (tmp_path / metrics_log.METRICS_FILE).read_text()

  def refuse(constant):
    raise AssertionError(constant)

  row = json.loads(text, parse_constant=refuse)
  np.testing.assert_equal(float(row['loss/total']), value)


@pytest.mark.parametrize('restored', [0, 4, 9])
def test_a_resumed_run_leaves_the_file_of_an_unbroken_one(tmp_path, restored):
  _run(tmp_path / 'unbroken', 0, 9, None)
  broken = tmp_path / 'broken'
  _run(broken, 0, 7 if restored < 7 else 9, None)
  _run(broken, restored + 1, 9, restored)
  assert _contents(broken) == _contents(tmp_path / 'unbroken')


def test_starting_afresh_drops_everything(tmp_path):
  _run(tmp_path, 0, 3, None)
  _run(tmp_path, 0, 1, None)
  rows = metrics_log.read_rows(tmp_path / metrics_log.METRICS_FILE)
  assert [row['step'] for row in rows] == [0, 1]


def test_a_truncated_line_is_dropped(tmp_path):
  _run(tmp_path / 'unbroken', 0, 9, None)
  broken = tmp_path / 'broken'
  _run(broken, 0, 5, None)
  for name in (metrics_log.METRICS_FILE, metrics_log.SAMPLES_FILE):
    path = broken / name
    path.write_bytes(path.read_bytes()[:-3])
  rows = metrics_log.read_rows(broken / metrics_log.METRICS_FILE)
  assert [row['step'] for row in rows] == [0, 1, 2, 3, 4]
  _run(broken, 5, 9, 4)
  assert _contents(broken) == _contents(tmp_path / 'unbroken')


@pytest.mark.parametrize(
  'damage',
  [b'\x00' * 40, b'{"step": null}', b'{"step": true}', b'[1]', b'[' * 10**5],
  ids=['zeros', 'null', 'bool', 'list', 'deep'],
)
def test_a_damaged_line_is_moved_aside_and_logged(tmp_path, caplog, damage):
  _run(tmp_path, 0, 5, None)
  path = tmp_path / metrics_log.METRICS_FILE
  lines = path.read_bytes().split(b'\n')
  lines[2] = damage
  path.write_bytes(b'\n'.join(lines))
  rows = metrics_log.read_rows(path)
  assert [row['step'] for row in rows] == [0, 1, 3, 4, 5]
  assert 'metrics.jsonl: line 3 is damaged and is left out' in caplog.text
  _run(tmp_path, 5, 6, 4)
  assert 'line 3 is damaged; it is kept in metrics.jsonl.dam' in caplog.text
  rows = metrics_log.read_rows(path)
  assert [row['step'] for row in rows] == [0, 1, 3, 4, 5, 6]
  aside = path.with_name('metrics.jsonl.damaged')
  assert aside.read_bytes() == damage + b'\n'


def test_a_line_without_newline_is_incomplete(tmp_path):
  # It parses, but the next line would be glued to it.
  _run(tmp_path, 0, 2, None)
  path = tmp_path / metrics_log.METRICS_FILE
  path.write_bytes(path.read_bytes()[:-1])
  _run(tmp_path, 2, 3, 2)
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  assert [row['step'] for row in rows] == [0, 1, 2, 3]


def test_dropping_steps_leaves_no_other_file(tmp_path):
  _run(tmp_path, 0, 5, None)
  _run(tmp_path, 4, 5, 3)
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    metrics_log.METRICS_FILE,
    metrics_log.SAMPLES_FILE,
  ]


_ENDLESS = """
import sys
from dppo_jax.runtime.storage import metrics_log
writer = metrics_log.MetricWriter(sys.argv[1], None)
for step in range(10**9):
  writer.write(step, {'a': step})
  print(step, flush=True)
"""


def test_kill_loses_no_line(tmp_path):
  process = runs.start_code(_ENDLESS, tmp_path)
  for line in process.stdout:
    if int(line) == 50:
      break
  process.send_signal(signal.SIGKILL)
  _, rest, _ = runs.end(process)
  reported = [50, *map(int, rest.split('\n')[:-1])]
  rows = metrics_log.read_rows(tmp_path / metrics_log.METRICS_FILE)
  steps = [row['step'] for row in rows]
  assert steps == list(range(len(steps)))
  assert len(steps) >= reported[-1] + 1


def test_other_writers_get_the_finite_numbers_and_are_closed(tmp_path):
  other = mock.Mock()
  with metrics_log.MetricWriter(tmp_path, None, [other]) as writer:
    writer.write(1, {'loss/total': jnp.float32(0.5), 'time/step': 2})
    writer.write(2, {'loss/total': float('nan')})
    other.close.assert_not_called()
  assert other.mock_calls == [
    mock.call.write(1, {'loss/total': 0.5, 'time/step': 2}),
    mock.call.write(2, {}),
    mock.call.close(),
  ]


def test_a_file_that_is_not_there_has_no_rows(tmp_path):
  assert metrics_log.read_rows(tmp_path / 'metrics.jsonl') == []
