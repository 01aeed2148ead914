"""config.json of published models <-> the shape keys of section `model`.

Two forms are read: the newer one with `rope_parameters` and `dtype`, and the
older one with `rope_theta`, `rope_scaling` and `torch_dtype`. Unsupported
features are refused by name, not ignored.
"""

from collections.abc import Iterator, Mapping
import dataclasses
import math
import pathlib
from typing import Any

from dppo_jax.models.layers import TransformerConfig
from dppo_jax.runtime.hub import json_files, published_keys
from dppo_jax.suggestions import suggest

CONFIG = 'config.json'
# Dtypes in config.json.
DTYPES = ('float32', 'bfloat16', 'float16')
# Suffixes of class names: language models, and reward models.
_GENERATOR, _CLASSIFIER = 'ForCausalLM', 'ForSequenceClassification'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
  """Settings that an architecture implies and its config.json may omit.

  Attributes:
    model_type: of config.json.
    qk_norm: queries and keys are normalized.
    qkv_bias: their projections have a bias.
    head_dim: default; 0 for the width divided by the number of heads.
    has_experts: feed-forward layers are routed.
  """

  model_type: str
  qk_norm: bool
  qkv_bias: bool
  head_dim: int
  has_experts: bool


ARCHITECTURES = {
  'LlamaForCausalLM': Architecture(
    model_type='llama',
    qk_norm=False,
    qkv_bias=False,
    head_dim=0,
    has_experts=False,
  ),
  'Qwen2ForCausalLM': Architecture(
    model_type='qwen2',
    qk_norm=False,
    qkv_bias=True,
    head_dim=0,
    has_experts=False,
  ),
  'Qwen3ForCausalLM': Architecture(
    model_type='qwen3',
    qk_norm=True,
    qkv_bias=False,
    head_dim=128,
    has_experts=False,
  ),
  'Qwen3MoeForCausalLM': Architecture(
    model_type='qwen3_moe',
    qk_norm=True,
    qkv_bias=False,
    head_dim=0,
    has_experts=True,
  ),
}

# Key of section `model` -> required key of config.json.
_NUMBERS = {
  'vocab_size': 'vocab_size',
  'num_layers': 'num_hidden_layers',
  'd_model': 'hidden_size',
  'num_heads': 'num_attention_heads',
  'd_ff': 'intermediate_size',
}
# Required keys of a model with experts, equal in both.
_EXPERT_NUMBERS = (
  'num_experts',
  'num_experts_per_tok',
  'moe_intermediate_size',
)
_ROPE_TYPES = ('default', 'linear', 'llama3')
_ROPE_THETA = 10_000.0  # Default of every architecture above.


def read_shape(folder: pathlib.Path) -> dict[str, Any]:
  """Shape keys of section `model` for a Hugging Face folder.

  Args:
    folder: with config.json.

  Returns:
    Every key of `TransformerConfig` except dtype, scan_unroll,
    shard_sequence, shard_attention, remat and attention.

  Raises:
    ValueError: config.json is missing or damaged, or needs unsupported
      features; lists all of them.
  """
  path = folder / CONFIG
  return _shape_of(path, json_files.read_json(path))


def read_classifier(folder: pathlib.Path) -> tuple[dict[str, Any], int | None]:
  """As `read_shape`, for a model with a scalar score head.

  Args:
    folder: with the config.json of a …ForSequenceClassification.

  Returns:
    Shape keys, with a tied LM head, which has no weights; and its padding id.

  Raises:
    ValueError: see `read_shape`; also for other classes.
  """
  path = folder / CONFIG
  raw = json_files.read_json(path)
  name = _class_name(raw)
  if not name.endswith(_CLASSIFIER):
    known = (n.replace(_GENERATOR, _CLASSIFIER) for n in ARCHITECTURES)
    raise ValueError(
      f'{path}: architectures: got {name!r}; a reward model is one of'
      f' {", ".join(known)}.'
    )
  raw['architectures'] = [name.replace(_CLASSIFIER, _GENERATOR)]
  shape = {**_shape_of(path, raw), 'tied_head': True}
  return shape, raw.get('pad_token_id')


