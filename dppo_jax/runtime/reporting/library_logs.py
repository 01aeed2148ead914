"""Messages of libraries on the console: warnings, and no traceback twice."""

import logging as std_logging
import pathlib

from absl import logging
import orbax.checkpoint as ocp

_ORBAX = str(pathlib.Path(ocp.__file__).parents[1])


def quieten() -> None:
  """Keeps what Orbax logs of every file, and its tracebacks, off the console.

  An error in its background threads is raised again when a save is awaited:
  the run reports it then, in a line. `--verbosity=1` shows everything.
  """
  logging.set_verbosity(logging.WARNING)
  logging.get_absl_logger().addFilter(_told_elsewhere)


def _told_elsewhere(record: std_logging.LogRecord) -> bool:
  """False for a traceback of Orbax, unless everything is asked for."""
  return (
    not record.exc_info
    or logging.get_verbosity() >= logging.DEBUG
    or not record.pathname.startswith(_ORBAX)
  )
