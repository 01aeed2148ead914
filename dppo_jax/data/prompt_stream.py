"""Prompt stream: the prompts of each train step.

Every batch is a pure function of the seed and the step, so that a resumed run
continues without any data-loader state.
"""

import collections
from collections.abc import Iterable, Sequence
import functools
from typing import Any, NamedTuple

import numpy as np

from dppo_jax import base
from dppo_jax.data import mixture

OVERLONG = ('filter', 'error')
# Seed of evaluation subsets: every run, whatever its own seed, is evaluated on
# the same problems.
_SUBSET_SEED = 20_260_101


class EncodedPrompts(NamedTuple):
  """Examples whose prompts fit, with their tokens.

  Attributes:
    examples: n examples, in the given order.
    tokens: i32 [n, P], left-padded.
    mask: bool [n, P], True on real tokens.
    num_filtered: examples dropped because their prompts are too long.
  """

  examples: tuple[base.Example, ...]
  tokens: np.ndarray
  mask: np.ndarray
  num_filtered: int


def pad_rows(
  rows: Sequence[Sequence[int]], width: int, pad_id: int, *, left: bool
) -> tuple[np.ndarray, np.ndarray]:
  """Padded batch of sequences of unequal length.

  Args:
    rows: B sequences of at most `width` ids.
    width: W, columns of the result.
    pad_id: fills the rest.
    left: whether to pad on the left (prompts), else on the right (completions).

  Returns:
    Tokens i32 [B, W] and their mask, bool [B, W].
  """
  lengths = np.array([len(row) for row in rows], np.int64)[:, None]
  columns = np.arange(width)
  mask = columns >= width - lengths if left else columns < lengths
  tokens = np.full(mask.shape, pad_id, np.int32)
  tokens[mask] = [token for row in rows for token in row]
  return tokens, mask


def encode_prompts(
  examples: Iterable[base.Example],
  tokenizer: base.Tokenizer,
  max_prompt_length: int,
  overlong: str,
) -> EncodedPrompts:
  """Tokenized prompts, without those that are too long.

  Args:
    examples: with 'prompt' (text) and 'example_id' (int).
    tokenizer: the policy's.
    max_prompt_length: P, tokens.
    overlong: 'filter' drops longer prompts and counts them, 'error' raises.

  Returns:
    The examples that fit.

  Raises:
    ValueError: a prompt is too long under 'error', a prompt is empty, no prompt
      fits, or `overlong` is unknown.
  """
  if overlong not in OVERLONG:
    raise ValueError(
      f'data.overlong: unknown {overlong!r}; known: {", ".join(OVERLONG)}.'
    )
  examples = tuple(examples)
  if not examples:
    raise ValueError('data.task: no examples; the split is empty.')
  rows = [tokenizer.encode_prompt(example['prompt']) for example in examples]
  lengths = [len(row) for row in rows]
  if min(lengths) < 1:
    raise ValueError(
      f'data.task: {lengths.count(0)} of {len(rows)} prompts have no tokens; '
      'a prompt needs at least one.'
    )
  kept = [i for i, n in enumerate(lengths) if n <= max_prompt_length]
  num_filtered = len(rows) - len(kept)
  if num_filtered and (overlong == 'error' or not kept):
    raise ValueError(
      f'data.max_prompt_length: {num_filtered} of {len(rows)} prompts exceed '
      f'{max_prompt_length} tokens; the longest has {max(lengths)}. Raise the '
      'limit'
      + (", or set data.overlong to 'filter' to drop them." if kept else '.')
    )
  tokens, mask = pad_rows(
    [rows[i] for i in kept], max_prompt_length, tokenizer.pad_id, left=True
  )
  kept_examples = tuple(examples[i] for i in kept)
  return EncodedPrompts(kept_examples, tokens, mask, num_filtered)


@functools.lru_cache(maxsize=32)
def _permutation(
  num_examples: int, seed: int, epoch: int, stream: tuple[int, ...]
) -> np.ndarray:
  generator = np.random.default_rng([seed, epoch, *stream])
  order = generator.permutation(num_examples)
  order.setflags(write=False)  # Shared by every caller of the cache.
  return order


