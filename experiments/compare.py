"""Compares runs: configs, metrics, curves, ledgers.

python -m experiments.compare runs/a runs/b --out=runs/a_b
"""

import pathlib

from absl import flags

from dppo_jax.analysis.sweeps import compare
from dppo_jax.runtime import cli

_OUT = flags.DEFINE_string(
  'out', 'runs/compare', 'Folder for figures and the HTML page.'
)


def main(*folders: str) -> int:
  """Compares, prints and draws; returns the exit code."""
  out = pathlib.Path(_OUT.value).expanduser().absolute()
  print(compare.compare(folders, out))
  return 0


if __name__ == '__main__':
  cli.run(main, positional=True)
