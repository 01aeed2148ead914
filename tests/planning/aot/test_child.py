import subprocess
import sys

import pytest

from dppo_jax.planning.aot import child

# Real processes and signals: a rare race is shown as a rerun.
pytestmark = pytest.mark.flaky(reruns=1)


def _replace(monkeypatch, code):
  """Runs python code in place of the command; the exit code."""
  real = subprocess.run
  handed_over = []
  monkeypatch.setattr(
    child.activity, 'hand_over', lambda: handed_over.append(1)
  )

  def run(command, **options):
    assert handed_over  # Else both tell what they are at.
    assert command[:3] == [sys.executable, '-m', 'experiments.x']
    assert command[3:] == ['--a=b', child.FLAG]
    return real([sys.executable, '-c', code], **options)

  monkeypatch.setattr(subprocess, 'run', run)
  return child.run('experiments.x', ['--a=b'])


def test_the_child_has_what_libtpu_needs(monkeypatch):
  code = (
    'import os, sys; e = os.environ\n'
    'sys.exit(40 + (e["ALLOW_MULTIPLE_LIBTPU_LOAD"] == "1") + '
    '(e["JAX_PLATFORMS"] == "cpu") + (e["TPU_SKIP_MDS_QUERY"] == "1"))'
  )
  assert _replace(monkeypatch, code) == 43


def test_a_killed_child_is_reported(monkeypatch):
  code = 'import os; os.kill(os.getpid(), 9)'
  with pytest.raises(ValueError, match=r'SIGKILL.*memory.*--phases'):
    _replace(monkeypatch, code)
