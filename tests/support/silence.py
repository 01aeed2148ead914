"""Time that stands still, but for what a test calls slow."""

import contextlib

from dppo_jax.runtime import activity


class Silence:
  """What a command tells of work that takes eleven seconds a piece."""

  def __init__(self):
    self.told = []
    self._now = 0.0
    self._activities = activity.Activities(self.told.append, lambda: self._now)
    self.under_way = self._activities.under_way

  def pause(self, *unused, **unused_too):
    """Lets eleven seconds pass."""
    self._now += 11
    self._activities.look()

  def slow(self, fn):
    """The function, eleven seconds slower."""

    def slowly(*args, **kwargs):
      self.pause()
      return fn(*args, **kwargs)

    return slowly


@contextlib.contextmanager
def of_command(monkeypatch):
  """Within it, a command is under way."""
  silence = Silence()
  monkeypatch.setattr(activity, 'under_way', silence.under_way)
  with silence.under_way('command'):
    yield silence
