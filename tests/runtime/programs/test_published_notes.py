import json
import pathlib
import shutil

import pytest

from dppo_jax.runtime.config import tokenizer as tokenizer_lib
from dppo_jax.runtime.hub import hf_config
from dppo_jax.runtime.programs import published_notes
from tests.support import published, runs

_TOKENIZER = pathlib.Path(__file__).parents[2] / 'testdata' / 'tokenizer'


def _edit(path, **changes):
  raw = json.loads(path.read_text()) if path.exists() else {}
  path.write_text(json.dumps({**raw, **changes}))


def _notes(**settings):
  settings |= {'sft__num_steps': 0}  # Demonstrations are of words.
  experiment = runs.experiment(runs.config(**settings))
  tokenizer = tokenizer_lib.open_tokenizer(
    {**experiment.resolved['data'], 'tokenizer': experiment.data.tokenizer}
  )
  return list(published_notes.notes(experiment, tokenizer))


def test_a_task_has_nothing_to_say():
  assert _notes() == []


def test_unread_keys_of_a_model_are_told(tmp_path):
  folder = published.copy('qwen3_gqa', tmp_path)
  path = folder / 'config.json'
  assert _notes(model__pretrained=str(folder)) == []
  _edit(path, logits_scaling=8.0, temperature=0.5, new_key=['x' * 99])
  (note,) = _notes(model__pretrained=str(folder))
  assert note.startswith(f'{path}: nothing here reads logits_scaling=8.0, new_')
  assert len(note) < len(str(path)) + 150
  _edit(path, logits_scaling=None, new_key=None)
  _edit(path, quantization_config={'bits': 4})
  (note,) = _notes(model__pretrained=str(folder))
  assert 'has quantization_config, and weights are read as they are' in note
  shape = hf_config.read_shape(folder)
  path.unlink()  # The run has its shape.
  assert shape['vocab_size'] == 320
  assert list(published_notes.of_model(path)) == []


def test_unread_keys_of_a_tokenizer_are_told(tmp_path):
  folder = shutil.copytree(_TOKENIZER, tmp_path / 'tokenizer')
  settings = dict(data__tokenizer=str(folder), model__vocab_size=320)
  as_it_is = settings | {'data__tokenizer': str(_TOKENIZER)}
  assert _notes(**as_it_is) == []
  _edit(folder / 'tokenizer_config.json', do_lower_case=True)
  _edit(folder / 'generation_config.json', temperature=0.6, novel_penalty=2)
  _edit(folder / 'tokenizer_config.json', additional_special_tokens=['x'])
  found = _notes(**settings)
  assert [text.partition(': ')[2][:40] for text in found] == [
    'nothing here reads do_lower_case=True.',
    'nothing here reads novel_penalty=2.',
    "tokenizer_config.json calls 'x' special,",
  ]


def test_unread_keys_of_an_adapter_are_told(tmp_path):
  path = tmp_path / 'adapter_config.json'
  _edit(path, r=2, use_new_lora=True, lora_dropout=0.1)
  found = _notes(lora__rank=2, lora__pretrained=str(tmp_path))
  assert found == [f'{path}: nothing here reads use_new_lora=True.']


def test_settings_that_are_not_followed_stop_a_config(tmp_path):
  folder = shutil.copytree(_TOKENIZER, tmp_path / 'tokenizer')
  _edit(folder / 'tokenizer_config.json', split_special_tokens=True)
  with pytest.raises(ValueError, match='split_special_tokens: unsupported'):
    _notes(data__tokenizer=str(folder), model__vocab_size=320)


@pytest.mark.parametrize(
  ('stop_strings', 'told'), [((), True), (('<|im_end|>',), False)]
)
def test_a_turn_that_ends_no_completion_is_told(tmp_path, stop_strings, told):
  folder = shutil.copytree(_TOKENIZER, tmp_path / 'tokenizer')
  template = folder / 'chat_template.jinja'
  turn = (
    "{% for m in messages %}{{ m['content'] + '<|im_end|>\\n' }}{% endfor %}"
  )
  template.write_text(turn)
  settings = dict(
    sft__num_steps=0,
    data__tokenizer=str(folder),
    data__chat_template=True,
    sampling__stop_strings=stop_strings,
  )

  def notes():
    tokenizer_lib._open.cache_clear()  # The folder has changed.
    experiment = runs.experiment(runs.config(**settings))
    tokenizer = tokenizer_lib.open_tokenizer(vars(experiment.data))
    return list(published_notes.of_turns(experiment, tokenizer))

  assert notes() == []
  # A base model: its end token is not that of its template.
  _edit(folder / 'generation_config.json', eos_token_id=4)
  found = notes()
  assert bool(found) == told
  if told:
    assert found[0].startswith(
      "the chat template ends the assistant's turn with '<|im_end|>', and"
      ' completions end with the ids [4]: set sampling.stop_strings='
    )
  # A template that leaves the end of the turn to the model.
  template.write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
  assert 'does not mark the end' in notes()[0]
  plain = runs.experiment(runs.config())
  assert list(published_notes.of_turns(plain, None)) == []
