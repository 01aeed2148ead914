"""Times token sampling, after the logits, against the LM head's GEMM.

python -m experiments.bench.sampler --rows=32 --width=1024
"""

from collections.abc import Callable, Mapping
import dataclasses
import pathlib
from typing import Any

from absl import flags
import jax
import jax.numpy as jnp

from dppo_jax import parallel
from dppo_jax.base import Array
from dppo_jax.experiments.bench import timing
from dppo_jax.ops import products
from dppo_jax.parallel import VocabularyAxes
from dppo_jax.runtime import cli
from dppo_jax.sampling.next_token import sample_token

# Flags are defined only as a command: other benchmarks import this module.
if __name__ == '__main__':
  _ROWS = flags.DEFINE_integer('rows', 32, 'B.')
  _WIDTH = flags.DEFINE_integer('width', 1024, 'D.')
  _VOCABULARY = flags.DEFINE_integer('vocabulary', 151_936, 'V.')
  _TOP_K = flags.DEFINE_integer('top_k', 20, 'K.')
  _DTYPE = flags.DEFINE_string('dtype', 'float32', 'Of states and head.')
  _REPEATS = flags.DEFINE_integer('repeats', 20, 'Rounds.')
  _OUT = flags.DEFINE_string('out', 'experiments/bench/results', 'Folder.')


def main() -> int:
  """Measures, prints and writes; returns the exit code."""
  shape = SamplerShape(
    rows=_ROWS.value,
    width=_WIDTH.value,
    vocabulary=_VOCABULARY.value,
    top_k=_TOP_K.value,
    dtype=_DTYPE.value,
  )
  found = timing.compare(make_variants(shape), _REPEATS.value)
  least = found[PRODUCT].seconds
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


PRODUCT = 'head product'


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplerShape:
  """Sizes of the problem.

  Attributes:
    rows: B.
    width: D.
    vocabulary: V.
    top_k: K.
    dtype: of states and head.
  """

  rows: int
  width: int
  vocabulary: int
  top_k: int
  dtype: str


def make_variants(shape: SamplerShape) -> Mapping[str, Callable[[], Any]]:
  """The GEMM, our sampling with and without top-K, and the usual sampling."""
  key = jax.random.PRNGKey(0)
  dtype = jnp.dtype(shape.dtype)
  size = (shape.vocabulary, shape.width)
  head = (0.05 * jax.random.normal(key, size)).astype(dtype)
  hidden = jax.random.normal(key, (shape.rows, shape.width)).astype(dtype)
  uniform = jax.random.uniform(key, (shape.rows,))
  mesh = parallel.make_mesh(1, 1, 1, jax.devices()[:1])
  axes = VocabularyAxes(mesh, parallel.BATCH_AXES, parallel.VOCAB_AXIS)

  @jax.jit
  def project(hidden: Array, head: Array) -> Array:
    return products.einsum_f32('bd,vd->bv', hidden, head)

  def sampling(top_k: int) -> Callable[[Array, Array], Any]:
    def run(logits: Array, uniform: Array) -> Any:
      return sample_token(axes, logits, uniform, temperature=1.0, top_k=top_k)

    return jax.jit(run)

  @jax.jit
  def usual(logits: Array, key: Array) -> Any:
    tokens = jax.random.categorical(key, logits)
    log_probs = jax.nn.log_softmax(logits)
    sampled = jnp.take_along_axis(log_probs, tokens[:, None], axis=1)
    return tokens, sampled, jax.lax.top_k(log_probs, shape.top_k)

  logits = project(hidden, head)
  record, bare = sampling(shape.top_k), sampling(0)
  return {
    PRODUCT: lambda: project(hidden, head),
    'sampling': lambda: record(logits, uniform),
    'sampling, no top-K': lambda: bare(logits, uniform),
    'categorical, log_softmax, top_k': lambda: usual(logits, key),
  }


if __name__ == '__main__':
  cli.run(main)
