import json
import os
import pathlib
import shutil
import signal
from unittest import mock

import jax
import numpy as np
import pytest

from dppo_jax.configs import default
from dppo_jax.runtime import export, loop
from dppo_jax.runtime.config.build import build_experiment
from dppo_jax.runtime.hosts import preemption
from dppo_jax.runtime.hub import hf_config, load_weights
from dppo_jax.runtime.sft import warm_start
from dppo_jax.runtime.storage import metrics_log, workdir
from tests.support import published, runs

_LARGE = 10**9
_TOKENIZER = pathlib.Path(__file__).parents[1] / 'testdata' / 'tokenizer'


def _arrays_of(folder):
  return {k: a.tobytes() for k, a in published.arrays(folder).items()}


@pytest.mark.parametrize('name', published.ALL)
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
def test_in_out_in_is_bit_exact(tmp_path, name, dtype):
  folder = published.copy(name, tmp_path)
  arrays = published.arrays(folder)
  for key in list(arrays):
    arrays[key] = arrays[key].astype(export.DTYPES[export._STORED[dtype]])
  published.rewrite(folder, arrays)
  params = load_weights.load_params(folder, published.like(folder))
  out = tmp_path / 'out'
  out.mkdir()
  paths = export.write_params(params, out, dtype, max_bytes=40_000)
  assert len(paths) > 2  # Shards and their index.
  assert _arrays_of(out) == _arrays_of(folder)
  again = load_weights.load_params(out, published.like(folder))
  for got, expected in zip(
    jax.tree.leaves(again), jax.tree.leaves(params), strict=True
  ):
    np.testing.assert_array_equal(got, expected)


def test_sharded_parameters_are_gathered_tensor_by_tensor(tmp_path):
  folder = published.MODELS / 'qwen3_gqa'
  params = load_weights.load_params(folder, published.like(folder, (2, 2, 2)))
  export.write_params(params, tmp_path, 'float32', _LARGE)
  assert _arrays_of(tmp_path) == _arrays_of(folder)


def test_a_dtype_that_is_too_narrow(tmp_path):
  folder = published.MODELS / 'qwen2_tied'
  params = load_weights.load_params(folder, published.like(folder))
  params['final_norm']['scale'] = params['final_norm']['scale'] * 1e6
  with pytest.raises(
    ValueError, match=r'--dtype: model\.norm\.weight reaches .*use bfloat16'
  ):
    export.write_params(params, tmp_path, 'float16', _LARGE)


def test_layers_are_in_the_order_of_their_numbers():
  names = ['a.10.w', 'a.9.w', 'a.9.b', 'b', 'a']
  assert sorted(names, key=export._natural) == [
    'a',
    'a.9.b',
    'a.9.w',
    'a.10.w',
    'b',
  ]


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  """A published model without a tokenizer, in bfloat16."""
  folder = published.copy('qwen3_gqa', tmp_path_factory.mktemp('source'))
  arrays = published.arrays(folder)
  published.rewrite(
    folder,
    {k: v.astype(export.DTYPES['BF16']) for k, v in arrays.items()},
  )
  published.edit_config(folder, dtype='bfloat16')
  published.edit_config(
    folder, quantization_config={'quant_method': 'fp8'}, bos_token_id=7
  )
  (folder / 'generation_config.json').write_text(
    '{"eos_token_id": 5, "repetition_penalty": 1.1, "temperature": 0.6}'
  )
  return folder


def _settings(source):
  settings = runs.smallest(
    model__pretrained=str(source),
    checkpoints__every_n_steps=1,
    checkpoints__keep=3,
    objective__entropy_coefficient=0.1,  # No reward moves a random model.
    writers__samples_every_n_steps=1,
  )
  settings.num_steps = 2
  return settings


@pytest.fixture(scope='module')
def trained(source, tmp_path_factory):
  """A run of two steps from a published model."""
  folder = tmp_path_factory.mktemp('trained')
  runs.run(_settings(source), folder)
  return folder


def _export(trained, out, step='latest', dtype=''):
  config = workdir.overlay(default.get_config(), workdir.read_config(trained))
  experiment = build_experiment(config, 1)
  with runs.quick_compilation():
    return export.export(experiment, trained, out, step, dtype, _LARGE)


