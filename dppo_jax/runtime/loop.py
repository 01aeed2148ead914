"""The loop: sample, verify, update; evaluate, save, report.

A step is a function of the state and its number: prompts, keys and shuffles
derive from (seed, step). So a run that is killed and started again continues
bit for bit from its last checkpoint.
"""

from collections.abc import Mapping
import contextlib
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dppo_jax.base import Metrics, Rollout, Stream, TrainState, stream_key
from dppo_jax.learner.loss import policy_loss
from dppo_jax.learner.metrics import trust_region_metrics
from dppo_jax.learner.optimizer import learning_rate_of
from dppo_jax.learner.train_step import compile_train_step
from dppo_jax.rewards.pool import VerifierPool
from dppo_jax.rewards.verifiers import Verdict
from dppo_jax.runtime import assembly, report
from dppo_jax.runtime.checkpoints import Checkpoints
from dppo_jax.runtime.config import Experiment
from dppo_jax.runtime.evaluation import compile_evaluation, verify
from dppo_jax.runtime.preemption import stop_on_signals
from dppo_jax.runtime.progress import Progress
from dppo_jax.runtime.warm_start import warm_start
from dppo_jax.runtime.writers import MetricWriter, Sample, SampleWriter


class NonFiniteError(RuntimeError):
  """Too many gradients in a row were not finite."""


def run(experiment: Experiment, workdir: pathlib.Path) -> dict[str, Any]:
  """Trains, or goes on training, in `workdir`.

  Args:
    experiment: a checked config.
    workdir: exists and is writable; holds this run or nothing.

  Returns:
    The summary that is written to summary.json.

  Raises:
    Preempted: SIGTERM or Ctrl-C; the state is saved.
    NonFiniteError: `optimizer.max_nonfinite` updates in a row were skipped.
  """
  assembly.use_compilation_cache(experiment.compilation_cache)
  parts = assembly.assemble(experiment)
  with contextlib.ExitStack() as stack:
    stop = stack.enter_context(stop_on_signals())
    pool = stack.enter_context(VerifierPool(**vars(experiment.rewards)))
    checkpoints = stack.enter_context(
      contextlib.closing(
        Checkpoints(
          workdir / 'checkpoints',
          experiment.checkpoints.keep,
          experiment.checkpoints.best_metric,
        )
      )
    )
    evaluate = compile_evaluation(parts, experiment.evaluation, pool)
    state = _restore(parts, checkpoints)
    resumed = state is not None
    if state is None:
      state = warm_start(experiment, parts, stop)
    start_step = int(state.step)
    kept_step = start_step if resumed else None
    writer = stack.enter_context(
      MetricWriter(workdir, experiment.writers.tensorboard, kept_step)
    )
    samples = stack.enter_context(SampleWriter(workdir, kept_step))
    reference = _reference_params(experiment, parts, workdir, state, resumed)

    def evaluate_at(
      state: TrainState, step: int, num_prompts: int
    ) -> dict[str, float]:
      key = stream_key(state.key, Stream.EVALUATE, step)
      metrics = evaluate(state.params, key, num_prompts)
      writer.write(step, metrics)
      return metrics

    progress = stack.enter_context(
      Progress(experiment.num_steps, start_step, label='train')
    )
    if not resumed:
      metrics = evaluate_at(state, 0, experiment.evaluation.final_num_prompts)
      checkpoints.save(0, state, metrics, {})
      progress.note(report.describe_evaluation(0, metrics))

    iterate = _compile_iteration(experiment, parts, pool, reference)
    tracer = report.Tracer(workdir, experiment.profile, progress.note)
    pending: tuple[int, dict[str, Any]] | None = None

    def write_pending() -> None:
      nonlocal pending
      if pending is None:
        return
      step, metrics = pending
      pending = None
      metrics = {name: np.asarray(value) for name, value in metrics.items()}
      writer.write(step, metrics)
      progress.update(step, report.bar_facts(metrics))
      report.to_console(experiment.writers, progress.note, step, metrics)
      _check_finite(experiment, checkpoints, step, metrics)

    for step in range(start_step + 1, experiment.num_steps + 1):
      tracer.before(step)
      state, metrics, rows = iterate(state, step - 1, write_pending)
      tracer.after(step)
      pending = (step, metrics)
      if _due(step, experiment.writers.samples_every_n_steps):
        samples.write(step, rows[: experiment.writers.num_samples])

      last = step == experiment.num_steps
      evaluated: dict[str, float] = {}
      if last or _due(step, experiment.evaluation.every_n_steps):
        write_pending()
        size = experiment.evaluation
        evaluated = evaluate_at(
          state, step, size.final_num_prompts if last else size.num_prompts
        )
        progress.note(report.describe_evaluation(step, evaluated))
      if last or stop or _due(step, experiment.checkpoints.every_n_steps):
        write_pending()
        checkpoints.save(step, state, evaluated, {})
      if stop and not last:
        checkpoints.wait()
        raise stop.stop(f'stopped after step {step}; the state is saved.')
    checkpoints.wait()
  return report.summarize(experiment, parts, workdir)


