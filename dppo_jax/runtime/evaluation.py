"""Held-out accuracy: avg@k, pass@k and greedy, on the first n prompts."""

from collections.abc import Callable, Mapping
import contextlib
import json
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from dppo_jax import parallel
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
from dppo_jax.runtime.assembly import (
  Parts,
  SampleFn,
  abstract_state,
  compile_sampler,
)
from dppo_jax.runtime.checkpoints import Checkpoints
from dppo_jax.runtime.config import CheckpointsConfig, EvaluationConfig
from dppo_jax.runtime.workdir import (
  CHECKPOINTS,
  overlay,
  read_config,
  write_atomically,
)

# Metrics -> their names on the console; {k} is the number of samples.
_LABELS = {
  'evaluation/sampled_accuracy': 'avg@{k}',
  'evaluation/pass_at_k': 'pass@{k}',
  'evaluation/greedy_accuracy': 'greedy accuracy',
  'evaluation/length_mean': 'length, tokens',
  'evaluation/truncated': 'truncated, share',
}


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

    def answer(sampler: SampleFn) -> Answers:
      return _answer(
        parts, sampler, pool, state.params, prompts, key, config.num_prompts
      )

    sampled = answer(sampler)
    rewards = sampled.rewards()
    metrics = {
      'evaluation/sampled_accuracy': float(np.mean(rewards)),
      'evaluation/pass_at_k': float(np.mean(np.any(rewards > 0, axis=1))),
      'evaluation/length_mean': float(np.mean(sampled.lengths)),
      'evaluation/truncated': float(np.mean(sampled.truncated)),
    }
    if greedy is None:
      return Evaluation(metrics, sampled, None)
    likeliest = answer(greedy)
    metrics['evaluation/greedy_accuracy'] = float(np.mean(likeliest.rewards()))
    return Evaluation(metrics, sampled, likeliest)

  return evaluate


def restore_config(
  config: Any,
  workdir: pathlib.Path,
  overrides: Mapping[str, Any],
  num_devices: int,
) -> Any:
  """The config a training recorded, evaluated another way.

  Args:
    config: the defaults, changed in place.
    workdir: of the training.
    overrides: of section `evaluation`; None leaves what was recorded.
    num_devices: a mesh for another number is laid out anew, data only.

  Returns:
    `config`.

  Raises:
    ValueError: there is none, or it has other keys than the defaults.
  """
  overlay(config, read_config(workdir))
  for key, value in overrides.items():
    if value is not None:
      config.evaluation[key] = value
  try:
    parallel.axis_sizes(**config.mesh, num_devices=num_devices)
  except ValueError:
    config.mesh.update(data=-1, fsdp=1, tensor=1)
  return config


def load_policy(
  parts: Parts, config: CheckpointsConfig, workdir: pathlib.Path, step: str
) -> TrainState:
  """Reads a checkpoint without changing anything; a training may go on.

  Args:
    parts: of the run.
    config: what it keeps.
    workdir: of the run.
    step: 'best', 'latest' or a number.

  Raises:
    ValueError: there is no such checkpoint.
    CheckpointError: it is damaged.
  """
  folder = workdir / CHECKPOINTS
  store = Checkpoints(folder, config.keep, config.best_metric, read_only=True)
  steps = store.steps()
  if not steps:
    raise ValueError(
      f'--workdir: {workdir} holds no checkpoint yet; the first is saved'
      ' after the warm start.'
    )
  number = None
  if step == 'best':
    number = store.best_step()
    if number is None:
      raise ValueError(
        f'--step: best, but none of the checkpoints {steps} was saved with'
        f' {config.best_metric}; use latest or a number.'
      )
  elif step != 'latest':
    number = int(step) if step.isdigit() else -1
    if number not in steps:
      raise ValueError(
        f'--step: no checkpoint {step!r}; there are {steps}, best and latest.'
      )
  with contextlib.closing(store):
    return store.restore(abstract_state(parts), number)[0]


def describe(
  facts: Mapping[str, Any], parts: Parts, found: Evaluation, num_shown: int
) -> str:
  """What was found, to print: metrics and the first completions.

  Args:
    facts: the step, and section `evaluation`.
    parts: of the run.
    found: of the evaluation.
    num_shown: completions.
  """
  num_prompts, num_samples = found.sampled.rewards().shape
  lines = [
    f'Step {facts["step"]} on {facts["split"]}: {num_prompts} prompts ×'
    f' {num_samples} samples, temperature {facts["temperature"]:g},'
    f' top_p {facts["top_p"]:g}'
  ]
  for name, label in _LABELS.items():
    if name in found.metrics:
      label = label.format(k=num_samples)
      lines.append(f'  {label:<17} {found.metrics[name]:.4g}')
  lines.append('Samples (reward, reason: prompt -> completion)')
  for problem in problems(parts, found)[:num_shown]:
    first = problem['sampled'][0]
    lines.append(
      f'  {first["reward"]:g}, {first["reason"]}: {problem["prompt"]} ->'
      f' {first["completion"]}'
    )
  return '\n'.join(lines)


def problems(parts: Parts, found: Evaluation) -> list[dict[str, Any]]:
  """Every problem with its completions, as JSON can hold them."""
  sampled = _by_problem(found.sampled)
  greedy = _by_problem(found.greedy) if found.greedy else None
  return [
    {
      **example,
      'sampled': sampled[row],
      **({'greedy': greedy[row][0]} if greedy else {}),
    }
    for row, example in enumerate(
      parts.held_out.examples(found.sampled.example_id)
    )
  ]


def write_problems(
  path: pathlib.Path, facts: Mapping[str, Any], parts: Parts, found: Evaluation
) -> None:
  """Writes facts, metrics and all problems to a file of JSON."""
  record = {**facts, **found.metrics, 'problems': problems(parts, found)}
  path.parent.mkdir(parents=True, exist_ok=True)
  text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
  write_atomically(path, text + '\n')


def _by_problem(answers: Answers) -> list[list[dict[str, Any]]]:
  rows = [
    {
      'completion': text,
      'reward': verdict.reward,
      'reason': verdict.reason,
      'length': int(length),
      'truncated': bool(truncated),
    }
    for text, verdict, length, truncated in zip(
      answers.texts,
      answers.verdicts,
      answers.lengths,
      answers.truncated,
      strict=True,
    )
  ]
  size = len(rows) // len(answers.example_id)
  return [rows[i : i + size] for i in range(0, len(rows), size)]


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


def _answer(
  parts: Parts,
  sampler: SampleFn,
  pool: VerifierPool,
  params: Params,
  prompts: Prompts,
  key: Array,
  chunk_size: int,
) -> Answers:
  """Completions of n prompts, sampled in chunks, and their verdicts."""
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
    read, judged = verify(parts.tokenizer, parts.held_out, pool, rollout, width)
    texts += read
    verdicts += judged
    lengths.append(rollout.completion_mask.sum(axis=1))
    truncated.append(rollout.truncated)
  return Answers(
    np.asarray(prompts.example_id),
    texts,
    verdicts,
    np.concatenate(lengths),
    np.concatenate(truncated),
  )
