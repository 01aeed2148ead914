import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.runtime.hub import load_weights, safetensors_io
from tests.support import published, silence


@pytest.mark.parametrize('name', published.DENSE)
@pytest.mark.parametrize('sizes', [(1, 1, 1), (2, 2, 1), (1, 4, 1)])
def test_every_shard_holds_its_part(name, sizes):
  folder = published.MODELS / name
  stored = published.arrays(folder)
  wanted = published.like(folder, sizes)
  params = load_weights.load_params(folder, wanted)
  for leaf, expected in zip(
    jax.tree.leaves(params), jax.tree.leaves(wanted), strict=True
  ):
    assert leaf.sharding == expected.sharding
  assert jax.tree.structure(params) == jax.tree.structure(wanted)
  query = params['layers']['attention']['query']['kernel']
  _, d_model, heads, head_dim = query.shape
  for layer in range(query.shape[0]):
    matrix = stored[f'model.layers.{layer}.self_attn.q_proj.weight']
    expected = matrix.T.reshape(d_model, heads, head_dim)
    np.testing.assert_array_equal(query[layer], expected)
    output = params['layers']['attention']['output']['kernel'][layer]
    matrix = stored[f'model.layers.{layer}.self_attn.o_proj.weight']
    expected = matrix.T.reshape(heads, head_dim, d_model)
    np.testing.assert_array_equal(output, expected)
    down = params['layers']['mlp']['down']['kernel'][layer]
    matrix = stored[f'model.layers.{layer}.mlp.down_proj.weight']
    np.testing.assert_array_equal(down, matrix.T)
  embedding = stored['model.embed_tokens.weight']
  np.testing.assert_array_equal(params['embedding'], embedding)
  if 'head' in params:
    head = stored['lm_head.weight']
    np.testing.assert_array_equal(params['head'], head)


@pytest.mark.parametrize('stored', ['float16', 'bfloat16'])
def test_stored_dtypes_are_cast_to_the_wanted_one(tmp_path, stored):
  folder = published.copy('qwen2_tied', tmp_path)
  narrow = {k: v.astype(stored) for k, v in published.arrays(folder).items()}
  published.rewrite(folder, narrow)
  key = 'model.embed_tokens.weight'
  for dtype in (np.dtype(np.float32), jnp.dtype(stored)):
    params = load_weights.load_params(
      folder, published.like(folder, dtype=dtype)
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {dtype}
    got = np.asarray(params['embedding'])
    np.testing.assert_array_equal(got, narrow[key].astype(dtype))


def test_each_shard_is_read_once_and_separately(monkeypatch):
  """Replicas share a read, and a host reads no more than its devices hold."""
  folder = published.MODELS / 'qwen3_gqa'
  read, seen = load_weights._read, []

  def counting(*args):
    shard = read(*args)
    seen.append(shard.nbytes)
    return shard

  monkeypatch.setattr(load_weights, '_read', counting)
  load_weights.load_params(folder, published.like(folder, (2, 2, 2)))
  total = sum(a.nbytes for a in published.arrays(folder).values())
  assert sum(seen) == total
  # The head, split in four, is the largest.
  assert max(seen) == 320 * 48 * 4 // 4


def test_loaded_parameters_can_be_donated():
  folder = published.MODELS / 'qwen2_tied'
  params = load_weights.load_params(folder, published.like(folder))
  jax.jit(lambda p: jax.tree.map(jnp.add, p, p), donate_argnums=0)(params)
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(params))


def _refused(folder, changed):
  published.rewrite(folder, changed)
  with pytest.raises(ValueError, match='Use the config') as caught:
    load_weights.load_params(folder, published.like(folder))
  return str(caught.value)


def test_missing_tensors_are_named(tmp_path):
  folder = published.copy('qwen3_gqa', tmp_path)
  arrays = published.arrays(folder)
  del arrays['model.layers.1.mlp.up_proj.weight'], arrays['lm_head.weight']
  message = _refused(folder, arrays)
  assert (
    f"{folder}: lacks 'model.layers.1.mlp.up_proj.weight' [96, 48]" in message
  )
  assert f"{folder}: lacks 'lm_head.weight' [320, 48]" in message


def test_surplus_tensors_are_named(tmp_path):
  folder = published.copy('qwen3_gqa', tmp_path)
  arrays = published.arrays(folder)
  arrays['model.layers.3.mlp.up_proj.weight'] = np.zeros((96, 48), np.float32)
  message = _refused(folder, arrays)
  assert (
    f"{folder / 'model.safetensors'}: 'model.layers.3.mlp.up_proj.weight'"
    ' [96, 48] belongs to nothing in the model'
  ) in message


def test_wrong_shapes_are_named_and_counted(tmp_path):
  folder = published.copy('qwen3_gqa', tmp_path)
  published.edit_config(folder, intermediate_size=90)
  message = _refused(folder, published.arrays(folder))
  assert (
    "'model.layers.0.mlp.down_proj.weight' has shape [48, 96] and must have"
    ' [48, 90]'
  ) in message
  assert '… and 4 more' in message


def test_a_tied_head_may_be_stored_again_if_it_is_the_same(tmp_path):
  folder = published.copy('qwen2_tied', tmp_path)
  arrays = published.arrays(folder)
  arrays['lm_head.weight'] = arrays['model.embed_tokens.weight'].copy()
  arrays['model.layers.0.self_attn.rotary_emb.inv_freq'] = np.ones(
    4, np.float32
  )
  published.rewrite(folder, arrays)
  load_weights.load_params(folder, published.like(folder))
  arrays['lm_head.weight'][319, 0] += 1
  assert "'lm_head.weight' [320, 48] belongs to nothing" in _refused(
    folder, arrays
  )


def test_a_truncated_shard_is_named(tmp_path):
  folder = published.copy('qwen3_gqa', tmp_path)
  path = folder / 'model-00006-of-00007.safetensors'
  path.write_bytes(path.read_bytes()[:-8])
  with pytest.raises(ValueError, match=r'00006-of-00007.*cut off'):
    load_weights.load_params(folder, published.like(folder))
  assert safetensors_io.INDEX in {p.name for p in folder.iterdir()}


def test_slow_loading_says_how_far_it_is(monkeypatch):
  folder = published.MODELS / 'qwen2_tied'
  like = published.like(folder, (1, 1, 1))
  count = len(jax.tree.leaves(like))
  with silence.of_command(monkeypatch) as heard:
    place = heard.slow(load_weights._place)
    monkeypatch.setattr(load_weights, '_place', place)
    load_weights.load_params(folder, like)
  name = f'loading weights from {folder}'
  assert len(heard.told) == count
  assert heard.told[:2] == [
    f'{name}, 0 of {count} arrays … 11 s',
    f'{name}, 1 of {count} arrays … 22 s',
  ]
