"""Held-out accuracy: avg@k, pass@k and greedy, on the first n prompts."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

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
from dppo_jax.runtime import activity
from dppo_jax.runtime.config.experiment import EvaluationConfig
from dppo_jax.runtime.evaluation import accuracy
from dppo_jax.runtime.evaluation.samplers import compile_samplers
from dppo_jax.runtime.hosts import host_rows
from dppo_jax.runtime.programs.compiled import SampleFn
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


class EvaluationStopped(Exception):
  """An evaluation was left before its end; nothing of it is kept."""


def _never() -> bool:
  return False


class EvaluateFn(Protocol):
  """(state, number of prompts) -> what was found."""

  def __call__(
    self,
    state: TrainState,
    num_prompts: int,
    stopped: Callable[[], bool] = _never,
  ) -> Evaluation:
    """Evaluates; `stopped`, asked before every rollout, ends it early.

    Raises:
      EvaluationStopped: it did.
    """
    ...


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

  sampler, greedy = compile_samplers(parts, config, pool)

  def evaluate(
    state: TrainState,
    num_prompts: int,
    stopped: Callable[[], bool] = _never,
  ) -> Evaluation:
    key = stream_key(state.key, Stream.EVALUATE, state.step)
    prompts = parts.held_out.first(num_prompts)

    def answer_with(sampler: SampleFn, num_samples: int) -> Answers:
      inputs = (state.params, prompts, key, config.num_prompts)
      rest = (config.stop_strings, num_samples, config.truncated)
      return answer(parts, sampler, pool, *inputs, *rest, scorer, stopped)

    with activity.under_way('evaluation') as note:
      sampled = answer_with(sampler, config.num_samples)
      note('greedy')
      likeliest = None if greedy is None else answer_with(greedy, 1)
      return _evaluation(parts, config, sampled, likeliest)

  return evaluate


def _evaluation(
  parts: Parts,
  config: EvaluationConfig,
  sampled: Answers,
  greedy: Answers | None,
) -> Evaluation:
  """The answers, and the metrics that `compile_evaluation` lists."""
  by_model = config.reward == 'model'
  found = accuracy.summarize(
    sampled.rewards(), config.num_resamples, config.confidence, config.seed
  )
  name = 'model_score' if by_model else 'sampled_accuracy'
  metrics = {
    f'evaluation/{name}': found.average.value,
    f'evaluation/{name}_low': found.average.low,
    f'evaluation/{name}_high': found.average.high,
    **({} if by_model else _accuracies(parts, sampled, found)),
    'evaluation/length_mean': float(np.mean(sampled.lengths)),
    'evaluation/truncated': float(np.mean(sampled.truncated)),
  }
  if greedy is not None:
    name = 'greedy_model_score' if by_model else 'greedy_accuracy'
    metrics[f'evaluation/{name}'] = float(np.mean(greedy.rewards()))
  return Evaluation(metrics, sampled, greedy, found)


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
  stopped: Callable[[], bool] = _never,
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
    stopped: asked before every rollout; ends it early.

  Raises:
    EvaluationStopped: `stopped` said so.
  """
  num_prompts, width = prompts.tokens.shape
  num_chunks = -(-num_prompts // chunk_size)
  verifier = _verifier(parts, pool, width, stop_strings, truncated)
  texts: list[str] = []
  verdicts: list[Verdict] = []
  lengths, cut_short = [], []
  with activity.under_way('sampling') as note:
    for chunk in range(num_chunks):
      part, counted = _chunk(prompts, chunk, chunk_size)

      def draw(
        number: int, part: Prompts = part, chunk: int = chunk
      ) -> Rollout:
        tried = f', pass {number + 1}' if number else ''
        note(f'{chunk * chunk_size:,} of {num_prompts:,} prompts{tried}')
        if stopped():
          raise EvaluationStopped
        return sampler(
          params,
          host_rows.put(parts.batch_sharding, part),
          jax.random.fold_in(key, chunk + number * num_chunks),
        )

      rollout, own = _draw_all(parts, draw, chunk_size, counted, num_samples)
      rollout = _cut(parts, stop_strings, rollout, width)
      read, found = _judge(parts, verifier, model, rollout, own)
      texts += read
      verdicts += found
      lengths.append(_lengths(rollout))
      cut_short.append(np.asarray(rollout.truncated))
  ends = (np.concatenate(lengths), np.concatenate(cut_short))
  return Answers(np.asarray(prompts.example_id), texts, verdicts, *ends)


def _lengths(rollout: Rollout) -> np.ndarray:
  """Tokens of each completion, i64 [B]; a collective."""
  return host_rows.total(np.asarray(rollout.completion_mask).sum(axis=1))


def _verifier(
  parts: Parts,
  pool: VerifierPool,
  prompt_length: int,
  stop_strings: tuple[str, ...],
  truncated: str,
) -> CompletionVerifier:
  """The verifier of held-out prompts."""
  return CompletionVerifier(
    tokenizer=parts.tokenizer,
    stream=parts.held_out,
    pool=pool,
    prompt_length=prompt_length,
    stop_strings=stop_strings,
    truncated=truncated,
  )


def _judge(
  parts: Parts,
  verifier: CompletionVerifier,
  model: RewardModel | None,
  rollout: Rollout,
  own: np.ndarray | None,
) -> tuple[list[str], list[Verdict]]:
  """Texts and verdicts; rewards are the model's scores where there is one."""
  num_texts = 0 if model is None else len(rollout.example_id)
  texts, judged = verifier.verify(rollout, own, num_texts)
  verdicts = judged[0]
  if model is not None:
    verdicts = _scored(model, parts.held_out, rollout, texts, verdicts)
  return texts, verdicts


def _chunk(prompts: Prompts, chunk: int, size: int) -> tuple[Prompts, int]:
  """Prompts of a chunk, the last one repeated to fill it; how many count."""
  num_prompts = len(prompts.tokens)
  rows = np.arange(chunk * size, (chunk + 1) * size)
  counted = int(np.sum(rows < num_prompts))
  rows = np.minimum(rows, num_prompts - 1)
  return jax.tree.map(lambda leaf: leaf[rows], prompts), counted


def _draw_all(
  parts: Parts,
  draw: Callable[[int], Rollout],
  chunk_size: int,
  counted: int,
  num_samples: int,
) -> tuple[Rollout, np.ndarray | None]:
  """Samples of a chunk from as many passes as they take.

  Args:
    parts: how rows lie on the devices.
    draw: number of a pass -> its rollout.
    chunk_size: prompts of a pass.
    counted: of them, the others fill it up.
    num_samples: k.

  Returns:
    Counted·k rows on the host, those of a prompt adjoin; which of them this
    process reads for all, as of `host_rows.own_rows`.
  """
  drawn: list[Rollout] = []
  group_size = num_passes = 1
  while len(drawn) < num_passes:
    rollout = draw(len(drawn))
    group_size = rollout.tokens.shape[0] // chunk_size
    num_passes = -(-num_samples // group_size)
    used = counted * group_size
    on_host = host_rows.read(parts.batch_sharding, rollout)
    drawn.append(jax.tree.map(lambda leaf, used=used: leaf[:used], on_host))
  # Passes are apart; the samples of a prompt belong together.
  order = np.arange(num_passes * counted * group_size)
  order = order.reshape(num_passes, counted, group_size).swapaxes(0, 1)
  order = order.reshape(counted, -1)[:, :num_samples].ravel()
  rollout = jax.tree.map(lambda *leaves: np.concatenate(leaves)[order], *drawn)
  own = host_rows.own_rows(parts.batch_sharding, chunk_size * group_size)
  if own is not None:
    # Rows of a pass on, in the order of the samples.
    own = np.flatnonzero(np.isin(order % (counted * group_size), own))
  return rollout, own


def _cut(
  parts: Parts, stop_strings: tuple[str, ...], rollout: Rollout, width: int
) -> Rollout:
  """Completions that end at the first of the stop strings."""
  if not stop_strings:
    return rollout
  ends = stop_strings_lib.find(parts.tokenizer, stop_strings, rollout, width)
  return truncate.truncate_rollout(
    rollout,
    *host_rows.total(ends),
    prompt_length=width,
    pad_id=parts.tokenizer.pad_id,
  )
