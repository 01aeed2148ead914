"""Tiny models, prompts and configs that several tests start from."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dppo_jax import parallel
from dppo_jax.base import Batch, Demonstrations, Prompts, TokenStats
from dppo_jax.learner import standalone
from dppo_jax.learner.length_buckets import LengthBuckets
from dppo_jax.learner.loss_config import LossConfig
from dppo_jax.learner.optimizer import OptimizerConfig
from dppo_jax.learner.train_step import StepConfig
from dppo_jax.lm_head.inputs import VocabularyConfig
from dppo_jax.models.layers import TransformerConfig
from dppo_jax.models.policy import Policy, make_policy
from dppo_jax.ops.trust_regions import Thresholds, open_thresholds
from dppo_jax.parallel import VocabularyAxes
from dppo_jax.sampling.decode import SamplingConfig

VOCAB_SIZE = 24
PAD_ID, EOS_ID = 0, 1


def transformer_config(**overrides) -> TransformerConfig:
  fields = dict(
    vocab_size=VOCAB_SIZE,
    num_layers=2,
    d_model=16,
    num_heads=4,
    num_kv_heads=2,
    head_dim=6,  # Apart from d_model / num_heads.
    d_ff=24,
    num_experts=0,
    num_experts_per_tok=2,
    moe_intermediate_size=8,
    norm_topk_prob=True,
    decoder_sparse_step=1,
    mlp_only_layers=(),
    rope_theta=100.0,
    rope_scaling='none',
    rope_factor=1.0,
    rope_low_frequency_factor=1.0,
    rope_high_frequency_factor=4.0,
    rope_original_length=64,
    qk_norm=True,
    qkv_bias=False,
    tied_head=True,
    norm_epsilon=1e-6,
    init_scale=0.3,  # Wide: the laws of a tiny model should not be flat.
    dtype='float32',
    scan_unroll=1,
    shard_sequence=False,
    shard_attention='heads',
    remat='none',
    attention='auto',
  )
  return TransformerConfig(**{**fields, **overrides})


def moe_config(**overrides) -> TransformerConfig:
  """Four layers of six experts, two a token."""
  return transformer_config(**{'num_layers': 4, 'num_experts': 6, **overrides})


@functools.cache
def make_params(config: TransformerConfig, seed: int = 0):
  """Parameters with no zero bias and no norm scale of one: numpy arrays."""
  init = make_policy(config).init
  shapes = nn.unbox(jax.eval_shape(init, jax.random.PRNGKey(0)))
  rng = np.random.default_rng(seed)

  def fill(path, shape) -> np.ndarray:
    noise = config.init_scale * rng.standard_normal(shape.shape)
    return (noise + (path[-1].key == 'scale')).astype(np.float32)

  return jax.tree_util.tree_map_with_path(fill, shapes)


def make_prompts(num_prompts: int, num_columns: int, seed: int = 0) -> Prompts:
  """Prompts of different lengths, one of them without padding."""
  rng = np.random.default_rng(seed)
  tokens = rng.integers(2, VOCAB_SIZE, (num_prompts, num_columns))
  padding = np.arange(num_prompts) % num_columns
  mask = np.arange(num_columns) >= padding[:, None]
  return Prompts(
    tokens=jnp.asarray(np.where(mask, tokens, PAD_ID), jnp.int32),
    mask=jnp.asarray(mask),
    example_id=jnp.arange(100, 100 + num_prompts, dtype=jnp.int32),
  )


def sampling_config(**overrides) -> SamplingConfig:
  fields = dict(
    group_size=4,
    max_completion_length=8,
    temperature=1.0,
    top_p=1.0,
    support=None,
    greedy=False,
    top_k=5,
    with_hidden=False,
    with_routes=False,
    precision='float32',
    pad_id=PAD_ID,
    eos_ids=(EOS_ID,),
    stop_ids=(),
    num_slots=0,
    cache_columns=0,
  )
  return SamplingConfig(**{**fields, **overrides})


def bounds(**overrides) -> Thresholds:
  """Those of configs/default.py, but for the deltas."""
  fields = dict(
    delta_low=0.1,
    delta_high=0.1,
    clip_low=0.2,
    clip_high=0.2,
    dual_clip=3.0,
    w_min=0.8,
    budget=0.015,
    tau_low=1.05,
    tau_high=1.0,
    soft_clip=0.2,
    power_low=3.0,
    power_high=2.0,
    decay_low=2.0,
    decay_high=3.0,
    tau_entropy=0.1,
  )
  return dataclasses.replace(open_thresholds(), **{**fields, **overrides})


def loss_config(**overrides) -> LossConfig:
  fields = dict(
    rule='divergence', divergence='topk_tv', prompt_length=5, bounds=bounds()
  )
  return standalone.plain_config(**{**fields, **overrides})


def optimizer_config(**overrides) -> OptimizerConfig:
  fields = dict(
    learning_rate=1e-2,
    schedule='constant',
    final_fraction=1.0,
    num_updates=100,
    num_warmup_updates=0,
    b1=0.9,
    b2=0.99,
    epsilon=1e-8,
    weight_decay=0.0,
    clip_norm=1.0,
  )
  return OptimizerConfig(**{**fields, **overrides})


def length_buckets(**overrides) -> LengthBuckets:
  fields = dict(
    count=1,
    multiple=1,
    prompt_length=5,
    group_size=1,
    shared_rows=1,
    by_length=True,
  )
  return LengthBuckets(**{**fields, **overrides})


def step_config(**overrides) -> StepConfig:
  fields = dict(
    num_minibatches=1,
    num_microbatches=1,
    group_size=1,
    prompt_length=5,
    buckets=length_buckets(),
    aggregation='token_mean',
    length_norm=1.0,
  )
  return StepConfig(**{**fields, **overrides})


def one_device_mesh() -> jax.sharding.Mesh:
  return parallel.make_mesh(1, 1, 1, jax.devices()[:1])


def vocabulary_axes(mesh: jax.sharding.Mesh | None = None) -> VocabularyAxes:
  mesh = one_device_mesh() if mesh is None else mesh
  return VocabularyAxes(mesh, parallel.BATCH_AXES, parallel.VOCAB_AXIS)


def vocabulary_config(
  mesh: jax.sharding.Mesh | None = None, **overrides
) -> VocabularyConfig:
  fields = dict(
    axes=vocabulary_axes(mesh), head_chunk_tokens=512, temperature=1.0
  )
  return VocabularyConfig(**{**fields, **overrides})


def make_batch(
  num_groups: int,
  group_size: int,
  prompt_length: int,
  completion_length: int,
  top_k: int = 5,
  seed: int = 0,
) -> Batch:
  """A batch no policy sampled: random tokens, lengths, stats, advantages.

  Prompts are left-padded and shared by groups; completions are right-padded.
  """
  rng = np.random.default_rng(seed)
  rows, size = num_groups * group_size, completion_length
  prompts = make_prompts(num_groups, prompt_length, seed)
  lengths = rng.integers(1, size + 1, rows)
  lengths[0] = size
  drawn = np.arange(size) < lengths[:, None]
  completions = np.where(
    drawn, rng.integers(1, VOCAB_SIZE, (rows, size)), PAD_ID
  )

  def join(prompt: jax.Array, completion: np.ndarray) -> np.ndarray:
    repeated = np.repeat(np.asarray(prompt), group_size, axis=0)
    return np.concatenate([repeated, completion.astype(repeated.dtype)], 1)

  mask = join(np.zeros_like(prompts.mask), drawn)
  logits = rng.standard_normal((rows, mask.shape[1], VOCAB_SIZE))
  laws = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  tokens = join(prompts.tokens, completions)
  top_ids = np.argsort(-laws, -1)[..., :top_k]

  def pick(ids: np.ndarray) -> np.ndarray:
    picked = np.take_along_axis(laws, ids, -1)
    return np.where(mask[..., None], picked, 0.0).astype(np.float32)

  advantages = np.where(mask, rng.standard_normal((rows, 1)), 0.0)
  return Batch(
    tokens=tokens,
    token_mask=join(prompts.mask, drawn),
    completion_mask=mask,
    advantages=advantages.astype(np.float32),
    rollout=TokenStats(
      log_probs=pick(tokens[..., None])[..., 0],
      top_ids=np.where(mask[..., None], top_ids, 0).astype(np.int32),
      top_log_probs=pick(top_ids),
    ),
  )


def make_demonstrations(batch: Batch) -> Demonstrations:
  return Demonstrations(
    tokens=batch.tokens,
    token_mask=batch.token_mask,
    completion_mask=batch.completion_mask,
  )


def table_policy(prompt_length: int) -> Policy:
  """A policy whose parameters are its logits: [B, R, V], no model at all.

  Gradients with respect to them can be worked out by hand.
  """

  def apply(params, tokens, mask, /):
    del tokens, mask
    # The state before column P predicts it; the last one predicts nothing.
    return jnp.pad(params, ((0, 0), (prompt_length - 1, 1), (0, 0)))

  def missing(*args):
    raise AssertionError(f'not a part of this policy: {args}')

  return Policy(
    init=missing,
    apply=apply,
    prefill=missing,
    for_decoding=missing,
    decode=missing,
    head=lambda params: jnp.eye(params.shape[-1], dtype=params.dtype),
    logits=lambda params, hidden: hidden,
    apply_routed=lambda params, tokens, mask, routes: (
      apply(params, tokens, mask),
      None,
    ),
    apply_grouped_routed=missing,
    slots=missing,
  )


def lookup_policy() -> Policy:
  """A policy without layers, for what happens around a model.

  The state of a token is its row of `embedding`, and predicts the next one.
  """

  def apply_routed(params, tokens, mask, routes, /):
    del routes
    states = jnp.take(params['embedding'], tokens, axis=0)
    return jnp.where(mask[..., None], states, 0.0), None

  return table_policy(0)._replace(
    init=lambda key: lookup_params(),
    apply=lambda params, tokens, mask: apply_routed(params, tokens, mask, None)[
      0
    ],
    head=lambda params: params['head'],
    logits=lambda params, hidden: hidden @ params['head'].T,
    apply_routed=apply_routed,
  )


def lookup_params():
  """Parameters of `lookup_policy`."""
  rng = np.random.default_rng(0)
  return {
    name: rng.standard_normal((VOCAB_SIZE, 16)).astype(np.float32)
    for name in ('embedding', 'head')
  }


def relative_distance(got, expected) -> float:
  """|got - expected| / |expected| of two trees as one vector."""
  pairs = list(
    zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True)
  )
  difference = sum(
    np.sum(np.square(np.asarray(a, np.float64) - np.asarray(b)))
    for a, b in pairs
  )
  norm = sum(np.sum(np.square(np.asarray(b, np.float64))) for _, b in pairs)
  return float(np.sqrt(difference / norm))
