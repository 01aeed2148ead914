"""Looks a config over before chip time is spent on it."""

from collections.abc import Callable, Iterator
import os
from typing import Any

import jax
import numpy as np

from dppo_jax import hardware, parallel
from dppo_jax.base import Params, Rollout, Stream, stream_key
from dppo_jax.data.hf_tokenizer import HFTokenizer
from dppo_jax.ops import products
from dppo_jax.rewards.pool import VerifierPool
from dppo_jax.runtime import (
  assembly,
  checkup,
  downloads,
  planning,
  published_notes,
  reference_check,
)
from dppo_jax.runtime.checkup import ERROR, OK, Finding
from dppo_jax.runtime.config import Experiment, build_experiment
from dppo_jax.runtime.rewarding import reward

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
  for problem in downloads.find_missing(config.to_dict()):
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
    parts = assembly.assemble(experiment)
  except ValueError as error:
    note(Finding(ERROR, 'data', str(error), 'as said.'))
    return found
  for finding in check_prompts(experiment, parts):
    note(finding)
  for finding in check_references(experiment, parts):
    note(finding)
  device = parts.mesh.local_devices[0]
  note(
    checkup.check_products(
      device.device_kind, product_error(device), experiment.model.dtype
    )
  )
  estimate = planning.peak(planning.memory(experiment, parts))
  note(checkup.check_memory(estimate, capacity(parts.mesh.devices.flat[0])))
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
    checkup.check_ends(ends, rows),
    *checkup.check_law(experiment),
    checkup.check_microbatch(experiment),
    checkup.check_extraction(experiment),
  ]


def check_prompts(
  experiment: Experiment, parts: assembly.Parts
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
  yield from checkup.check_published(
    list(published_notes.notes(experiment, tokenizer))
  )
  first = parts.prompts.first(1)
  (example,) = parts.prompts.examples(first.example_id)
  text = str(example['prompt'])
  ids = tokenizer.encode_prompt(text)
  if not isinstance(tokenizer, HFTokenizer):
    shown = experiment.data.prompt_template.replace('{prompt}', text)
    words = ' '.join(shown.split())
    yield checkup.check_round_trip(words, tokenizer.decode(ids))
    return
  opened = tokenizer.render_prompt(text)
  yield checkup.check_round_trip(opened, tokenizer.spell(ids))
  yield checkup.check_special_text(
    parts.prompts.num_special + parts.held_out.num_special,
    parts.prompts.num_examples + parts.held_out.num_examples,
  )
  if experiment.data.chat_template:
    closed = tokenizer.render_prompt(text, opened=False)
    yield checkup.check_generation_prompt(opened, closed)
    yield checkup.check_turn_end(
      *tokenizer.turn_end(),
      experiment.sampling.eos_ids,
      experiment.stop_strings,
    )


def check_references(
  experiment: Experiment, parts: assembly.Parts
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
    yield checkup.check_references(name, each, limit)
  repeated = parts.held_out.num_trained_on
  yield checkup.check_held_out(experiment, repeated)


def check_sample(
  experiment: Experiment,
  parts: assembly.Parts,
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
  warm_start = experiment.supervised.num_steps > 0
  tell('Loading the initial policy')
  state = assembly.initial_state(
    experiment, parts, parts.optimizer, parts.shardings
  )
  params = state.params
  rollout = _sample(experiment, parts, params, num_prompts, tell)
  host = jax.device_get(rollout)
  yield checkup.check_lengths(
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
  yield checkup.check_rewards(rewards.reshape(-1, size), warm_start=warm_start)
  mask = np.asarray(host.completion_mask)
  top = host.rollout.top_log_probs
  mass = None if top is None else np.exp(top[mask]).sum(axis=-1).mean()
  yield checkup.check_recorded(
    experiment, None if mass is None else float(mass)
  )
  tell('Scoring the same tokens as the trainer does')
  scored = jax.device_get(
    assembly.compile_scorer(parts, experiment)(params, rollout).log_probs
  )
  yield checkup.check_agreement(
    experiment, np.asarray(host.rollout.log_probs)[mask], scored[mask]
  )


def _sample(
  experiment: Experiment,
  parts: assembly.Parts,
  params: Params,
  num_prompts: int,
  tell: TellFn,
) -> Rollout:
  shards = parallel.num_batch_shards(parts.mesh)
  count = min(-(-num_prompts // shards) * shards, experiment.data.num_prompts)
  prompts = jax.tree.map(lambda leaf: leaf[:count], parts.prompts.prompts(0))
  tell(
    f'Sampling {experiment.data.group_size} completions of up to'
    f' {experiment.sampling.max_completion_length:,} tokens for {count} prompts'
  )
  key = stream_key(jax.random.PRNGKey(experiment.seed), Stream.SAMPLE, 0)
  sampler = assembly.compile_sampler(parts, experiment.sampling)
  return jax.block_until_ready(sampler(params, prompts, key))


def capacity(device: Any) -> float | None:
  """Bytes of memory of a device; None where nobody says.

  Args:
    device: a `jax.Device` of this process; those of the CPU share its memory.
  """
  stats = device.memory_stats()
  if stats and 'bytes_limit' in stats:
    return float(stats['bytes_limit'])
  known = hardware.find_device(device.device_kind)
  if known is not None:
    return known.memory
  if device.platform != 'cpu':
    return None
  total = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  return total / jax.local_device_count()