def test_a_run_starts_from_the_pretrained_weights(source, trained, tmp_path):
  _export(trained, tmp_path / 'out', step='0')
  assert _arrays_of(tmp_path / 'out') == _arrays_of(source)


def test_training_moves_them(source, trained, tmp_path):
  _export(trained, tmp_path / 'out', dtype='float32')
  got = published.arrays(tmp_path / 'out')
  before = published.arrays(source)
  assert {a.dtype for a in got.values()} == {np.dtype(np.float32)}
  key = 'model.layers.1.mlp.down_proj.weight'
  distance = np.abs(got[key] - before[key].astype(np.float32)).max()
  assert 0 < distance < 0.1


def test_the_run_records_the_shape(source, trained):
  model = workdir.read_config(trained)['model']
  assert model['pretrained'] == str(source)
  shape = hf_config.read_shape(source)
  assert model | {**shape, 'mlp_only_layers': []} == model
  assert shape['vocab_size'] == 320


def test_ids_beyond_the_words_of_the_task_are_decoded(trained):
  """A random model of 320 ids draws mostly fillers of a task of 16 words."""
  text = (trained / metrics_log.SAMPLES_FILE).read_text()
  assert '<unused' in text


def test_config_is_that_of_the_source_and_generation_that_of_the_run(
  source, trained, tmp_path
):
  written = _export(trained, tmp_path / 'out', dtype='float32')
  assert sorted(path.name for path in written) == [
    'config.json',
    'generation_config.json',
    'model.safetensors',
  ]
  got = json.loads((tmp_path / 'out' / 'config.json').read_text())
  expected = json.loads((source / 'config.json').read_text())
  assert expected.pop('quantization_config')
  assert got == expected | {'dtype': 'float32'}
  generation = (tmp_path / 'out' / 'generation_config.json').read_text()
  assert json.loads(generation) == {
    'bos_token_id': 7,
    'do_sample': True,
    'eos_token_id': 1,
    'pad_token_id': 0,
    'temperature': 1.0,
    'top_k': 0,
    'top_p': 1.0,
  }


def test_ends_of_another_tokenizer_are_not_announced(trained, tmp_path):
  copy = shutil.copytree(trained, tmp_path / 'run')
  kept = copy / 'pretrained' / 'config.json'
  for said, written in ((1, 1), ([1], [1]), ([1, 5], 1), (5, 1)):
    raw = json.loads(kept.read_text()) | {'eos_token_id': said}
    kept.write_text(json.dumps(raw))
    out = tmp_path / f'out{said}'
    _export(copy, out, step='0')
    got = json.loads((out / 'config.json').read_text())
    assert got['eos_token_id'] == written


def test_the_source_may_go(source, trained, tmp_path):
  gone = tmp_path / 'moved'
  recorded = workdir.read_config(trained)
  recorded['model']['pretrained'] = str(gone)
  copy = tmp_path / 'run'
  shutil.copytree(trained, copy)
  (copy / workdir.CONFIG).write_text(json.dumps(recorded))
  _export(copy, tmp_path / 'out', step='0')
  assert _arrays_of(tmp_path / 'out') == _arrays_of(source)


def test_a_run_of_its_own_shape_is_exported(finished, tmp_path):
  written = _export(finished, tmp_path / 'out', step='best')
  names = {path.name for path in written}
  assert names == {
    'config.json',
    'generation_config.json',
    'model.safetensors',
  }
  config = json.loads((tmp_path / 'out' / 'config.json').read_text())
  assert config['architectures'] == ['Qwen3ForCausalLM']
  assert (config['eos_token_id'], config['pad_token_id']) == (1, 0)
  generation = (tmp_path / 'out' / 'generation_config.json').read_text()
  assert json.loads(generation)['eos_token_id'] == 1
  load_weights.load_params(tmp_path / 'out', published.like(tmp_path / 'out'))


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    (dict(step='7'), r"--step: no checkpoint '7'; there are \[0, 1, 2\]"),
    (dict(dtype='int8'), "--dtype: got 'int8'; one of float32, float16"),
  ],
)
def test_unsupported_exports_are_refused(trained, tmp_path, given, message):
  with pytest.raises(ValueError, match=message):
    _export(trained, tmp_path / 'out', **given)
  assert not (tmp_path / 'out').exists()


