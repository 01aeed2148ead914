import dataclasses
import json
import pathlib

import numpy as np
import pytest

from dppo_jax.analysis import table
from dppo_jax.analysis.sweeps import compare
from dppo_jax.runtime.ledger import files
from dppo_jax.runtime.storage import metrics_log, workdir
from tests.support import ledger_records as records
from tests.support import made_up_sweeps, pictures

# Labels of two runs, word by word.
_PAIR = ['name=a,', 'delta=0.1', '|', 'name=b,', 'delta=absent']


def _two(tmp_path, first='one', second='two'):
  one = made_up_sweeps.run(
    tmp_path / first, [0.1, 0.3], seed=0, rule={'name': 'a', 'delta': 0.1}
  )
  two = made_up_sweeps.run(
    tmp_path / second, [0.5], masked=0.2, seed=0, rule={'name': 'b'}
  )
  return [str(one), str(two)]


def _record(folder, record):
  place = pathlib.Path(folder) / files.FOLDER
  place.mkdir()
  step = int(record.step[0])
  files.save(place / f'step_{step:06d}.npz', record)


def test_configs_and_metrics(tmp_path):
  text = compare.compare(_two(tmp_path), tmp_path / 'out')
  lines = [line.split() for line in text.splitlines()]
  assert ['rule.delta', '0.1', 'absent'] in lines
  assert ['rule.name', 'a', 'b'] in lines
  assert not any(line[:1] == ['seed'] for line in lines)
  assert ['steps', '2', '1'] in lines
  assert ['rewards/mean,', 'last', '0.3', '0.5'] in lines
  assert ['rewards/mean,', 'mean', '0.2', '0.5'] in lines
  assert 'Ledgers' not in text
  assert 'no interval: a difference may be due to the seed' in text
  out = tmp_path / 'out'
  assert table.read(out / compare.POINTS).values('variant') == [
    'name=a, delta=0.1',
    'name=b, delta=absent',
  ]
  # Reward, held-out, mismatch, masked; no entropy was measured.
  assert len(pictures.drawn(out / 'compare.svg')) == 8
  assert 'base64,' in (out / compare.PAGE).read_text()


def test_ledgers(tmp_path):
  folders = _two(tmp_path)
  record = records.hand_made()
  keep = np.array([0, 0, 1, 1, 1, 1], np.float32)
  _record(folders[0], record)
  _record(folders[1], dataclasses.replace(record, keep=keep))
  text = compare.compare(folders, tmp_path / 'out')
  lines = [line.split() for line in text.splitlines()]
  counts = ['6', '2', '33.33%']
  assert [*_PAIR[:2], *counts, '1', '1', '1', '33.33%'] in lines
  assert [*_PAIR[3:], *counts, '2', '0', '0', '33.33%'] in lines
  assert [*_PAIR, '6', '1', '1', '1', '33.3%'] in lines


def test_ledgers_without_a_common_step_or_of_one_run(tmp_path):
  folders = _two(tmp_path)
  record = records.hand_made()
  _record(folders[0], record)
  text = compare.compare(folders, tmp_path / 'out')
  assert 'Masked tokens of 1 steps' in text
  assert 'Masked sets' not in text
  _record(folders[1], dataclasses.replace(record, step=record.step + 1))
  text = compare.compare(folders, tmp_path / 'out')
  assert 'No step was recorded by every run' in text


def test_equal_names_get_distinct_labels_and_hostile_ones_are_escaped(tmp_path):
  folders = [
    str(made_up_sweeps.run(tmp_path / name / '<b>$x_{', [0.1], seed=0))
    for name in ('a', 'c')
  ]
  text = compare.compare(folders, tmp_path / 'out')
  assert 'a/<b>$x_{' in text
  page = (tmp_path / 'out' / compare.PAGE).read_text()
  assert '<b>' not in page
  assert 'c/&lt;b&gt;$x_{' in page


def test_folders_without_a_run_are_named(tmp_path):
  good, _ = _two(tmp_path / 'sweep')
  fresh = made_up_sweeps.run(tmp_path / 'fresh', [])
  (fresh / metrics_log.METRICS_FILE).unlink()
  broken = made_up_sweeps.run(tmp_path / 'broken', [0.1])
  (broken / workdir.CONFIG).write_text('{')
  odd = made_up_sweeps.run(tmp_path / 'odd', [0.1])
  (odd / workdir.CONFIG).write_text('[]')
  line = json.dumps({'step': 'x'})
  wrong = made_up_sweeps.run(tmp_path / 'wrong', [0.1])
  (wrong / metrics_log.METRICS_FILE).write_text(f'{line}\n')
  names = ['nowhere', 'sweep', 'fresh', 'broken', 'odd', 'wrong']
  folders = [good, *(str(tmp_path / name) for name in names)]
  with pytest.raises(ValueError, match='no such folder') as caught:
    compare.compare(folders, tmp_path / 'out')
  told = str(caught.value)
  assert f'{tmp_path}/sweep: holds no run' in told
  assert 'Runs in it: one, two.' in told
  assert f'{fresh}: has not trained yet' in told
  for folder in (broken, odd, wrong):
    assert f'{folder}: ' in told
  assert told.count('damaged') == 2
  # Its only line is damaged, so it is left out.
  assert f'{wrong}: has not trained yet' in told
  assert not (tmp_path / 'out').exists()


def test_how_many_runs(tmp_path):
  one, two = _two(tmp_path)
  with pytest.raises(ValueError, match='got 1 run folders; name 2 to 12'):
    compare.compare([one], tmp_path / 'out')
  with pytest.raises(ValueError, match='named twice'):
    compare.compare([one, two, f'{one}/../one'], tmp_path / 'out')
