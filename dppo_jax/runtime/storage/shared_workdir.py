"""Collective operations on a workdir, called by all hosts of a run.

Process 0 creates, locks and writes the folder with the single-process functions
of `workdir`; the others wait for its result, and fail with its error.
"""

from collections.abc import Iterator, Sequence
import contextlib
import pathlib
import secrets
import sys
from typing import Any

import jax

from dppo_jax.runtime.hosts import coordination
from dppo_jax.runtime.storage import code_version, workdir

# Keys that may differ between hosts: local folders and workers.
HOST_KEYS = (
  'compilation_cache',
  'data.data_dir',
  'rewards.num_workers',
  'sft.cache',
)
_TOKEN = 'hosts'


def check_hosts(config: dict[str, Any]) -> None:
  """Checks that all hosts have the same config and version of the code.

  Args:
    config: of the command line, before it is resolved.

  Raises:
    ValueError: on every host; names the first host that differs, and how.
  """
  if coordination.is_single_process():
    return
  facts = {
    'config': config,
    'code': code_version.of_sources(code_version.ROOT),
    'jax': jax.__version__,
  }
  coordination.compare(facts, _differences, 'config and code')


def _differences(mine: dict[str, Any], theirs: dict[str, Any]) -> Sequence[str]:
  lines = [
    f'{key}: {mine[key]} -> {theirs[key]}'
    for key in ('code', 'jax')
    if mine[key] != theirs[key]
  ]
  changes = workdir.differences(
    mine['config'], theirs['config'], free_keys=HOST_KEYS
  )
  return [*lines, *changes]


@contextlib.contextmanager
def opened(
  named: str, resolved: dict[str, Any], *, extend: bool = False
) -> Iterator[pathlib.Path]:
  """Creates and locks the workdir of a run, and checks the config in it.

  Args:
    named: the folder.
    resolved: config of this run.
    extend: allows a resumed run more steps than before.

  Yields:
    Its path.

  Raises:
    ValueError: on every host: it cannot be written, another job trains in it,
      it holds a run of another config or files of no run, or the hosts do not
      share it.
  """
  with contextlib.ExitStack() as stack:
    token = secrets.token_hex(8)

    def prepare() -> list[str]:
      workdir.check_empty(named)
      folder = workdir.open_workdir(named)
      stack.enter_context(workdir.locked(folder))
      told = workdir.check_config(folder, resolved, extend=extend)
      for change in told:
        print(f'changed {change}', file=sys.stderr, flush=True)
      if not coordination.is_single_process():
        (folder / _TOKEN).write_text(token)
      return [str(folder), token]

    path, seen = coordination.from_primary(prepare, 'the folder of the run')
    folder = pathlib.Path(path)
    if not coordination.is_single_process():
      _check_shared(folder, seen)
    yield folder


def _check_shared(folder: pathlib.Path, token: str) -> None:
  """Raises unless every host sees what process 0 wrote."""
  problem = ''
  try:
    if (folder / _TOKEN).read_text() != token:
      problem = 'holds files of another job'
  except OSError as error:
    problem = f'cannot be read ({error.strerror})'
  found = coordination.first_problem(problem)
  if found:
    raise ValueError(
      f'--workdir: {folder}, which process 0 made, {found.partition(": ")[2]}'
      f' on {found.partition(": ")[0]}; name a folder on a file system that all'
      ' hosts share.'
    )
