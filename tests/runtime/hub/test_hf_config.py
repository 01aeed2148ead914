import dataclasses
import json
import math

import pytest

from dppo_jax.models.layers import TransformerConfig
from dppo_jax.runtime.hub import hf_config
from tests.support import published

_KEPT = dict(
  dtype='float32',
  scan_unroll=1,
  shard_sequence=False,
  shard_attention='heads',
  remat='none',
  attention='auto',
)


def _older(folder):
  """Rewrites config.json in the form of most published models."""
  raw = json.loads((folder / 'config.json').read_text())
  rope = raw.pop('rope_parameters')
  theta, kind = rope.pop('rope_theta'), rope.pop('rope_type')
  raw['rope_theta'] = theta
  raw['rope_scaling'] = (
    None if kind == 'default' else {**rope, 'rope_type': kind}
  )
  raw['torch_dtype'] = raw.pop('dtype')
  (folder / 'config.json').write_text(json.dumps(raw))


@pytest.mark.parametrize('name', published.ALL)
def test_both_forms_give_the_same_shape(tmp_path, name):
  folder = published.copy(name, tmp_path)
  newer = hf_config.read_shape(folder)
  _older(folder)
  assert hf_config.read_shape(folder) == newer
  assert hf_config.read_dtype(folder) == 'float32'


def test_every_shape_key_is_read():
  shape = hf_config.read_shape(published.MODELS / 'llama3_rope_scaled')
  names = {field.name for field in dataclasses.fields(TransformerConfig)}
  assert shape.keys() == names - _KEPT.keys()
  assert (
    shape
    | {
      'vocab_size': 320,
      'num_layers': 2,
      'd_model': 32,
      'num_heads': 4,
      'num_kv_heads': 1,
      'head_dim': 8,
      'd_ff': 80,
      'rope_theta': 500_000.0,
      'rope_scaling': 'llama3',
      'rope_factor': 8.0,
      'rope_low_frequency_factor': 1.0,
      'rope_high_frequency_factor': 4.0,
      'rope_original_length': 128,
      'qk_norm': False,
      'qkv_bias': False,
      'tied_head': True,
      'norm_epsilon': 1e-6,
    }
    == shape
  )


def test_the_linear_stretch_of_older_files(tmp_path):
  folder = published.copy('qwen2_tied', tmp_path)
  published.edit_config(
    folder,
    rope_parameters=None,
    rope_theta=5e4,
    rope_scaling={'type': 'linear', 'factor': 4.0},
  )
  shape = hf_config.read_shape(folder)
  assert (shape['rope_scaling'], shape['rope_factor']) == ('linear', 4.0)
  assert shape['rope_theta'] == 5e4


def test_experts_by_either_name(tmp_path):
  folder = published.copy('qwen3_moe', tmp_path)
  newer = hf_config.read_shape(folder)
  assert (
    newer
    | {
      'num_experts': 8,
      'num_experts_per_tok': 2,
      'moe_intermediate_size': 24,
      'norm_topk_prob': True,
      'decoder_sparse_step': 1,
      'mlp_only_layers': (),
    }
    == newer
  )
  published.edit_config(folder, num_local_experts=None, num_experts=8)
  assert hf_config.read_shape(folder) == newer
  published.edit_config(
    folder,
    norm_topk_prob=None,
    decoder_sparse_step=2,
    mlp_only_layers=[1],
  )
  shape = hf_config.read_shape(folder)
  assert not shape['norm_topk_prob']
  assert (shape['decoder_sparse_step'], shape['mlp_only_layers']) == (2, (1,))
  published.edit_config(folder, num_experts=None, decoder_sparse_step=0)
  with pytest.raises(ValueError, match='num_experts: got None') as caught:
    hf_config.read_shape(folder)
  assert 'decoder_sparse_step: got 0' in str(caught.value)


@pytest.mark.parametrize(
  ('name', 'head_dim'), [('qwen2_tied', 8), ('qwen3_gqa', 128)]
)
def test_a_head_width_that_is_not_said(tmp_path, name, head_dim):
  folder = published.copy(name, tmp_path)
  published.edit_config(folder, head_dim=None)
  assert hf_config.read_shape(folder)['head_dim'] == head_dim


