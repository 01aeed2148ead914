import logging as std_logging
import pathlib

from absl import logging
import orbax.checkpoint as ocp
import pytest

from dppo_jax.runtime.reporting import library_logs


@pytest.fixture(autouse=True)
def as_before():
  logger, level = logging.get_absl_logger(), logging.get_verbosity()
  filters = list(logger.filters)
  yield
  logger.filters[:] = filters
  logging.set_verbosity(level)


def _is_kept(path, level=std_logging.ERROR, error=None):
  logger = logging.get_absl_logger()
  info = error and (type(error), error, None)
  record = std_logging.LogRecord('absl', level, str(path), 1, 'x', (), info)
  return logger.isEnabledFor(level) and bool(logger.filter(record))


def test_a_traceback_of_orbax_is_told_elsewhere_and_nothing_else():
  orbax = pathlib.Path(ocp.__file__).parent / 'futures.py'
  error = OSError('full')
  library_logs.quieten()
  assert not _is_kept(orbax, error=error)
  assert _is_kept(orbax)
  assert _is_kept(orbax, std_logging.WARNING)
  assert not _is_kept(orbax, std_logging.INFO)
  assert _is_kept(__file__, error=error)
  logging.set_verbosity(logging.DEBUG)
  assert _is_kept(orbax, error=error)
  assert _is_kept(orbax, std_logging.INFO)