def _compile_iteration(
  experiment: Experiment,
  parts: assembly.Parts,
  pool: VerifierPool,
  reference: Any,
) -> Any:
  """(state, step, meanwhile) -> (state, metrics, samples)."""
  sampler = assembly.compile_sampler(parts, experiment.sampling)
  batcher = assembly.compile_batcher(parts, experiment)
  scorer = assembly.compile_scorer(parts, experiment)
  step_fn = compile_train_step(
    functools.partial(policy_loss, parts.policy, experiment.loss),
    functools.partial(
      trust_region_metrics,
      num_minibatches=experiment.step.num_minibatches,
    ),
    parts.optimizer,
    experiment.step,
    parts.mesh,
    parts.shardings,
  )
  rate = jax.jit(functools.partial(learning_rate_of, experiment.optimizer))
  recompute = experiment.loss.anchor == 'recomputed'
  width = experiment.data.max_prompt_length

  def iterate(
    state: TrainState, step: int, meanwhile: Any
  ) -> tuple[TrainState, Metrics, list[Sample]]:
    clock = report.Stopwatch()
    prompts = parts.prompts.prompts(step)
    key = stream_key(state.key, Stream.SAMPLE, step)
    rollout = sampler(state.params, prompts, key)
    on_host: Rollout = jax.device_get(
      rollout.replace(
        rollout=rollout.rollout.replace(
          top_ids=None, top_log_probs=None, entropy=None
        )
      )
    )
    clock.lap('sampling')
    completions, verdicts = verify(
      parts.tokenizer, parts.prompts, pool, on_host, width
    )
    rewards = np.asarray([v.reward for v in verdicts], np.float32)
    clock.lap('verification')
    recomputed = scorer(state.params, rollout) if recompute else None
    frozen = scorer(reference, rollout) if reference is not None else None
    batch, metrics = batcher(rollout, jnp.asarray(rewards), recomputed, frozen)
    metrics['optimizer/learning_rate'] = rate(state.opt_state)
    state, step_metrics = step_fn(state, batch)
    meanwhile()  # The device is busy: write the metrics of the step before.
    jax.block_until_ready(state.step)
    clock.lap('training')
    metrics = {
      **metrics,
      **step_metrics,
      **_verdict_metrics(verdicts),
      **clock.metrics(
        sampled=int(on_host.completion_mask.sum()),
        trained=int(on_host.token_mask.sum()),
      ),
    }
    examples = parts.prompts.examples(on_host.example_id)
    rows = [
      Sample(str(example['prompt']), text, verdict.reward, verdict.reason)
      for example, text, verdict in zip(
        examples, completions, verdicts, strict=True
      )
    ]
    return state, metrics, rows

  return iterate


def _verdict_metrics(verdicts: list[Verdict]) -> dict[str, float]:
  """Shares of completions whose verifier failed."""
  reasons = [verdict.reason for verdict in verdicts]
  failed = sum(r == 'crashed' or r.startswith('error') for r in reasons)
  return {
    'rewards/errors': failed / len(reasons),
    'rewards/timeouts': reasons.count('timeout') / len(reasons),
  }


def _restore(
  parts: assembly.Parts, checkpoints: Checkpoints
) -> TrainState | None:
  """The latest state that is whole, or None in a new folder."""
  if checkpoints.latest_step() is None:
    return None
  state, _ = checkpoints.restore(assembly.abstract_state(parts))
  return state


def _reference_params(
  experiment: Experiment,
  parts: assembly.Parts,
  workdir: pathlib.Path,
  state: TrainState,
  resumed: bool,
) -> Any:
  """Parameters of the warm start, which a KL penalty pulls toward."""
  if not experiment.loss.kl_coefficient:
    return None
  store = Checkpoints(workdir / 'reference', 1, '')
  with contextlib.closing(store):
    if not resumed:
      store.save(0, state, {}, {})
      store.wait()
    return store.restore(assembly.abstract_state(parts))[0].params


def _check_finite(
  experiment: Experiment,
  checkpoints: Checkpoints,
  step: int,
  metrics: Mapping[str, Any],
) -> None:
  in_a_row = int(metrics['optimizer/nonfinite_in_a_row'])
  if in_a_row >= experiment.max_nonfinite:
    raise NonFiniteError(
      f'step {step}: the last {in_a_row} gradients were not finite and their'
      f' updates were skipped (optimizer.max_nonfinite='
      f'{experiment.max_nonfinite}). The parameters are still those before.'
      f' Checkpoints: {checkpoints.steps()}. Look at ratio/max and'
      ' optimizer/gradient_norm in metrics.jsonl; a lower'
      ' optimizer.learning_rate or a finite objective.ratio_cap usually helps.'
    )


def _due(step: int, every: int) -> bool:
  return every > 0 and step % every == 0
