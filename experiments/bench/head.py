"""Times the LM-head loss, forward and backward, against its bare GEMMs.

python -m experiments.bench.head --tokens=2048 --width=512
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import pathlib
from typing import Any, NamedTuple

from absl import flags
import jax
import jax.numpy as jnp

from dppo_jax import hardware, parallel
from dppo_jax.base import Array, TokenStats
from dppo_jax.experiments.bench import timing
from dppo_jax.learner import loss as loss_lib
from dppo_jax.learner import standalone
from dppo_jax.learner.movement import keeps_hidden
from dppo_jax.lm_head.fused_loss import head_loss
from dppo_jax.lm_head.inputs import Targets, VocabularyConfig
from dppo_jax.lm_head.vocabulary_shard import product
from dppo_jax.ops import products
from dppo_jax.ops.trust_regions import open_thresholds
from dppo_jax.parallel import VocabularyAxes
from dppo_jax.runtime import cli

# Flags are defined only as a command: other benchmarks import this module.
if __name__ == '__main__':
  _TOKENS = flags.DEFINE_integer('tokens', 2048, 'N, a multiple of 32.')
  _WIDTH = flags.DEFINE_integer('width', 512, 'D.')
  _VOCABULARY = flags.DEFINE_integer('vocabulary', 151_936, 'V.')
  _TOP_K = flags.DEFINE_integer('top_k', 20, 'K.')
  _CHUNK = flags.DEFINE_integer('head_chunk_tokens', 0, 'C; 0: by the device.')
  _DTYPE = flags.DEFINE_string('dtype', 'float32', 'Of the hidden states.')
  _ONLY = flags.DEFINE_list('only', [], 'Variants; the bare GEMMs always run.')
  _REPEATS = flags.DEFINE_integer('repeats', 5, 'Rounds.')
  _OUT = flags.DEFINE_string('out', 'experiments/bench/results', 'Folder.')


def main() -> int:
  """Measures, prints and writes; returns the exit code."""
  shape = HeadShape(
    tokens=_TOKENS.value,
    width=_WIDTH.value,
    vocabulary=_VOCABULARY.value,
    top_k=_TOP_K.value,
    head_chunk_tokens=_CHUNK.value,
    dtype=_DTYPE.value,
  )
  variants = make_variants(shape, _ONLY.value)
  runs = {name: variant.run for name, variant in variants.items()}
  found = timing.compare(runs, _REPEATS.value)
  bare = found[BARE].seconds
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
    'head_chunk_tokens': layout(shape).head_chunk_tokens,
    'seconds': {name: time._asdict() for name, time in found.items()},
    'ratio': {name: time.seconds / bare for name, time in found.items()},
    'temporary': {name: v.temporary for name, v in variants.items()},
  }
  name = f'head-{shape.dtype}-{shape.width}'
  print('Result:', timing.write(pathlib.Path(_OUT.value), name, result))
  return 0


# Columns of the batch; rows make up the tokens.
_LENGTH = 32
BARE = 'three bare products'
MATERIALIZED = 'materialized'
_BOUNDS = dataclasses.replace(
  open_thresholds(), delta_low=0.2, delta_high=0.2, clip_low=0.2, clip_high=0.2
)

_PREDICTIVE = dataclasses.replace(_BOUNDS, direction='predictive')


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadShape:
  """Sizes of the problem.

  Attributes:
    tokens: N.
    width: D.
    vocabulary: V.
    top_k: K.
    head_chunk_tokens: C; 0 chooses it by the device.
    dtype: of the hidden states; the head is f32.
  """

  tokens: int
  width: int
  vocabulary: int
  top_k: int
  head_chunk_tokens: int
  dtype: str


class HeadProgram(NamedTuple):
  """A compiled computation of loss and gradients.

  Attributes:
    run: calls it.
    temporary: bytes of temporary memory.
    text: the optimized program.
  """

  run: Callable[[], Any]
  temporary: int
  text: str


def make_variants(
  shape: HeadShape, only: Sequence[str] = ()
) -> Mapping[str, HeadProgram]:
  """Variants: the bare GEMMs, and the fused loss under several rules.

  Args:
    shape: sizes.
    only: names of the fused variants to make; empty for all.

  Raises:
    ValueError: unknown name.
  """
  k = shape.top_k
  makers: dict[str, Callable[[], HeadProgram]] = {
    name: functools.partial(_one_pass, shape, size, loss_config(**options))
    for name, size, options in (
      ('PPO', 0, dict(rule='ratio_clip', divergence='binary_tv')),
      ('Top-K TV', k, dict(divergence='topk_tv')),
      ('Top-64 TV', 64, dict(divergence='topk_tv')),
      ('Top-K TV + entropy', k, dict(entropy_coefficient=0.01)),
      ('exact TV', 0, dict(divergence='exact_tv')),
      ('exact KL', 0, dict(divergence='exact_kl')),
      ('Top-K TV, centered', k, dict(centering='topk')),
      ('Top-128 TV', 128, {}),
      ('Top-128 TV, centered', 128, dict(centering='topk')),
      ('Top-K TV, predictive', k, dict(bounds=_PREDICTIVE)),
      (
        'exact TV, centered',
        0,
        dict(divergence='exact_tv', centering='exact'),
      ),
    )
    if size <= shape.vocabulary
  }
  makers[MATERIALIZED] = functools.partial(_materialized, shape)
  unknown = set(only) - set(makers)
  if unknown:
    raise ValueError(
      f'--only: {sorted(unknown)[0]!r} is no variant. Known:'
      f' {", ".join(makers)}'
    )
  made = {
    name: make() for name, make in makers.items() if name in only or not only
  }
  return {BARE: _bare(shape), **made}


def one_pass(shape: HeadShape) -> HeadProgram:
  """Fused loss of DPPO with Top-K TV."""
  return _one_pass(shape, shape.top_k, loss_config())


def layout(shape: HeadShape) -> VocabularyConfig:
  """Layout of the pass on the first device."""
  device = jax.devices()[0]
  mesh = parallel.make_mesh(1, 1, 1, [device])
  rows = shape.head_chunk_tokens or hardware.head_chunk_tokens(
    device.device_kind, shape.vocabulary
  )
  axes = VocabularyAxes(mesh, parallel.BATCH_AXES, parallel.VOCAB_AXIS)
  return VocabularyConfig(axes=axes, head_chunk_tokens=rows, temperature=1.0)


def loss_config(**options: Any) -> loss_lib.LossConfig:
  """Loss of DPPO with Top-K TV, but for the options."""
  fields = dict(
    rule='divergence', divergence='topk_tv', prompt_length=1, bounds=_BOUNDS
  )
  return standalone.plain_config(**{**fields, **options})


def case(shape: HeadShape, k: int, exact: bool) -> tuple[Any, ...]:
  """Head, hidden states and targets; the anchor is a perturbed policy."""
  keys = iter(jax.random.split(jax.random.PRNGKey(0), 8))
  size = (shape.tokens // _LENGTH, _LENGTH)
  dtype = jnp.dtype(shape.dtype)
  head = 0.05 * jax.random.normal(next(keys), (shape.vocabulary, shape.width))
  hidden = jax.random.normal(next(keys), (*size, shape.width)).astype(dtype)
  mask = jnp.ones(size, bool)
  ids = jax.random.randint(next(keys), (*size, max(k, 1)), 0, shape.vocabulary)
  flat = jnp.full(size, -jnp.log(float(shape.vocabulary)))
  anchor = TokenStats(
    log_probs=flat,
    top_ids=ids if k else None,
    top_log_probs=jnp.broadcast_to(flat[..., None], ids.shape) if k else None,
    hidden=hidden if exact else None,
  )
  context = loss_lib.Context(
    weights=jnp.full(size, 1.0 / shape.tokens),
    mask=mask,
    advantages=jax.random.normal(next(keys), size),
    rollout_log_probs=flat,
    anchor_log_probs=flat,
    reference_log_probs=None,
  )
  targets = Targets(
    tokens=jax.random.randint(next(keys), size, 0, shape.vocabulary),
    mask=mask,
    anchor=anchor,
    context=context,
    anchor_head=1.01 * head if exact else None,
  )
  return head, hidden, targets


def _compiled(function: Callable[..., Any], arguments: Any) -> HeadProgram:
  compiled = jax.jit(function).lower(*arguments).compile()
  memory: Any = compiled.memory_analysis()
  return HeadProgram(
    lambda: compiled(*arguments),
    memory.temp_size_in_bytes,
    compiled.as_text() or '',
  )


def _bare(shape: HeadShape) -> HeadProgram:
  head, hidden, _ = case(shape, 0, exact=False)
  x = hidden.reshape(-1, shape.width)
  d_logits = jnp.ones((shape.tokens, shape.vocabulary), hidden.dtype)

  def products(head: Array, x: Array, d_logits: Array) -> Any:
    weights = head.astype(x.dtype)
    return (
      product(x, weights, 1, 1),
      product(d_logits, weights, 1, 0),
      product(d_logits, x, 0, 0),
    )

  return _compiled(products, (head, x, d_logits))


def _one_pass(
  shape: HeadShape, k: int, config: loss_lib.LossConfig
) -> HeadProgram:
  loss = loss_lib.make_head_loss(config)
  run = functools.partial(head_loss, layout(shape), loss)
  differentiate = jax.value_and_grad(run, argnums=(0, 1), has_aux=True)
  return _compiled(differentiate, case(shape, k, exact=keeps_hidden(config)))


def _materialized(shape: HeadShape) -> HeadProgram:
  """Loss by its definition, with materialized logits."""
  config = loss_config()

  def total(head: Array, hidden: Array, targets: Targets) -> Any:
    weights = head.astype(hidden.dtype)
    logits = products.einsum_f32('brd,vd->brv', hidden, weights)
    return loss_lib.reference_loss(config, logits, targets)

  differentiate = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)
  return _compiled(differentiate, case(shape, shape.top_k, exact=False))


if __name__ == '__main__':
  cli.run(main)
