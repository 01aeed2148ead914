"""Checks of a config before accelerator time is spent on it."""

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
from dppo_jax.rewards.pool import VerifierPool
from dppo_jax.runtime.config.build import build_experiment
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.programs import base_weights, compiled, published_notes
from dppo_jax.runtime.programs import parts as parts_lib
from dppo_jax.runtime.programs import state as state_lib
from dppo_jax.runtime.rollouts import reference_check
from dppo_jax.runtime.rollouts.conversations import ConversationSampler
from dppo_jax.runtime.rollouts.reward import reward
from dppo_jax.runtime.rollouts.verify import CompletionVerifier, open_pool

LogFn = Callable[[str], None]


def examine(
  config: Any,
  num_devices: int,
  num_prompts: int,
  log: LogFn,
) -> list[Finding]:
  """Findings on a config, then on its prompts, then on a small sampled batch.

  Args:
    config: with the keys of `configs/default.py`.
    num_devices: devices of the mesh.
    num_prompts: prompts to sample, with G completions each.
    log: receives progress lines, and every finding.

  Returns:
    All findings. After an error, later checks may be skipped.
  """
  found: list[Finding] = []

  def note(finding: Finding) -> None:
    found.append(finding)
    log(str(finding))

  log('Reading the config and locating its files')
  for problem in missing_files.find_missing(config.to_dict()):
    path, _, cause = problem.partition(': ')
    note(Finding(ERROR, path, cause, 'put it there.'))
  if found:
    return found
  try:
    experiment = build_experiment(config, num_devices)
  except ValueError as error:
    note(Finding(ERROR, 'config', str(error), 'see each line.'))
    return found
  note(Finding(OK, 'config', 'its keys are consistent'))
  for finding in check_settings(experiment):
    note(finding)
  log('Reading the data')
  try:
    parts = parts_lib.assemble(experiment)
  except ValueError as error:
    note(Finding(ERROR, 'data', str(error), 'see the message.'))
    return found
  for finding in _check_parts(experiment, parts):
    note(finding)
  if any(finding.level == ERROR for finding in found):
    log('Not sampling: fix the errors first')
    return found
  try:
    parts = base_weights.with_base(experiment, parts)
  except ValueError as error:
    note(Finding(ERROR, 'frozen weights', str(error), 'see the message.'))
    return found
  for finding in check_sample(experiment, parts, num_prompts, log):
    note(finding)
  return found


def _check_parts(
  experiment: Experiment, parts: parts_lib.Parts
) -> Iterator[Finding]:
  """Findings on prompts and references, and on the device."""
  yield from check_prompts(experiment, parts)
  yield from check_references(experiment, parts)
  device = parts.mesh.local_devices[0]
  yield findings.check_products(
    device.device_kind, product_error(device), experiment.model.dtype
  )
  estimate = memory.peak(memory.memory(experiment, parts))
  yield findings.check_memory(
    estimate, memory.capacity(parts.mesh.devices.flat[0])
  )


def product_error(device: Any) -> float:
  """Relative error of an f32 matrix product on a device, against f64.

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
  """Findings that need no files."""
  ends, rows = experiment.sampling.eos_ids, experiment.model.vocab_size
  return [
    text_findings.check_ends(ends, rows),
    *findings.check_distribution(experiment),
    findings.check_microbatch(experiment),
    text_findings.check_extraction(experiment),
  ]


def check_prompts(
  experiment: Experiment, parts: parts_lib.Parts
) -> Iterator[Finding]:
  """Findings on prompts, as the policy sees them.

  Args:
    experiment: the run.
    parts: its parts.

  Yields:
    Unsupported settings in the files of published models, round trip, special
    tokens in problems, and with a chat template the generation prompt and the
    end of a turn.
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
  yield text_findings.check_round_trip(opened, tokenizer.decode_raw(ids))
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
      experiment.sampling.stop_strings,
    )


def check_references(
  experiment: Experiment, parts: parts_lib.Parts
) -> Iterator[Finding]:
  """Findings on reference answers and held-out prompts.

  Args:
    experiment: the run.
    parts: its parts.

  Yields:
    References that no verifier accepts, and held-out prompts trained on.
  """
  with open_pool(experiment.rewards) as pool:
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
  log: LogFn,
) -> Iterator[Finding]:
  """Findings on a small batch of the initial policy.

  Args:
    experiment: the run.
    parts: its parts.
    num_prompts: prompts, rounded up to the batch shards.
    log: receives progress lines.

  Yields:
    Truncation, zero-variance groups, recorded stats, and the agreement of
    trainer and sampler.
  """
  warm_start = experiment.sft.num_steps > 0
  log('Loading the initial policy')
  state = state_lib.initial_state(
    experiment, parts, parts.optimizer, parts.shardings
  )
  params = state.params
  with open_pool(experiment.rewards, experiment.environment.name) as pool:
    rollout = _sample(experiment, parts, pool, params, num_prompts, log)
  host = jax.device_get(rollout)
  yield findings.check_lengths(
    np.asarray(host.truncated),
    experiment.sampling.max_completion_length,
    warm_start=warm_start,
  )
  log('Verifying')
  size = experiment.data.group_size
  with open_pool(experiment.rewards, experiment.environment.name) as pool:
    verifier = CompletionVerifier(
      tokenizer=parts.tokenizer,
      stream=parts.prompts,
      pool=pool,
      prompt_length=experiment.data.max_prompt_length,
      stop_strings=experiment.sampling.stop_strings,
      truncated=experiment.rewards.truncated,
    )
    shaping = experiment.rewards.shaping
    verdicts = reward(verifier, host, size, shaping).verdicts
  yield findings.check_verifier(verdicts)
  rewards = np.asarray([v.reward for v in verdicts], np.float32)
  yield findings.check_rewards(rewards.reshape(-1, size), warm_start=warm_start)
  mask = np.asarray(host.completion_mask)
  top = host.stats.top_log_probs
  mass = None if top is None else np.exp(top[mask]).sum(axis=-1).mean()
  yield findings.check_recorded(
    experiment, None if mass is None else float(mass)
  )
  log('Scoring the same tokens with the trainer')
  scored = jax.device_get(
    compiled.compile_scorer(parts, experiment)(params, rollout).log_probs
  )
  yield findings.check_agreement(
    experiment, np.asarray(host.stats.log_probs)[mask], scored[mask]
  )


def _sample(
  experiment: Experiment,
  parts: parts_lib.Parts,
  pool: VerifierPool,
  params: Params,
  num_prompts: int,
  log: LogFn,
) -> Rollout:
  shards = parallel.num_batch_shards(parts.mesh)
  count = min(-(-num_prompts // shards) * shards, experiment.data.num_prompts)
  prompts = jax.tree.map(lambda leaf: leaf[:count], parts.prompts.batch(0))
  log(
    f'Sampling {experiment.data.group_size} completions of up to'
    f' {experiment.sampling.max_completion_length:,} tokens for {count} prompts'
  )
  key = stream_key(jax.random.PRNGKey(experiment.seed), Stream.SAMPLE, 0)
  sampler: Any = compiled.compile_sampler(parts, experiment.sampling)
  if experiment.environment.name:
    sampler = ConversationSampler(
      parts,
      parts.prompts,
      experiment.sampling,
      experiment.environment,
      pool,
      experiment.rewards.truncated,
    )
  return jax.block_until_ready(sampler(params, prompts, key))
