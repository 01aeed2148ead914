"""Arrays of .npz files that somebody else wrote: bounded in memory, no pickles.

A damaged archive fails in a dozen ways, from `zlib.error` to `AttributeError`;
and a small one may unpack to more than a machine holds.
"""

import pathlib
import zipfile

import numpy as np

MAX_BYTES = 4 * 2**30  # Of the arrays of a file together, unpacked.


def read(
  path: pathlib.Path, *, max_bytes: int = MAX_BYTES
) -> dict[str, np.ndarray]:
  """Arrays of an archive, by name.

  Args:
    path: of the file.
    max_bytes: what all of them may take, unpacked.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is no archive of plain arrays, damaged, or larger; the
      message is one line.
  """
  if not path.exists():
    raise FileNotFoundError(f'{path}: no such file')
  if not path.is_file():  # Opening a named pipe would wait for its writer.
    raise ValueError('no regular file')
  try:
    with path.open('rb') as file:  # NumPy leaves a damaged one open.
      with zipfile.ZipFile(file) as archive:
        size = sum(member.file_size for member in archive.infolist())
      if size > max_bytes:
        raise ValueError(f'{size:,} bytes unpacked; at most {max_bytes:,}')
      file.seek(0)
      arrays = np.load(file, allow_pickle=False)
      found = {name: arrays[name] for name in arrays.files}
      for name, array in found.items():
        if not isinstance(array, np.ndarray):  # A member that is no array.
          raise ValueError(f'{name} is no array')
      return found
  except Exception as error:
    text = ' '.join(str(error)[:1000].split())[:200]
    raise ValueError(text or type(error).__name__) from error
