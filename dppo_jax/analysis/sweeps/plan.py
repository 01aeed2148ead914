"""A sweep: its variants and seeds, the folder it fills, its command lines.

WORKDIR/sweep.json has the settings of the sweep, WORKDIR/runs its runs, each in
the folder that `jobs.job.folder_of` names by its config and code. Values and
seeds may be added to a sweep; a folder with another sweep is refused.
"""

from collections.abc import Iterator, Mapping, Sequence
import copy
import dataclasses
import json
import pathlib
import shlex
from typing import Any

from dppo_jax import bounded_json
from dppo_jax.analysis.jobs import job as job_lib
from dppo_jax.analysis.jobs.job import Job, Outcome
from dppo_jax.analysis.sweeps.variants import Variant
from dppo_jax.runtime.config.build import build_experiment
from dppo_jax.runtime.reporting import summary
from dppo_jax.runtime.storage import files, workdir

FILE = 'sweep.json'
RUNS = 'runs'
FAILURES = 'failures.json'
FORMAT = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
  """A sweep: its variants and seeds.

  Attributes:
    config: base of the variants, every key, as plain nested dicts.
    arguments: config flags of its command line, '--config=…'.
    variants: at least one.
    num_seeds: n; seeds are 0 to n - 1.
    code: version of the code that runs it.
  """

  config: Mapping[str, Any]
  arguments: Sequence[str]
  variants: Sequence[Variant]
  num_seeds: int
  code: str


def check(sweep: Sweep, defaults: Any) -> None:
  """Checks the config of every variant, except for device counts.

  Args:
    sweep: to check, before its first run.
    defaults: a ConfigDict of configs/default.py.

  Raises:
    ValueError: there are no seeds, or configs with problems; lists all.
  """
  if sweep.num_seeds < 1:
    raise ValueError(f'--seeds: got {sweep.num_seeds}; at least 1.')
  problems = []
  for variant in sweep.variants:
    config = _overlaid(sweep, defaults)
    config.update_from_flattened_dict(dict(variant.overrides))
    config.mesh.update(data=-1, fsdp=1, tensor=1, expert=1)
    try:
      build_experiment(config, 1)
    except ValueError as error:
      problems.append(f'{variant.name}: {error}')
  if problems:
    raise ValueError('nothing was run:\n' + '\n'.join(problems))


def jobs(sweep: Sweep, defaults: Any) -> list[Job]:
  """Jobs in order of seeds, so that an interrupted sweep has complete seeds."""
  base = _overlaid(sweep, defaults)
  return [
    job_lib.make_job(variant.name, base, variant.overrides, seed)
    for seed in range(sweep.num_seeds)
    for variant in sweep.variants
  ]


def _overlaid(sweep: Sweep, defaults: Any) -> Any:
  return workdir.overlay(copy.deepcopy(defaults), dict(sweep.config))


def write(folder: pathlib.Path, sweep: Sweep) -> str:
  """Note for the user, after recording or continuing a sweep in its folder.

  Returns:
    The note, or ''.

  Raises:
    ValueError: the folder holds another sweep (the message lists the
      differences) or a single run.
  """
  note = ''
  if (folder / FILE).exists():
    before = read(folder)
    changes = list(_departures(before, sweep))
    if changes:
      listed = '\n'.join(f'  {change}' for change in changes)
      raise ValueError(
        f'--workdir: {folder} holds another sweep:\n{listed}\nRepeat its flags'
        f' (see {FILE}; values and seeds may be added), or choose another'
        ' --workdir.'
      )
    if before.code != sweep.code:
      note = (
        'The code has changed: every run is repeated with the new code. Runs'
        f' of the old code stay in {folder / RUNS} and are not used.'
      )
  elif (folder / workdir.CONFIG).exists():
    raise ValueError(
      f'--workdir: {folder} holds a run, not a sweep; choose another --workdir.'
    )
  facts = {
    'format': FORMAT,
    **dataclasses.asdict(sweep),
    'variants': [variant._asdict() for variant in sweep.variants],
  }
  files.write_atomically(folder / FILE, json.dumps(facts, indent=2) + '\n')
  return note


