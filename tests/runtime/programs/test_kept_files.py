import json
import pathlib
import shutil

import pytest

from dppo_jax.data import hf_tokenizer
from dppo_jax.gguf_files import as_folder
from dppo_jax.runtime.programs import kept_files
from tests.support import gguf_model, published, runs

_CHAT = {
  'prompt_template': '{prompt}',
  'use_chat_template': True,
  'system_prompt': '',
}
_TOKENIZER = pathlib.Path(__file__).parents[2] / 'testdata' / 'tokenizer'


@pytest.fixture
def folder(tmp_path):
  return shutil.copytree(_TOKENIZER, tmp_path / 'tokenizer_of_a_model')


@pytest.fixture
def workdir(tmp_path):
  (tmp_path / 'run').mkdir()
  return tmp_path / 'run'


def _experiment(folder='', **settings):
  if folder:
    settings = {
      'model__vocab_size': 320,
      'data__chat_template': True,
      'sft__num_steps': 0,
      **settings,
    }
  return runs.experiment(runs.config(data__tokenizer=str(folder), **settings))


def _names(folder):
  return sorted(path.name for path in folder.iterdir())


def test_a_run_of_a_task_keeps_nothing(workdir):
  kept_files.keep(_experiment(), workdir)
  assert _names(workdir) == []
  assert kept_files.find_tokenizer(_experiment(), workdir) is None


def test_the_tokenizer_of_the_run_is_kept_and_not_that_of_the_model(
  folder, workdir, tmp_path
):
  model = published.copy('qwen3_gqa', tmp_path)
  (model / 'tokenizer.json').write_text('another one')
  experiment = _experiment(folder, model__pretrained=str(model))
  kept_files.keep(experiment, workdir)
  assert _names(workdir) == ['pretrained', 'tokenizer']
  assert _names(workdir / 'pretrained') == [
    'config.json',
    'generation_config.json',
  ]
  assert _names(workdir / 'tokenizer') == _names(_TOKENIZER)
  assert kept_files.find_tokenizer(experiment, workdir) == workdir / 'tokenizer'
  shutil.rmtree(folder)
  kept_files.keep(experiment, workdir)  # It may go.


@pytest.mark.parametrize(
  ('name', 'text'),
  [
    ('tokenizer.json', '{}'),
    ('chat_template.jinja', 'new'),
    ('generation_config.json', '{"eos_token_id": 4}'),
  ],
)
def test_a_run_goes_on_with_no_other_tokenizer(folder, workdir, name, text):
  experiment = _experiment(folder)
  kept_files.keep(experiment, workdir)
  kept_files.keep(experiment, workdir)
  (folder / 'README.md').write_text('says nothing')
  path = folder / 'generation_config.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | {'top_p': 0.5}))
  kept_files.keep(experiment, workdir)
  (folder / name).write_text(text)
  with pytest.raises(ValueError, match=rf'data\.tokenizer: .*{name} is not'):
    kept_files.keep(experiment, workdir)


def test_a_run_that_kept_no_tokenizer(folder, workdir):
  experiment = _experiment(folder)
  assert kept_files.find_tokenizer(experiment, workdir) == folder
  (remark,) = kept_files.remarks(experiment, workdir)
  assert f'kept no copy of its tokenizer; it is that of {folder}' in remark
  shutil.rmtree(folder)
  with pytest.raises(ValueError, match=r'data\.tokenizer: .* is gone, and'):
    kept_files.find_tokenizer(experiment, workdir)


def test_an_older_run_kept_it_beside_the_model(folder, workdir, tmp_path):
  published.copy('qwen3_gqa', tmp_path)
  for path in (tmp_path / 'qwen3_gqa').iterdir():
    shutil.copy(path, folder)
  experiment = _experiment(folder, model__pretrained=str(folder))
  shutil.copytree(_TOKENIZER, workdir / 'pretrained')
  found = kept_files.find_tokenizer(experiment, workdir)
  assert found == workdir / 'pretrained'


