"""Suggestions for misspelled names."""

from collections.abc import Collection
import difflib


def suggest(got: str, known: Collection[str]) -> str:
  """The end of an error message about an unknown name.

  Args:
    got: what was written.
    known: what is allowed, in the order to list it.

  Returns:
    "; did you mean 'x'? Known: x, y." or ". Known: x, y.", where nothing is
    near.
  """
  close = difflib.get_close_matches(str(got), known, n=1)
  hint = f'; did you mean {close[0]!r}?' if close else '.'
  return f'{hint} Known: {", ".join(known) or "none"}.'
