"""Rewards of decoded completions, by the verifiers of the run."""

import dataclasses

import jax
import numpy as np

from dppo_jax.base import Rollout, Tokenizer
from dppo_jax.data.prompt_stream import PromptStream
from dppo_jax.rewards.pool import VerifierPool
from dppo_jax.rewards.terms import combine
from dppo_jax.rewards.verdicts import Verdict
from dppo_jax.runtime.config.experiment import VerificationConfig
from dppo_jax.runtime.hosts import host_rows
from dppo_jax.runtime.rollouts import stop_strings as stop_strings_lib


def open_pool(config: VerificationConfig) -> VerifierPool:
  """The verifiers of a run, to be closed by its caller.

  Args:
    config: `experiment.rewards`.
  """
  names = [field.name for field in dataclasses.fields(VerificationConfig)]
  return VerifierPool(**{name: getattr(config, name) for name in names})


def verify(
  tokenizer: Tokenizer,
  stream: PromptStream,
  pool: VerifierPool,
  rollout: Rollout,
  prompt_length: int,
  stop_strings: tuple[str, ...] = (),
) -> tuple[list[str], list[Verdict]]:
  """Reads the completions of a rollout as text and has them verified.

  Args:
    tokenizer: of the policy.
    stream: where the prompts came from.
    pool: the verifier.
    rollout: on the host, B rows.
    prompt_length: P.
    stop_strings: a text ends with the first of them.

  Returns:
    B texts and B verdicts.
  """
  texts, found = verify_terms(
    tokenizer, stream, pool, rollout, prompt_length, stop_strings
  )
  return texts, combine(pool.terms, found)


def verify_terms(
  tokenizer: Tokenizer,
  stream: PromptStream,
  pool: VerifierPool,
  rollout: Rollout,
  prompt_length: int,
  stop_strings: tuple[str, ...] = (),
  own: np.ndarray | None = None,
  num_texts: int = 0,
  truncated: str = 'zero',
) -> tuple[list[str], list[list[Verdict]]]:
  """As `verify`, with B verdicts for each term of the reward.

  Of a completion that the length limit cut a verifier is told so only where
  `truncated`, a key of `TRUNCATED_POLICIES`, is 'zero'.

  Given `own`, rows of `host_rows.own_rows`, only those are decoded and
  verified here, and verdicts shared; a text of another host is '' from row
  `num_texts` on.
  """
  if own is not None:
    return _verify_shared(
      tokenizer,
      stream,
      pool,
      rollout,
      prompt_length,
      stop_strings,
      own,
      num_texts,
      truncated,
    )
  decoded = tokenizer.decode_batch(
    rollout.tokens[:, prompt_length:],
    rollout.completion_mask[:, prompt_length:],
  )
  # Half a surrogate pair has no UTF-8, and texts are written to files.
  texts = [text.encode('utf-8', 'replace').decode('utf-8') for text in decoded]
  if stop_strings:
    texts = [stop_strings_lib.trim(text, stop_strings) for text in texts]
  examples = stream.examples(rollout.example_id)
  flags = np.asarray(rollout.truncated)
  if truncated != 'zero':
    flags = np.zeros_like(flags)
  return texts, pool.verify_terms(texts, examples, flags)


def _verify_shared(
  tokenizer: Tokenizer,
  stream: PromptStream,
  pool: VerifierPool,
  rollout: Rollout,
  prompt_length: int,
  stop_strings: tuple[str, ...],
  own: np.ndarray,
  num_texts: int,
  truncated: str,
) -> tuple[list[str], list[list[Verdict]]]:
  """`verify_terms` of all rows, by all processes; a collective."""
  texts, found = verify_terms(
    tokenizer,
    stream,
    pool,
    jax.tree.map(lambda leaf: leaf[own], rollout),
    prompt_length,
    stop_strings,
    truncated=truncated,
  )
  mine = [
    (text if row < num_texts else '', [[v.reward, v.reason] for v in verdicts])
    for row, text, *verdicts in zip(own.tolist(), texts, *found, strict=True)
  ]
  count = len(rollout.example_id)
  whole = host_rows.share(mine, own, count)
  everything = [text for text, _ in whole]
  for row, text in zip(own.tolist(), texts, strict=True):
    everything[row] = text
  return everything, [
    [Verdict(*verdicts[term]) for _, verdicts in whole]
    for term in range(len(found))
  ]
