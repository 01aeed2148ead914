"""Lays runs side by side: configs, metrics, curves, ledgers.

python -m experiments.compare runs/a runs/b --out=runs/a_b
"""

import pathlib

from absl import flags

from dppo_jax.runtime import entry_point
from dppo_jax.runtime.sweeps import comparison

_OUT = flags.DEFINE_string(
  'out', 'runs/compare', 'Folder of the pictures and the page.'
)


def main(*folders: str) -> int:
  """Compares, prints and draws; returns the exit code."""
  out = pathlib.Path(_OUT.value).expanduser().absolute()
  print(comparison.compare(folders, out))
  return 0


if __name__ == '__main__':
  entry_point.run(main, positional=True)