def test_the_template_is_written_where_it_was_trained_with(folder, tmp_path):
  (folder / 'chat_template.jinja').write_text('{{ messages }}')
  out = tmp_path / 'with'
  out.mkdir()
  kept_files.write_tokenizer(_experiment(folder), folder, out)
  assert _names(out) == [
    'chat_template.jinja',
    'tokenizer.json',
    'tokenizer_config.json',
  ]
  for name in _names(out):
    assert (out / name).read_bytes() == (folder / name).read_bytes()


def test_a_template_that_was_not_trained_with_is_left_out(folder, tmp_path):
  (folder / 'chat_template.jinja').write_text('{{ messages }}')
  experiment = _experiment(folder, data__chat_template=False)
  out = tmp_path / 'without'
  out.mkdir()
  kept_files.write_tokenizer(experiment, folder, out)
  assert _names(out) == ['tokenizer.json', 'tokenizer_config.json']
  before, after = (
    json.loads((f / 'tokenizer_config.json').read_text()) for f in (folder, out)
  )
  assert before.pop('chat_template')
  assert after == before


def test_generation_is_that_of_the_training(folder):
  experiment = _experiment(folder, sampling__temperature=0.5)
  found = kept_files.generation_config(experiment, {'bos_token_id': 1})
  assert found == {
    'do_sample': True,
    'temperature': 0.5,
    'top_p': 1.0,
    'top_k': 0,
    'bos_token_id': 1,
    'eos_token_id': [3, 4],
    'pad_token_id': 0,
  }
  filtered = _experiment(sampling__support_top_k=7, sampling__support_min_p=0.1)
  found = kept_files.generation_config(filtered, {'bos_token_id': None})
  assert (found['top_k'], found['top_p'], found['min_p']) == (7, 1.0, 0.1)
  assert found['eos_token_id'] == 1
  assert 'bos_token_id' not in found


def test_what_files_cannot_say_is_said(folder, workdir):
  (remark,) = kept_files.remarks(_experiment(), workdir)
  assert 'no tokenizer is written: the run has the words of task' in remark
  experiment = _experiment(
    folder,
    data__prompt_template='Q: {prompt}',
    data__system_prompt='Think.',
    sampling__stop_strings=('\n\n',),
  )
  kept_files.keep(experiment, workdir)
  assert list(kept_files.remarks(experiment, workdir)) == [
    "prompts were written into 'Q: {prompt}'.",
    "prompts came after the system prompt 'Think.'.",
    "completions ended at '\\n\\n', too.",
  ]
  experiment = _experiment(folder, data__chat_template=False)
  assert list(kept_files.remarks(experiment, workdir)) == [
    'no chat template is written: the run was trained without one'
    ' (data.chat_template=False).'
  ]


def test_a_gguf_file_is_kept_as_the_files_of_a_folder(workdir, tmp_path):
  path = gguf_model.write(tmp_path / 'm.gguf')
  experiment = _experiment(path, model__pretrained=str(path))
  assert experiment.model.vocab_size == 320
  assert experiment.sampling.eos_ids == (3, 4)
  kept_files.keep(experiment, workdir)
  assert _names(workdir / 'pretrained') == [
    'config.json',
    'generation_config.json',
  ]
  kept = workdir / 'tokenizer'
  assert _names(kept) == sorted(as_folder.TABLES)
  one = hf_tokenizer.HFTokenizer(kept, **_CHAT)
  other = hf_tokenizer.HFTokenizer(path, **_CHAT)
  assert one.encode_prompt('1 + 1') == other.encode_prompt('1 + 1')
  assert one.eos_ids == other.eos_ids
  kept_files.keep(experiment, workdir)  # Nothing has changed.
  gguf_model.write(path, tokenizer__ggml__pre='smollm')
  with pytest.raises(ValueError, match=r'm\.gguf/tokenizer\.json is not what'):
    kept_files.keep(experiment, workdir)
  path.unlink()
  kept_files.keep(experiment, workdir)  # It may go.
  assert kept_files.find_tokenizer(experiment, workdir) == kept
