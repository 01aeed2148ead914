"""Words to token ids and back."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from dppo_jax.data import tasks


class WordTokenizer:
  """A fixed vocabulary of words that texts separate by spaces.

  The pad and end words are ids only: text that spells them is refused, so no
  prompt can end itself or hide behind the mask.

  Attributes:
    vocab_size: V, words of the vocabulary, those that never occur included.
    pad_id: id of '<pad>'.
    eos_ids: id of '<eos>', the end of a completion.
    special_ids: those two by their words, which no decoded text holds.
  """

  def __init__(
    self, vocabulary: Sequence[str], prompt_template: str = '{prompt}'
  ):
    """Numbers the words by their position.

    Args:
      vocabulary: distinct words, '<pad>' and '<eos>' among them.
      prompt_template: words around a prompt, which stands for '{prompt}'.

    Raises:
      ValueError: a word occurs twice, or one of the two is missing.
    """
    ids = {word: i for i, word in enumerate(vocabulary)}
    if len(ids) != len(vocabulary):
      raise ValueError(
        f'vocabulary: {len(vocabulary) - len(ids)} repeated words; every '
        'word must occur once.'
      )
    missing = [word for word in (tasks.PAD, tasks.EOS) if word not in ids]
    if missing:
      raise ValueError(f'vocabulary: lacks {", ".join(missing)}; add them.')
    self.vocab_size = len(vocabulary)
    self.pad_id = ids.pop(tasks.PAD)
    self.eos_ids = (ids.pop(tasks.EOS),)
    self.special_ids = {tasks.PAD: self.pad_id, tasks.EOS: self.eos_ids[0]}
    self._ids = ids
    self._prompt_template = prompt_template
    words = np.array(vocabulary, dtype=object)
    words[[self.pad_id, *self.eos_ids]] = ''
    self._words = words

  def encode(self, text: str) -> list[int]:
    """Returns the id of each word; adds no end.

    Raises:
      ValueError: a word is not in the vocabulary.
    """
    try:
      return [self._ids[word] for word in text.split()]
    except KeyError as error:
      raise ValueError(
        f'unknown word {error.args[0]!r} in {text[:80]!r}; the vocabulary '
        f'has {self.vocab_size} words and is that of data.task.'
      ) from None

  def encode_prompt(self, text: str) -> list[int]:
    """Encodes a prompt with the words around it; raises as `encode` does."""
    return self.encode(self._prompt_template.replace('{prompt}', text))

  def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
    """Encodes each text; raises as `encode` does."""
    return [self.encode(text) for text in texts]

  def decode(self, ids: Any) -> str:
    """Returns the words of i32 [R] ids, without pads and ends.

    Raises:
      ValueError: an id is not in [0, V).
    """
    ids = np.asarray(ids)
    return self.decode_batch(ids[None], np.ones((1, ids.size), bool))[0]

  def decode_batch(self, ids: Any, mask: Any) -> list[str]:
    """Decodes rows of tokens.

    Args:
      ids: i32 [B, R]; masked positions may hold anything.
      mask: bool [B, R], True on the tokens to read.

    Returns:
      B texts, without pads and ends.

    Raises:
      ValueError: an id that is not masked is not in [0, V).
    """
    ids = np.where(np.asarray(mask), np.asarray(ids), self.pad_id)
    ids = ids.astype(np.int64)  # An empty list is an array of floats.
    if ids.size and not 0 <= ids.min() <= ids.max() < self.vocab_size:
      raise ValueError(
        f'token ids from {ids.min()} to {ids.max()}; the vocabulary has ids '
        f'0 to {self.vocab_size - 1}. Is the model the one of data.task?'
      )
    rows = self._words[ids].tolist()
    return [' '.join(filter(None, row)) for row in rows]
