"""Demonstrations for the supervised warm start, keyed by the step."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from dppo_jax import base
from dppo_jax.data import prompt_stream, tasks

# Keeps these draws apart from those of the prompt stream, which shares the
# seed of the run.
_STREAM = 1


class DemonstrationStream:
  """Batches of prompts with completions to imitate.

  Attributes:
    num_examples: examples an epoch.
    num_filtered: examples dropped because their prompts are too long.
  """

  def __init__(
    self,
    task: tasks.Task,
    examples: Iterable[base.Example],
    tokenizer: base.Tokenizer,
    batch_size: int,
    max_prompt_length: int,
    max_completion_length: int,
    overlong: str,
    noise: float,
    seed: int,
  ):
    """Tokenizes every prompt once.

    Args:
      task: knows how to demonstrate the examples.
      examples: rows with 'example_id', 'prompt' and 'answer'.
      tokenizer: of the policy.
      batch_size: B, demonstrations a step.
      max_prompt_length: P, tokens.
      max_completion_length: R, tokens, the end included.
      overlong: 'filter' or 'error', for prompts longer than P.
      noise: share of digits that are replaced by random ones, in [0, 1].
      seed: of order and noise, >= 0.

    Raises:
      ValueError: see `encode_prompts`; also a noise outside [0, 1], a
        batch size below 1, or demonstrations longer than R.
    """
    if not 0.0 <= noise <= 1.0:
      raise ValueError(f'sft.noise: got {noise}; a share in [0, 1].')
    if batch_size < 1:
      raise ValueError(f'sft.batch_size: got {batch_size}; at least 1.')
    if task.max_completion_length > max_completion_length:
      raise ValueError(
        f'sampling.max_completion_length: got {max_completion_length}; '
        f'demonstrations of this task need {task.max_completion_length} '
        'tokens. Raise it.'
      )
    self._encoded = prompt_stream.encode_prompts(
      examples, tokenizer, max_prompt_length, overlong
    )
    self.num_examples = len(self._encoded.examples)
    self.num_filtered = self._encoded.num_filtered
    self._task, self._tokenizer = task, tokenizer
    self._batch_size, self._noise, self._seed = batch_size, noise, seed
    self._max_completion_length = max_completion_length

  def batch(self, step: int) -> dict[str, Any]:
    """Returns the demonstrations of a step; T = P + R.

    Returns:
      `tokens` i32 [B, T], a left-padded prompt, then a right-padded
      completion with its end; `token_mask` bool [B, T], True on real tokens;
      `completion_mask` bool [B, T], True on the tokens to imitate: the
      completion with its end, without the words a demonstration only gives.
    """
    step = int(step)
    indices = prompt_stream.batch_indices(
      step, self._batch_size, self.num_examples, self._seed
    )
    generator = np.random.default_rng([self._seed, step, _STREAM])
    demonstrations = [
      self._task.demonstrate(generator, self._encoded.examples[i], self._noise)
      for i in indices.tolist()
    ]
    eos = [self._tokenizer.eos_ids[0]]
    rows = [self._tokenizer.encode(d.text) + eos for d in demonstrations]
    completion, mask = prompt_stream.pad_rows(
      rows, self._max_completion_length, self._tokenizer.pad_id, left=False
    )
    num_context = np.array([d.num_context for d in demonstrations])[:, None]
    imitated = mask & (np.arange(mask.shape[1]) >= num_context)
    prompt_mask = self._encoded.mask[indices]
    return {
      'tokens': np.concatenate(
        [self._encoded.tokens[indices], completion], axis=1
      ),
      'token_mask': np.concatenate([prompt_mask, mask], axis=1),
      'completion_mask': np.concatenate(
        [np.zeros_like(prompt_mask), imitated], axis=1
      ),
    }
