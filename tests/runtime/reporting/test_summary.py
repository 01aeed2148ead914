import json
import math

from matplotlib import image
import numpy as np
import pytest

from dppo_jax.runtime.reporting import summary
from dppo_jax.runtime.storage import metrics_log
from tests.support import runs

_METRICS = [curve.metric for panel in summary.PLOTS for curve in panel.curves]


def _write_metrics(workdir, metrics=tuple(_METRICS), num_steps=40):
  with metrics_log.MetricWriter(workdir, None) as writer:
    for step in range(num_steps):
      writer.write(
        step,
        {
          name: 0.5 + 0.4 * math.sin(step / 9 + number)
          for number, name in enumerate(metrics)
          if step % 10 == 0 or not name.startswith('evaluation/')
        },
      )


def _panels(path):
  """Ink of each of the 2 x 4 panels: share of pixels that are not white."""
  picture = image.imread(path)[..., :3]
  rows = np.array_split(picture, 2, axis=0)
  return [
    float((part < 0.9).any(axis=-1).mean())
    for row in rows
    for part in np.array_split(row, 4, axis=1)
  ]


def test_the_summary_is_valid_json_and_replaces_the_old_one(tmp_path):
  summary.write_summary(tmp_path, {'old': 1})
  summary.write_summary(
    tmp_path,
    {
      'accuracy': np.float32(0.1),
      'steps': np.int64(3),
      'loss': float('nan'),
      'workdir': tmp_path,
      'evaluations': [{'step': 0, 'pass': True}, None],
    },
  )
  text = (tmp_path / 'summary.json').read_text()
  assert json.loads(text) == {
    'accuracy': 0.1,
    'steps': 3,
    'loss': 'NaN',
    'workdir': str(tmp_path),
    'evaluations': [{'step': 0, 'pass': True}, None],
  }
  assert [path.name for path in tmp_path.iterdir()] == ['summary.json']


def test_every_panel_is_drawn(tmp_path):
  _write_metrics(tmp_path)
  summary.write_summary(tmp_path, {'accuracy': 0.97})
  path = summary.draw_summary(tmp_path)
  assert path == tmp_path / 'summary.png'
  full = _panels(path)
  # The same without a single value.
  (tmp_path / metrics_log.METRICS_FILE).unlink()
  empty = _panels(summary.draw_summary(tmp_path))
  for drawn, blank in zip(full[:7], empty[:7], strict=True):
    assert drawn > 1.3 * blank
  assert not list(tmp_path.glob('*.tmp'))


@pytest.mark.parametrize('metric', ['rollout/entropy_mean', 'rewards/mean'])
def test_a_missing_metric_leaves_its_panel_empty(tmp_path, metric):
  _write_metrics(tmp_path)
  full = _panels(summary.draw_summary(tmp_path))
  _write_metrics(tmp_path, [name for name in _METRICS if name != metric])
  found = _panels(summary.draw_summary(tmp_path))
  index = [panel.curves[0].metric for panel in summary.PLOTS].index(metric)
  assert found[index] < 0.8 * full[index]


class _Axis:
  """Records the texts of a panel."""

  def __init__(self):
    self.texts = []

  def text(self, x, y, text, **unused_style):
    self.texts.append(text)

  def __getattr__(self, name):
    return _Anything()


class _Anything:
  def __call__(self, *unused_args, **unused_options):
    return self

  def __getattr__(self, name):
    return self

  def __getitem__(self, key):
    return self


def test_an_empty_panel_says_so():
  axis = _Axis()
  rows = [{'step': 1, 'rollout/entropy_mean': 'NaN'}]
  summary._draw_plot(axis, summary.PLOTS[-1], rows)
  assert axis.texts == ['metrics.jsonl has no finite\nrollout/entropy_mean']


def test_values_that_are_not_finite_are_left_out(tmp_path):
  with metrics_log.MetricWriter(tmp_path, None) as writer:
    for step in range(30):
      value = float('inf') if step % 3 else 0.0
      writer.write(step, dict.fromkeys(_METRICS, value))
  summary.draw_summary(tmp_path)


def test_one_value_is_enough(tmp_path):
  _write_metrics(tmp_path, num_steps=1)
  summary.draw_summary(tmp_path)


def test_series_skips_rows_without_the_metric():
  rows = [{'step': 0, 'a': 1}, {'step': 1}, {'step': 2, 'a': 'NaN'}]
  steps, values = summary.series(rows, 'a')
  np.testing.assert_array_equal(steps, [0, 2])
  np.testing.assert_array_equal(values, [1.0, np.nan])


def test_moving_mean_by_hand():
  np.testing.assert_allclose(
    summary._moving_mean(np.array([1.0, 2.0, 6.0, 3.0]), 1),
    [1.5, 3.0, 11 / 3, 4.5],
  )


def test_pyplot_and_its_global_state_stay_out(tmp_path):
  _write_metrics(tmp_path, num_steps=3)
  code = (
    'import sys\n'
    'from dppo_jax.runtime.reporting import summary\n'
    'assert "matplotlib" not in sys.modules\n'
    f'summary.draw_summary({str(tmp_path)!r})\n'
    'assert "matplotlib.pyplot" not in sys.modules\n'
  )
  runs.said(code, fresh=True)
