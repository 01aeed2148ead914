"""Recorder of a run: metrics, samples, console, timings, traces.

Metrics are written one step late, while the device works on the next one.
Before a checkpoint they are written at once, so that a resumed run finds every
line of the steps it does not repeat.
"""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import functools
import pathlib
import time
from typing import Any, Self

import jax
import numpy as np

from dppo_jax.rewards.verdicts import (
  Verdict,
  common_failure,
  describe_failure,
  failure_share,
)
from dppo_jax.runtime.config.experiment import Experiment, ProfileConfig
from dppo_jax.runtime.hosts import coordination
from dppo_jax.runtime.reporting import compiling, writers
from dppo_jax.runtime.reporting.progress import Progress
from dppo_jax.runtime.storage.metrics_log import (
  METRICS_FILE,
  MetricWriter,
  Sample,
  SampleWriter,
  read_rows,
)

# A run says so after as many steps in a row in which no group's rewards differ.
NUM_IDLE = 3


def spread(rows: Sequence[Sample], most: int) -> list[Sample]:
  """At most so many rows, evenly spaced, their order kept.

  The first ones are of one prompt, since the completions of a group adjoin.
  """
  count = min(most, len(rows))
  return [rows[i * len(rows) // count] for i in range(count)]


class NonFiniteError(RuntimeError):
  """Too many gradients in a row were not finite."""


class FailedVerifierError(RuntimeError):
  """Verifiers failed on every completion of too many batches in a row."""


class Recorder:
  """Holds the metrics of the last step until they can be written.

  Attributes:
    progress: the bar; `progress.note` writes a line above it.
    evaluated: whether the step that the run goes on from was evaluated; a run
      that was stopped saves first and leaves the evaluation to the next.
  """

  def __init__(
    self,
    experiment: Experiment,
    workdir: pathlib.Path,
    start_step: int,
    *,
    resumed: bool,
  ):
    """Opens the files; a resumed run drops the lines after `start_step`."""
    self._config = experiment.writers
    self._max_nonfinite = experiment.optimizer.max_nonfinite
    self._stack = contextlib.ExitStack()
    kept_step = start_step if resumed else None
    self._metrics: MetricWriter | None = None
    self._samples: SampleWriter | None = None
    self.evaluated = resumed and coordination.from_primary(
      functools.partial(_was_evaluated, workdir, start_step), 'the metrics'
    )
    if coordination.is_primary():  # The others only look for gradients.
      self._metrics = self._stack.enter_context(
        MetricWriter(
          workdir,
          kept_step,
          writers.open_writers(experiment, workdir, kept_step),
        )
      )
      self._samples = self._stack.enter_context(
        SampleWriter(workdir, kept_step)
      )
    self.progress = self._stack.enter_context(
      Progress(
        experiment.num_steps, start_step, label='train', clock=compiling.clock
      )
    )
    self._held: tuple[int, Mapping[str, Any]] | None = None
    self._num_idle = 0
    self._max_failed = experiment.rewards.max_failed
    self._num_failed = 0
    self._reason = ''

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self._stack.close()

  def hold(
    self, step: int, metrics: Mapping[str, Any], samples: Sequence[Sample]
  ) -> None:
    """Takes what a step reports; `flush` writes it."""
    self._held = (step, metrics)
    self._reason = common_failure([Verdict(0.0, s.reason) for s in samples])
    if self._samples and due(step, self._config.samples_every_n_steps):
      self._samples.write(step, spread(samples, self._config.num_samples))

  def flush(self) -> None:
    """Writes the metrics held, if any.

    Raises:
      FailedVerifierError: verifiers failed on `rewards.max_failed` batches in
        a row.
      NonFiniteError: `optimizer.max_nonfinite` updates in a row were skipped.
    """
    if self._held is None:
      return
    step, metrics = self._held
    self._held = None
    metrics = {name: np.asarray(value) for name, value in metrics.items()}
    if self._metrics is not None:
      self._metrics.write(step, metrics)
    self.progress.update(step, bar_facts(metrics))
    if due(step, self._config.console_every_n_steps):
      self.progress.note(console_line(step, metrics))
    self._num_idle = self._num_idle + 1 if is_idle(metrics) else 0
    if self._num_idle == NUM_IDLE:
      self.progress.note(f'WARNING: {idle_warning(step, self._num_idle)}')
    self._look_for_failures(step, metrics)
    in_a_row = int(metrics['optimizer/nonfinite_in_a_row'])
    if in_a_row >= self._max_nonfinite:
      raise NonFiniteError(
        f'step {step}: the last {in_a_row} gradients were not finite and their'
        ' updates were skipped (optimizer.max_nonfinite='
        f'{self._max_nonfinite}), so the parameters no longer change. Look at'
        ' ratio/max and optimizer/gradient_norm in metrics.jsonl; a lower'
        ' optimizer.learning_rate or a finite objective.ratio_cap usually'
        ' helps, in another --workdir.'
      )

  def _look_for_failures(self, step: int, metrics: Mapping[str, Any]) -> None:
    share = failed_share(metrics)
    self._num_failed = self._num_failed + 1 if share == 1.0 else 0
    if not self._num_failed:
      return
    found = f'step {step}: {describe_failure(share, self._reason)}'
    if self._num_failed == self._max_failed:
      raise FailedVerifierError(
        f'{found} That was so {self._num_failed} steps in a row'
        ' (rewards.max_failed): nothing was learned from them. Fix it; the'
        ' same command resumes from the last checkpoint.'
      )
    if self._num_failed == 1:
      self.progress.note(f'WARNING: {found}')

  def warn_of_failures(self, verdicts: Sequence[Verdict], what: str) -> None:
    """Tells of verifiers that failed on every completion of an evaluation."""
    share = failure_share(verdicts)
    if share == 1.0:
      text = describe_failure(share, common_failure(verdicts))
      self.progress.note(f'WARNING: {what}: {text}')

  def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
    """Writes held-out accuracy, after the metrics held."""
    self.flush()
    if self._metrics is not None:
      self._metrics.write(step, metrics)
    line = f'step {step}: held-out '
    if 'evaluation/model_score' in metrics:
      line += f'score {metrics["evaluation/model_score"]:.3f}'
    else:
      line += f'sampled {metrics["evaluation/sampled_accuracy"]:.3f}'
    if 'evaluation/greedy_accuracy' in metrics:
      line += f' · greedy {metrics["evaluation/greedy_accuracy"]:.3f}'
    self.progress.note(line)


def _was_evaluated(workdir: pathlib.Path, step: int) -> bool:
  """Whether the metrics file holds an evaluation of that step."""
  rows = read_rows(workdir / METRICS_FILE)
  return any(
    row['step'] == step and any(n.startswith('evaluation/') for n in row)
    for row in rows
  )


def due(step: int, every: int) -> bool:
  """Whether something done every so many steps is done now; 0 is never."""
  return every > 0 and step % every == 0


class Stopwatch:
  """Wall and CPU seconds of the parts of one step."""

  def __init__(self) -> None:
    self._begin = self._last = time.perf_counter()
    self._begin_cpu = time.process_time()
    self._laps: dict[str, float] = {}

  def lap(self, name: str) -> None:
    """Ends the part `name`."""
    now = time.perf_counter()
    # A part may come several times per step.
    self._laps[name] = self._laps.get(name, 0.0) + now - self._last
    self._last = now

  def metrics(
    self, sampled: int, trained: int, *, ahead: bool = False
  ) -> dict[str, float]:
    """`time/…_s` of every part and of the step, and tokens per second.

    Args:
      sampled: tokens drawn, the ends included.
      trained: tokens the trainer saw, prompt and completion.
      ahead: sampling went on beside other parts; its rate is by the step.
    """
    step_s = self._last - self._begin
    sampling_s = step_s if ahead else self._laps['sampling']
    return {
      **{f'time/{name}_s': lap for name, lap in self._laps.items()},
      'time/step_s': step_s,
      'time/step_cpu_s': time.process_time() - self._begin_cpu,
      'throughput/sampled_tokens_per_s': sampled / sampling_s,
      'throughput/trained_tokens_per_s': trained / self._laps['training'],
    }


class Tracer:
  """Profiles the configured train steps into workdir/profile.

  A run that ends or resumes within them traces those it takes.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    config: ProfileConfig,
    note: Callable[[str], None],
  ):
    self._folder = workdir / 'profile'
    count = config.num_steps if coordination.is_primary() else 0
    self._steps = range(config.start_step, config.start_step + count)
    self._tracing = False
    self._note = note

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self._stop()

  def before(self, step: int) -> None:
    """Starts the trace if `step` is of it."""
    if step in self._steps and not self._tracing:
      jax.profiler.start_trace(str(self._folder))
      self._tracing = True

  def after(self, step: int) -> None:
    """Ends the trace if `step` was its last."""
    if step + 1 not in self._steps:
      self._stop()

  def _stop(self) -> None:
    if self._tracing:
      self._tracing = False
      jax.profiler.stop_trace()
      self._note(f'profile: {self._folder} (open it with xprof or Perfetto)')


def failed_share(metrics: Mapping[str, Any]) -> float:
  """Share of the completions of a step that verifiers failed on, in [0, 1].

  0 for rows without these metrics, of an evaluation say.
  """
  # Shares of whole rows in f64 or f32: their sum may miss 1 by a rounding.
  names = ('rewards/errors', 'rewards/timeouts')
  share = sum(float(metrics.get(name, 0.0)) for name in names)
  return 1.0 if share > 1.0 - 1e-6 else share


def is_idle(metrics: Mapping[str, Any]) -> bool:
  """Whether the rewards of a step differed in no group: all advantages are 0.

  Rows without the metric, of an evaluation say, are not idle.
  """
  return float(metrics.get('rewards/zero_variance_groups', 0.0)) == 1.0


def idle_warning(step: int, count: int) -> str:
  """A warning of `count` idle steps in a row, the last of them `step`."""
  return (
    f'in steps {step - count + 1} to {step} all completions of every prompt'
    ' earned the same (rewards/zero_variance_groups=1): all advantages were 0'
    ' and the rewards taught nothing. Look at samples.jsonl and'
    ' rewards/reason_…: a wrong rewards.extraction, a limit that cuts every'
    ' completion, or problems too hard or too easy (dppo doctor and'
    ' dppo select_problems help).'
  )


def longest_idle(rows: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
  """Last step and length of the longest run of idle steps; (0, 0) of none.

  Args:
    rows: metrics of train steps with their 'step', in order.
  """
  best, count = (0, 0), 0
  for row in rows:
    count = count + 1 if is_idle(row) else 0
    if count > best[1]:
      best = (int(row['step']), count)
  return best


def bar_facts(metrics: Mapping[str, Any]) -> dict[str, str]:
  """A line about a step for the progress bar."""
  facts = {
    'reward': f'{float(metrics["rewards/mean"]):.3f}',
    'masked': f'{float(metrics["trust_region/fraction_masked"]):.2%}',
  }
  if is_soft(metrics):
    dropped = float(metrics['trust_region/mean_dropped_weight'])
    facts['weight lost'] = f'{dropped:.2%}'
  return facts


def is_soft(metrics: Mapping[str, Any]) -> bool:
  """Whether the rule of a step weighed tokens that it did not mask."""
  masked = float(metrics['trust_region/fraction_masked'])
  dropped = float(metrics['trust_region/mean_dropped_weight'])
  return abs(dropped - masked) > 1e-6


def console_line(step: int, metrics: Mapping[str, Any]) -> str:
  """A line about a step."""
  value = {name: float(number) for name, number in metrics.items()}
  lost = ''
  if is_soft(metrics):
    lost = f' · weight lost {value["trust_region/mean_dropped_weight"]:.2%}'
  failed = failed_share(value)
  if failed:
    lost += f' · verifier failed {failed:.2%}'
  return (
    f'step {step}: reward {value["rewards/mean"]:.3f}'
    f' · masked {value["trust_region/fraction_masked"]:.2%}{lost}'
    f' · divergence {value["trust_region/divergence_mean"]:.4f}'
    f' · |pi-mu| {value["mismatch/mean_abs"]:.4f}'
    f' · length {value["rollout/length_mean"]:.1f}'
    f' · entropy {value["rollout/entropy_mean"]:.3f}'
    f' · {value["time/step_s"]:.2f} s'
  )