def read(folder: pathlib.Path) -> Sweep:
  """Sweep recorded by `write`.

  Raises:
    ValueError: there is none, or it is damaged or of another version.
  """
  path = folder / FILE
  try:
    facts = bounded_json.read_object(path)
    if facts.pop('format') != FORMAT:
      raise ValueError('of another version')
    listed = [Variant(**variant) for variant in facts.pop('variants')]
    sweep = Sweep(variants=listed, **facts)
    if not listed or not all(isinstance(v.name, str) for v in listed):
      raise ValueError('it names no variants')
    return sweep
  except FileNotFoundError as error:
    raise ValueError(
      f'--workdir: {folder} holds no sweep: it has no {FILE}.'
    ) from error
  except Exception as error:  # Damaged in whatever way.
    raise ValueError(
      f'--workdir: {path} is damaged ({type(error).__name__}: {error}); choose'
      ' another folder.'
    ) from error


def _departures(before: Sweep, now: Sweep) -> Iterator[str]:
  """Variants of a sweep that its continuation would drop or change."""
  plain = json.loads(json.dumps(now.config))
  yield from workdir.differences(before.config, plain)
  wanted = {variant.name: dict(variant.overrides) for variant in now.variants}
  for name, _, overrides in before.variants:
    if name not in wanted:
      yield f'{name}: not among the variants now'
    elif wanted[name] != overrides:
      yield f'{name}: {overrides} -> {wanted[name]}'
  if now.num_seeds < before.num_seeds:
    yield f'seeds: {before.num_seeds} -> {now.num_seeds}'


def outcomes(
  sweep: Sweep, folder: pathlib.Path, wanted: Sequence[Job]
) -> list[Outcome]:
  """Outcomes of the runs that exist, whoever ran them.

  Args:
    sweep: of the folder.
    folder: its workdir.
    wanted: its jobs.
  """
  failures = _read_failures(folder)
  found = []
  for job in wanted:
    place = job_lib.folder_of(job, folder / RUNS, sweep.code)
    done = job_lib.finished(job, place)
    # A run started by a command of `lines`.
    if done is None and summary.read_summary(place) is not None:
      done = Outcome(job=job, folder=place, error='')
    error = failures.get(place.name, 'not finished')
    found.append(done or Outcome(job=job, folder=place, error=str(error)))
  return found


def write_failures(folder: pathlib.Path, found: Sequence[Outcome]) -> None:
  """Writes the errors of failed runs, for later reports."""
  errors = {one.folder.name: one.error for one in found if one.error}
  files.write_atomically(folder / FAILURES, json.dumps(errors, indent=2) + '\n')


def _read_failures(folder: pathlib.Path) -> dict[str, Any]:
  try:
    return bounded_json.read_object(folder / FAILURES)
  except (OSError, ValueError):
    return {}


def lines(
  sweep: Sweep, folder: pathlib.Path, wanted: Sequence[Job]
) -> Iterator[str]:
  """Command lines of `dppo train`, one per run, for a shell."""
  overrides = {variant.name: variant.overrides for variant in sweep.variants}
  for job in wanted:
    place = job_lib.folder_of(job, folder / RUNS, sweep.code)
    settings = {**overrides[job.name], 'seed': job.seed}
    arguments = [
      *sweep.arguments,
      *(f'--config.{path}={value}' for path, value in settings.items()),
      f'--workdir={place}',
    ]
    yield shlex.join(['dppo', 'train', *arguments])


def config_arguments(argv: Sequence[str]) -> list[str]:
  """Flags of a command line that define its config."""
  found = []
  for place, argument in enumerate(argv):
    name, equals, _ = argument.partition('=')
    if not name.startswith(('--config', '--noconfig')):
      continue
    value = argv[place + 1] if place + 1 < len(argv) else '--'
    if equals or value.startswith('--'):  # A switch has no value.
      found.append(argument)
    else:
      found.append(f'{argument}={value}')
  return found
