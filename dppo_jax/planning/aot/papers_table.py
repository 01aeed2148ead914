"""Table of the papers' models on pod shapes, from actual compilations.

Each row is compiled in its own process, one after the other, so that its
compilation cost can be measured.
"""

from collections.abc import Mapping, Sequence
import csv
import io
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

from dppo_jax import bounded_json
from dppo_jax.planning.aot import child, programs
from dppo_jax.runtime.storage.files import write_atomically

_GIB = 2**30


class PodCase(NamedTuple):
  """A run on a machine.

  Attributes:
    config: a module of `configs`.
    topology: argument of `topologies.parse`.
    flags: config overrides for the machine.
    num_slices: of that shape.
  """

  config: str
  topology: str
  flags: tuple[str, ...] = ()
  num_slices: int = 1

  @property
  def name(self) -> str:
    """Names the row in the table."""
    slices = f' × {self.num_slices}' if self.num_slices > 1 else ''
    return f'{self.config} {self.topology}{slices}'


# From small to large.
ROWS = (
  PodCase(
    'sanity_r1_distill_1_5b',
    'v5e:4x4',
    ('--config.learner.num_microbatches=8',),
  ),
  PodCase(
    'qwen3_8b_base',
    'v5e:16x16',
    ('--config.mesh.tensor=8', '--config.model.shard_sequence=True'),
  ),
  PodCase('qwen3_8b_base_32k', 'v5p:4x8x8'),
  PodCase('qwen3_30b_a3b_base', 'v5p:4x4x8'),
  PodCase('qwen3_32b', 'v5p:8x16x16'),
)

# Column -> unit or meaning; memory and bytes sent are per device.
COLUMNS = {
  'row': '',
  'flags': '',
  'devices': '',
  'mesh': '',
  'capacity': 'GiB per device',
  **{f'{name}_memory': 'GiB per device' for name in programs.PHASES},
  'fits': '',
  **{f'{name}_sent': 'GiB sent per device' for name in programs.PHASES},
  'step': 's, at least (an estimate)',
  'tokens': 'sampled tokens/s, at most (an estimate)',
  **{f'{name}_compile': 's' for name in programs.PHASES},
  'wall': 's, of the whole command',
  'cpu': 's, of all cores',
  'peak_rss': 'GiB, of the compiling process',
  'problem': '',
}


def compile_row(row: PodCase, module: str) -> dict[str, str]:
  """Cells of a compiled row, by column; on failure, with the problem."""
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'plan.json'
    begin = time.monotonic()
    command = [
      *(sys.executable, '-m', module),
      f'--config=configs/{row.config}.py',
      f'--topology={row.topology}',
      f'--slices={row.num_slices}',
      *row.flags,
      f'--json={path}',
      child.FLAG,
    ]
    with subprocess.Popen(
      command,
      env={**os.environ, **child.ENVIRONMENT},
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
    ) as process:
      said = process.stderr.read() if process.stderr else ''
      # Resources of this child; RUSAGE_CHILDREN is a maximum over all.
      _, status, used = os.wait4(process.pid, 0)
      process.returncode = os.waitstatus_to_exitcode(status)
    measured = {
      'wall': f'{time.monotonic() - begin:.0f}',
      'cpu': f'{used.ru_utime + used.ru_stime:.0f}',
      'peak_rss': f'{used.ru_maxrss * 1024 / _GIB:.1f}',
    }
    if not path.is_file():
      last = said.strip().splitlines()[-1:] or [f'exit {process.returncode}']
      cells = {'problem': last[0]}
    else:
      cells = _cells(bounded_json.read_object(path))
  empty = dict.fromkeys(COLUMNS, '')
  named = {'row': row.name, 'flags': ' '.join(row.flags)}
  return {**empty, **named, **cells, **measured}


