"""Compiles the papers' models for TPU pods, without chips: a page and a CSV.

python -m experiments.pods --out=docs/results/pods.md [--only=qwen3_8b]

Needs libtpu (extra tpu), and minutes per row. Rows that are not compiled now
keep their values from the CSV beside the page.
"""

import pathlib
import sys

from absl import flags

from dppo_jax.planning.aot import papers_table, topologies
from dppo_jax.runtime import cli
from dppo_jax.suggestions import suggest

_OUT = flags.DEFINE_string(
  'out', 'docs/results/pods.md', 'Page; the CSV is beside it.'
)
_ONLY = flags.DEFINE_string('only', '', 'Only rows whose name contains this.')


def main() -> int:
  """Compiles and writes; returns the exit code."""
  page = pathlib.Path(_OUT.value).expanduser()
  chosen = [row for row in papers_table.ROWS if _ONLY.value in row.name]
  if not chosen:
    names = [row.name for row in papers_table.ROWS]
    raise ValueError(f'--only: no row has {_ONLY.value!r}{suggest("", names)}')
  if not topologies.can_compile():
    raise ValueError("--out: needs libtpu; pip install 'dppo_jax[tpu]'.")
  failed = 0
  for row in chosen:
    print(f'Compiling {row.name}', file=sys.stderr, flush=True)
    cells = papers_table.compile_row(row, 'dppo_jax.experiments.plan')
    failed += bool(cells['problem'])
    rows = papers_table.merge(page.with_suffix('.csv'), [cells])
    page.write_text(papers_table.show(rows))
  return int(failed > 0)


if __name__ == '__main__':
  cli.run(main)
