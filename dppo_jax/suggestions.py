"""Suggestions for misspelled names."""

from collections.abc import Collection
import difflib

_WORD = 3  # Characters of a part of a name that stands for it.


def nearest(got: str, known: Collection[str]) -> str:
  """The known name that is most like what was written; '' if none is near.

  Capitals do not count, nor whether words are joined by '-' or '_'. A name
  that holds what was written is near, too: 'gpu:8xh100' to 'h100'.
  """
  names = {_plain(name): name for name in known}
  plain = _plain(got)
  close = difflib.get_close_matches(plain, names, n=1)
  if not close and len(plain) >= _WORD:
    close = [name for name in names if plain in name]
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
