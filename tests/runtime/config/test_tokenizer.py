import pathlib

import pytest

from dppo_jax.runtime.config import tokenizer
from tests.support import runs

_FOLDER = str(pathlib.Path(__file__).parents[2] / 'testdata' / 'tokenizer')


def _size(**overrides):
  return tokenizer.vocabulary_size(runs.config(**overrides).to_dict())


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


def test_ids_beyond_the_model_name_both():
  assert tokenizer.check_vocabulary(320, 320, 'DIR') is None
  said = tokenizer.check_vocabulary(320, 319, 'DIR')
  assert "'DIR' has ids up to 319" in said
  assert 'model.vocab_size=319' in said


def test_stop_strings_that_are_tokens_end_completions_as_ids():
  words = tokenizer.open_tokenizer(runs.config().data)
  assert tokenizer.split_stops(words, ('a', '<eos>')) == (('a',), (1,))
  read = tokenizer.open_tokenizer(runs.config(data__tokenizer=_FOLDER).data)
  ids = read.special_ids
  stops = ('</answer>', '<|im_start|>', '<|pad|>')
  texts, found = tokenizer.split_stops(read, stops)
  assert texts == ('</answer>',)
  assert found == (ids['<|im_start|>'], ids['<|pad|>'])
  # None of them would ever have been found in what is decoded.
  assert read.decode([*read.encode('a'), *found]) == 'a'
  with pytest.raises(
    ValueError, match=r"stop_strings: 'a<\|im_start\|>' holds"
  ):
    tokenizer.split_stops(read, ('a<|im_start|>',))


def test_a_stop_token_reaches_sampling_and_evaluation():
  experiment = runs.experiment(
    runs.config(
      data__tokenizer=_FOLDER,
      data__source='rows',
      evaluation__split='train',
      sft__num_steps=0,
      sampling__stop_strings=('<|im_start|>', 'Q:', '<|im_end|>'),
    )
  )
  start = tokenizer.open_tokenizer(vars(experiment.data)).special_ids
  ends = (3, 4, start['<|im_start|>'])
  assert experiment.sampling.eos_ids == ends
  assert experiment.evaluation.sampled.eos_ids == ends
  assert experiment.sampling.stop_strings == ('Q:',)
  assert experiment.evaluation.stop_strings == ('Q:',)


def test_template_arguments_are_pairs_or_a_mapping():
  def read(given):
    return tokenizer.template_arguments({'chat_template_arguments': given})

  expected = (('enable_thinking', False), ('effort', 'low'))
  assert read(expected) == expected
  assert read([list(pair) for pair in expected]) == expected
  assert read(dict(expected)) == expected
  assert read(()) == ()
  for bad in (('enable_thinking',), (('a b', 1),), ((1, 2),), (('a', [1]),)):
    with pytest.raises(ValueError, match=r'^data\.chat_template_arguments: '):
      read(bad)


def test_the_config_chooses_tokenizer_and_template():
  words = tokenizer.open_tokenizer(
    runs.config(data__prompt_template='1 {prompt} =').data
  )
  assert words.decode(words.encode_prompt('2')) == '1 2 ='
  data = runs.config(
    data__tokenizer=_FOLDER, data__chat_template=True, data__system_prompt='S'
  ).data
  read = tokenizer.open_tokenizer(data)
  assert read is tokenizer.open_tokenizer(data)  # Its file is read once.
  ids = read.encode_prompt('1')
  assert read.decode(ids) == 'S\nuser\n1\nassistant\n'
  assert (read.eos_ids, read.pad_id) == ((3, 4), 0)
