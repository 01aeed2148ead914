"""Jobs of two real processes with two devices each, and of one with four."""

import socket
from types import SimpleNamespace

from tests.support import runs

# A busy machine may keep a process from running for many seconds.
TIME_LIMIT_S = 60


def free_port():
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return probe.getsockname()[1]


def one(folder, settings, *more):
  """A process with four devices."""
  return runs.train(folder, *_overrides(settings), *more, **runs.devices(4))


def two(folder, settings, *of_second, time_limit_s=TIME_LIMIT_S):
  """Two processes of one job; the second may get flags of its own."""
  flags = (
    f'--coordinator=127.0.0.1:{free_port()}',
    '--num_processes=2',
    f'--host_time_limit_s={time_limit_s}',
  )
  return [
    runs.train(
      folder,
      *_overrides(settings),
      *flags,
      f'--process_id={index}',
      *(of_second if index else ()),
      **runs.devices(2),
    )
    for index in range(2)
  ]


def end(processes):
  """Exit codes and what was said, once they have ended."""
  return [SimpleNamespace(**_ended(process)) for process in processes]


def _overrides(settings):
  return [f'--config.{key}={value}' for key, value in settings.items()]


def _ended(process):
  return dict(zip(('code', 'out', 'err'), runs.end(process), strict=True))
