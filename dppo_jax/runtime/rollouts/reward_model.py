"""A reward model: a published sequence classifier, scored on the run's mesh.

It reads text, not the policy's ids: each prompt and completion is rendered
with its own chat template and split by its own tokenizer. Equal tokenizers are
no exception: a score was trained on texts as a tokenizer splits them, and a
policy may spell a word in other pieces.
"""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np

from dppo_jax import parallel
from dppo_jax.base import Array, Params
from dppo_jax.data.hf_tokenizer import HFTokenizer
from dppo_jax.models.layers import TransformerConfig
from dppo_jax.models.policy import make_policy
from dppo_jax.ops import products
from dppo_jax.runtime import activity
from dppo_jax.runtime.config.experiment import RewardModelConfig
from dppo_jax.runtime.hosts import host_rows
from dppo_jax.runtime.hub import hf_config, load_weights

_MIN_COLUMNS = 32  # Widths are powers of two from here: few programs.


class Scored(NamedTuple):
  """Scores of a reward model for B completions.

  Attributes:
    scores: f64 [B], finite, not weighted.
    metrics: `rewards/model_mean` and `_std`; `rewards/model_cut`, number of
      texts longer than `max_length`; `rewards/model_failed`, number of those
      that have no score of their own.
  """

  scores: np.ndarray
  metrics: dict[str, float]