def epoch_indices(
  positions: np.ndarray, num_examples: int, seed: int, stream: tuple[int, ...]
) -> np.ndarray:
  """Indices at positions of an infinite stream, one permutation per epoch.

  Args:
    positions: i64 [B], from 0.
    num_examples: n, examples per epoch.
    seed: of the order, >= 0.
    stream: separates several streams of one seed; () is the first.

  Returns:
    i64 [B], in [0, n).
  """
  epochs, offsets = np.divmod(positions, num_examples)
  indices = np.empty(len(positions), np.int64)
  for epoch in np.unique(epochs).tolist():
    order = _permutation(num_examples, seed, epoch, stream)
    inside = epochs == epoch
    indices[inside] = order[offsets[inside]]
  return indices


@functools.lru_cache(maxsize=8)
def subset_order(num_examples: int) -> np.ndarray:
  """Fixed permutation, i64 [n], whose prefixes are random samples of a set.

  Data sets are ordered: MATH by subject, AIME by difficulty. So their first
  examples are no random sample; the first ones in this order are, and they are
  the same in every run. Smaller samples are contained in larger ones.

  Args:
    num_examples: n, size of the full set.
  """
  order = np.random.default_rng(_SUBSET_SEED).permutation(num_examples)
  order.setflags(write=False)  # Shared by every caller of the cache.
  return order


def batch_indices(
  step: int, batch_size: int, num_examples: int, seed: int
) -> np.ndarray:
  """Indices of a step's examples, a pure function of its arguments.

  The stream has one permutation per epoch: within an epoch no example occurs
  twice. A batch may span two epochs.

  Args:
    step: from 0.
    batch_size: indices per batch.
    num_examples: n, examples per epoch.
    seed: of the order, >= 0.

  Returns:
    i64 [batch_size], in [0, n).
  """
  positions = step * batch_size + np.arange(batch_size)
  return epoch_indices(positions, num_examples, seed, ())


def _by_component(
  examples: Sequence[base.Example], num_components: int, max_prompt_length: int
) -> list[np.ndarray]:
  """Indices of the examples of each component of a mixture, i64 [n_i].

  Raises:
    ValueError: a component has no example.
  """
  components = [example.get('component', 0) for example in examples]
  members = [
    np.flatnonzero(np.equal(components, i)) for i in range(num_components)
  ]
  empty = [i for i, found in enumerate(members) if not len(found)]
  if empty:
    raise ValueError(
      f'data.mixture: no prompt of row {empty[0]} fits into'
      f' data.max_prompt_length={max_prompt_length}; raise that, or remove'
      ' the row.'
    )
  return members


def _by_id(examples: Sequence[base.Example]) -> dict[int, base.Example]:
  """Examples by their id, in the given order.

  Raises:
    ValueError: an id occurs twice.
  """
  ids = [int(example['example_id']) for example in examples]
  found = dict(zip(ids, examples, strict=True))
  if len(found) != len(ids):
    repeated, count = collections.Counter(ids).most_common(1)[0]
    raise ValueError(
      f'data.task: example_id {repeated} occurs {count} times; ids must be '
      'unique.'
    )
  return found


