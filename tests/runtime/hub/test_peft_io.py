import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax import parallel
from dppo_jax.models import lora
from dppo_jax.models.policy import make_policy
from dppo_jax.runtime import export
from dppo_jax.runtime.hub import peft_io, safetensors_io
from tests.support import factories, published

_CONFIG = lora.LoraConfig(rank=3, alpha=6.0, targets=tuple(lora.TARGETS))


def _like(sizes=(1, 1, 1), config=_CONFIG):
  policy = lora.adapt(make_policy(factories.transformer_config()), config)
  boxed = jax.eval_shape(policy.init, jax.random.PRNGKey(0))
  devices = jax.devices()[: int(np.prod(sizes))]
  mesh = parallel.make_mesh(*sizes, devices=devices)
  shardings = parallel.tree_shardings(mesh, boxed)
  return jax.tree.map(
    lambda sharding, leaf: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=sharding
    ),
    shardings,
    jax.tree.map(
      lambda box: box.value, boxed, is_leaf=lambda x: hasattr(x, 'names')
    ),
  )


def _adapter(sizes=(1, 1, 1)):
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda leaf: jax.device_put(
      jnp.asarray(rng.standard_normal(leaf.shape), leaf.dtype), leaf.sharding
    ),
    _like(sizes),
  )


@pytest.fixture
def folder(tmp_path):
  export.write_adapter(_adapter(), _CONFIG, 'a/base', tmp_path, 'float32')
  return tmp_path


def _stored(folder):
  found = {}
  path = folder / peft_io.WEIGHTS
  for name, tensor in safetensors_io.read_header(path).items():
    found[name] = np.empty(tensor.shape, tensor.dtype)
    tensor.read(tensor.shape, [slice(None)] * 2, found[name])
  return found


def test_names_and_orientations(folder):
  stored = _stored(folder)
  assert len(stored) == 2 * 2 * 7
  layers = _adapter()['layers']
  for layer in range(2):
    at = f'base_model.model.model.layers.{layer}.'
    output = layers['attention']['output']
    # [r, inputs] and [outputs, r]; ours are [inputs…, r] and [r, outputs…].
    np.testing.assert_array_equal(
      stored[f'{at}self_attn.o_proj.lora_A.weight'],
      np.asarray(output['lora_a'][layer]).reshape(24, 3).T,
    )
    np.testing.assert_array_equal(
      stored[f'{at}self_attn.o_proj.lora_B.weight'],
      np.asarray(output['lora_b'][layer]).T,
    )
    key = layers['attention']['key']
    np.testing.assert_array_equal(
      stored[f'{at}self_attn.k_proj.lora_B.weight'],
      np.asarray(key['lora_b'][layer]).reshape(3, 12).T,
    )
    up = layers['mlp']['up']['lora_a'][layer]
    np.testing.assert_array_equal(
      stored[f'{at}mlp.up_proj.lora_A.weight'], np.asarray(up).T
    )


def test_the_config_is_that_of_peft(folder):
  config = json.loads((folder / peft_io.CONFIG).read_text())
  assert config['peft_type'] == 'LORA'
  assert config['base_model_name_or_path'] == 'a/base'
  assert (config['r'], config['lora_alpha']) == (3, 6.0)
  assert config['target_modules'] == [
    'down_proj',
    'gate_proj',
    'k_proj',
    'o_proj',
    'q_proj',
    'up_proj',
    'v_proj',
  ]


