"""Checkpoints: asynchronous, atomic, checked before they are read.

A checkpoint is a folder named by its step. Orbax writes it under another name
in the background and renames it when complete, so a killed process leaves only
complete checkpoints. Against damage after the rename, the folder lists the
checksums of its files; if a file is missing or does not match, `restore` falls
back to the previous checkpoint.

Arrays are stored under flat names ('params.embedding'), independent of the
classes that hold them and of the mesh that shards them.
"""

from collections.abc import Callable, Mapping
import functools
import logging
import math
import os
import pathlib
import shutil
from typing import Any

import jax
import orbax.checkpoint as ocp

from dppo_jax import bounded_json
from dppo_jax.base import Params, TrainState
from dppo_jax.runtime import activity
from dppo_jax.runtime.hosts import coordination
from dppo_jax.runtime.storage import checksums, flat_tree, late_scores
from dppo_jax.runtime.storage.files import first_line, remedy, step_number

_ARRAYS = 'state'
_METADATA = 'metadata'
_ITEMS = (_ARRAYS, _METADATA)

_log = logging.getLogger(__name__)


class CheckpointError(RuntimeError):
  """A checkpoint was not written or read; the message lists intact ones."""


class Checkpoints:
  """The checkpoints of one run; close them before the process ends.

  Attributes:
    directory: one folder per step in it.
    best_metric: metric whose best checkpoint is kept as well; larger is better.
  """

  def __init__(
    self,
    directory: str | os.PathLike[str],
    keep: int,
    best_metric: str,
    *,
    read_only: bool = False,
  ):
    """Opens the folder, and creates it unless `read_only`.

    Args:
      directory: of the checkpoints.
      keep: number of latest checkpoints to keep, besides the best one.
      best_metric: key of the metrics given to `save`; larger is better.
      read_only: change nothing, so that a training run may use the folder.

    Raises:
      ValueError: if `keep` is below 1.
      CheckpointError: if the folder cannot be made or written.
    """
    if keep < 1:
      raise ValueError(
        f'checkpoints.keep: got {keep}; it must be at least 1, or there is '
        'nothing to resume from.'
      )
    self.directory = pathlib.Path(directory).expanduser().absolute()
    self.best_metric = best_metric
    self._keep = keep
    self._read_only = read_only
    self._scores: dict[int, float | None] = {}
    self._saving: int | None = None
    if not read_only:
      _check_writable(self.directory)
      self._remove_unfinished()
    self._checkpointer = self._new_checkpointer()

  def steps(self) -> list[int]:
    """Returns the steps of all complete checkpoints, ascending."""
    if not self.directory.is_dir():
      return []
    # The name of an unfinished checkpoint is not a number.
    numbers = (step_number(path.name) for path in self.directory.iterdir())
    return sorted(number for number in numbers if number is not None)

  def latest_step(self) -> int | None:
    """Returns the step of the latest complete checkpoint, or None."""
    return max(self._known_steps(), default=None)

  def _known_steps(self) -> list[int]:
    """Steps as seen by process 0, the one that changes them."""
    return coordination.from_primary(self.steps, 'the checkpoints')

  def best_step(self) -> int | None:
    """Returns the step with the largest `best_metric`, or None.

    Ties are broken by the later step.
    """
    scores = [(self._score(step), step) for step in self.steps()]
    known = [(score, step) for score, step in scores if score is not None]
    return max(known)[1] if known else None

  def save(
    self,
    step: int,
    state: TrainState,
    metrics: Mapping[str, Any],
    metadata: Mapping[str, Any],
  ) -> None:
    """Copies the state off the device and writes it in the background.

    The arrays of `state` may be donated once this returns. Checkpoints of the
    same or later steps (after a run resumed from an earlier one) are renamed,
    not deleted.

    Args:
      step: train steps taken, the name of the checkpoint.
      state: saved bit for bit.
      metrics: scalars; a finite `best_metric` makes it a candidate for best.
      metadata: JSON, returned by `restore`.

    Raises:
      CheckpointError: if this save, or the one before it, failed. Earlier
        checkpoints are intact.
    """
    self.wait()
    for later in self._known_steps():
      if later >= step:
        self._set_aside(later, 'superseded')
    named = flat_tree.flatten(state)
    score = float(metrics.get(self.best_metric, math.nan))
    record = {
      'arrays': flat_tree.describe(named),
      'scores': {self.best_metric: score} if math.isfinite(score) else {},
      'metadata': dict(metadata),
    }
    self._saving = step
    try:
      self._checkpointer.save(
        self.directory / str(step),
        args=ocp.args.Composite(
          **{
            _ARRAYS: ocp.args.PyTreeSave(named),
            _METADATA: ocp.args.JsonSave(record),
          }
        ),
      )
    except Exception as error:
      raise self._failed(error) from error

  def add_score(self, step: int, metrics: Mapping[str, Any]) -> None:
    """Adds what an evaluation found after checkpoint `step` was saved."""
    score = float(metrics.get(self.best_metric, math.nan))
    if not math.isfinite(score):
      return
    self._scores[step] = score
    if jax.process_index() == 0:
      late_scores.add(self.directory, step, self.best_metric, score)

  def wait(self) -> None:
    """Returns once saves are on disk and old checkpoints are deleted.

    Raises:
      CheckpointError: if a save failed. Earlier checkpoints are intact.
    """
    try:
      with activity.under_way(f'writing checkpoint {self._saving}'):
        self._checkpointer.wait_until_finished()
        self._checkpointer.check_for_errors()
    except Exception as error:
      raise self._failed(error) from error
    self._remove_old()

  def close(self) -> None:
    """Waits, then stops the background threads.

    Raises:
      CheckpointError: if a save failed. Earlier checkpoints are intact.
    """
    try:
      self.wait()
    finally:
      self._checkpointer.close()

  def restore(
    self,
    abstract_state: TrainState | Callable[[int], TrainState],
    step: int | None = None,
  ) -> tuple[Any, dict[str, Any]]:
    """Reads a checkpoint into the given shapes, dtypes and shardings.

    Args:
      abstract_state: a state of arrays or of `jax.ShapeDtypeStruct` with a
        sharding each; the mesh may differ from the one that saved. Or a
        function of the step that returns it. Other fields of the checkpoint
        are not read.
      step: of the checkpoint; None for the latest intact one. Damaged ones
        are logged as errors and, unless `read_only`, renamed.

    Returns:
      The state, bit for bit as it was saved, and the metadata.

    Raises:
      FileNotFoundError: if there is no checkpoint, or none of that step.
      ValueError: if the checkpoint is whole but holds other arrays.
      CheckpointError: if every candidate is damaged.
    """
    make = abstract_state
    if not callable(make):
      make = functools.partial(_constant, abstract_state)
    return self._restore(make, step)

  def restore_params(
    self, abstract_params: Params, step: int | None
  ) -> tuple[Params, dict[str, Any]]:
    """Reads the parameters of a checkpoint, and the metadata.

    Args:
      abstract_params: of the parameters alone, as for `restore`.
      step: as for `restore`.

    Raises:
      FileNotFoundError: if there is no checkpoint, or none of that step.
      ValueError: if the checkpoint is whole but holds other parameters.
      CheckpointError: if every candidate is damaged.
    """
    target = {'params': abstract_params}
    tree, metadata = self._restore(functools.partial(_constant, target), step)
    return tree['params'], metadata

  def _restore(
    self, abstract: Callable[[int], Any], step: int | None
  ) -> tuple[Any, dict[str, Any]]:
    """Tree of a step, and the metadata."""
    steps = self._known_steps()
    if not steps or (step is not None and step not in steps):
      missing = 'no checkpoint' if step is None else f'no checkpoint {step}'
      raise FileNotFoundError(
        f'checkpoints: {missing} in {self.directory}; there are: {steps}.'
      )
    damaged: dict[int, str] = {}
    for candidate in reversed(steps) if step is None else [step]:
      if damaged:
        _log.error('checkpoints: trying step %d instead', candidate)
      record, problem = coordination.from_primary(
        functools.partial(self._check_record, candidate), 'a checkpoint'
      )
      if problem:
        damaged[candidate] = self._report_damage(candidate, problem)
        continue
      target = abstract(candidate)
      wanted = flat_tree.flatten(target)
      flat_tree.check_same(record['arrays'], wanted, candidate)
      named, problem = {}, ''
      try:
        with activity.under_way(f'reading checkpoint {candidate}'):
          named = self._read_arrays(candidate, wanted)
      except Exception as error:
        problem = first_line(error)
      problem = coordination.first_problem(problem)
      if problem:
        damaged[candidate] = self._report_damage(candidate, problem)
        continue
      if not self._read_only:
        for passed_over in damaged:
          self._set_aside(passed_over, 'damaged')
      return flat_tree.unflatten(target, named), record['metadata']
    raise CheckpointError(
      f'checkpoints: no checkpoint of {self.directory} can be read: '
      f'{"; ".join(damaged.values())}. Start again in another workdir, or '
      'restore the folder from a copy.'
    )

  def _new_checkpointer(self) -> ocp.AsyncCheckpointer:
    return ocp.AsyncCheckpointer(
      ocp.CompositeCheckpointHandler(
        **{
          _ARRAYS: ocp.PyTreeCheckpointHandler(),
          _METADATA: ocp.JsonCheckpointHandler(),
        }
      ),
      async_options=ocp.AsyncOptions(
        post_finalization_callback=self._before_rename
      ),
    )

  def _before_rename(self) -> None:
    """Writes the checksums, in the background thread that wrote the files."""
    if jax.process_index() != 0:
      return
    pattern = f'{self._saving}{ocp.utils.TMP_DIR_SUFFIX}*'
    for folder in self.directory.glob(pattern):
      checksums.write(folder, _ITEMS)

  def _check_record(self, step: int) -> tuple[dict[str, Any], str]:
    """Record of an intact checkpoint and '', or {} and the problem."""
    try:
      with activity.under_way(f'checking checkpoint {step}'):
        checksums.check(self.directory / str(step), _ITEMS)
      return self._read_record(step), ''
    except Exception as error:
      return {}, first_line(error)

  def _read_record(self, step: int) -> dict[str, Any]:
    # Not by Orbax, whose restore is collective: only one process calls this.
    path = self.directory / str(step) / _METADATA / _METADATA
    return bounded_json.read_object(path)

  def _read_arrays(self, step: int, wanted: dict[str, Any]) -> dict[str, Any]:
    args = ocp.args.PyTreeRestore(
      item=wanted,
      restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
      partial_restore=True,  # Reads the wanted arrays only.
    )
    return self._checkpointer.restore(
      self.directory / str(step), args=ocp.args.Composite(**{_ARRAYS: args})
    )[_ARRAYS]

  def _report_damage(self, step: int, problem: str) -> str:
    reason = f'step {step} is damaged ({problem})'
    _log.error('checkpoints: %s in %s', reason, self.directory)
    return reason

  def _score(self, step: int) -> float | None:
    if step not in self._scores:
      try:
        scores = self._read_record(step)['scores']
      except Exception as error:
        _log.debug('checkpoints: no score of step %d: %s', step, error)
        scores = {}
      scores |= late_scores.read(self.directory).get(str(step), {})
      self._scores[step] = scores.get(self.best_metric)
    return self._scores[step]

  def _remove_old(self) -> None:
    if self._read_only or jax.process_index() != 0:
      return
    for step in set(self.steps()[: -self._keep]) - {self.best_step()}:
      shutil.rmtree(self.directory / str(step))

  def _remove_unfinished(self) -> None:
    if jax.process_index() == 0:
      for path in self.directory.glob(f'*{ocp.utils.TMP_DIR_SUFFIX}*'):
        # A failed writer may still be adding or removing files; leftovers are
        # removed at the next start.
        shutil.rmtree(path, ignore_errors=True)

  def _set_aside(self, step: int, why: str) -> None:
    target = self.directory / f'{why}-{step}'
    count = 1
    while target.exists():
      count += 1
      target = self.directory / f'{why}-{step}-{count}'
    self._scores.pop(step, None)
    if jax.process_index() == 0:
      late_scores.drop(self.directory, step)
      (self.directory / str(step)).rename(target)
      _log.warning('checkpoints: step %d is now %s', step, target)

  def _failed(self, error: Exception) -> CheckpointError:
    # A failed checkpointer raises its error again, and leaves its files.
    try:
      self._checkpointer.close()
    except Exception as again:
      _log.debug('checkpoints: closing after a failure: %s', again)
    self._remove_unfinished()
    self._checkpointer = self._new_checkpointer()
    mend = remedy(error, self.directory)
    first = f'{mend}, or lower checkpoints.keep; then the' if mend else 'The'
    return CheckpointError(
      f'checkpoints: saving to {self.directory} failed: {first_line(error)}. '
      f'Complete checkpoints: {self.steps()}. {first} same command resumes.'
    )


def _constant(tree: Any, step: int) -> Any:
  del step
  return tree


def _check_writable(directory: pathlib.Path) -> None:
  probe = directory / f'.writable-{os.getpid()}'
  try:
    directory.mkdir(parents=True, exist_ok=True)
    probe.touch()
    probe.unlink()
  except OSError as error:
    raise CheckpointError(
      f'checkpoints: cannot write to {directory}: {error.strerror}. Choose '
      'another --workdir, or change its permissions.'
    ) from error
