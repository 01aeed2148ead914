"""Stop strings: where a text ends, and which token completed it.

A tokenizer need not break texts where a stop string ends: the token that
completes it may hold more. Training keeps that token, since the policy chose
it; the text that is verified ends with the stop string.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple


class Stop(NamedTuple):
  """A completion that a stop string ended.

  Attributes:
    num_tokens: tokens up to the one that completes the stop string.
    text: up to the stop string, which is its end.
  """

  num_tokens: int
  text: str


def find_end(text: str, stop_strings: Sequence[str]) -> int | None:
  """Where the first stop string ends; None where there is none.

  The first is the one completed first, as the text grows.

  >>> find_end('a stop, then end', ['end', 'stop'])
  6
  """
  ends = [text.index(stop) + len(stop) for stop in stop_strings if stop in text]
  return min(ends, default=None)


def find_stop(
  ids: Sequence[int],
  text: str,
  stop_strings: Sequence[str],
  decode: Callable[[Sequence[int]], str],
) -> Stop | None:
  """Finds the token that completes the first stop string.

  Args:
    ids: of a completion.
    text: of `ids`, as `decode` reads them.
    stop_strings: none of them empty.
    decode: ids to text. More ids never take back a stop string, so that the
      first prefix that holds one is found by halving.

  Returns:
    The stop, or None where the text holds no stop string.
  """
  end = find_end(text, stop_strings)
  if end is None:
    return None
  without, with_stop = 0, len(ids)
  while with_stop - without > 1:
    middle = (without + with_stop) // 2
    if find_end(decode(ids[:middle]), stop_strings) is None:
      without = middle
    else:
      with_stop = middle
  return Stop(with_stop, text[:end])