@pytest.mark.parametrize('sizes', [(1, 1, 1), (2, 2, 2)])
def test_an_adapter_round_trips(tmp_path, sizes):
  adapter = _adapter(sizes)
  export.write_adapter(adapter, _CONFIG, '', tmp_path, 'float32')
  like = _like(sizes)
  got = peft_io.load_adapter(tmp_path, _CONFIG, like)
  assert jax.tree.structure(got) == jax.tree.structure(adapter)
  for mine, other, want in zip(
    *map(jax.tree.leaves, (got, adapter, like)), strict=True
  ):
    np.testing.assert_array_equal(mine, other)
    assert mine.sharding == want.sharding


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'r': 4}, 'r is 4, and section lora says 3'),
    ({'lora_alpha': 8}, r'lora_alpha is 8, and section lora says 6\.0'),
    ({'target_modules': ['q_proj']}, r"target_modules is \['q_proj'\], and"),
    ({'target_modules': 'all-linear'}, "target_modules is 'all-linear', and"),
    ({'target_modules': [None]}, r"target_modules is \['None'\], and"),
    (
      {'use_rslora': True},
      r'lora_alpha is 6\.0 with use_rslora, that is 10\.39230485 here',
    ),
    ({'lora_alpha': None}, 'lora_alpha is None, and section lora says'),
    ({'bias': 'all'}, "bias: unsupported 'all'; 'none' or None can be read"),
    ({'peft_type': 'LOHA'}, "peft_type: unsupported 'LOHA'; 'LORA' can be"),
    (
      {'init_lora_weights': 'pissa_niter_4'},
      "init_lora_weights: unsupported 'pissa_niter_4'.*a base that its start",
    ),
    ({'init_lora_weights': 'pissa'}, "unsupported 'pissa'"),
    ({'init_lora_weights': 'olora'}, "unsupported 'olora'"),
    ({'init_lora_weights': 'corda'}, "unsupported 'corda'"),
    ({'init_lora_weights': 'loftq'}, "unsupported 'loftq'"),
    ({'lora_bias': True}, 'lora_bias: unsupported True'),
    ({'use_dora': True}, 'use_dora: unsupported True'),
    ({'use_qalora': True}, 'use_qalora: unsupported True'),
    ({'fan_in_fan_out': True}, 'fan_in_fan_out: unsupported True'),
    ({'rank_pattern': {'q_proj': 8}}, 'rank_pattern: unsupported'),
    ({'alpha_pattern': {'q_proj': 8}}, 'alpha_pattern: unsupported'),
    ({'layers_to_transform': [0]}, r'layers_to_transform: unsupported \[0\]'),
    ({'layer_replication': [[0, 2]]}, 'layer_replication: unsupported'),
    ({'target_parameters': ['x']}, 'target_parameters: unsupported'),
    ({'modules_to_save': ['lm_head']}, 'modules_to_save: unsupported'),
    ({'exclude_modules': 'x'}, "exclude_modules: unsupported 'x'"),
    ({'trainable_token_indices': [3]}, 'trainable_token_indices: unsup'),
    ({'alora_invocation_tokens': [3]}, 'alora_invocation_tokens: unsup'),
    ({'task_type': 'SEQ_CLS'}, "task_type: unsupported 'SEQ_CLS'"),
  ],
)
def test_other_adapters_are_refused(folder, changes, message):
  path = folder / peft_io.CONFIG
  path.write_text(json.dumps(json.loads(path.read_text()) | changes))
  with pytest.raises(ValueError, match=message):
    peft_io.load_adapter(folder, _CONFIG, _like())


def test_a_scale_by_the_root_of_the_rank_is_read(folder):
  """use_rslora scales by alpha / sqrt(r): alpha sqrt(r) here."""
  path = folder / peft_io.CONFIG
  changes = {'use_rslora': True, 'lora_alpha': 2 * 3**0.5}
  path.write_text(json.dumps(json.loads(path.read_text()) | changes))
  got = peft_io.load_adapter(folder, _CONFIG, _like())
  for mine, other in zip(*map(jax.tree.leaves, (got, _adapter())), strict=True):
    np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize(
  'changes',
  [
    {'init_lora_weights': 'gaussian', 'lora_dropout': 0.1},
    {'init_lora_weights': False, 'modules_to_save': None, 'revision': 'x'},
    {'layer_replication': None, 'lora_bias': False, 'eva_config': {'a': 1}},
  ],
)
def test_keys_without_effect_are_accepted(folder, changes):
  path = folder / peft_io.CONFIG
  path.write_text(json.dumps(json.loads(path.read_text()) | changes))
  peft_io.load_adapter(folder, _CONFIG, _like())


def test_missing_and_damaged_files_are_named(folder):
  path = folder / peft_io.WEIGHTS
  whole = path.read_bytes()
  path.write_bytes(whole[:-8])
  with pytest.raises(ValueError, match=r'adapter_model\.safetensors: cut off'):
    peft_io.load_adapter(folder, _CONFIG, _like())
  path.unlink()
  with pytest.raises(ValueError, match=r'adapter_model\.safetensors: missing'):
    peft_io.load_adapter(folder, _CONFIG, _like())
  (folder / peft_io.CONFIG).unlink()
  with pytest.raises(ValueError, match=r'adapter_config\.json: missing'):
    peft_io.load_adapter(folder, _CONFIG, _like())


def test_missing_tensors_are_named(folder):
  stored = _stored(folder)
  name = 'base_model.model.model.layers.1.mlp.up_proj.lora_A.weight'
  del stored[name]
  path, *_ = published.rewrite(folder, stored)
  path.rename(folder / peft_io.WEIGHTS)
  with pytest.raises(ValueError, match=rf"lacks '{name}' \[3, 16\]"):
    peft_io.load_adapter(folder, _CONFIG, _like())
