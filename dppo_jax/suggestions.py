"""Suggestions for misspelled names."""

from collections.abc import Collection
import difflib


def nearest(got: str, known: Collection[str]) -> str:
  """The known name that is most like what was written; '' if none is near.

  Capitals do not count, nor whether words are joined by '-' or '_'.
  """
  names = {_plain(name): name for name in known}
  close = difflib.get_close_matches(_plain(got), names, n=1)
  return names[close[0]] if close else ''


def suggest(got: str, known: Collection[str]) -> str:
  """The end of an error message about an unknown name.

  Args:
    got: what was written.
    known: what is allowed, in the order to list it.

  Returns:
    "; did you mean 'x'? Known: x, y." or ". Known: x, y.", where nothing is
    near.
  """
  close = nearest(str(got), known)
  hint = f'; did you mean {close!r}?' if close else '.'
  return f'{hint} Known: {", ".join(known) or "none"}.'


def _plain(name: str) -> str:
  return str(name).replace('-', '_').casefold()
