"""What a run tells: console lines, timings, a profile, the summary."""

from collections.abc import Callable, Mapping
import importlib.metadata
import pathlib
import resource
import time
from typing import Any

import jax
import numpy as np

from dppo_jax.runtime import summary, writers
from dppo_jax.runtime.assembly import Parts, abstract_state
from dppo_jax.runtime.config import Experiment, ProfileConfig, WritersConfig

# The first steps compile and are left out of medians.
_NUM_UNSETTLED = 2


class Stopwatch:
  """Wall and CPU seconds of the parts of one step."""

  def __init__(self) -> None:
    self._begin = self._last = time.perf_counter()
    self._begin_cpu = time.process_time()
    self._laps: dict[str, float] = {}

  def lap(self, name: str) -> None:
    """Ends the part `name`."""
    now = time.perf_counter()
    self._laps[name] = now - self._last
    self._last = now

  def metrics(self, sampled: int, trained: int) -> dict[str, float]:
    """`time/…_s` of every part and of the step, and tokens a second.

    Args:
      sampled: tokens drawn, the ends included.
      trained: tokens the trainer saw, prompt and completion.
    """
    return {
      **{f'time/{name}_s': lap for name, lap in self._laps.items()},
      'time/step_s': self._last - self._begin,
      'time/step_cpu_s': time.process_time() - self._begin_cpu,
      'throughput/sampled_tokens_per_s': sampled / self._laps['sampling'],
      'throughput/trained_tokens_per_s': trained / self._laps['training'],
    }


class Tracer:
  """Profiles the configured train steps into workdir/profile."""

  def __init__(
    self,
    workdir: pathlib.Path,
    config: ProfileConfig,
    note: Callable[[str], None],
  ):
    self._folder = workdir / 'profile'
    self._first = config.start_step
    self._last = config.start_step + config.num_steps - 1
    self._wanted = config.num_steps > 0
    self._note = note

  def before(self, step: int) -> None:
    """Starts the trace if `step` is its first."""
    if self._wanted and step == self._first:
      jax.profiler.start_trace(str(self._folder))

  def after(self, step: int) -> None:
    """Ends the trace if `step` was its last."""
    if self._wanted and self._first <= self._last == step:
      jax.profiler.stop_trace()
      self._note(f'profile: {self._folder} (open it with xprof or Perfetto)')


def bar_facts(metrics: Mapping[str, Any]) -> dict[str, str]:
  """What the progress bar shows of a step."""
  masked = float(metrics['trust_region/fraction_masked'])
  return {
    'reward': f'{float(metrics["rewards/mean"]):.3f}',
    'masked': f'{masked:.2%}',
  }


def to_console(
  config: WritersConfig,
  note: Callable[[str], None],
  step: int,
  metrics: Mapping[str, Any],
) -> None:
  """Prints a line at the configured interval."""
  every = config.console_every_n_steps
  if not every or step % every:
    return
  value = {name: float(number) for name, number in metrics.items()}
  note(
    f'step {step}: reward {value["rewards/mean"]:.3f}'
    f' · masked {value["trust_region/fraction_masked"]:.2%}'
    f' · divergence {value["trust_region/divergence_mean"]:.4f}'
    f' · |pi-mu| {value["mismatch/mean_abs"]:.4f}'
    f' · length {value["rollout/length_mean"]:.1f}'
    f' · entropy {value["rollout/entropy_mean"]:.3f}'
    f' · {value["time/step_s"]:.2f} s'
  )


def describe_evaluation(step: int, metrics: Mapping[str, float]) -> str:
  """One line of held-out accuracy."""
  line = f'step {step}: held-out sampled '
  line += f'{metrics["evaluation/sampled_accuracy"]:.3f}'
  if 'evaluation/greedy_accuracy' in metrics:
    line += f' · greedy {metrics["evaluation/greedy_accuracy"]:.3f}'
  return line


def num_parameters(parts: Parts) -> int:
  """Parameters of the policy."""
  leaves = jax.tree.leaves(abstract_state(parts).params)
  return sum(int(np.prod(leaf.shape)) for leaf in leaves)


def summarize(
  experiment: Experiment, parts: Parts, workdir: pathlib.Path
) -> dict[str, Any]:
  """The summary of a finished run, from its metrics file alone."""
  rows = writers.read_rows(workdir / writers.METRICS_FILE)
  evaluated = [r for r in rows if 'evaluation/sampled_accuracy' in r]
  trained = [r for r in rows if 'rewards/mean' in r]
  settled = trained[_NUM_UNSETTLED:] or trained

  def median(name: str) -> float:
    return float(np.median([float(row[name]) for row in settled]))

  def mean(name: str) -> float:
    return float(np.mean([float(row[name]) for row in trained]))

  region = experiment.loss
  facts: dict[str, Any] = {
    'rule': region.rule,
    'divergence': region.divergence,
    'seed': experiment.seed,
    'parameters': num_parameters(parts),
    'steps': len(trained),
    'held_out_before': evaluated[0]['evaluation/sampled_accuracy'],
    'held_out_after': evaluated[-1]['evaluation/sampled_accuracy'],
  }
  if 'evaluation/greedy_accuracy' in evaluated[-1]:
    facts['greedy_after'] = evaluated[-1]['evaluation/greedy_accuracy']
  return facts | {
    'reward_mean': mean('rewards/mean'),
    'fraction_masked': mean('trust_region/fraction_masked'),
    'mismatch_mean_abs': mean('mismatch/mean_abs'),
    'skipped_updates': trained[-1]['optimizer/nonfinite_total'],
    'step_s': median('time/step_s'),
    'step_cpu_s': median('time/step_cpu_s'),
    'sampled_tokens_per_s': median('throughput/sampled_tokens_per_s'),
    'trained_tokens_per_s': median('throughput/trained_tokens_per_s'),
    'device': f'{jax.device_count()} × {jax.devices()[0].device_kind}',
    'versions': {
      name: importlib.metadata.version(name)
      for name in ('jax', 'flax', 'optax', 'orbax-checkpoint')
    },
    'peak_memory_gib': _peak_memory_gib(),
  }


def _peak_memory_gib() -> float:
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def finish(workdir: pathlib.Path, facts: dict[str, Any], command: str) -> str:
  """Writes summary.json and summary.png; returns what to print.

  Args:
    workdir: of the run.
    facts: of `summarize`, perhaps with what the caller adds.
    command: what resumes the run.
  """
  summary.write_summary(workdir, facts)
  picture = summary.draw_summary(workdir)
  width = max(map(len, facts))
  lines = [
    f'  {name:<{width}}  {_show(value)}'
    for name, value in facts.items()
    if not isinstance(value, Mapping)
  ]
  return '\n'.join(
    [
      'Summary',
      *lines,
      f'Picture:   {picture}',
      f'Samples:   {workdir / writers.SAMPLES_FILE}',
      f'Evaluate:  python -m experiments.evaluate --workdir={workdir}',
      f'Resume:    {command}',
    ]
  )


def _show(value: Any) -> str:
  if isinstance(value, float):
    return f'{value:,.0f}' if abs(value) >= 1000 else f'{value:.4g}'
  return f'{value:,}' if isinstance(value, int) else str(value)