def _shape_of(path: pathlib.Path, raw: dict[str, Any]) -> dict[str, Any]:
  raw = _with_one_name(raw)
  problems = list(_problems(raw))
  if problems:
    listed = '\n'.join(f'  {path}: {problem}' for problem in problems)
    raise ValueError(f'This model cannot be loaded:\n{listed}')
  architecture = ARCHITECTURES[_class_name(raw)]
  shape = {ours: int(raw[theirs]) for ours, theirs in _NUMBERS.items()}
  head_dim = raw.get('head_dim') or architecture.head_dim
  kv_heads = raw.get('num_key_value_heads') or shape['num_heads']
  return {
    **shape,
    'num_kv_heads': int(kv_heads),
    'head_dim': int(head_dim or shape['d_model'] // shape['num_heads']),
    **_expert_shape(raw, architecture),
    **_rope_shape(rope_of(raw)),
    'qk_norm': architecture.qk_norm,
    'qkv_bias': architecture.qkv_bias,
    'tied_head': bool(raw.get('tie_word_embeddings', False)),
    'norm_epsilon': float(raw.get('rms_norm_eps', 1e-6)),
    'init_scale': float(raw.get('initializer_range', 0.02)),
  }


def _class_name(raw: Mapping[str, Any]) -> str:
  """First of `architectures`, as text, whatever type it has."""
  names = raw.get('architectures') or ''
  return str(names[0] if isinstance(names, list) else names)


def has_experts(raw: Mapping[str, Any]) -> bool:
  """Whether the class that a config.json names has experts."""
  name = _class_name(raw)
  row = ARCHITECTURES.get(name.replace(_CLASSIFIER, _GENERATOR))
  return row is not None and row.has_experts


def _with_one_name(raw: dict[str, Any]) -> dict[str, Any]:
  """Config with the number of experts under its older name."""
  if raw.get('num_local_experts') is not None:
    return {'num_experts': raw['num_local_experts'], **raw}
  return raw


def _expert_shape(
  raw: Mapping[str, Any], architecture: Architecture
) -> dict[str, Any]:
  if not architecture.has_experts:
    return {
      'num_experts': 0,
      'num_experts_per_tok': 8,
      'moe_intermediate_size': 128,
      'norm_topk_prob': True,
      'decoder_sparse_step': 1,
      'mlp_only_layers': (),
    }
  dense = raw.get('mlp_only_layers') or ()
  return {
    **{key: int(raw[key]) for key in _EXPERT_NUMBERS},
    'norm_topk_prob': bool(raw.get('norm_topk_prob', False)),
    'decoder_sparse_step': int(raw.get('decoder_sparse_step', 1)),
    'mlp_only_layers': tuple(sorted(set(map(int, dense)))),
  }


def read_dtype(folder: pathlib.Path) -> str:
  """Dtype of the published weights of a folder, by default 'float32'.

  Raises:
    ValueError: config.json is missing, or names another than `DTYPES`.
  """
  raw = json_files.read_json(folder / CONFIG)
  name = raw.get('dtype') or raw.get('torch_dtype') or 'float32'
  if name not in DTYPES:
    raise ValueError(
      f'{folder / CONFIG}: dtype {name!r}; known are {", ".join(DTYPES)}.'
    )
  return name


def rope_of(raw: Mapping[str, Any]) -> dict[str, Any]:
  """Rotary embedding of a config.json of either form, in the newer form."""
  newer = raw.get('rope_parameters')
  rope = dict(newer or raw.get('rope_scaling') or {})
  rope.setdefault('rope_type', rope.pop('type', 'default'))
  rope.setdefault('rope_theta', raw.get('rope_theta') or _ROPE_THETA)
  return rope


def _rope_shape(rope: Mapping[str, Any]) -> dict[str, Any]:
  kind = rope['rope_type']
  llama3 = kind == 'llama3'
  return {
    'rope_theta': float(rope['rope_theta']),
    'rope_scaling': 'none' if kind == 'default' else kind,
    'rope_factor': 1.0 if kind == 'default' else float(rope['factor']),
    'rope_low_frequency_factor': float(
      rope['low_freq_factor'] if llama3 else 1.0
    ),
    'rope_high_frequency_factor': float(
      rope['high_freq_factor'] if llama3 else 4.0
    ),
    'rope_original_length': int(
      rope['original_max_position_embeddings'] if llama3 else 8192
    ),
  }


def _problems(raw: Mapping[str, Any]) -> Iterator[str]:
  """The problem that keeps a config.json from being loaded."""
  name = _class_name(raw)
  if name not in ARCHITECTURES:
    yield f'architectures: unsupported {name!r}{suggest(name, ARCHITECTURES)}'
    return
  experts = ARCHITECTURES[name].has_experts
  needed = [*_NUMBERS.values(), *(_EXPERT_NUMBERS if experts else ())]
  if name != 'LlamaForCausalLM':  # The other classes imply a number.
    needed.append('num_key_value_heads')
  if experts and 'decoder_sparse_step' in raw:
    needed.append('decoder_sparse_step')
  if raw.get('head_dim') is not None:
    needed.append('head_dim')
  for key in needed:
    got = raw.get(key)
    if isinstance(got, bool) or not isinstance(got, int) or got < 1:
      yield f'{key}: got {got!r}; a whole number of at least 1.'
  for key in ('rms_norm_eps', 'initializer_range'):
    got = raw.get(key, 0)
    if type(got) not in (int, float) or not 0 <= got < 1:
      yield f'{key}: got {got!r}; a number from 0 to 1.'
  yield from published_keys.MODEL[experts].problems(raw)
  kinds = raw.get('layer_types') or []
  kinds = set(map(str, kinds if isinstance(kinds, list) else [kinds]))
  kinds -= {'full_attention'}
  if kinds:
    listed = ', '.join(sorted(kinds))
    yield f'layer_types: unsupported {listed}; all must be full_attention.'
  yield from _rope_problems(rope_of(raw))
  newer, older = raw.get('rope_parameters'), raw.get('rope_scaling')
  if newer and older and _of_one_form(newer) != _of_one_form(older):
    yield (
      f'rope_parameters: {newer!r}, and rope_scaling: {older!r}; readers differ'
      ' in which of them they take, remove one.'
    )


def _of_one_form(rope: Mapping[str, Any]) -> dict[str, Any]:
  """Settings of a rotary embedding except theta, which may be top-level."""
  kind = rope.get('rope_type', rope.get('type', 'default'))
  rest = {
    key: value
    for key, value in rope.items()
    if key not in ('rope_type', 'type', 'rope_theta')
  }
  return {'rope_type': kind, **rest}


def _rope_problems(rope: Mapping[str, Any]) -> Iterator[str]:
  kind = rope['rope_type']
  if kind not in _ROPE_TYPES:
    yield (
      f'rope_type: unsupported {kind!r}; known are {", ".join(_ROPE_TYPES)}.'
      ' Where a model trained without scaling offers it for longer contexts,'
      ' remove it.'
    )
    return
  needed = {
    'default': ('rope_theta',),
    'linear': ('rope_theta', 'factor'),
    'llama3': (
      'rope_theta',
      'factor',
      'low_freq_factor',
      'high_freq_factor',
      'original_max_position_embeddings',
    ),
  }
  for key in needed[kind]:
    got = rope.get(key)
    if (
      isinstance(got, bool)
      or not isinstance(got, (int, float))
      or not 0 < got < math.inf
    ):
      yield f'rope {kind}: {key}: got {got!r}; a number above 0.'
  yield from published_keys.ROPE.problems(rope)
  others = published_keys.ROPE.unknown(rope)
  if others:  # Such as one rotary embedding per kind of layer.
    yield f'rope {kind}: nothing reads {", ".join(sorted(others))}.'


def to_published(
  config: TransformerConfig, dtype: str, max_length: int
) -> dict[str, Any]:
  """config.json with the keys of both the older and the newer form.

  Args:
    config: of the model.
    dtype: of the weights.
    max_length: max_position_embeddings, tokens.

  Raises:
    ValueError: no published architecture has this shape.
  """
  name = _architecture_of(config)
  published: dict[str, Any] = {
    'architectures': [name],
    'model_type': ARCHITECTURES[name].model_type,
    **{theirs: getattr(config, ours) for ours, theirs in _NUMBERS.items()},
    'num_key_value_heads': config.num_kv_heads,
    'head_dim': config.head_dim,
    'hidden_act': 'silu',
    'attention_bias': False,
    'attention_dropout': 0.0,
    'initializer_range': config.init_scale,
    'rms_norm_eps': config.norm_epsilon,
    'tie_word_embeddings': config.tied_head,
    'max_position_embeddings': max_length,
    'use_cache': True,
    'bos_token_id': None,
    'eos_token_id': None,
    'dtype': dtype,
    'torch_dtype': dtype,
    **_published_rope(config),
  }
  if config.num_experts:
    keys = ('norm_topk_prob', 'decoder_sparse_step', *_EXPERT_NUMBERS)
    published |= {key: getattr(config, key) for key in keys}
    published['mlp_only_layers'] = list(config.mlp_only_layers)
  if name == 'LlamaForCausalLM':
    published['mlp_bias'] = False
  else:
    published |= {'use_sliding_window': False, 'sliding_window': None}
  return published


def _architecture_of(config: TransformerConfig) -> str:
  for name, row in ARCHITECTURES.items():
    implied = (row.qk_norm, row.qkv_bias, row.has_experts)
    if implied == (config.qk_norm, config.qkv_bias, config.num_experts > 0):
      return name
  raise ValueError(
    f'model: no published architecture has qk_norm={config.qk_norm} with'
    f' qkv_bias={config.qkv_bias} and num_experts={config.num_experts};'
    f' {", ".join(ARCHITECTURES)} are known.'
  )


def _published_rope(config: TransformerConfig) -> dict[str, Any]:
  rope: dict[str, Any] = {'rope_type': 'default'}
  if config.rope_scaling != 'none':
    rope = {'rope_type': config.rope_scaling, 'factor': config.rope_factor}
  if config.rope_scaling == 'llama3':
    rope |= {
      'low_freq_factor': config.rope_low_frequency_factor,
      'high_freq_factor': config.rope_high_frequency_factor,
      'original_max_position_embeddings': config.rope_original_length,
    }
  theta = config.rope_theta
  return {
    'rope_parameters': {**rope, 'rope_theta': theta},
    'rope_theta': theta,
    'rope_scaling': None if config.rope_scaling == 'none' else rope,
  }