def test_nothing_is_overwritten(trained, tmp_path):
  (tmp_path / 'mine').touch()
  with pytest.raises(ValueError, match=r'--out: .* is there already and not'):
    _export(trained, tmp_path)


def test_weights_that_do_not_fit_stop_the_run(source, tmp_path):
  folder = tmp_path / 'broken'
  shutil.copytree(source, folder)
  settings = _settings(folder)
  (folder / 'model.safetensors').unlink()
  with pytest.raises(ValueError, match=r'^model\.pretrained: .*neither model'):
    runs.run(settings, tmp_path / 'run')
  (folder / 'config.json').unlink()
  with pytest.raises(
    ValueError, match=r'model\.pretrained: .*config\.json: mi'
  ):
    runs.experiment(settings)


@pytest.fixture(scope='module')
def adapted(source, tmp_path_factory):
  """A run of no step that trains an adapter, with a tokenizer of its own."""
  folder = tmp_path_factory.mktemp('adapted')
  base = shutil.copytree(source, folder / 'base')
  shutil.copy(_TOKENIZER / 'tokenizer.json', base)
  shutil.copy(_TOKENIZER / 'tokenizer_config.json', base)
  settings = _settings(base)
  settings.num_steps = 1
  settings.lora.rank = 2
  settings.data.tokenizer = str(base)
  settings.data.chat_template = True
  settings.data.max_prompt_length = 64

  def start_and_signal(*args):
    os.kill(os.getpid(), signal.SIGTERM)
    return warm_start.warm_start(*args)

  with (
    mock.patch.object(loop, 'warm_start', start_and_signal),
    pytest.raises(preemption.Preempted),
  ):
    runs.run(settings, folder / 'run')
  return folder / 'run'


def _export_adapter(run, out, base=''):
  config = workdir.overlay(default.get_config(), workdir.read_config(run))
  experiment = build_experiment(config, 1)
  with runs.quick_compilation():
    written = export.export(
      experiment, run, out, 'latest', '', _LARGE, export.ADAPTER, base
    )
  said = json.loads((out / 'adapter_config.json').read_text())
  return [path.name for path in written], said['base_model_name_or_path']


def test_an_adapter_names_a_base_that_loads(adapted, tmp_path):
  names, base = _export_adapter(adapted, tmp_path / 'out')
  assert names == [
    'adapter_config.json',
    'adapter_model.safetensors',
    'tokenizer.json',
    'tokenizer_config.json',
  ]
  assert base == str(adapted.parent / 'base')
  load_weights.load_params(
    pathlib.Path(base), published.like(pathlib.Path(base))
  )
  _, base = _export_adapter(adapted, tmp_path / 'named', 'someone/model')
  assert base == 'someone/model'


def test_an_adapter_whose_base_is_gone(adapted, tmp_path):
  run = shutil.copytree(adapted, tmp_path / 'run')
  recorded = workdir.read_config(run)
  base = shutil.copytree(adapted.parent / 'base', tmp_path / 'base')
  recorded['model']['pretrained'] = str(base)
  (run / workdir.CONFIG).write_text(json.dumps(recorded))
  (base / 'model-00007-of-00007.safetensors').unlink(missing_ok=True)
  (base / 'model.safetensors').unlink(missing_ok=True)
  with pytest.raises(ValueError, match=r'--lora: the base .* does not load: '):
    _export_adapter(run, tmp_path / 'out')
  assert not (tmp_path / 'out').exists()
  _export_adapter(run, tmp_path / 'out', 'someone/model')


def test_an_adapter_on_weights_of_the_seed(adapted, tmp_path):
  run = shutil.copytree(adapted, tmp_path / 'run')
  recorded = workdir.read_config(run)
  recorded['model']['pretrained'] = ''
  (run / workdir.CONFIG).write_text(json.dumps(recorded))
  with pytest.raises(ValueError, match=r'drawn from the seed .* --lora=merged'):
    _export_adapter(run, tmp_path / 'out')
