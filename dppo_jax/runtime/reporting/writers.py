"""Writers of metrics beside metrics.jsonl: TensorBoard, Weights & Biases.

They are for looking at a run; nothing reads them back. Each works in a thread
of its own, so that one that fails or hangs neither ends the run nor holds it
up: it is told once and left out.
"""

from collections.abc import Callable, Mapping
import importlib
import importlib.util
import logging
import os
import pathlib
import queue
import threading
from typing import Any, Protocol
import uuid

from dppo_jax.runtime.config.experiment import Experiment, WritersConfig

# Package by key of section `writers`, which is also the name of the extra.
PACKAGES = {'tensorboard': 'tensorboardX', 'wandb': 'wandb'}
_MOST_WAITING = 10_000  # Rows, of a writer that is slower than the run.
_CLOSE_S = 20.0  # A preempted machine may be gone in 30 s.
_INIT_S = 60.0
_WANDB = 'wandb'
_RUN_ID = 'run_id'
_STEP = 'step'

_log = logging.getLogger(__name__)


class Writer(Protocol):
  """Receives the metrics of a step."""

  def write(self, step: int, row: Mapping[str, float]) -> None:
    """Takes one row; several may be of one step."""

  def close(self) -> None:
    """Finishes what was written."""


def check_installed(config: WritersConfig) -> None:
  """Looks for the packages of the writers that a run asks for.

  Raises:
    ValueError: one is missing; the message has the command that installs it.
  """
  for key in _wanted(config):
    if importlib.util.find_spec(PACKAGES[key]) is None:
      raise ValueError(
        f'writers.{key}: the package {PACKAGES[key]} is not installed; pip'
        f" install 'dppo_jax[{key}]' brings it, or set writers.{key}=False."
      )


def open_writers(
  experiment: Experiment, workdir: pathlib.Path, start_step: int | None
) -> list[Writer]:
  """Writers that a run asks for; only the first process opens them.

  Args:
    experiment: the run.
    workdir: of the run.
    start_step: the restored step; None starts afresh.
  """
  config = experiment.writers
  makers: dict[str, Callable[[], Writer]] = {
    'tensorboard': lambda: TensorBoard(workdir / 'tensorboard', start_step),
    'wandb': lambda: WeightsAndBiases(
      workdir, config.wandb_project, experiment.resolved, start_step
    ),
  }
  return [InBackground(key, makers[key]) for key in _wanted(config)]


class TensorBoard:
  """Scalars as event files, which `tensorboard --logdir=` shows."""

  def __init__(self, folder: pathlib.Path, start_step: int | None):
    """Opens an event file; arguments as of `open_writers`."""
    import tensorboardX  # Only who wants it waits for the import.

    self._events: Any = tensorboardX.SummaryWriter(
      logdir=os.fspath(folder),
      # TensorBoard then hides what an earlier process wrote beyond it.
      purge_step=0 if start_step is None else start_step + 1,
      flush_secs=10,
    )

  def write(self, step: int, row: Mapping[str, float]) -> None:
    """Writes one scalar per metric."""
    for name, value in row.items():
      self._events.add_scalar(name, value, step)

  def close(self) -> None:
    """Writes what is buffered."""
    self._events.close()


class WeightsAndBiases:
  """One run at Weights & Biases per workdir, online or WANDB_MODE=offline.

  Its own step only counts rows: it drops those whose step is below the last,
  as after a resume from an earlier checkpoint. So the train step is a metric,
  and all others are drawn over it.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    project: str,
    resolved: Mapping[str, Any],
    start_step: int | None,
  ):
    """Starts the run of this workdir, or goes on with it.

    Args:
      workdir: of the run; wandb/run_id names it.
      project: at Weights & Biases.
      resolved: the config.
      start_step: the restored step; None starts a new run.
    """
    # Not there where types are checked, and slow to import.
    wandb: Any = importlib.import_module('wandb')
    self._run: Any = wandb.init(
      project=project,
      name=workdir.name,
      id=_run_id(workdir, start_step),
      resume='allow',
      dir=os.fspath(workdir),
      config=dict(resolved),
      settings=wandb.Settings(
        console='off',
        disable_code=True,
        init_timeout=_INIT_S,
        login_timeout=_INIT_S,
      ),
    )
    self._run.define_metric(_STEP)
    self._run.define_metric('*', step_metric=_STEP)

  def write(self, step: int, row: Mapping[str, float]) -> None:
    """Logs the row with its train step."""
    self._run.log({_STEP: step, **row})

  def close(self) -> None:
    """Uploads what is left, or leaves it to `wandb sync`."""
    self._run.finish()


class InBackground:
  """A writer in a thread of its own; rows that it cannot take are dropped."""

  def __init__(self, key: str, make: Callable[[], Writer]):
    """Starts the thread.

    Args:
      key: of section `writers`, for messages.
      make: opens the writer, in the thread.
    """
    self._key = key
    self._told = False
    self._rows: queue.Queue[tuple[int, dict[str, float]] | None]
    self._rows = queue.Queue(_MOST_WAITING)
    self._thread = threading.Thread(
      target=self._work, args=(make,), name=f'writers.{key}', daemon=True
    )
    self._thread.start()

  def write(self, step: int, row: Mapping[str, float]) -> None:
    """Hands a row to the thread."""
    if not self._thread.is_alive():
      return
    try:
      self._rows.put_nowait((step, dict(row)))
    except queue.Full:
      self._tell(f'it is {_MOST_WAITING:,} rows behind')

  def close(self) -> None:
    """Waits for the thread, but not for long."""
    try:
      self._rows.put_nowait(None)
    except queue.Full:
      return
    self._thread.join(_CLOSE_S)
    if self._thread.is_alive():
      self._tell(f'it was not done {_CLOSE_S:g} s after the run')

  def _work(self, make: Callable[[], Writer]) -> None:
    try:
      writer = make()
      while (item := self._rows.get()) is not None:
        writer.write(*item)
      writer.close()
    # Whatever a library of others raises: the run goes on without it.
    except Exception as error:
      self._tell(f'{type(error).__name__}: {error}'.strip().splitlines()[0])

  def _tell(self, why: str) -> None:
    if not self._told:
      self._told = True
      _log.warning(
        'writers.%s: %s. The run goes on; metrics.jsonl has all metrics.',
        self._key,
        why.rstrip('.'),
      )


def _wanted(config: WritersConfig) -> list[str]:
  return [key for key in PACKAGES if getattr(config, key)]


def _run_id(workdir: pathlib.Path, start_step: int | None) -> str:
  """The id of the workdir's run; a new one if it starts afresh."""
  path = workdir / _WANDB / _RUN_ID
  if start_step is not None and path.is_file():
    found = path.read_text().strip()
    if found.isalnum() and len(found) <= 64:
      return found
  made = uuid.uuid4().hex[:12]
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(made + '\n')
  return made