def _cells(plan: Mapping[str, Any]) -> dict[str, str]:
  """Cells of a plan in the format of `report.to_json`."""
  step = plan['step_s']
  cells = {
    'devices': str(plan['topology']['num_devices']),
    'mesh': ' · '.join(f'{a} {n}' for a, n in plan['mesh'].items() if n > 1),
    'capacity': f'{plan["capacity"] / _GIB:.1f}',
    'fits': 'yes' if plan['fits'] else 'no',
  }
  if step:
    cells['step'] = f'{step:.3g}'
    cells['tokens'] = f'{plan["tokens_per_step"] / step:.3g}'
  for phase in plan['phases']:
    name, compiled = phase['name'], phase['compiled']
    cells[f'{name}_memory'] = f'{phase["num_bytes"] / _GIB:.1f}'
    if compiled:
      cells[f'{name}_compile'] = f'{compiled["seconds"]:.0f}'
      # Unknown is not zero.
      if not compiled['refused'] and not compiled['unread']:
        sent = sum(each['num_bytes'] for each in compiled['collectives'])
        cells[f'{name}_sent'] = f'{sent / _GIB:.3g}'
  return cells


def merge(
  path: pathlib.Path, found: Sequence[Mapping[str, str]]
) -> list[dict[str, str]]:
  """Rows of a CSV file, updated with those found and written back.

  Args:
    path: of the file; it may be missing.
    found: rows of `compile_row`.
  """
  known: dict[str, dict[str, str]] = {}
  if path.is_file():
    with path.open(newline='') as file:
      known = {row['row']: row for row in csv.DictReader(file)}
  known |= {row['row']: dict(row) for row in found}
  order = [row.name for row in ROWS]
  rows = [known[name] for name in order if name in known]
  text = io.StringIO(newline='')
  writer = csv.DictWriter(text, list(COLUMNS), lineterminator='\n')
  writer.writeheader()
  writer.writerows(rows)
  path.parent.mkdir(parents=True, exist_ok=True)
  write_atomically(path, text.getvalue())
  return rows


def show(rows: Sequence[Mapping[str, str]]) -> str:
  """Markdown of the page."""
  head = ('run', 'chips and mesh', *(f'{n} GiB' for n in programs.PHASES))
  head += ('fits', 'GiB sent per step', 'step, s', 'tokens/s', 'compilation')
  lines = [_line(head), _line(['---'] * len(head))]
  lines += [_line(_shown(row)) for row in rows]
  flags = [f'- {row["row"]}: `{row["flags"]}`' for row in rows if row['flags']]
  problems = [
    f'- {row["row"]}: {row["problem"]}' for row in rows if row['problem']
  ]
  return '\n'.join(
    [
      "# The papers' models on pods",
      '',
      'Written by `python -m experiments.pods`, from programs compiled ahead of'
      ' time, without',
      'the TPUs; no row has been run. Memory is per device, used of available.'
      ' "GiB sent"',
      'is per device, in sampling, scoring and training; loops that may stop'
      ' early count in',
      'full. Step time and tokens/s are bounds: devices at the peaks of their'
      ' data sheets,',
      'completions at full length. The last column: wall seconds, CPU seconds'
      ' and peak',
      'memory of compilation.',
      '',
      *lines,
      '',
      *flags,
      *(['', 'Not compiled:', '', *problems] if problems else []),
      '',
    ]
  )


def _shown(row: Mapping[str, str]) -> list[str]:
  def three(what: str) -> str:
    return ', '.join(row[f'{name}_{what}'] or '?' for name in programs.PHASES)

  memory = [
    f'{row[f"{name}_memory"] or "?"} of {row["capacity"] or "?"}'
    for name in programs.PHASES
  ]
  return [
    row['row'],
    f'{row["devices"]}: {row["mesh"]}',
    *memory,
    row['fits'],
    three('sent'),
    row['step'],
    row['tokens'],
    f'{row["wall"]} s, {row["cpu"]} CPU-s, {row["peak_rss"]} GiB',
  ]


def _line(cells: Sequence[str]) -> str:
  return f'| {" | ".join(cells)} |'
