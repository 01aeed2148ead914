"""Stand-in for reasoning-gym, which the tests' extra leaves out."""

import pathlib
import sys

from dppo_jax import reasoning_tasks

_FOLDER = pathlib.Path(__file__).parents[1] / 'testdata' / 'environments'


def forget():
  """Forgets what was imported and opened."""
  reasoning_tasks._open.cache_clear()
  reasoning_tasks._entry.cache_clear()
  for name in [*sys.modules]:
    if name.partition('.')[0] == 'reasoning_gym':
      del sys.modules[name]


def stand_in(monkeypatch):
  """Makes the stand-in the library of this process and of its children.

  Call `forget` afterwards.
  """
  forget()
  monkeypatch.syspath_prepend(str(_FOLDER))


def missing(monkeypatch):
  """Makes the library one that is not installed."""
  forget()
  monkeypatch.setitem(sys.modules, 'reasoning_gym', None)
