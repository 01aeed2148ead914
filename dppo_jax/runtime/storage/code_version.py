"""Version of the code: a hash of its sources."""

from collections.abc import Sequence
import hashlib
import pathlib

# Of a clone, or of the folder that holds the installed package.
ROOT = pathlib.Path(__file__).parents[3]
SOURCES = ('dppo_jax', 'configs', 'experiments')


def of_sources(
  root: pathlib.Path,
  folders: Sequence[str] = SOURCES,
  without: Sequence[str] = (),
) -> str:
  """Hash of the sources below `root`, 16 hexadecimal digits.

  Args:
    root: of the repository.
    folders: of sources.
    without: folders below them to leave out.
  """
  digest = hashlib.sha256()
  for folder in folders:
    for path in sorted((root / folder).rglob('*.py')):
      if any(path.is_relative_to(root / other) for other in without):
        continue
      digest.update(str(path.relative_to(root)).encode())
      digest.update(path.read_bytes())
  return digest.hexdigest()[:16]
