"""Stop strings: where a completion ends, and the token that completes them.

A stop string may end inside a token. Training keeps that token, since the
policy sampled it; the verified text ends with the stop string.
"""

from collections.abc import Callable, Sequence
import functools
from typing import Any, NamedTuple

import numpy as np


class Stop(NamedTuple):
  """Completion ended by a stop string.

  Attributes:
    num_tokens: tokens up to and including the one that completes the string.
    text: up to and including the stop string.
  """

  num_tokens: int
  text: str


@functools.lru_cache(maxsize=8)
def ending_ids(
  tokenizer: Any, stop_strings: tuple[str, ...]
) -> tuple[int, ...]:
  """Ids of the tokens whose own text holds a stop string, ascending.

  Sampling ends a completion with any of them, where it would be cut anyway;
  a stop string that is spread over several tokens is found in the text only.

  Args:
    tokenizer: of the policy, of type `base.Tokenizer`.
    stop_strings: texts, none of them empty.
  """
  if not stop_strings:
    return ()
  ids = np.arange(tokenizer.vocab_size)[:, None]
  texts = tokenizer.decode_batch(ids, np.ones(ids.shape, bool))
  holding = [
    i
    for i, text in enumerate(texts)
    if find_end(text, stop_strings) is not None
  ]
  # Some decoders write a token otherwise where it is the first one.
  before = next((i for i, text in enumerate(texts) if text.isalnum()), None)
  if before is None or before in holding:
    return tuple(holding)
  behind = [tokenizer.decode([before, i]) for i in holding]
  return tuple(
    i
    for i, text in zip(holding, behind, strict=True)
    if find_end(text, stop_strings) is not None
  )


def find_end(text: str, stop_strings: Sequence[str]) -> int | None:
  """End index of the first stop string; None if there is none.

  The first is the one that is completed first as the text grows.

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
  """Token count and text of a completion at its first stop string.

  Args:
    ids: of a completion.
    text: `decode(ids)`.
    stop_strings: none of them empty.
    decode: ids -> text. A longer prefix never loses a stop string, so the
      shortest prefix with one is found by bisection.

  Returns:
    The stop; None if the text contains no stop string.
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
