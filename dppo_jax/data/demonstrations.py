"""Demonstrations for the SFT warm start, a pure function of the step."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from dppo_jax import base
from dppo_jax.data import prompt_stream, tasks

# Separates these random numbers from the prompt stream's: both use the run's
# seed.
_STREAM = 1


class DemonstrationStream:
  """SFT batches: prompts with demonstrated completions.

  Attributes:
    num_examples: examples per epoch.
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
      task: generates the demonstrations.
      examples: with 'example_id', 'prompt' and 'answer'.
      tokenizer: the policy's.
      batch_size: B, sequences per step.
      max_prompt_length: P, tokens.
      max_completion_length: R, tokens, the end token included.
      overlong: 'filter' or 'error', for prompts longer than P.
      noise: probability that a digit is replaced by a random one, in [0, 1].
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
    """SFT batch of a step; T = P + R.

    Returns:
      `tokens` i32 [B, T], left-padded prompts, then right-padded completions
      with the end token; `token_mask` bool [B, T], True on real tokens;
      `completion_mask` bool [B, T], True on the tokens trained on: completion
      and end token, without the demonstration's context words.
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
    trained_on = mask & (np.arange(mask.shape[1]) >= num_context)
    prompt_mask = self._encoded.mask[indices]
    return {
      'tokens': np.concatenate(
        [self._encoded.tokens[indices], completion], axis=1
      ),
      'token_mask': np.concatenate([prompt_mask, mask], axis=1),
      'completion_mask': np.concatenate(
        [np.zeros_like(prompt_mask), trained_on], axis=1
      ),
    }
