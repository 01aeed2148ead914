"""Files that are written whole or not at all."""

import pathlib


def write_atomically(path: pathlib.Path, text: str) -> None:
  """Writes a file that is either the old one or the new one, never half."""
  unfinished = path.with_name(f'.{path.name}.tmp')
  unfinished.write_text(text)
  unfinished.replace(path)
