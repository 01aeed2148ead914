"""Times a rollout batch with long-tailed lengths: slots against all at once.

python -m experiments.bench.slot_batching
"""

from collections.abc import Callable, Mapping
import dataclasses
import pathlib
from typing import Any

from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from dppo_jax import parallel
from dppo_jax.base import Array, Params, Prompts, Rollout
from dppo_jax.configs import default
from dppo_jax.experiments.bench import timing
from dppo_jax.experiments.bench.rollout import random_params
from dppo_jax.models.layers import TransformerConfig
from dppo_jax.models.policy import Policy, make_policy
from dppo_jax.models.slot_cache import Slots
from dppo_jax.parallel import VocabularyAxes
from dppo_jax.runtime import cli
from dppo_jax.sampling import continuous
from dppo_jax.sampling.plain import plain_sampling

# Flags are defined only as a command: other benchmarks import this module.
if __name__ == '__main__':
  _PROMPTS = flags.DEFINE_integer('prompts', 64, 'N.')
  _GROUP = flags.DEFINE_integer('group_size', 16, 'G.')
  _AT_ONCE = flags.DEFINE_integer('num_slots', 16, 'S.')
  _NEW = flags.DEFINE_integer('new_tokens', 256, 'R, the length limit.')
  _MEDIAN = flags.DEFINE_float('median', 32.0, 'Of the lengths, tokens.')
  _SIGMA = flags.DEFINE_float('sigma', 1.0, 'Std of their logarithm.')
  _REPEATS = flags.DEFINE_integer('repeats', 3, 'Rounds.')
  _OUT = flags.DEFINE_string('out', 'experiments/bench/results', 'Folder.')


def main() -> int:
  """Measures, prints and writes; 1 if the share is below 90 %."""
  model = default.get_config().to_dict()['model']
  model |= dict(vocab_size=_NEW.value + 16)
  model.pop('pretrained')
  shape = SlotBatchingShape(
    model=TransformerConfig(**model),
    prompts=_PROMPTS.value,
    group_size=_GROUP.value,
    prompt_length=32,
    new_tokens=_NEW.value,
    num_slots=_AT_ONCE.value,
    median=_MEDIAN.value,
    sigma=_SIGMA.value,
    top_k=20,
  )
  variants = make_variants(shape)
  found = timing.compare(variants, _REPEATS.value)
  drawn = {name: run() for name, run in variants.items()}
  shares = {name: useful_share(one) for name, one in drawn.items()}
  lengths = np.asarray(drawn[STATIC].completion_mask).sum(axis=1)
  rows = [('', 'useful decode work', 'CPU or device s', 'wall s')]
  for name, time in found.items():
    took = f'{time.seconds:.2f}', f'{time.wall:.2f}'
    rows.append((name, f'{shares[name]:.3f}', *took))
  print(timing.table(rows))
  result = {
    'useful_decode_share': shares,
    'seconds': {name: time._asdict() for name, time in found.items()},
    'lengths': {
      'mean': float(lengths.mean()),
      'quantiles': {q: float(np.quantile(lengths, q)) for q in (0.5, 0.9, 1.0)},
    },
    'same_tokens': bool((drawn[STATIC].tokens == drawn[REFILLED].tokens).all()),
    'shape': dataclasses.asdict(shape),
  }
  name = f'slot_batching-b{len(lengths)}-s{shape.num_slots}'
  print('Result:', timing.write(pathlib.Path(_OUT.value), name, result))
  return 0 if shares[REFILLED] >= 0.9 else 1


STATIC, REFILLED = 'all rows at once', 'slots, refilled'
_END = 1
# Prompt ids are above all length ids, so they are never counted down.
_PROMPT_IDS = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlotBatchingShape:
  """Sizes of the problem.

  Attributes:
    model: the transformer; V > R + 8.
    prompts: N.
    group_size: G.
    prompt_length: P.
    new_tokens: R, the limit.
    num_slots: S.
    median: of the lengths, tokens.
    sigma: standard deviation of their logarithm.
    top_k: K.
  """

  model: TransformerConfig
  prompts: int
  group_size: int
  prompt_length: int
  new_tokens: int
  num_slots: int
  median: float
  sigma: float
  top_k: int


