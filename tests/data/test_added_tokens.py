import pathlib

import pytest
import tokenizers

from dppo_jax.data import added_tokens

_FILE = pathlib.Path(__file__).parents[1] / 'testdata/tokenizer/tokenizer.json'
_SPECIAL = {'bos_token': '<|begin|>', 'eos_token': '<|im_end|>'}


@pytest.fixture(scope='module')
def tokenizer():
  return tokenizers.Tokenizer.from_file(str(_FILE))


@pytest.mark.parametrize(
  ('settings', 'added'),
  [
    ({}, {}),
    ({'added_tokens_decoder': {'3': {'content': '<|im_end|>'}}}, {}),
    ({'added_tokens_decoder': None}, {'<|end|>': 4}),
  ],
)
def test_settings_that_say_the_same(tokenizer, settings, added):
  added_tokens.check(settings, added, tokenizer)


@pytest.mark.parametrize(
  ('settings', 'added', 'message'),
  [
    (
      {'added_tokens_decoder': {'3': {'content': '<think>'}}},
      {},
      r"token 3 is '<think>' in .*, and '<\|im_end\|>' in tokenizer\.json",
    ),
    (
      {'added_tokens_decoder': {'320': {'content': '<think>'}}},
      {},
      r"token 320 is '<think>' .*, and None in tokenizer\.json; take all",
    ),
    ({}, {'<think>': 4}, r"token 4 is '<think>'"),
    ({}, {'<think>': 10**12}, "is '<think>' .*, and None in"),
    ({'added_tokens_decoder': {'x': {'content': 'a'}}}, {}, "token x is 'a'"),
  ],
)
def test_settings_that_say_something_else(tokenizer, settings, added, message):
  with pytest.raises(ValueError, match=message):
    added_tokens.check(settings, added, tokenizer)


@pytest.mark.parametrize(
  'settings',
  [
    {},
    {'add_bos_token': True, 'add_eos_token': False},
    {'additional_special_tokens': ['<|im_start|>', {'content': '<|end|>'}]},
    {'extra_special_tokens': {'turn': '<|im_start|>'}},
    {'added_tokens_decoder': {'5': {'content': 'a', 'special': False}}},
  ],
)
def test_nothing_to_say(tokenizer, settings):
  assert list(added_tokens.notes(settings, _SPECIAL, tokenizer)) == []


@pytest.mark.parametrize(
  ('settings', 'note'),
  [
    ({'add_bos_token': False}, 'add_bos_token=False, but by tokenizer.json'),
    ({'add_eos_token': True}, 'plain texts do not end with it'),
    ({'additional_special_tokens': ['a']}, "calls 'a' special"),
    ({'extra_special_tokens': {'image': 'b'}}, "calls 'b' special"),
    (
      {'added_tokens_decoder': {'5': {'content': 'c', 'special': True}}},
      "calls 'c' special, and tokenizer.json does not",
    ),
  ],
)
def test_what_others_do_otherwise_is_told(tokenizer, settings, note):
  (found,) = added_tokens.notes(settings, _SPECIAL, tokenizer)
  assert note in found