class RewardModel:
  """A classifier with one score, its weights on the mesh.

  Attributes:
    weight: of its score in the reward.
  """

  def __init__(self, config: RewardModelConfig, mesh: Mesh):
    """Reads the weights into their shardings, in the dtype they have.

    Args:
      config: which model, and how much of it at a time.
      mesh: of the run.

    Raises:
      ValueError: it is no model this can run, its files are damaged or lack a
        chat template, or the mesh does not divide it.
    """
    self.weight = config.weight
    self._config = config
    folder = pathlib.Path(config.folder).expanduser()
    try:
      shape, self._pad_id = hf_config.read_classifier(folder)
      self._tokenizer = HFTokenizer(
        folder, prompt_template='', use_chat_template=True, system_prompt=''
      )
      dtype = hf_config.read_dtype(folder)
      model = _model(shape, dtype)
      self._check_sizes(model, mesh)
      self._params = load_weights.load_params(
        folder, abstract_params(model, mesh, dtype)
      )
    except ValueError as error:
      raise ValueError(f'rewards.model: {error}') from error
    self._by_rows = parallel.batch_sharding(mesh)
    self._score_fn = _compile(model, mesh, self._params)

  def _check_sizes(self, model: TransformerConfig, mesh: Mesh) -> None:
    if self._tokenizer.vocab_size > model.vocab_size:
      raise ValueError(
        f'its tokenizer has ids up to {self._tokenizer.vocab_size - 1} and its'
        f' config.json vocab_size={model.vocab_size}; take both from one model.'
      )
    shards = parallel.num_batch_shards(mesh)
    if self._config.batch_size % shards:
      raise ValueError(
        f'rewards.model_batch_size={self._config.batch_size} is not divided by'
        f' the {shards} batch shards of the mesh; the nearest above is'
        f' {-(-self._config.batch_size // shards) * shards}.'
      )

  def score(self, prompts: Sequence[str], completions: Sequence[str]) -> Scored:
    """Scores completions, each at the end of its text.

    A text that is too long loses its beginning, since the score is read off
    its end. One that the template refuses, or whose score is not finite, gets
    the lowest score of its batch, 0 where there is no other.

    Args:
      prompts: B texts, what the user says.
      completions: B texts, without the end token.
    """
    rows = [
      self._encode(*pair) for pair in zip(prompts, completions, strict=True)
    ]
    lengths = np.array([len(row) for row in rows])
    limit, size = self._config.max_length, self._config.batch_size
    scores = np.full(len(rows), np.nan)
    order = np.argsort(lengths, kind='stable')
    order = order[lengths[order] > 0]
    with activity.under_way('scoring with the reward model') as note:
      for start in range(0, len(order), size):
        note(f'{start:,} of {len(order):,} completions')
        part = order[start : start + size]
        batch = self._pad([rows[i][-limit:] for i in part])
        batch = host_rows.put(self._by_rows, batch)
        found = jax.device_get(self._score_fn(self._params, *batch))
        scores[part] = found[: len(part)]
    failed = ~np.isfinite(scores)
    scores[failed] = np.min(scores[~failed], initial=np.inf)
    scores[~np.isfinite(scores)] = 0.0
    metrics = {
      'rewards/model_mean': float(np.mean(scores)),
      'rewards/model_std': float(np.std(scores)),
      'rewards/model_cut': float(np.sum(lengths > limit)),
      'rewards/model_failed': float(np.sum(failed)),
    }
    return Scored(scores, metrics)

  def _encode(self, prompt: str, completion: str) -> list[int]:
    """Ids of the chat; none where the template refuses it."""
    try:
      return self._tokenizer.encode_answered(prompt, completion)
    except ValueError:
      return []

  def _pad(
    self, rows: Sequence[Sequence[int]]
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens i32 [batch_size, S], mask, and the column each score is read at.

    That column is of the last token that is no pad by its id, as the code that
    publishes these models has it: where pads and ends share an id, the score
    is read before the end.
    """
    width = max(_MIN_COLUMNS, max(map(len, rows)))
    width = min(1 << (width - 1).bit_length(), self._config.max_length)
    shape = (self._config.batch_size, width)
    tokens, mask = np.zeros(shape, np.int32), np.zeros(shape, bool)
    last = np.zeros(shape[0], np.int32)
    mask[:, 0] = True  # Of rows that fill the batch up.
    for i, row in enumerate(rows):
      tokens[i, : len(row)] = row
      mask[i, : len(row)] = True
      real = [column for column, t in enumerate(row) if t != self._pad_id]
      last[i] = real[-1] if real else len(row) - 1
    return tokens, mask, last


def abstract_params(
  model: TransformerConfig, mesh: Mesh, dtype: str
) -> dict[str, Any]:
  """Shapes and shardings: the transformer in `dtype`, its `score` in f32.

  Raises:
    ValueError: the mesh does not divide an array.
  """
  boxed = jax.eval_shape(make_policy(model).init, jax.random.PRNGKey(0))

  def place(path: Any, leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    try:
      sharding.shard_shape(leaf.shape)
    except ValueError as error:
      name = '/'.join(key.key for key in path)
      raise ValueError(
        f'{name} {list(leaf.shape)} cannot be split as {sharding.spec} over the'
        f' mesh {dict(mesh.shape)}; change section mesh.'
      ) from error
    return jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(dtype), sharding=sharding)

  params = jax.tree_util.tree_map_with_path(
    place, nn.unbox(boxed), parallel.tree_shardings(mesh, boxed)
  )
  params['score'] = jax.ShapeDtypeStruct(
    (1, model.d_model), jnp.float32, sharding=parallel.replicated(mesh)
  )
  return params


def _model(shape: Mapping[str, Any], dtype: str) -> TransformerConfig:
  computed = 'bfloat16' if dtype == 'bfloat16' else 'float32'
  return TransformerConfig(
    **shape,
    dtype=computed,
    scan_unroll=1,
    shard_sequence=False,
    shard_attention='heads',
    remat='none',
    attention='auto',
  )


def _compile(model: TransformerConfig, mesh: Mesh, params: Params) -> Any:
  """(params, tokens, mask, last column) -> f32 [rows]."""
  policy = make_policy(model, mesh)

  def score(params: Params, tokens: Array, mask: Array, last: Array) -> Array:
    trunk = {name: part for name, part in params.items() if name != 'score'}
    hidden = policy.apply(trunk, tokens, mask)
    ends = jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]
    ends = ends.astype(jnp.float32)
    return products.einsum('bd,d->b', ends, params['score'][0])

  rows = parallel.batch_sharding(mesh)
  shardings = jax.tree.map(lambda leaf: leaf.sharding, params)
  return jax.jit(
    score,
    in_shardings=(shardings, rows, rows, rows),
    out_shardings=parallel.replicated(mesh),
  )
