"""Writes the tables of docs/ and README.md that are generated from the code.

python -m experiments.tables [FILE.md …]   # make tables
"""

import pathlib
import sys

from dppo_jax.experiments.docs import tables

_ROOT = pathlib.Path(__file__).resolve().parents[1]

if __name__ == '__main__':
  for page in map(pathlib.Path, sys.argv[1:] or tables.pages(_ROOT)):
    before = page.read_text()
    after = tables.rewrite(before)
    if after != before:
      page.write_text(after)
      print(page)
