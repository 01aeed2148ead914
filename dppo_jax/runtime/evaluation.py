"""Held-out accuracy: avg@k, pass@k and greedy, on the first n prompts."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from dppo_jax.base import (
  Array,
  Params,
  Prompts,
  Rollout,
  Stream,
  Tokenizer,
  TrainState,
  stream_key,
)
from dppo_jax.data.prompts import PromptStream
from dppo_jax.rewards.pool import VerifierPool
from dppo_jax.rewards.verifiers import Verdict
from dppo_jax.runtime import stopping
from dppo_jax.runtime.assembly import Parts, SampleFn, compile_sampler
from dppo_jax.runtime.config import EvaluationConfig
from dppo_jax.sampling import cut


class Answers(NamedTuple):
  """Completions of n prompts, k each.

  Attributes:
    example_id: i32 [n].
    texts: n·k completions, those of a prompt adjoin.
    verdicts: n·k verdicts.
    lengths: i64 [n·k], tokens, the end included.
    truncated: bool [n·k].
  """

  example_id: np.ndarray
  texts: list[str]
  verdicts: list[Verdict]
  lengths: np.ndarray
  truncated: np.ndarray

  def rewards(self) -> np.ndarray:
    """f64 [n, k]."""
    rewards = np.asarray([verdict.reward for verdict in self.verdicts])
    return rewards.reshape(len(self.example_id), -1)


class Evaluation(NamedTuple):
  """What was found: metrics, and every completion behind them."""

  metrics: dict[str, float]
  sampled: Answers
  greedy: Answers | None


# (state, number of prompts) -> what was found.
EvaluateFn = Callable[[TrainState, int], Evaluation]


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
  greedy = None
  if config.greedy is not None:
    greedy = compile_sampler(parts, config.greedy)

  def evaluate(state: TrainState, num_prompts: int) -> Evaluation:
    key = stream_key(state.key, Stream.EVALUATE, state.step)
    prompts = parts.held_out.first(num_prompts)

    def answer_with(sampler: SampleFn) -> Answers:
      return answer(
        parts,
        sampler,
        pool,
        state.params,
        prompts,
        key,
        config.num_prompts,
        config.stop_strings,
      )

    sampled = answer_with(sampler)
    rewards = sampled.rewards()
    metrics = {
      'evaluation/sampled_accuracy': float(np.mean(rewards)),
      'evaluation/pass_at_k': float(np.mean(np.any(rewards > 0, axis=1))),
      'evaluation/length_mean': float(np.mean(sampled.lengths)),
      'evaluation/truncated': float(np.mean(sampled.truncated)),
    }
    if greedy is None:
      return Evaluation(metrics, sampled, None)
    likeliest = answer_with(greedy)
    metrics['evaluation/greedy_accuracy'] = float(np.mean(likeliest.rewards()))
    return Evaluation(metrics, sampled, likeliest)

  return evaluate


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
  completions = tokenizer.decode_batch(
    rollout.tokens[:, prompt_length:],
    rollout.completion_mask[:, prompt_length:],
  )
  if stop_strings:
    completions = [stopping.trim(text, stop_strings) for text in completions]
  examples = stream.examples(rollout.example_id)
  return completions, pool.verify(completions, examples, rollout.truncated)


def answer(
  parts: Parts,
  sampler: SampleFn,
  pool: VerifierPool,
  params: Params,
  prompts: Prompts,
  key: Array,
  chunk_size: int,
  stop_strings: tuple[str, ...],
) -> Answers:
  """Completions of n prompts, sampled in chunks, and their verdicts.

  Args:
    parts: its `held_out` holds the prompts.
    sampler: of G completions a prompt.
    pool: the verifier.
    params: of the policy.
    prompts: n of them.
    key: PRNG key, consumed.
    chunk_size: prompts at once; the last chunk is filled up.
    stop_strings: texts that end a completion.
  """
  num_prompts, width = prompts.tokens.shape
  texts: list[str] = []
  verdicts: list[Verdict] = []
  lengths, truncated = [], []
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
    if stop_strings:
      rollout = cut.cut(
        rollout,
        *stopping.find(parts.tokenizer, stop_strings, rollout, width),
        prompt_length=width,
        pad_id=parts.tokenizer.pad_id,
      )
    read, judged = verify(
      parts.tokenizer, parts.held_out, pool, rollout, width, stop_strings
    )
    texts += read
    verdicts += judged
    lengths.append(np.asarray(rollout.completion_mask).sum(axis=1))
    truncated.append(np.asarray(rollout.truncated))
  return Answers(
    np.asarray(prompts.example_id),
    texts,
    verdicts,
    np.concatenate(lengths),
    np.concatenate(truncated),
  )
