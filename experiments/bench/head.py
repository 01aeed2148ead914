"""Times the loss head, forward and backward, against its bare products.

python -m experiments.bench.head --tokens=2048 --width=512
"""

import dataclasses
import pathlib

from absl import flags

from dppo_jax.runtime import entry_point
from dppo_jax.runtime.bench import head, timing

_TOKENS = flags.DEFINE_integer('tokens', 2048, 'N, a multiple of 32.')
_WIDTH = flags.DEFINE_integer('width', 512, 'D.')
_VOCABULARY = flags.DEFINE_integer('vocabulary', 151_936, 'V.')
_TOP_K = flags.DEFINE_integer('top_k', 20, 'K.')
_CHUNK = flags.DEFINE_integer('chunk_rows', 0, 'C; 0: that of the device.')
_DTYPE = flags.DEFINE_string('dtype', 'float32', 'Of the states.')
_ONLY = flags.DEFINE_list('only', [], 'Variants beside the bare products.')
_REPEATS = flags.DEFINE_integer('repeats', 5, 'Rounds.')
_OUT = flags.DEFINE_string('out', 'experiments/bench/results', 'Folder.')


def main() -> int:
  """Measures, prints and writes; returns the exit code."""
  shape = head.HeadShape(
    tokens=_TOKENS.value,
    width=_WIDTH.value,
    vocabulary=_VOCABULARY.value,
    top_k=_TOP_K.value,
    chunk_rows=_CHUNK.value,
    dtype=_DTYPE.value,
  )
  variants = head.make_variants(shape, _ONLY.value)
  runs = {name: variant.run for name, variant in variants.items()}
  found = timing.compare(runs, _REPEATS.value)
  bare = found[head.BARE].seconds
  rows = [('', 'seconds', '/ bare', 'temporary MB')]
  rows += [
    (
      name,
      f'{time.seconds:.3f}',
      f'{time.seconds / bare:.3f}',
      f'{variants[name].temporary / 1e6:.0f}',
    )
    for name, time in found.items()
  ]
  print(timing.table(rows))
  result = {
    'shape': dataclasses.asdict(shape),
    'chunk_rows': head.layout(shape).chunk_rows,
    'seconds': {name: time._asdict() for name, time in found.items()},
    'ratio': {name: time.seconds / bare for name, time in found.items()},
    'temporary': {name: v.temporary for name, v in variants.items()},
  }
  name = f'head-{shape.dtype}-{shape.width}'
  print('Result:', timing.write(pathlib.Path(_OUT.value), name, result))
  return 0


if __name__ == '__main__':
  entry_point.run(main)
