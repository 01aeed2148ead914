"""GGUF files of the published models of the tests, by the package's writer."""

import json

import gguf
import ml_dtypes
import numpy as np

from tests.support import published

_TOKENIZER = published.MODELS.parent / 'tokenizer'
_ARCHITECTURES = {'llama': 'llama', 'qwen2': 'qwen2', 'qwen3': 'qwen3'}
_NAMES = {
  'model.embed_tokens': 'token_embd',
  'model.norm': 'output_norm',
  'lm_head': 'output',
  'input_layernorm': 'attn_norm',
  'post_attention_layernorm': 'ffn_norm',
  'self_attn.q_proj': 'attn_q',
  'self_attn.k_proj': 'attn_k',
  'self_attn.v_proj': 'attn_v',
  'self_attn.o_proj': 'attn_output',
  'self_attn.q_norm': 'attn_q_norm',
  'self_attn.k_norm': 'attn_k_norm',
  'mlp.gate_proj': 'ffn_gate',
  'mlp.up_proj': 'ffn_up',
  'mlp.down_proj': 'ffn_down',
}


def stored(array, kind):
  """The array as numbers of a kind; as float32 where blocks do not fit."""
  block, _ = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
  if array.ndim == 1 or array.shape[-1] % block:
    kind = 'F32'
  array = np.ascontiguousarray(array, np.float32)
  return gguf.quantize(array, gguf.GGMLQuantizationType[kind]), kind


def as_read(array, kind):
  """What a reader has of the array, float32."""
  data, kind = stored(array, kind)
  return gguf.dequantize(data, gguf.GGMLQuantizationType[kind])


def metadata(raw):
  """Metadata of a config.json, without the architecture in front."""
  found = {
    'block_count': raw['num_hidden_layers'],
    'context_length': raw['max_position_embeddings'],
    'embedding_length': raw['hidden_size'],
    'feed_forward_length': raw['intermediate_size'],
    'attention.head_count': raw['num_attention_heads'],
    'attention.head_count_kv': raw['num_key_value_heads'],
    'attention.layer_norm_rms_epsilon': raw['rms_norm_eps'],
    'rope.freq_base': raw['rope_parameters']['rope_theta'],
  }
  if 'head_dim' in raw:
    found['attention.key_length'] = raw['head_dim']
    found['attention.value_length'] = raw['head_dim']
  return found


def tokenizer_metadata(folder=_TOKENIZER):
  """Metadata of a tokenizer, and its chat template."""
  raw = json.loads((folder / 'tokenizer.json').read_text())
  settings = json.loads((folder / 'tokenizer_config.json').read_text())
  vocabulary = dict(raw['model']['vocab'])
  added = {t['content']: t['id'] for t in raw['added_tokens']}
  ids = vocabulary | added
  tokens = sorted(ids, key=ids.__getitem__)
  merges = [
    m if isinstance(m, str) else ' '.join(m) for m in raw['model']['merges']
  ]
  return {
    'tokenizer.ggml.model': 'gpt2',
    'tokenizer.ggml.pre': 'gpt-2',
    'tokenizer.ggml.tokens': tokens,
    'tokenizer.ggml.token_type': [3 if t in added else 1 for t in tokens],
    'tokenizer.ggml.merges': merges,
    'tokenizer.ggml.bos_token_id': ids['<|begin|>'],
    'tokenizer.ggml.eos_token_id': ids['<|im_end|>'],
    'tokenizer.ggml.eot_token_id': ids['<|end|>'],
    'tokenizer.ggml.padding_token_id': ids['<|pad|>'],
    'tokenizer.ggml.add_bos_token': True,
    'tokenizer.chat_template': settings['chat_template'],
  }


def _rotated(array, num_heads):
  """Rows of queries or keys in the order of llama.cpp."""
  pairs = array.reshape(num_heads, 2, -1, *array.shape[1:])
  return pairs.swapaxes(1, 2).reshape(array.shape)


def _llama3_factors(raw):
  rope = raw['rope_parameters']
  head_dim = raw['head_dim']
  factors = []
  for i in range(0, head_dim, 2):
    wavelength = 2 * np.pi * rope['rope_theta'] ** (i / head_dim)
    length = rope['original_max_position_embeddings']
    if wavelength < length / rope['high_freq_factor']:
      factors.append(1.0)
    elif wavelength > length / rope['low_freq_factor']:
      factors.append(rope['factor'])
    else:
      smooth = (length / wavelength - rope['low_freq_factor']) / (
        rope['high_freq_factor'] - rope['low_freq_factor']
      )
      factors.append(1 / ((1 - smooth) / rope['factor'] + smooth))
  return np.asarray(factors, np.float32)


def write(path, name='qwen2_tied', kind='F32', tokenizer=True, **changes):
  """A GGUF file of a model in testdata.

  Args:
    path: of the file.
    name: folder in testdata/hf_models.
    kind: of its matrices.
    tokenizer: whether it has that of testdata.
    **changes: metadata by key, with `__` for '.'; None removes one.

  Returns:
    The path.
  """
  folder = published.MODELS / name
  raw = json.loads((folder / 'config.json').read_text())
  architecture = raw['model_type']
  found = {f'{architecture}.{k}': v for k, v in metadata(raw).items()}
  found |= tokenizer_metadata() if tokenizer else {}
  found |= {key.replace('__', '.'): value for key, value in changes.items()}
  architecture = found.pop('general.architecture', architecture)
  writer = gguf.GGUFWriter(path, architecture)
  for key, value in found.items():
    _add(writer, key, value)
  heads = {
    'q_proj': raw['num_attention_heads'],
    'k_proj': raw['num_key_value_heads'],
  }
  for full, array in published.arrays(folder).items():
    part = full.split('.')[-2]
    if raw['model_type'] == 'llama' and part in heads:
      array = _rotated(array, heads[part])
    data, own = stored(array, kind)
    number = gguf.GGMLQuantizationType[own]
    writer.add_tensor(tensor_name(full), data, raw_dtype=number)
  if raw['rope_parameters']['rope_type'] == 'llama3':
    writer.add_tensor('rope_freqs.weight', _llama3_factors(raw))
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path


def tensor_name(full):
  """Name in a GGUF file of a tensor of a Hugging Face folder."""
  stem, _, end = full.rpartition('.')
  if stem in _NAMES:
    return f'{_NAMES[stem]}.{end}'
  _, _, layer, part = stem.split('.', 3)
  return f'blk.{layer}.{_NAMES[part]}.{end}'


def _add(writer, key, value):
  if value is None:
    return
  if isinstance(value, bool):
    writer.add_bool(key, value)
  elif isinstance(value, int):
    writer.add_uint32(key, value)
  elif isinstance(value, float):
    writer.add_float32(key, value)
  elif isinstance(value, str):
    writer.add_string(key, value)
  else:
    writer.add_array(key, value)


def bfloat16(array):
  """Rounded to bfloat16, in float32."""
  return array.astype(ml_dtypes.bfloat16).astype(np.float32)