def length_distribution(shape: SlotBatchingShape) -> np.ndarray:
  """Probabilities f64 [R] of lengths 1 … R; longer ones count as R."""
  numbers = np.arange(1, 256 * shape.new_tokens)
  score = np.log(numbers / shape.median) / shape.sigma
  mass = np.exp(-(score**2) / 2) / numbers
  kept = mass[: shape.new_tokens].copy()
  kept[-1] += mass[shape.new_tokens :].sum()
  return kept / kept.sum()


def with_lengths(policy: Policy, probabilities: np.ndarray) -> Policy:
  """Policy whose completions count down from a length with `probabilities`.

  Its hidden states have an additional column: the last token, 0 after a prompt.
  """
  with np.errstate(divide='ignore'):
    first = jnp.asarray(np.log(probabilities), jnp.float32)

  def tag(hidden: Array, tokens: Array) -> Array:
    last = tokens.astype(hidden.dtype)[:, None]
    return jnp.concatenate([hidden, last], axis=1)

  def prefill(
    params: Params, prompts: Prompts, group_size: int, columns: int
  ) -> tuple[Array, Any]:
    hidden, cache = policy.prefill(params, prompts, group_size, columns)
    # 0 for every prompt, but not a constant, which would slow compilation.
    return tag(hidden, 1 - prompts.mask[:, -1]), cache

  def decode(
    params: Params, cache: Any, tokens: Array, step: Array
  ) -> tuple[Array, Any]:
    hidden, cache = policy.decode(params, cache, tokens, step)
    return tag(hidden, tokens), cache

  def decode_slots(
    params: Params, cache: Any, tokens: Array, steps: Array
  ) -> tuple[Array, Any, Array | None]:
    hidden, cache, routes = policy.slots.decode(params, cache, tokens, steps)
    return tag(hidden, tokens), cache, routes

  def logits(params: Params, hidden: Array) -> Array:
    scores = policy.logits(params, hidden[:, :-1])
    last = hidden[:, -1:].astype(jnp.int32)
    ids = jnp.arange(scores.shape[1])[None]
    start = jnp.full(scores.shape[1], -jnp.inf)
    start = start.at[1 : 1 + len(probabilities)].set(first)
    # A row that has ended repeats its end token, so that some token is allowed.
    follows = ids == jnp.maximum(last - 1, _END)
    return jnp.where(
      last == 0, start[None], jnp.where(follows, scores, -jnp.inf)
    )

  slots = policy.slots
  return policy._replace(
    prefill=prefill,
    decode=decode,
    logits=logits,
    slots=Slots(slots.empty, slots.fill, decode_slots),
  )


def make_variants(
  shape: SlotBatchingShape,
) -> Mapping[str, Callable[[], Rollout]]:
  """The same rollout with both samplers."""
  mesh = parallel.make_mesh(1, 1, 1, jax.devices()[:1])
  policy = with_lengths(
    make_policy(shape.model, mesh), length_distribution(shape)
  )
  params = random_params(shape.model)
  axes = VocabularyAxes(mesh, parallel.BATCH_AXES, parallel.VOCAB_AXIS)
  size = (shape.prompts, shape.prompt_length)
  first = shape.model.vocab_size - _PROMPT_IDS
  tokens = jax.random.randint(
    jax.random.PRNGKey(1), size, first, shape.model.vocab_size
  )
  prompts = Prompts(
    tokens=tokens,
    mask=jnp.ones(size, bool),
    example_id=jnp.arange(shape.prompts, dtype=jnp.int32),
  )

  def draw(num_slots: int) -> Callable[[], Rollout]:
    config = dataclasses.replace(
      plain_sampling(
        shape.new_tokens, group_size=shape.group_size, top_k=shape.top_k
      ),
      eos_ids=(_END,),
      num_slots=num_slots,
    )
    run = jax.jit(
      lambda params, prompts, key: continuous.sample(
        policy, axes, config, params, prompts, key
      )
    )
    key = jax.random.PRNGKey(2)
    return lambda: run(params, prompts, key)

  return {STATIC: draw(0), REFILLED: draw(shape.num_slots)}


def useful_share(rollout: Rollout) -> float:
  """Decode efficiency: share of slot-steps that produced a kept token."""
  lengths = np.asarray(rollout.completion_mask).sum(axis=1, dtype=np.int64)
  steps = np.sum(np.asarray(rollout.decode_steps), dtype=np.int64)
  return float((lengths - 1).sum() / steps)


if __name__ == '__main__':
  cli.run(main)
