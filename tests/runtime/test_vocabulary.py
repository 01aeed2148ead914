import pathlib

import pytest

from dppo_jax.runtime import vocabulary
from tests import runs

_FOLDER = str(pathlib.Path(__file__).parents[1] / 'testdata' / 'tokenizer')


def _size(**overrides):
  return vocabulary.vocabulary_size(runs.config(**overrides).to_dict())


def test_the_model_has_the_rows_that_the_tokenizer_needs():
  assert _size() == 16
  assert _size(data__tokenizer=_FOLDER) == 320
  assert _size(data__tokenizer=_FOLDER, model__vocab_size=384) == 384


def test_ids_that_the_model_has_not_name_both():
  with pytest.raises(ValueError, match=r'tokenizer.* ids up to 319') as caught:
    _size(data__tokenizer=_FOLDER, model__vocab_size=300)
  assert 'model.vocab_size=300' in str(caught.value)
  with pytest.raises(ValueError, match="words of task running_sum' has ids up"):
    _size(model__vocab_size=8)


def test_the_config_chooses_tokenizer_and_template():
  words = vocabulary.open_tokenizer(
    runs.config(data__prompt_template='1 {prompt} =').data
  )
  assert words.decode(words.encode_prompt('2')) == '1 2 ='
  data = runs.config(
    data__tokenizer=_FOLDER, data__chat_template=True, data__system_prompt='S'
  ).data
  read = vocabulary.open_tokenizer(data)
  assert read is vocabulary.open_tokenizer(data)  # Its file is read once.
  ids = read.encode_prompt('1')
  assert read.decode(ids) == 'S\nuser\n1\nassistant\n'
  assert (read.eos_ids, read.pad_id) == ((3, 4), 0)
