"""Held-out accuracy: avg@k, pass@k and greedy, on the first n prompts."""

from collections.abc import Callable

import jax
import numpy as np

from dppo_jax.base import (
  Array,
  Params,
  Prompts,
  Rollout,
  Stream,
  TrainState,
  stream_key,
)
from dppo_jax.data.prompts import PromptStream
from dppo_jax.data.tokenizer import WordTokenizer
from dppo_jax.rewards.pool import VerifierPool
from dppo_jax.rewards.verifiers import Verdict
from dppo_jax.runtime.assembly import Parts, SampleFn, compile_sampler
from dppo_jax.runtime.config import EvaluationConfig

# (state, number of prompts) -> metrics.
EvaluateFn = Callable[[TrainState, int], dict[str, float]]


def compile_evaluation(
  parts: Parts, config: EvaluationConfig, pool: VerifierPool
) -> EvaluateFn:
  """Returns the evaluation of a policy on the held-out split.

  Prompts are taken in chunks of `config.num_prompts`, so that one program
  serves every size; the last chunk is filled up and the filling not counted.

  The metrics are `evaluation/sampled_accuracy`, mean reward of k samples a
  prompt (avg@k); `evaluation/pass_at_k`, share of prompts with a reward above
  0 among k; `evaluation/length_mean`, tokens; `evaluation/truncated`, share;
  and `evaluation/greedy_accuracy`.
  """
  sampler = compile_sampler(parts, config.sampled)
  greedy = config.greedy and compile_sampler(parts, config.greedy)

  def evaluate(state: TrainState, num_prompts: int) -> dict[str, float]:
    params = state.params
    key = stream_key(state.key, Stream.EVALUATE, state.step)
    prompts = parts.held_out.first(num_prompts)
    rewards, lengths, truncated = _score(
      parts, sampler, pool, params, prompts, key, config.num_prompts
    )
    metrics = {
      'evaluation/sampled_accuracy': float(np.mean(rewards)),
      'evaluation/pass_at_k': float(np.mean(np.any(rewards > 0, axis=1))),
      'evaluation/length_mean': float(np.mean(lengths)),
      'evaluation/truncated': float(np.mean(truncated)),
    }
    if greedy:
      rewards, _, _ = _score(
        parts, greedy, pool, params, prompts, key, config.num_prompts
      )
      metrics['evaluation/greedy_accuracy'] = float(np.mean(rewards))
    return metrics

  return evaluate


def verify(
  tokenizer: WordTokenizer,
  stream: PromptStream,
  pool: VerifierPool,
  rollout: Rollout,
  prompt_length: int,
) -> tuple[list[str], list[Verdict]]:
  """Reads the completions of a rollout as text and has them verified.

  Args:
    tokenizer: of the policy.
    stream: where the prompts came from.
    pool: the verifier.
    rollout: on the host, B rows.
    prompt_length: P.

  Returns:
    B texts and B verdicts.
  """
  completions = tokenizer.decode_batch(
    rollout.tokens[:, prompt_length:],
    rollout.completion_mask[:, prompt_length:],
  )
  examples = stream.examples(rollout.example_id)
  return completions, pool.verify(completions, examples, rollout.truncated)


def _score(
  parts: Parts,
  sampler: SampleFn,
  pool: VerifierPool,
  params: Params,
  prompts: Prompts,
  key: Array,
  chunk_size: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Rewards [n, k], lengths [n·k] and truncation [n·k] of n prompts."""
  num_prompts, width = prompts.tokens.shape
  rewards, lengths, truncated = [], [], []
  for chunk, begin in enumerate(range(0, num_prompts, chunk_size)):
    rows = np.arange(begin, begin + chunk_size)
    counted = int(np.sum(rows < num_prompts))
    rows = np.minimum(rows, num_prompts - 1)
    part = jax.tree.map(lambda leaf, rows=rows: leaf[rows], prompts)
    rollout = sampler(params, part, jax.random.fold_in(key, chunk))
    group_size = rollout.tokens.shape[0] // chunk_size
    rollout = jax.tree.map(
      lambda leaf, used=counted * group_size: leaf[:used],
      jax.device_get(rollout),
    )
    _, verdicts = verify(parts.tokenizer, parts.held_out, pool, rollout, width)
    found = np.asarray([verdict.reward for verdict in verdicts])
    rewards.append(found.reshape(counted, group_size))
    lengths.append(rollout.completion_mask.sum(axis=1))
    truncated.append(rollout.truncated)
  return (
    np.concatenate(rewards),
    np.concatenate(lengths),
    np.concatenate(truncated),
  )
