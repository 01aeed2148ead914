"""Looks a config over before chip time is spent on it."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from dppo_jax import parallel
from dppo_jax.base import Params, Rollout, Stream, stream_key
from dppo_jax.data.hf_tokenizer import HFTokenizer
from dppo_jax.ops import products
from dppo_jax.planning import findings, memory, missing_files, text_findings
from dppo_jax.planning.findings import ERROR, OK, Finding
from dppo_jax.planning.memory import capacity
from dppo_jax.rewards.pool import VerifierPool
from dppo_jax.runtime.config.build import build_experiment
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.programs import compiled, published_notes
from dppo_jax.runtime.programs import parts as parts_lib
from dppo_jax.runtime.programs import state as state_lib
from dppo_jax.runtime.rollouts import reference_check
from dppo_jax.runtime.rollouts.reward import reward

TellFn = Callable[[str], None]


def examine(
  config: Any,
  num_devices: int,
  num_prompts: int,
  tell: TellFn,
) -> list[Finding]:
  """Checks a config, then its prompts, then a small sampled batch.

  Args:
    config: as of `configs/default.py`.
    num_devices: devices the mesh is laid over.
    num_prompts: prompts to sample, each as often as in training.
    tell: is told what is being done, and every finding as it is made.

  Returns:
    All findings. Later ones are not made where earlier ones forbid it.
  """
  found: list[Finding] = []

  def note(finding: Finding) -> None:
    found.append(finding)
    tell(str(finding))

  tell('Reading the config and looking for its files')
  for problem in missing_files.find_missing(config.to_dict()):
    path, _, cause = problem.partition(': ')
    note(Finding(ERROR, path, cause, 'put it there, as said.'))
  if found:
    return found
  try:
    experiment = build_experiment(config, num_devices)
  except ValueError as error:
    note(Finding(ERROR, 'config', str(error), 'as each line says.'))
    return found
  note(Finding(OK, 'config', 'its keys fit each other'))
  for finding in check_settings(experiment):
    note(finding)
  tell('Reading the data')
  try:
    parts = parts_lib.assemble(experiment)
  except ValueError as error:
    note(Finding(ERROR, 'data', str(error), 'as said.'))
    return found
  for finding in check_prompts(experiment, parts):
    note(finding)
  for finding in check_references(experiment, parts):
    note(finding)
  device = parts.mesh.local_devices[0]
  note(
    findings.check_products(
      device.device_kind, product_error(device), experiment.model.dtype
    )
  )
  estimate = memory.peak(memory.memory(experiment, parts))
  note(findings.check_memory(estimate, capacity(parts.mesh.devices.flat[0])))
  if any(finding.level == ERROR for finding in found):
    tell('Not sampling: mend the errors first')
    return found
  for finding in check_sample(experiment, parts, num_prompts, tell):
    note(finding)
  return found


def product_error(device: Any) -> float:
  """Relative error of a product of f32 arrays on a device, against f64.

  Args:
    device: a `jax.Device` of this process.
  """
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=(2, 512, 512)).astype(np.float32)
  placed = jax.device_put((a, b), device)
  got = np.asarray(jax.jit(products.matmul)(*placed), np.float64)
  exact = a.astype(np.float64) @ b.astype(np.float64)
  return float(np.linalg.norm(got - exact) / np.linalg.norm(exact))


def check_settings(experiment: Experiment) -> list[Finding]:
  """What is known before anything is read."""
  ends, rows = experiment.sampling.eos_ids, experiment.model.vocab_size
  return [
    text_findings.check_ends(ends, rows),
    *findings.check_law(experiment),
    findings.check_microbatch(experiment),
    text_findings.check_extraction(experiment),
  ]


def check_prompts(
  experiment: Experiment, parts: parts_lib.Parts
) -> Iterator[Finding]:
  """What the policy is shown of the first prompt.

  Args:
    experiment: the run.
    parts: its parts.

  Yields:
    What the files of published models say and nothing here reads, round trip,
    special tokens in problems, and with a chat template the generation prompt
    and the end of a turn.
  """
  tokenizer: Any = parts.tokenizer
  yield from text_findings.check_published(
    list(published_notes.notes(experiment, tokenizer))
  )
  first = parts.prompts.first(1)
  (example,) = parts.prompts.examples(first.example_id)
  text = str(example['prompt'])
  ids = tokenizer.encode_prompt(text)
  if not isinstance(tokenizer, HFTokenizer):
    shown = experiment.data.prompt_template.replace('{prompt}', text)
    words = ' '.join(shown.split())
    yield text_findings.check_round_trip(words, tokenizer.decode(ids))
    return
  opened = tokenizer.render_prompt(text)
  yield text_findings.check_round_trip(opened, tokenizer.spell(ids))
  yield text_findings.check_special_text(
    parts.prompts.num_special + parts.held_out.num_special,
    parts.prompts.num_examples + parts.held_out.num_examples,
  )
  if experiment.data.chat_template:
    closed = tokenizer.render_prompt(text, opened=False)
    yield text_findings.check_generation_prompt(opened, closed)
    yield text_findings.check_turn_end(
      *tokenizer.turn_end(),
      experiment.sampling.eos_ids,
      experiment.stop_strings,
    )


def check_references(
  experiment: Experiment, parts: parts_lib.Parts
) -> Iterator[Finding]:
  """What is known of the answers and of the held-out prompts.

  Args:
    experiment: the run.
    parts: its parts.

  Yields:
    References no verifier accepts, and held-out prompts that are trained on.
  """
  with VerifierPool(**vars(experiment.rewards)) as pool:
    found = reference_check.examine(experiment, parts, pool)
  for name, each in found.items():
    limit = experiment.data.max_unverifiable
    yield text_findings.check_references(name, each, limit)
  repeated = parts.held_out.num_trained_on
  yield text_findings.check_held_out(experiment, repeated)


def check_sample(
  experiment: Experiment,
  parts: parts_lib.Parts,
  num_prompts: int,
  tell: TellFn,
) -> Iterator[Finding]:
  """What a small batch of the initial policy shows.

  Args:
    experiment: the run.
    parts: its parts.
    num_prompts: prompts, rounded up to the batch shards.
    tell: is told what is being done.

  Yields:
    Truncation, zero-variance groups, what was recorded, and whether the
    trainer agrees with the sampler.
  """
  warm_start = experiment.sft.num_steps > 0
  tell('Loading the initial policy')
  state = state_lib.initial_state(
    experiment, parts, parts.optimizer, parts.shardings
  )
  params = state.params
  rollout = _sample(experiment, parts, params, num_prompts, tell)
  host = jax.device_get(rollout)
  yield findings.check_lengths(
    np.asarray(host.truncated),
    experiment.sampling.max_completion_length,
    warm_start=warm_start,
  )
  tell('Verifying')
  size = experiment.data.group_size
  with VerifierPool(**vars(experiment.rewards)) as pool:
    verdicts = reward(
      parts.tokenizer,
      parts.prompts,
      pool,
      host,
      experiment.data.max_prompt_length,
      size,
      experiment.shaping,
      experiment.stop_strings,
      truncated=experiment.truncated,
    ).verdicts
  rewards = np.asarray([v.reward for v in verdicts], np.float32)
  yield findings.check_rewards(rewards.reshape(-1, size), warm_start=warm_start)
  mask = np.asarray(host.completion_mask)
  top = host.stats.top_log_probs
  mass = None if top is None else np.exp(top[mask]).sum(axis=-1).mean()
  yield findings.check_recorded(
    experiment, None if mass is None else float(mass)
  )
  tell('Scoring the same tokens as the trainer does')
  scored = jax.device_get(
    compiled.compile_scorer(parts, experiment)(params, rollout).log_probs
  )
  yield findings.check_agreement(
    experiment, np.asarray(host.stats.log_probs)[mask], scored[mask]
  )


def _sample(
  experiment: Experiment,
  parts: parts_lib.Parts,
  params: Params,
  num_prompts: int,
  tell: TellFn,
) -> Rollout:
  shards = parallel.num_batch_shards(parts.mesh)
  count = min(-(-num_prompts // shards) * shards, experiment.data.num_prompts)
  prompts = jax.tree.map(lambda leaf: leaf[:count], parts.prompts.batch(0))
  tell(
    f'Sampling {experiment.data.group_size} completions of up to'
    f' {experiment.sampling.max_completion_length:,} tokens for {count} prompts'
  )
  key = stream_key(jax.random.PRNGKey(experiment.seed), Stream.SAMPLE, 0)
  sampler = compiled.compile_sampler(parts, experiment.sampling)
  return jax.block_until_ready(sampler(params, prompts, key))
