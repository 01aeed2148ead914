import gc
import subprocess
import sys

from dppo_jax.commands import garbage
from tests.support import runs


def test_the_other_thresholds_stay():
  before = gc.get_threshold()
  try:
    gc.set_threshold(700, 7, 3)
    garbage.collect_less()
    assert gc.get_threshold() == (100_000, 7, 3)
  finally:
    gc.set_threshold(*before)


def test_it_begins_before_the_imports_of_a_command():
  code = 'import gc, sys, experiments; print(gc.get_threshold()[0])'
  code += "; print('jax' in sys.modules)"
  told = subprocess.check_output(
    [sys.executable, '-c', code], cwd=runs.ROOT, text=True
  )
  assert told == '100000\nFalse\n'
