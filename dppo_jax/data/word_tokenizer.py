"""Tokenizer with one token per word."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from dppo_jax.data import tasks


class WordTokenizer:
  """Tokenizer of a fixed vocabulary, for words separated by spaces.

  Text that contains the pad or end word is an error, so that no prompt can end
  itself or be taken for padding.

  Attributes:
    vocab_size: V, words of the vocabulary, unused ones included.
    pad_id: id of '<pad>'.
    eos_ids: id of '<eos>', the end of a completion.
    special_ids: word -> id of these two; decoded text contains neither.
  """

  def __init__(
    self, vocabulary: Sequence[str], prompt_template: str = '{prompt}'
  ):
    """Numbers the words by their position.

    Args:
      vocabulary: distinct words, '<pad>' and '<eos>' among them.
      prompt_template: text in which '{prompt}' is replaced by the prompt.

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
    """Id of each word, without an end token.

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
    """Ids of a prompt in its template; raises as `encode` does."""
    return self.encode(self._prompt_template.replace('{prompt}', text))

  def encode_reply(self, text: str, max_length: int) -> tuple[list[int], bool]:
    """Ids of the first words of a reply, and whether there are more.

    Raises:
      ValueError: as `encode` does.
    """
    words = text.split(None, max_length)
    return self.encode(' '.join(words[:max_length])), len(words) > max_length

  def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
    """Ids of each text; raises as `encode` does."""
    return [self.encode(text) for text in texts]

  def decode(self, ids: Any) -> str:
    """Text of i32 [R] ids, without pad and end tokens.

    Raises:
      ValueError: an id is not in [0, V).
    """
    ids = np.asarray(ids)
    return self.decode_batch(ids[None], np.ones((1, ids.size), bool))[0]

  def decode_batch(self, ids: Any, mask: Any) -> list[str]:
    """Texts of a batch of token sequences.

    Args:
      ids: i32 [B, R]; masked positions may hold anything.
      mask: bool [B, R], True on the tokens to decode.

    Returns:
      B texts, without pad and end tokens.

    Raises:
      ValueError: an unmasked id is not in [0, V).
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
