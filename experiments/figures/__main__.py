"""Makes all figures, or some: CSV, plots and verdicts, one folder per figure.

python -m experiments.figures --tier=cpu --out=DIR --only=stability,anchor
"""

import importlib
import pathlib
import sys

from absl import flags

from dppo_jax.experiments.figures.harness import command
from dppo_jax.experiments.figures.harness.figure import check_tier
from dppo_jax.runtime import cli
from dppo_jax.suggestions import suggest

_ONLY = flags.DEFINE_list('only', [], 'Names of figures; empty for all.')
_READ = command.define_flags()
_FOLDER = pathlib.Path(__file__).resolve().parent
_NO_FIGURES = ('papers', 'settings')


def known() -> list[str]:
  """Names of the figures, equal to their modules'."""
  names = (path.stem for path in sorted(_FOLDER.glob('[a-z]*.py')))
  return [name for name in names if name not in _NO_FIGURES]


def main() -> int:
  """Makes the figures in turn; returns the exit code, 1 if any run failed."""
  options = _READ()
  names = known()
  for name in _ONLY.value:
    if name not in names:
      raise ValueError(f'--only: unknown {name!r}{suggest(name, names)}')
  out = cli.required('out', options.out, 'the folder of the results')
  folder = pathlib.Path(out)
  code = 0
  for name in _ONLY.value or names:
    module = importlib.import_module(f'dppo_jax.experiments.figures.{name}')
    figure, docs = module.FIGURE, module.__doc__
    check_tier(figure, options.tier)
    try:
      made = command.follow(figure, docs, options, folder / name)
    except ValueError as error:  # Go on with the others.
      print(f'error: {name}: {error}', file=sys.stderr)
      made = 1
    code = max(code, made)
  return code


if __name__ == '__main__':
  cli.run(main)
