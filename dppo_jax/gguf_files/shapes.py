"""config.json of the model in a GGUF file, from its metadata.

Floats of a header have 32 bits: 1e-5 is stored as 9.99999974737875e-06. The
shortest decimal of the same float32 is what the publisher wrote. A tied head
shows only as an absent tensor, and the frequencies of Llama 3.1's long contexts
only as a tensor of factors.
"""

from collections.abc import Mapping
import math
from typing import Any

import numpy as np

from dppo_jax.gguf_files.header import Header
from dppo_jax.suggestions import suggest

ROPE_FACTORS = 'rope_freqs.weight'
_EMBEDDING, _HEAD = 'token_embd.weight', 'output.weight'
# general.architecture -> class in config.json.
ARCHITECTURES = {
  'llama': 'LlamaForCausalLM',
  'qwen2': 'Qwen2ForCausalLM',
  'qwen3': 'Qwen3ForCausalLM',
}
_DTYPES = {'F16': 'float16', 'BF16': 'bfloat16'}
# Key behind the architecture -> key of config.json; whole numbers.
_NUMBERS = {
  'block_count': 'num_hidden_layers',
  'embedding_length': 'hidden_size',
  'feed_forward_length': 'intermediate_size',
  'attention.head_count': 'num_attention_heads',
}
# Keys that change the model, with the values that leave it as it is.
_ONLY: dict[str, tuple[Any, ...]] = {
  'expert_count': (0,),
  'attention.causal': (True,),
  'attention.sliding_window': (0,),
  'attention.scale': (0.0,),
  'logit_scale': (0.0, 1.0),
  'residual_scale': (0.0, 1.0),
  'embedding_scale': (0.0, 1.0),
  'use_parallel_residual': (False,),
  'pooling_type': (0,),
}
_READ = (
  *_NUMBERS,
  'attention.head_count_kv',
  'attention.key_length',
  'attention.value_length',
  'attention.layer_norm_rms_epsilon',
  'context_length',
  'rope.dimension_count',
  'rope.freq_base',
  'rope.scale_linear',
  'rope.scaling.type',
  'rope.scaling.factor',
  'rope.scaling.finetuned',
  'rope.scaling.original_context_length',
  'vocab_size',
  'expert_used_count',
)
# Of Llama 3.1 and 3.2; a file holds none of them but their effect.
_LOW_FREQUENCY, _HIGH_FREQUENCY = 1.0, 4.0
# Original lengths, the published one first: others can have the same effect.
_LENGTHS = (8192, *(2**i for i in range(6, 18)))


