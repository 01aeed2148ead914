import numpy as np
import pytest

from dppo_jax.gguf_files import header, shapes
from dppo_jax.runtime.hub import hf_config
from tests.support import gguf_model, published


def _config(path, **changes):
  return shapes.config_json(header.read(gguf_model.write(path, **changes)))


@pytest.mark.parametrize('name', published.DENSE)
def test_the_shape_is_that_of_the_folder(tmp_path, name):
  path = gguf_model.write(tmp_path / 'm.gguf', name)
  found = hf_config.read_shape(path)
  wanted = hf_config.read_shape(published.MODELS / name)
  if name == 'llama3_rope_scaled':
    # Four frequencies, on which either length has the same effect.
    assert (found.pop('rope_original_length'), 128) == (64, 128)
    del wanted['rope_original_length']
  assert found == wanted


def test_floats_are_those_that_were_written(tmp_path):
  """Not 9.99999974737875e-06, which the header holds."""
  config = _config(
    tmp_path / 'm.gguf', qwen2__attention__layer_norm_rms_epsilon=1e-5
  )
  assert config['rms_norm_eps'] == 1e-5
  assert config['rope_theta'] == 1e6


def test_the_factors_of_published_models_have_their_length(tmp_path):
  """Llama 3.2: heads of 64, and frequencies enough to tell lengths apart."""
  theta, head_dim, factor = 500_000.0, 64, 32.0
  wavelengths = 2 * np.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
  smooth = np.clip((8192 / wavelengths - 1) / 3, 0, 1)
  factors = (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)
  path = tmp_path / 'factors.bin'
  for array, is_right in ((factors, True), (factors * 1.5, False)):
    path.write_bytes(array.tobytes())
    entry = header.Entry(
      name='rope_freqs.weight',
      kind='F32',
      shape=(32,),
      offset=0,
      block=1,
      block_bytes=4,
    )
    found = header.Header(
      path=path, metadata={}, tensors={shapes.ROPE_FACTORS: entry}
    )
    if is_right:
      assert shapes._llama3(found, theta, head_dim) == {
        'rope_type': 'llama3',
        'factor': 32.0,
        'low_freq_factor': 1.0,
        'high_freq_factor': 4.0,
        'original_max_position_embeddings': 8192,
      }
    else:
      with pytest.raises(ValueError, match=r'rope_freqs\.weight: unsup'):
        shapes._llama3(found, theta, head_dim)


def test_linear_scaling(tmp_path):
  changes = {
    'qwen2__rope__scaling__type': 'linear',
    'qwen2__rope__scaling__factor': 4.0,
  }
  path = gguf_model.write(tmp_path / 'new.gguf', **changes)
  shape = hf_config.read_shape(path)
  assert (shape['rope_scaling'], shape['rope_factor']) == ('linear', 4.0)
  older = tmp_path / 'old.gguf'
  gguf_model.write(older, qwen2__rope__scale_linear=4.0)
  assert hf_config.read_shape(older) == shape


@pytest.mark.parametrize(
  ('key', 'value', 'problem'),
  [
    (
      'general__architecture',
      'gemma3',
      "general.architecture: unsupported 'ge",
    ),
    ('general__architecture', 'qwen3moe', "did you mean 'qwen3'"),
    ('qwen2__expert_count', 8, 'qwen2.expert_count: unsupported 8'),
    ('qwen2__attention__sliding_window', 99, 'sliding_window: unsupported 99'),
    ('qwen2__rope__scaling__type', 'yarn', "scaling.type: unsupported 'yarn'"),
    ('qwen2__block_count', None, 'qwen2.block_count: got None'),
    ('qwen2__attention__head_count', [6, 6], r'head_count: got \[6 6\]'),
    ('qwen2__embedding_length', 2.5, 'embedding_length: got 2.5'),
    ('qwen2__rope__freq_base', -1.0, 'freq_base: got -1.0'),
    ('qwen2__rope__freq_base', float('nan'), 'freq_base: got nan'),
    ('qwen2__rope__dimension_count', 4, 'dimension_count: got 4; only 8'),
    ('qwen2__vocab_size', 7, 'vocab_size: got 7; only 320'),
    ('split__count', 3, 'split.count: one of 3 files'),
  ],
)
def test_what_is_refused_is_named(tmp_path, key, value, problem):
  path = tmp_path / 'm.gguf'
  with pytest.raises(ValueError, match=problem) as caught:
    _config(path, **{key: value})
  assert str(path) in str(caught.value)
  assert '\n' not in str(caught.value)


def test_what_nothing_reads_is_kept_under_its_name(tmp_path):
  config = _config(tmp_path / 'm.gguf', qwen2__novelty=3)
  assert config['qwen2.novelty'] == 3


def test_a_head_of_its_own_is_a_tensor(tmp_path):
  tied = _config(tmp_path / 'tied.gguf', name='qwen2_tied')
  other = _config(tmp_path / 'own.gguf', name='qwen3_gqa')
  assert (tied['tie_word_embeddings'], other['tie_word_embeddings']) == (
    True,
    False,
  )
