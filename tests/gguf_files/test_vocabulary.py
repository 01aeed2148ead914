import json
import pathlib

import pytest
import tokenizers

from dppo_jax.data import hf_tokenizer
from dppo_jax.gguf_files import header, vocabulary
from tests.support import gguf_model

_FOLDER = pathlib.Path(__file__).parents[1] / 'testdata' / 'tokenizer'
_TEXT = "It's 1234 cafés:\n\n  don't <|im_end|> A+b"


def _open(source, **overrides):
  settings = {
    'prompt_template': '{prompt}',
    'use_chat_template': True,
    'system_prompt': '',
    **overrides,
  }
  return hf_tokenizer.HFTokenizer(source, **settings)


def _changed(path, **changes):
  return gguf_model.write(
    path,
    **{f'tokenizer__ggml__{key}': value for key, value in changes.items()},
  )


def test_it_is_the_tokenizer_of_the_folder(tmp_path):
  path = gguf_model.write(tmp_path / 'm.gguf')
  for chat in (True, False):
    found = _open(path, use_chat_template=chat)
    wanted = _open(_FOLDER, use_chat_template=chat)
    assert found.encode_prompt(_TEXT) == wanted.encode_prompt(_TEXT)
    ids = wanted.encode(_TEXT)
    assert found.encode(_TEXT) == ids
    assert found.decode(ids) == wanted.decode(ids)
    for name in ('vocab_size', 'pad_id', 'eos_ids', 'special_ids', 'notes'):
      assert getattr(found, name) == getattr(wanted, name)


@pytest.mark.parametrize(
  ('name', 'words'),
  [
    ('gpt-2', ['It', "'s", 'Ġ1234', 'ĠcafÃ©s', ':', 'ĊĊĠ', 'ĠDON', "'", 'T']),
    (
      'smollm',
      ['It', "'s", 'Ġ', *'1234', 'ĠcafÃ©s', ':', 'ĊĊĠ', 'ĠDON', "'", 'T'],
    ),
    (
      'llama-bpe',
      ['It', "'s", 'Ġ', '123', '4', 'ĠcafÃ©s', ':ĊĊ', 'Ġ', 'ĠDON', "'T"],
    ),
    (
      'qwen2',
      ['It', "'s", 'Ġ', *'1234', 'ĠcafÃ©s', ':ĊĊ', 'Ġ', 'ĠDON', "'T"],
    ),
  ],
)
def test_splittings(name, words):
  steps = list(vocabulary.SPLITTINGS[name].steps)
  step = {'type': 'Sequence', 'pretokenizers': steps}
  empty = {'type': 'BPE', 'vocab': {}, 'merges': []}
  text = json.dumps({'pre_tokenizer': step, 'model': empty})
  made = tokenizers.Tokenizer.from_str(text).pre_tokenizer
  found = made.pre_tokenize_str("It's 1234 cafés:\n\n  DON'T")
  assert [word for word, _ in found] == words


def test_only_qwen_normalizes(tmp_path):
  decomposed = 'e\u0301'
  one = _open(_changed(tmp_path / 'q.gguf', pre='qwen2'))
  other = _open(_changed(tmp_path / 'l.gguf', pre='llama-bpe'))
  assert one.encode(decomposed) == one.encode('é')
  assert other.encode(decomposed) != other.encode('é')


def test_begin_tokens(tmp_path):
  """Llama 3 begins with one unless told otherwise, and others do not."""
  texts = {}
  for pre in ('llama-bpe', 'smollm'):
    for adds in (None, True, False):
      path = tmp_path / f'{pre}{adds}.gguf'
      path = _changed(path, pre=pre, add_bos_token=adds)
      tokenizer = _open(path, use_chat_template=False)
      ids = tokenizer.encode_prompt('1')
      texts[pre, adds] = tokenizer.decode_raw(ids)
  assert texts == {
    ('llama-bpe', None): '<|begin|>1',
    ('llama-bpe', True): '<|begin|>1',
    ('llama-bpe', False): '1',
    ('smollm', None): '1',
    ('smollm', True): '<|begin|>1',
    ('smollm', False): '1',
  }


def test_end_tokens_are_added_where_a_key_says_so(tmp_path):
  path = _changed(tmp_path / 'm.gguf', add_eos_token=True)
  tokenizer = _open(path, use_chat_template=False)
  ids = tokenizer.encode_prompt('1')
  assert tokenizer.decode_raw(ids) == '<|begin|>1<|im_end|>'


def test_padding_of_the_vocabulary_is_no_token(tmp_path):
  found = gguf_model.tokenizer_metadata()
  tokens, types = (
    found['tokenizer.ggml.tokens'],
    found['tokenizer.ggml.token_type'],
  )
  number = len(tokens)
  path = _changed(
    tmp_path / 'm.gguf',
    tokens=[*tokens, f'[PAD{number}]', 'odd'],
    token_type=[*types, 5, 5],
  )
  table = vocabulary.tokenizer_json(header.read(path))
  assert len(table['model']['vocab']) == number + 1
  assert table['model']['vocab']['odd'] == number + 1


@pytest.mark.parametrize(
  ('changes', 'problem'),
  [
    ({'model': 'llama'}, "tokenizer.ggml.model: unsupported 'llama'"),
    ({'model': None}, "tokenizer.ggml.model: unsupported 'none'"),
    ({'pre': 'qwen'}, "pre: unsupported 'qwen'; did you mean 'qwen2'"),
    ({'tokens': ['a', 'a'], 'token_type': [1, 1]}, 'tokens: has a token twice'),
    ({'tokens': [1, 2]}, 'tokens: must be a list of texts'),
    ({'token_type': [1]}, 'token_type: must be a list of 320 numbers'),
    ({'merges': ['a b c']}, "merges: has 'a b c'"),
    ({'merges': None}, 'merges: must be a list of texts'),
    ({'eos_token_id': 320}, 'eos_token_id: got 320; a number from 0 to 319'),
    ({'eos_token_id': 'x'}, 'eos_token_id: got x'),
    ({'merges': ['zz yy']}, 'cannot read'),
  ],
)
def test_what_is_refused_is_named(tmp_path, changes, problem):
  path = _changed(tmp_path / 'm.gguf', **changes)
  with pytest.raises(ValueError, match=problem) as caught:
    _open(path)
  assert str(caught.value).startswith('data.tokenizer: ')
  assert str(path) in str(caught.value)
  assert '\n' not in str(caught.value)


def test_a_file_without_a_tokenizer(tmp_path):
  path = gguf_model.write(tmp_path / 'm.gguf', tokenizer=False)
  assert vocabulary.ids_json(header.read(path)) == {}
  with pytest.raises(ValueError, match="model: unsupported 'none'"):
    _open(path)