def test_settings_that_each_architecture_implies():
  shapes = {
    name: hf_config.read_shape(published.MODELS / name)
    for name in published.DENSE
  }
  facts = ('qk_norm', 'qkv_bias', 'tied_head')
  assert {n: [s[f] for f in facts] for n, s in shapes.items()} == {
    'llama3_rope_scaled': [False, False, True],
    'qwen2_tied': [False, True, True],
    'qwen3_gqa': [True, False, False],
  }


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (
      {'architectures': ['Qwen3ForCausaLM']},
      "architectures: unsupported 'Qwen3ForCausaLM'; did you mean"
      " 'Qwen3ForCausalLM'?",
    ),
    ({'architectures': []}, "architectures: unsupported ''"),
    ({'hidden_size': None}, 'hidden_size: got None; a whole number'),
    ({'vocab_size': 0}, 'vocab_size: got 0; a whole number of at least 1'),
    ({'hidden_act': 'gelu'}, "hidden_act: unsupported 'gelu'"),
    ({'attention_bias': True}, 'attention_bias: unsupported True'),
    ({'use_sliding_window': True}, 'use_sliding_window: unsupported True'),
    (
      {'layer_types': ['full_attention', 'sliding_attention']},
      'layer_types: unsupported sliding_attention',
    ),
    (
      {'rope_parameters': {'rope_type': 'yarn', 'factor': 4.0}},
      "rope_type: unsupported 'yarn'; known are default, linear, llama3",
    ),
    (
      {'rope_parameters': {'rope_type': 'llama3', 'rope_theta': 1e4}},
      'rope llama3: low_freq_factor: got None; a number above 0',
    ),
    (
      {'rope_parameters': {'rope_type': 'linear', 'factor': 0}},
      'rope linear: factor: got 0; a number above 0',
    ),
    (
      {'rope_parameters': {'rope_theta': 1e4, 'partial_rotary_factor': 0.5}},
      'partial_rotary_factor: unsupported 0.5',
    ),
    ({'partial_rotary_factor': 0.5}, 'partial_rotary_factor: unsupported 0.5'),
    ({'is_encoder_decoder': True}, 'is_encoder_decoder: unsupported True'),
    (
      {'rope_parameters': {'full_attention': {'rope_theta': 1e4}}},
      'rope default: nothing reads full_attention',
    ),
    (
      {'rope_parameters': {'rope_type': 'default', 'rope_theta': math.inf}},
      'rope default: rope_theta: got inf; a number above 0',
    ),
    (
      {'rope_parameters': {'rope_type': 'default', 'rope_theta': math.nan}},
      'rope default: rope_theta: got nan; a number above 0',
    ),
    (
      {'rope_scaling': {'rope_type': 'linear', 'factor': 4.0}},
      "rope_parameters: {'rope_theta': 1000000.0, 'rope_type': 'default'}, and"
      " rope_scaling: {'rope_type': 'linear', 'factor': 4.0}; readers differ",
    ),
    ({'architectures': -1}, "architectures: unsupported '-1'"),
    ({'architectures': [['a']]}, """architectures: unsupported "['a']"."""),
    ({'layer_types': 7}, 'layer_types: unsupported 7'),
    ({'layer_types': [['a']]}, "layer_types: unsupported ['a']"),
    ({'initializer_range': 'x'}, "initializer_range: got 'x'; a number"),
    ({'rms_norm_eps': [1]}, 'rms_norm_eps: got [1]; a number from 0 to 1'),
    ({'head_dim': 'x'}, "head_dim: got 'x'; a whole number"),
  ],
)
def test_unsupported_models_are_refused_by_name(tmp_path, changes, message):
  folder = published.copy('qwen3_gqa', tmp_path)
  published.edit_config(folder, **changes)
  with pytest.raises(ValueError, match='This model cannot be loaded') as caught:
    hf_config.read_shape(folder)
  assert f'{folder / "config.json"}: {message}' in str(caught.value)


def test_an_unknown_dtype(tmp_path):
  folder = published.copy('qwen3_gqa', tmp_path)
  published.edit_config(folder, dtype='float8_e4m3fn')
  with pytest.raises(ValueError, match="dtype 'float8_e4m3fn'; known are"):
    hf_config.read_dtype(folder)
  published.edit_config(folder, dtype=None)
  assert hf_config.read_dtype(folder) == 'float32'


@pytest.mark.parametrize('name', published.ALL)
@pytest.mark.parametrize('form', ['older', 'newer'])
def test_a_shape_round_trips_in_both_forms(tmp_path, name, form):
  shape = hf_config.read_shape(published.MODELS / name)
  config = TransformerConfig(**shape, **_KEPT)
  raw = hf_config.to_published(config, 'bfloat16', 512)
  for key in (
    ('rope_parameters', 'dtype')
    if form == 'older'
    else ('rope_theta', 'rope_scaling', 'torch_dtype')
  ):
    del raw[key]
  (tmp_path / 'config.json').write_text(json.dumps(raw))
  assert hf_config.read_shape(tmp_path) == shape
  assert hf_config.read_dtype(tmp_path) == 'bfloat16'


def test_a_shape_without_a_published_architecture_is_refused():
  shape = hf_config.read_shape(published.MODELS / 'qwen3_gqa')
  config = TransformerConfig(**{**shape, 'qkv_bias': True}, **_KEPT)
  with pytest.raises(ValueError, match='no published architecture has qk_norm'):
    hf_config.to_published(config, 'float32', 512)


def test_a_classifier_has_the_shape_of_its_language_model(tmp_path):
  folder = published.copy('qwen3_gqa', tmp_path)
  shape = hf_config.read_shape(folder)
  name = 'Qwen3ForSequenceClassification'
  published.edit_config(folder, architectures=[name], pad_token_id=7)
  found, pad_id = hf_config.read_classifier(folder)
  assert found == {**shape, 'tied_head': True}
  assert not shape['tied_head']
  assert pad_id == 7
  with pytest.raises(ValueError, match=f'unsupported .{name}'):
    hf_config.read_shape(folder)
