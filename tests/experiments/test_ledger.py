"""A run that keeps a ledger, and the command that shows it."""

import json
import shutil

import numpy as np
import pytest

from dppo_jax.analysis.ledger import replay
from dppo_jax.configs import default, presets
from dppo_jax.runtime.ledger import files as files_lib
from dppo_jax.runtime.ledger import record as record_lib
from dppo_jax.runtime.reporting import summary
from dppo_jax.runtime.storage import workdir
from tests.support import runs

# Several command lines in one process, as importing takes seconds; what each
# printed, and its exit code.
_DRIVER = """
import contextlib, io, json, sys
from absl import flags
from dppo_jax.runtime import cli
from dppo_jax.experiments import ledger
ends = []
for arguments in json.loads(sys.argv[1]):
  for name in ('workdir', 'step', 'rule', 'match_share', 'out', 'html'):
    flags.FLAGS[name].unparse()
  out, err = io.StringIO(), io.StringIO()
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    argv = cli.parse_flags(['ledger', *arguments])
    code = cli.guard(ledger.main, argv)
  ends.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(ends))
"""


@pytest.fixture(scope='module')
def recorded(tmp_path_factory, finished):
  """The finished run, cut off after four steps and resumed with a ledger."""
  folder = tmp_path_factory.mktemp('recorded') / 'run'
  shutil.copytree(finished, folder)
  _resume(folder, every_n_steps=1)
  return folder


def _resume(folder, every_n_steps):
  shutil.rmtree(folder / workdir.CHECKPOINTS / '6')
  (folder / summary.SUMMARY_FILE).unlink()
  runs.run(runs.config(ledger__every_n_steps=every_n_steps), folder)


def _commands(*lines):
  return json.loads(runs.said(_DRIVER, json.dumps(lines)))


def test_a_ledger_changes_no_bit_of_a_run(recorded, finished):
  assert files_lib.find_steps(recorded) == [5, 6]
  assert not (finished / files_lib.FOLDER).exists()
  runs.assert_same(recorded, finished)


def test_the_record_is_of_the_step(recorded):
  record = files_lib.load_steps(recorded, '6')
  rows = [r for r in runs.rows(recorded) if r['step'] == 6]
  metrics = {k: v for row in rows for k, v in row.items()}
  assert record.reward.mean() == pytest.approx(metrics['rewards/mean'])
  assert record.lengths().mean() == pytest.approx(
    metrics['rollout/length_mean']
  )
  assert record.divergence.mean() == pytest.approx(
    metrics['trust_region/divergence_mean'], rel=1e-4
  )
  moved = np.exp(record.log_probs) - np.exp(record.rollout_log_probs)
  assert np.abs(moved).mean() == pytest.approx(
    metrics['mismatch/mean_abs'], rel=1e-4
  )
  # The first update saw the parameters that sampled.
  first = record.update[record.row] == 0
  assert np.abs(moved[first]).max() < 1e-5 < np.abs(moved[~first]).max()
  assert (record.group_id == np.repeat(np.arange(8), 4)).all()
  words = [record.pieces[i] for i in record.token[record.row == 5].tolist()]
  assert (
    ' '.join(w for w in words if w != record_lib.END) == record.completions[5]
  )


def test_a_resumed_run_ends_with_the_same_records(tmp_path, recorded):
  folder = shutil.copytree(recorded, tmp_path / 'run')
  files = folder / files_lib.FOLDER
  for name in ('step_000003.npz', 'step_000007.npz'):
    shutil.copy(files / 'step_000005.npz', files / name)
  (folder / summary.SUMMARY_FILE).write_text('{}')
  _resume(folder, every_n_steps=2)
  assert files_lib.find_steps(folder) == [3, 6]
  got, expected = (files_lib.load_steps(f, '6') for f in (folder, recorded))
  for name in record_lib.COLUMNS:
    a, b = getattr(got, name), getattr(expected, name)
    if b is None:
      assert a is None
    else:
      np.testing.assert_array_equal(a, b)
  assert got.completions == expected.completions


def test_every_rule_of_the_run_replays(recorded):
  record = files_lib.load_steps(recorded, 'all')
  config = workdir.read_config(recorded)
  for text in ('', 'cppo', 'grpo', 'dppo_topk_kl,delta=1e-4', 'gspo'):
    rule = replay.resolve(default.get_config(), config, presets.PRESETS, text)
    decided = replay.decide(record, rule)
    assert decided.keep.shape == record.keep.shape
    if not text:
      np.testing.assert_array_equal(decided.keep, record.keep)


def test_the_command(tmp_path, recorded, finished):
  at = f'--workdir={recorded}'
  damaged = shutil.copytree(recorded, tmp_path / 'damaged')
  path = damaged / files_lib.FOLDER / 'step_000005.npz'
  path.write_bytes(path.read_bytes()[:1000])
  page = tmp_path / 'page.html'
  shown, *refused = _commands(
    [at, '--step=6', '--rule=dppo_binary_tv,delta=0.001',
     '--rule=rule=ratio_clip,clip_low=0.001',
     f'--out={tmp_path / "out"}', f'--html={page}'],
    [],
    [f'--workdir={finished}'],
    [at, '--step=4'],
    [at, '--rule=dppo_binary_tw'],
    [at, '--rule=delta_lo=1'],
    [at, '--rule=dppo_exact_tv'],
    [at, '--rule=minirl'],
    [f'--workdir={damaged}'],
    [at, '--match_share', '--rule=cppo'],
    [at, 'word'],
  )  # fmt: skip
  code, out, err = shown
  assert (code, err) == (0, '')
  assert 'decides every token as recorded' in out
  assert 'dppo_binary_tv,delta=0.001: divergence on binary_tv' in out
  assert out.count('[0.99, 1]') == 3
  names = {p.name for p in (tmp_path / 'out').iterdir()}
  assert len(names) == 3
  assert all(name in out for name in names)
  assert page.read_text().startswith('<!doctype html>')
  assert not list((recorded / files_lib.FOLDER).glob('*.png'))
  expected = (
    '--workdir: missing',
    '--config.ledger.every_n_steps=10',
    "--step: '4' not recorded; recorded are 5, 6",
    "did you mean 'dppo_binary_tv'",
    "did you mean 'delta_low'",
    'reads all 16 log-probs and 5 were recorded',
    'anchor=rollout',
    'step_000005.npz is damaged',
    '--match_share: the recorded rule masks no token',
    "unexpected argument 'word'",
  )
  for (code, out, err), words in zip(refused, expected, strict=True):
    assert (code, out) == (1, ''), words
    assert err.startswith('error: ')
    assert words in err
    assert 'Traceback' not in err
