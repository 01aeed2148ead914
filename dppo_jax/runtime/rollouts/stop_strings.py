"""Stop strings at the end of sampling: found on the host, cut on the device."""

from collections.abc import Callable
import functools
from typing import Any

import jax
import numpy as np

from dppo_jax.base import Rollout, Tokenizer
from dppo_jax.data import stop_strings as stop_strings_lib
from dppo_jax.runtime.hosts import host_rows
from dppo_jax.runtime.programs.parts import Parts
from dppo_jax.sampling import truncate

# (rollout, the same on the host) -> the rollout, cut.
CutFn = Callable[[Rollout, Rollout], Rollout]


def compile_cut(
  parts: Parts,
  stop_strings: tuple[str, ...],
  prompt_length: int,
  pad_id: int,
) -> CutFn | None:
  """Ends completions with the token that completes a stop string.

  Args:
    parts: of the run.
    stop_strings: of the config.
    prompt_length: P.
    pad_id: fills the columns that are freed.

  Returns:
    A function of a rollout and its host copy, or None without stop strings.
  """
  if not stop_strings:
    return None
  on_device = jax.jit(
    functools.partial(
      truncate.truncate_rollout, prompt_length=prompt_length, pad_id=pad_id
    ),
    out_shardings=parts.batch_sharding,
  )

  def end(rollout: Rollout, on_host: Rollout) -> Rollout:
    found = find(parts.tokenizer, stop_strings, on_host, prompt_length)
    found = host_rows.put(parts.batch_sharding, host_rows.total(found))
    return on_device(rollout, *found)

  return end


def find(
  tokenizer: Tokenizer,
  stop_strings: tuple[str, ...],
  rollout: Rollout,
  prompt_length: int,
) -> tuple[np.ndarray, np.ndarray]:
  """Where the completions of a rollout stop.

  Args:
    tokenizer: of the policy.
    stop_strings: at least one.
    rollout: on the host, B rows.
    prompt_length: P.

  Returns:
    Tokens to keep, i32 [B]; and whether a stop string was found, bool [B].
  """
  ids: Any = np.asarray(rollout.tokens)[:, prompt_length:]
  mask: Any = np.asarray(rollout.completion_mask)[:, prompt_length:]
  num_tokens = mask.sum(axis=1).astype(np.int32)
  stopped = np.zeros(len(ids), bool)
  texts = tokenizer.decode_batch(ids, mask)
  for row, text in enumerate(texts):
    drawn = ids[row, : num_tokens[row]].tolist()
    found = stop_strings_lib.find_stop(
      drawn, text, stop_strings, tokenizer.decode
    )
    if found is not None:
      num_tokens[row], stopped[row] = found.num_tokens, True
  return num_tokens, stopped


def trim(text: str, stop_strings: tuple[str, ...]) -> str:
  """A completion up to its first stop string, which it keeps."""
  return text[: stop_strings_lib.find_end(text, stop_strings)]