class PromptStream:
  """Prompts of each train step, a pure function of the step.

  Attributes:
    num_prompts: N, prompts per step.
    num_examples: examples per epoch.
    num_filtered: examples dropped because their prompts are too long.
    num_duplicates: rows dropped because an earlier one has the same prompt.
    num_conflicts: duplicates with a different answer.
    num_special: examples whose problem contains special-token strings.
    notes: sentences on what else was dropped.
    num_unanswered: rows dropped because they have no reference answer.
    num_trained_on: held-out prompts that are in the training set.
  """

  def __init__(
    self,
    examples: Iterable[base.Example],
    tokenizer: base.Tokenizer,
    num_prompts: int,
    max_prompt_length: int,
    overlong: str,
    seed: int,
    weights: Sequence[float] = (1.0,),
    *,
    num_duplicates: int = 0,
    num_conflicts: int = 0,
    num_special: int = 0,
    notes: Sequence[str] = (),
    num_unanswered: int = 0,
    num_trained_on: int = 0,
  ):
    """Tokenizes every prompt once.

    Args:
      examples: with 'example_id', 'prompt' and the fields that verifiers read;
        for a mixture also with 'component', an index into `weights`.
      tokenizer: the policy's.
      num_prompts: N, prompts per step.
      max_prompt_length: P, tokens.
      overlong: 'filter' or 'error', for prompts longer than P.
      seed: of the order, >= 0.
      weights: mixture weights of the components.
      num_duplicates: rows dropped before, to report.
      num_conflicts: duplicates with a different answer, to report.
      num_special: examples with special-token strings, to report.
      notes: sentences on what else was dropped, to report.
      num_unanswered: rows dropped for lack of a reference answer, to report.
      num_trained_on: held-out rows, kept or dropped, whose prompt is in the
        training set, to report.

    Raises:
      ValueError: see `encode_prompts`; also `num_prompts` < 1, two examples
        with the same id, or a component without an example that fits.
    """
    if num_prompts < 1:
      raise ValueError(f'data.num_prompts: got {num_prompts}; at least 1.')
    encoded = encode_prompts(examples, tokenizer, max_prompt_length, overlong)
    self.num_prompts = num_prompts
    self.num_examples = len(encoded.examples)
    self.num_filtered = encoded.num_filtered
    self.num_duplicates = num_duplicates
    self.num_conflicts = num_conflicts
    self.num_special = num_special
    self.notes = tuple(notes)
    self.num_unanswered = num_unanswered
    self.num_trained_on = num_trained_on
    self._seed = seed
    self._weights = tuple(weights)
    self._members = _by_component(
      encoded.examples, len(weights), max_prompt_length
    )
    self._examples = _by_id(encoded.examples)
    # NumPy arrays; the caller transfers them to devices.
    self._tokens: Any = encoded.tokens
    self._mask: Any = encoded.mask
    self._ids: Any = np.asarray(list(self._examples), np.int32)

  def _take(self, indices: np.ndarray) -> base.Prompts:
    return base.Prompts(
      tokens=self._tokens[indices],
      mask=self._mask[indices],
      example_id=self._ids[indices],
    )

  def batch(
    self, step: int, attempt: int = 0, rows: np.ndarray | None = None
  ) -> base.Prompts:
    """Batch of N prompts of a step, as NumPy arrays.

    Args:
      step: from 0.
      attempt: each has its own stream; stream 0 goes through all examples,
        epoch by epoch, independent of other attempts.
      rows: indices into the N prompts, i64 [M]; None for all.
    """
    indices = self._indices(step, attempt)
    return self._take(indices if rows is None else indices[rows])

  def _indices(self, step: int, attempt: int) -> np.ndarray:
    """Indices of a step's examples, i64 [N]."""
    positions = int(step) * self.num_prompts + np.arange(self.num_prompts)
    if len(self._members) == 1 and not attempt:
      stream = ()
      return epoch_indices(positions, self.num_examples, self._seed, stream)
    component, ordinal = mixture.draw(
      positions, self._weights, self._seed, attempt
    )
    indices = np.empty(self.num_prompts, np.int64)
    for i, members in enumerate(self._members):
      drawn = component == i
      stream = (mixture.STREAM, i, attempt)
      indices[drawn] = members[
        epoch_indices(ordinal[drawn], len(members), self._seed, stream)
      ]
    return indices

  def all_examples(self) -> list[base.Example]:
    """Every example that fits, in the order of the split."""
    return list(self._examples.values())

  def facts(self) -> dict[str, collections.Counter[str]]:
    """Number of examples per 'level' and per 'source'."""
    return {
      key: collections.Counter(
        str(example[key])
        for example in self._examples.values()
        if key in example
      )
      for key in ('level', 'source')
    }

  def first(self, num_prompts: int) -> base.Prompts:
    """Prompts for evaluation, the same at every call.

    Args:
      num_prompts: size of the sample, the first in `subset_order`; 0, or at
        least the size of the split, for all in the order of the split.

    Returns:
      Prompts as NumPy arrays.

    Raises:
      ValueError: `num_prompts` < 0.
    """
    if num_prompts < 0:
      raise ValueError(
        f'evaluation.num_prompts: got {num_prompts}; at least 1, or 0 for all.'
      )
    if not 0 < num_prompts < self.num_examples:
      return self._take(np.arange(self.num_examples))
    return self._take(subset_order(self.num_examples)[:num_prompts])

  def shuffled(self) -> base.Prompts:
    """All prompts in `subset_order`: any prefix is a random sample."""
    return self._take(subset_order(self.num_examples))

  def examples(self, example_ids: Iterable[int]) -> list[base.Example]:
    """Examples of i32 [B] ids, for the verifiers.

    Raises:
      KeyError: no example of this stream has the id.
    """
    return [self._examples[i] for i in np.asarray(example_ids).tolist()]
