"""Times the tail of a decode step against the product of the head.

python -m experiments.bench.sampler --rows=32 --width=1024
"""

import dataclasses
import pathlib

from absl import flags

from dppo_jax.runtime import entry_point
from dppo_jax.runtime.bench import sampler, timing

_ROWS = flags.DEFINE_integer('rows', 32, 'B.')
_WIDTH = flags.DEFINE_integer('width', 1024, 'D.')
_VOCABULARY = flags.DEFINE_integer('vocabulary', 151_936, 'V.')
_TOP_K = flags.DEFINE_integer('top_k', 20, 'K.')
_DTYPE = flags.DEFINE_string('dtype', 'float32', 'Of states and head.')
_REPEATS = flags.DEFINE_integer('repeats', 20, 'Rounds.')
_OUT = flags.DEFINE_string('out', 'experiments/bench/results', 'Folder.')


def main() -> int:
  """Measures, prints and writes; returns the exit code."""
  shape = sampler.SamplerShape(
    rows=_ROWS.value,
    width=_WIDTH.value,
    vocabulary=_VOCABULARY.value,
    top_k=_TOP_K.value,
    dtype=_DTYPE.value,
  )
  found = timing.compare(sampler.make_variants(shape), _REPEATS.value)
  least = found[sampler.PRODUCT].seconds
  rows = [('', 'ms', '/ product')]
  for name, time in found.items():
    ratio = time.seconds / least
    rows.append((name, f'{1e3 * time.seconds:.2f}', f'{ratio:.3f}'))
  print(timing.table(rows))
  result = {
    'shape': dataclasses.asdict(shape),
    'seconds': {name: time._asdict() for name, time in found.items()},
    'ratio': {name: time.seconds / least for name, time in found.items()},
  }
  name = f'sampler-{shape.dtype}-{shape.width}'
  print('Result:', timing.write(pathlib.Path(_OUT.value), name, result))
  return 0


if __name__ == '__main__':
  entry_point.run(main)
