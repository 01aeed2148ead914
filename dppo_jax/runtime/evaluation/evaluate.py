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
  TrainState,
  stream_key,
)
from dppo_jax.data.prompt_stream import PromptStream
from dppo_jax.rewards.pool import VerifierPool
from dppo_jax.rewards.verdicts import Verdict
from dppo_jax.runtime.config.experiment import EvaluationConfig
from dppo_jax.runtime.evaluation import accuracy
from dppo_jax.runtime.hosts import host_rows
from dppo_jax.runtime.programs.compiled import SampleFn, compile_sampler
from dppo_jax.runtime.programs.parts import Parts
from dppo_jax.runtime.rollouts import stop_strings as stop_strings_lib
from dppo_jax.runtime.rollouts.reward_model import RewardModel
from dppo_jax.runtime.rollouts.verify import CompletionVerifier
from dppo_jax.sampling import truncate


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
  """Metrics, and every completion behind them.

  Attributes:
    metrics: `evaluation/…`.
    sampled: k completions per prompt.
    greedy: the likeliest ones, where they were asked for.
    statistics: avg@k and every pass@k, with intervals.
  """

  metrics: dict[str, float]
  sampled: Answers
  greedy: Answers | None
  statistics: accuracy.Statistics


# (state, number of prompts) -> what was found.
EvaluateFn = Callable[[TrainState, int], Evaluation]


def compile_evaluation(
  parts: Parts,
  config: EvaluationConfig,
  pool: VerifierPool,
  model: RewardModel | None = None,
) -> EvaluateFn:
  """Returns the evaluation of a policy on the held-out split.

  Prompts are taken in chunks of `config.num_prompts`, and k samples in passes
  of `config.sampled.group_size`, so that one program serves every size; the
  last chunk and pass are filled up and the filling not counted.

  Rewards are those of the first term of `rewards.verifier`, not shaped. The
  metrics are `evaluation/sampled_accuracy`, mean reward of k samples per prompt
  (avg@k), with `_low` and `_high`, its interval; `evaluation/pass_at_k`, share
  of prompts with a reward above 0 among k, and `evaluation/pass_at_1`, `_2`,
  `_4`, … below k, unbiased; `evaluation/length_mean`, tokens;
  `evaluation/truncated`, share; and `evaluation/greedy_accuracy`. Of several
  sources there is `evaluation/accuracy_SOURCE` of each.

  Where `config.reward` is 'model', rewards are the scores of `model`, neither
  weighted nor added to anything, and `evaluation/model_score`, with `_low` and
  `_high`, and `evaluation/greedy_model_score` stand in the place of accuracies.

  Raises:
    ValueError: the reward model is missing.
  """
  if config.reward == 'model' and model is None:
    raise ValueError('evaluation.reward: the reward model is missing.')
  scorer = model if config.reward == 'model' else None
  sampler = compile_sampler(parts, config.sampled)
  greedy = None
  if config.greedy is not None:
    greedy = compile_sampler(parts, config.greedy)

  def evaluate(state: TrainState, num_prompts: int) -> Evaluation:
    key = stream_key(state.key, Stream.EVALUATE, state.step)
    prompts = parts.held_out.first(num_prompts)

    def answer_with(sampler: SampleFn, num_samples: int) -> Answers:
      return answer(
        parts,
        sampler,
        pool,
        state.params,
        prompts,
        key,
        config.num_prompts,
        config.stop_strings,
        num_samples,
        config.truncated,
        scorer,
      )

    sampled = answer_with(sampler, config.num_samples)
    found = accuracy.summarize(
      sampled.rewards(), config.num_resamples, config.confidence, config.seed
    )
    name = 'sampled_accuracy' if scorer is None else 'model_score'
    metrics = {
      f'evaluation/{name}': found.average.value,
      f'evaluation/{name}_low': found.average.low,
      f'evaluation/{name}_high': found.average.high,
      **({} if scorer else _accuracies(parts, sampled, found)),
      'evaluation/length_mean': float(np.mean(sampled.lengths)),
      'evaluation/truncated': float(np.mean(sampled.truncated)),
    }
    if greedy is None:
      return Evaluation(metrics, sampled, None, found)
    likeliest = answer_with(greedy, 1)
    greedy_name = 'greedy_accuracy' if scorer is None else 'greedy_model_score'
    mean = float(np.mean(likeliest.rewards()))
    metrics[f'evaluation/{greedy_name}'] = mean
    return Evaluation(metrics, sampled, likeliest, found)

  return evaluate


