"""The config path in front of the error of what a key names."""

from collections.abc import Iterator
import contextlib


@contextlib.contextmanager
def config_path(path: str) -> Iterator[None]:
  """Puts the path of a key in front of a ValueError raised inside.

  Args:
    path: of the key that named the file or folder: 'model.pretrained'.

  Raises:
    ValueError: 'path: ' and the message of what was raised.
  """
  try:
    yield
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error
