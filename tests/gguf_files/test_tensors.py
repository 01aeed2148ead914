import gguf
import jax
import numpy as np
import pytest

from dppo_jax.conformance import hf_models
from dppo_jax.gguf_files import tensors
from dppo_jax.runtime.hub import load_weights
from tests.support import gguf_model, published

# Blocks of 32 numbers; K-quants have 256, more than the rows of these models.
_QUANTIZED = ('Q8_0', 'Q4_0', 'Q4_1', 'Q5_0', 'Q5_1')


def _whole(tensor):
  out = np.empty(tensor.shape, tensor.dtype)
  tensor.read(tensor.shape, [slice(None)] * out.ndim, out)
  return out


@pytest.mark.parametrize('name', published.DENSE)
def test_a_model_is_that_of_its_folder(tmp_path, name):
  """Every tensor to the bit, and so the logits."""
  folder = published.MODELS / name
  path = gguf_model.write(tmp_path / 'm.gguf', name)
  found, wanted = tensors.open_file(path), published.arrays(folder)
  assert found.keys() == wanted.keys()
  for key, tensor in found.items():
    np.testing.assert_array_equal(_whole(tensor), wanted[key], key)


def test_logits_are_those_of_the_folder(tmp_path):
  name = 'llama3_rope_scaled'  # Rows in the other order, and factors.
  path = gguf_model.write(tmp_path / 'm.gguf', name)
  tokens = np.arange(12).reshape(2, 6)
  mask = np.ones((2, 6), bool)
  logits = []
  for source in (path, published.MODELS / name):
    policy, params = hf_models.load_policy(source)

    @jax.jit
    def run(params, policy=policy):
      return policy.logits(params, policy.apply(params, tokens, mask))

    logits.append(np.asarray(run(params)))
  np.testing.assert_array_equal(*logits)


@pytest.mark.parametrize('kind', ['F16', 'BF16', *_QUANTIZED])
def test_kinds_of_numbers(tmp_path, kind):
  """Dequantized; quantized again, they are the bytes of the file."""
  path = gguf_model.write(tmp_path / 'm.gguf', 'llama3_rope_scaled', kind)
  arrays = published.arrays(published.MODELS / 'llama3_rope_scaled')
  number = gguf.GGMLQuantizationType[kind]
  num_quantized = 0
  for key, tensor in tensors.open_file(path).items():
    got = _whole(tensor)
    if tensor.num_heads:  # Blocks lie along rows, whose order is of no matter.
      wanted = gguf_model.as_read(arrays[key], kind)
    else:
      entry = tensor.entry
      stored = np.fromfile(path, np.uint8, entry.num_bytes, offset=entry.offset)
      if entry.kind == kind:
        num_quantized += 1
        again = gguf.quantize(got.astype(np.float32), number)
        assert again.tobytes() == stored.tobytes(), key
      wanted = gguf_model.as_read(arrays[key], kind)
    np.testing.assert_array_equal(got.astype(np.float32), wanted, key)
  assert num_quantized > 4


def test_the_dtype_is_that_of_the_numbers(tmp_path):
  for kind, dtype in (('F16', 'float16'), ('BF16', 'bfloat16')):
    path = gguf_model.write(tmp_path / f'{kind}.gguf', 'qwen2_tied', kind)
    found = load_weights.as_stored(path, published.like(path))
    assert found['embedding'].dtype == dtype
    assert found['final_norm']['scale'].dtype == np.float32


@pytest.mark.parametrize(
  ('name', 'sizes'),
  [('llama3_rope_scaled', (1, 2, 1)), ('qwen3_gqa', (1, 1, 2))],
)
def test_shards_are_read_by_their_devices(tmp_path, name, sizes, monkeypatch):
  monkeypatch.setattr(tensors, '_CHUNK', 4 * 32 * 3)  # Three rows at a time.
  path = gguf_model.write(tmp_path / 'm.gguf', name)
  folder = published.MODELS / name
  found = load_weights.load_params(path, published.like(path, sizes))
  wanted = load_weights.load_params(folder, published.like(folder, sizes))
  jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_half_a_head_is_read(tmp_path):
  path = gguf_model.write(tmp_path / 'm.gguf', 'llama3_rope_scaled')
  name = 'model.layers.1.self_attn.q_proj.weight'
  tensor = tensors.open_file(path)[name]
  out = np.empty((3, 5), np.float32)
  tensor.read(tensor.shape, (slice(9, 12), slice(2, 7)), out)
  wanted = published.arrays(published.MODELS / 'llama3_rope_scaled')[name]
  np.testing.assert_array_equal(out, wanted[9:12, 2:7])


def test_a_file_that_shrinks(tmp_path):
  path = gguf_model.write(tmp_path / 'm.gguf')
  found = tensors.open_file(path)['model.norm.weight']
  with path.open('r+b') as file:
    file.truncate(found.entry.offset + 8)
  with pytest.raises(ValueError, match=r"ends within 'output_norm\.weight'"):
    _whole(found)


def test_a_kind_that_the_package_cannot_dequantize(tmp_path, monkeypatch):
  path = gguf_model.write(tmp_path / 'm.gguf', kind='Q8_0')
  tensors._can_read.cache_clear()

  def refuse(data, kind):
    raise NotImplementedError(kind)

  monkeypatch.setattr(gguf, 'dequantize', refuse)
  with pytest.raises(ValueError, match='is quantized as Q8_0, which'):
    tensors.open_file(path)
  tensors._can_read.cache_clear()


def test_tensors_of_other_models(tmp_path):
  path = gguf_model.write(tmp_path / 'm.gguf')
  text = path.read_bytes().replace(b'blk.0.ffn_up', b'blk.0.ffn_xx')
  path.write_bytes(text)
  with pytest.raises(ValueError, match=r"'blk\.0\.ffn_xx\.weight' belongs to"):
    tensors.open_file(path)


def test_a_missing_tensor_is_named(tmp_path):
  path = gguf_model.write(tmp_path / 'm.gguf', qwen2__block_count=3)
  like = published.like(path)
  with pytest.raises(ValueError, match=r"m\.gguf: lacks 'model\.layers\.2\."):
    load_weights.load_params(path, like)


def test_heads_that_do_not_divide_the_rows(tmp_path):
  path = gguf_model.write(
    tmp_path / 'm.gguf', 'llama3_rope_scaled', llama__attention__head_count=9
  )
  with pytest.raises(ValueError, match='no pairs in 9 heads'):
    tensors.open_file(path)
