import math

import numpy as np
import pytest

from dppo_jax.analysis import table as table_lib


def _row(variant, seed, step, reward):
  return {'variant': variant, 'seed': seed, 'step': step, 'reward': reward}


@pytest.fixture
def table(tmp_path):
  path = tmp_path / 'a.csv'
  rows = [
    _row('a, "b"', 0, 1, 0.25),
    _row('a, "b"', 0, 2, math.nan),
    _row('a, "b"', 0, 3, 0.75),
    _row('a, "b"', 1, 1, 1 / 3),
    _row('c', 0, 1, 1e-12),
  ]
  table_lib.write(path, rows)
  return table_lib.read(path)


def test_text_and_numbers_come_back(table):
  assert table.values('variant') == ['a, "b"', 'c']
  np.testing.assert_allclose(
    table.numbers('reward'), [0.25, np.nan, 0.75, 1 / 3, 1e-12], rtol=1e-5
  )
  assert len(table.where(variant='a, "b"', seed=0).rows) == 3


def test_means_by_seed_leave_empty_cells_out(table):
  found = table.by_seed('reward', variant='a, "b"')
  np.testing.assert_allclose(found, [0.5, 1 / 3], rtol=1e-5)
  assert table.by_seed('reward', variant='nobody').size == 0


def test_an_empty_table_is_refused(tmp_path):
  with pytest.raises(ValueError, match='no run has points'):
    table_lib.write(tmp_path / 'a.csv', [])
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('text', ['a,b\n1\n', 'a,b\n1,2,3\n', 'a\n"1\n'])
def test_a_damaged_file_is_refused(tmp_path, text):
  (tmp_path / 'a.csv').write_text(text)
  with pytest.raises(ValueError, match=r'a\.csv'):
    table_lib.read(tmp_path / 'a.csv')


def test_a_missing_file_is_refused(tmp_path):
  with pytest.raises(ValueError, match=r'a\.csv: cannot be read'):
    table_lib.read(tmp_path / 'a.csv')


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
  (tmp_path / 'a.csv').write_text('a\n1\n')
  monkeypatch.setattr(table_lib, 'MAX_BYTES', 3)
  with pytest.raises(ValueError, match='larger than'):
    table_lib.read(tmp_path / 'a.csv')