def config_json(header: Header) -> dict[str, Any]:
  """config.json with the keys that `hf_config.read_shape` reads.

  Metadata of the architecture that nothing reads is kept under its own name, so
  that a run names it.

  Args:
    header: of the file.

  Raises:
    ValueError: the architecture or a feature is not supported, or a key is
      missing or of a wrong type; names the file and the key.
  """
  kind = header.metadata.get('general.architecture')
  if kind not in ARCHITECTURES:
    raise ValueError(
      f'{header.path}: general.architecture: unsupported'
      f' {str(kind)[:80]!r}{suggest(str(kind), ARCHITECTURES)}'
    )
  keys = _Keys(header, kind)
  _check_features(header, keys)
  config = {theirs: keys.whole(ours) for ours, theirs in _NUMBERS.items()}
  heads = config['num_attention_heads']
  kv_heads = keys.whole('attention.head_count_kv', heads)
  head_dim = keys.whole(
    'attention.key_length', max(1, config['hidden_size'] // heads)
  )
  for name in ('attention.value_length', 'rope.dimension_count'):
    keys.same(name, keys.whole(name, head_dim), head_dim)
  embedding = header.tensors.get(_EMBEDDING)
  if embedding is None or len(embedding.shape) != 2:
    raise keys.error(f'the tensor {_EMBEDDING} is missing')
  rows = embedding.shape[0]
  keys.same('vocab_size', keys.whole('vocab_size', rows), rows)
  return {
    **config,
    'architectures': [ARCHITECTURES[kind]],
    'model_type': kind,
    'num_key_value_heads': kv_heads,
    'head_dim': head_dim,
    'vocab_size': rows,
    'hidden_act': 'silu',
    'rms_norm_eps': keys.real('attention.layer_norm_rms_epsilon'),
    'tie_word_embeddings': _HEAD not in header.tensors,
    'max_position_embeddings': keys.whole('context_length', 2048),
    **_rope(header, keys, head_dim),
    **_dtype(embedding.kind),
    **keys.others(),
  }


def _dtype(kind: str) -> dict[str, str]:
  """Dtype of the numbers as read; float32 where they are quantized."""
  name = _DTYPES[kind] if kind in _DTYPES else 'float32'
  return {'dtype': name, 'torch_dtype': name}


def _check_features(header: Header, keys: '_Keys') -> None:
  """Raises on what would make the model another one."""
  parts = header.metadata.get('split.count', 1)
  if isinstance(parts, int) and parts > 1:
    raise ValueError(
      f'{header.path}: split.count: one of {parts} files; merge them with'
      ' llama-gguf-split --merge.'
    )
  for name, allowed in _ONLY.items():
    got = keys.raw(name, allowed[0])
    if not isinstance(got, (int, float)) or got not in allowed:
      known = ' or '.join(map(repr, allowed))
      raise keys.error(
        f'unsupported {str(got)[:60]}; {known} can be read', name
      )


def _rope(header: Header, keys: '_Keys', head_dim: int) -> dict[str, Any]:
  theta = keys.real('rope.freq_base', 10_000.0)
  kind = keys.raw('rope.scaling.type', 'none')
  factor = keys.real('rope.scaling.factor', 0.0)
  if 'rope.scaling.type' not in keys and 'rope.scale_linear' in keys:
    kind, factor = 'linear', keys.real('rope.scale_linear')  # Older files.
  if kind not in ('none', 'linear'):
    raise keys.error(
      f'unsupported {str(kind)[:60]!r}; none or linear can be read. Where a'
      ' model trained without scaling offers it for longer contexts, take a'
      ' file without it',
      'rope.scaling.type',
    )
  rope: dict[str, Any] = {'rope_type': 'default'}
  if kind == 'linear' and factor != 1:
    rope = {'rope_type': 'linear', 'factor': factor}
  if ROPE_FACTORS in header.tensors:
    rope = _llama3(header, theta, head_dim)
  scaled = rope['rope_type'] != 'default'
  return {
    'rope_parameters': {**rope, 'rope_theta': theta},
    'rope_theta': theta,
    'rope_scaling': rope if scaled else None,
  }


def _llama3(header: Header, theta: float, head_dim: int) -> dict[str, Any]:
  """Scaling whose factors are those of a tensor, f32 [head_dim / 2]."""
  entry = header.tensors[ROPE_FACTORS]
  problem = ValueError(
    f'{header.path}: {ROPE_FACTORS}: unsupported factors; those of Llama 3.1'
    ' and 3.2 can be read.'
  )
  if entry.kind != 'F32' or entry.shape != (head_dim // 2,):
    raise problem
  with header.path.open('rb') as file:
    file.seek(entry.offset)
    found = np.fromfile(file, np.float32, head_dim // 2)
  factor = float(found.max(initial=1.0))
  if found.size < head_dim // 2 or not 1 < factor < math.inf:
    raise problem
  wavelengths = 2 * math.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
  for length in _LENGTHS:
    smooth = (length / wavelengths - _LOW_FREQUENCY) / (
      _HIGH_FREQUENCY - _LOW_FREQUENCY
    )
    smooth = np.clip(smooth, 0, 1)
    wanted = 1 / ((1 - smooth) / factor + smooth)
    if np.allclose(found, wanted, rtol=1e-4, atol=0):
      return {
        'rope_type': 'llama3',
        'factor': factor,
        'low_freq_factor': _LOW_FREQUENCY,
        'high_freq_factor': _HIGH_FREQUENCY,
        'original_max_position_embeddings': length,
      }
  raise problem


class _Keys:
  """Metadata of an architecture, without its name in front."""

  def __init__(self, header: Header, kind: str):
    self._prefix = f'{kind}.'
    self._header = header
    self._metadata: Mapping[str, Any] = header.metadata

  def __contains__(self, name: str) -> bool:
    return self._prefix + name in self._metadata

  def error(self, text: str, name: str = '') -> ValueError:
    """An error that names the file and the key."""
    where = f' {self._prefix}{name}:' if name else ''
    return ValueError(
      f'{self._header.path}:{where} {text}; take another release of the model.'
    )

  def raw(self, name: str, default: Any = None) -> Any:
    """Its value, whatever it is."""
    return self._metadata.get(self._prefix + name, default)

  def whole(self, name: str, default: int = 0) -> int:
    """A whole number of at least 1."""
    got = self.raw(name, default or None)
    if type(got) is not int or not 1 <= got < 2**31:
      raise self.error(
        f'got {str(got)[:60]}; a whole number of at least 1', name
      )
    return got

  def real(self, name: str, default: float | None = None) -> float:
    """The shortest decimal of a float32, at least 0."""
    got = self.raw(name, default)
    if type(got) not in (int, float) or not 0 <= got < math.inf:
      raise self.error(f'got {str(got)[:60]}; a number of at least 0', name)
    return float(str(np.float32(got)))

  def same(self, name: str, got: int, wanted: int) -> None:
    """Raises unless two numbers are equal."""
    if got != wanted:
      raise self.error(f'got {got}; only {wanted} is supported', name)

  def others(self) -> dict[str, Any]:
    """Keys that nothing reads, with their values."""
    return {
      key: value
      for key, value in self._metadata.items()
      if key.startswith(self._prefix)
      and key.removeprefix(self._prefix) not in {*_READ, *_ONLY}
      and isinstance(value, (bool, int, float, str))
    }
