"""A twentieth of the cases; `python -m tests.faults.damaged` tries all."""

import logging

import pytest

from tests.faults import damaged


def test_damaged_files_end_in_a_line_or_a_fallback(tmp_path):
  logging.disable(logging.WARNING)
  try:
    found = damaged.run(tmp_path, every=19)
  finally:
    logging.disable(logging.NOTSET)
  assert set(found) == {kind.name for kind in damaged.KINDS}
  assert not [wrong for cases in found.values() for wrong in cases if wrong]


@pytest.mark.parametrize(
  ('raised', 'said'),
  [
    (KeyError('a'), "KeyError: 'a'"),
    (ValueError('no name'), 'no name'),
    (ValueError('x.json\n' * 99), '693 characters'),
    (RecursionError('deep'), 'RecursionError: deep'),
    (TimeoutError(), 'it hangs'),
    (ValueError('x.json: cut off'), ''),
  ],
)
def test_a_traceback_is_wrong_and_a_line_is_right(tmp_path, raised, said):
  def read(folder):
    raise raised

  kind = damaged.Kind('x.json', lambda folder: None, read)
  assert damaged.judge(kind, tmp_path).startswith(said)
  assert bool(damaged.judge(kind, tmp_path)) == bool(said)