def _accuracies(
  parts: Parts, sampled: Answers, found: accuracy.Statistics
) -> dict[str, float]:
  """`evaluation/pass_at_k`, those of fewer samples, and avg@k by source."""
  rewards = sampled.rewards()
  examples = parts.held_out.examples(sampled.example_id)
  # Sources that were put together have a number each.
  sources = [str(e['source']) if 'component' in e else '' for e in examples]
  metrics = {
    f'accuracy_{source}': mean
    for source, mean in accuracy.by_source(rewards, sources).items()
  }
  for k in accuracy.shown(rewards.shape[1])[:-1]:
    metrics[f'pass_at_{k}'] = found.pass_at[k - 1].value
  metrics['pass_at_k'] = found.pass_at[-1].value
  return {f'evaluation/{name}': value for name, value in metrics.items()}


def _scored(
  model: RewardModel,
  stream: PromptStream,
  rollout: Rollout,
  texts: list[str],
  verdicts: list[Verdict],
) -> list[Verdict]:
  """The verdicts with the model's scores in the place of their rewards."""
  examples = stream.examples(rollout.example_id)
  prompts = [str(example['prompt']) for example in examples]
  scores = model.score(prompts, texts).scores
  return [
    Verdict(float(score), verdict.reason)
    for score, verdict in zip(scores, verdicts, strict=True)
  ]


def answer(
  parts: Parts,
  sampler: SampleFn,
  pool: VerifierPool,
  params: Params,
  prompts: Prompts,
  key: Array,
  chunk_size: int,
  stop_strings: tuple[str, ...],
  num_samples: int,
  truncated: str,
  model: RewardModel | None = None,
) -> Answers:
  """k completions of n prompts, in chunks and passes, and their verdicts.

  Args:
    parts: its `held_out` holds the prompts.
    sampler: of G completions per prompt.
    pool: the verifier.
    params: of the policy.
    prompts: n of them.
    key: PRNG key, consumed.
    chunk_size: prompts at once; the last chunk is filled up.
    stop_strings: texts that end a completion.
    num_samples: k; where G < k, by several passes.
    truncated: a key of `TRUNCATED_POLICIES`.
    model: its score is the reward, not the verifier's.
  """
  num_prompts, width = prompts.tokens.shape
  num_chunks = -(-num_prompts // chunk_size)
  verifier = CompletionVerifier(
    tokenizer=parts.tokenizer,
    stream=parts.held_out,
    pool=pool,
    prompt_length=width,
    stop_strings=stop_strings,
    truncated=truncated,
  )
  texts: list[str] = []
  verdicts: list[Verdict] = []
  lengths, cut_short = [], []
  for chunk in range(num_chunks):
    rows = np.arange(chunk * chunk_size, (chunk + 1) * chunk_size)
    counted = int(np.sum(rows < num_prompts))
    rows = np.minimum(rows, num_prompts - 1)
    part = jax.tree.map(lambda leaf, rows=rows: leaf[rows], prompts)
    drawn: list[Rollout] = []
    group_size = num_passes = 1
    while len(drawn) < num_passes:
      number = chunk + len(drawn) * num_chunks
      rollout = sampler(
        params,
        host_rows.put(parts.batch_sharding, part),
        jax.random.fold_in(key, number),
      )
      group_size = rollout.tokens.shape[0] // chunk_size
      num_passes = -(-num_samples // group_size)
      drawn.append(
        jax.tree.map(
          lambda leaf, used=counted * group_size: leaf[:used],
          host_rows.read(parts.batch_sharding, rollout),
        )
      )
    size = chunk_size * group_size
    own = host_rows.own_rows(parts.batch_sharding, size)
    # Passes are apart; the samples of a prompt belong together.
    order = np.arange(num_passes * counted * group_size)
    order = order.reshape(num_passes, counted, group_size).swapaxes(0, 1)
    order = order.reshape(counted, -1)[:, :num_samples].ravel()
    rollout = jax.tree.map(
      lambda *leaves, order=order: np.concatenate(leaves)[order], *drawn
    )
    if own is not None:
      # Rows of a pass on, in the order of the samples.
      used = counted * group_size
      mine = np.isin(order % used, own)
      own = np.flatnonzero(mine)
    if stop_strings:
      ends = stop_strings_lib.find(
        parts.tokenizer, stop_strings, rollout, width
      )
      rollout = truncate.truncate_rollout(
        rollout,
        *host_rows.total(ends),
        prompt_length=width,
        pad_id=parts.tokenizer.pad_id,
      )
    num_texts = 0 if model is None else len(rollout.example_id)
    read, judged = verifier.verify(rollout, own, num_texts)
    texts += read
    found = judged[0]
    if model is not None:
      found = _scored(model, parts.held_out, rollout, read, found)
    verdicts += found
    counts = np.asarray(rollout.completion_mask).sum(axis=1)
    lengths.append(host_rows.total(counts))
    cut_short.append(np.asarray(rollout.truncated))
  return Answers(
    np.asarray(prompts.example_id),
    texts,
    verdicts,
    np.concatenate(lengths),
    np.concatenate(cut_short),
  )
