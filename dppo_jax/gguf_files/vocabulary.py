"""Tokenizer of the model in a GGUF file, from its metadata.

A byte-level BPE is stored as texts, their types and merges; how a text is split
before it is not stored but named, and the names known here stand in a table.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any, TypeGuard

import numpy as np

from dppo_jax.gguf_files.header import Header
from dppo_jax.suggestions import suggest

_KEY = 'tokenizer.ggml.'
# Types of tokens.
_CONTROL, _USER_DEFINED, _UNUSED = 3, 4, 5
_WORDS = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s|"
  r' ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
)


@dataclasses.dataclass(frozen=True)
class Splitting:
  """How a text is split before merges.

  Attributes:
    steps: of tokenizer.json.
    normalized: to Unicode's form C first.
    whole_words: a word that is a token is not built by merges.
    begins: a text begins with the begin token, where no key says so.
  """

  steps: tuple[dict[str, Any], ...]
  normalized: bool = False
  whole_words: bool = False
  begins: bool = False


def _bytes(use_regex: bool) -> dict[str, Any]:
  return {
    'type': 'ByteLevel',
    'add_prefix_space': False,
    'trim_offsets': True,
    'use_regex': use_regex,
  }


def _words(digits: str) -> tuple[dict[str, Any], ...]:
  return (
    {
      'type': 'Split',
      'pattern': {'Regex': _WORDS % digits},
      'behavior': 'Isolated',
      'invert': False,
    },
    _bytes(use_regex=False),
  )


_LLAMA3 = Splitting(_words(r'\p{N}{1,3}'), whole_words=True, begins=True)
# tokenizer.ggml.pre -> splitting.
SPLITTINGS = {
  'gpt-2': Splitting((_bytes(use_regex=True),)),
  'smollm': Splitting(
    (
      {'type': 'Digits', 'individual_digits': True},
      _bytes(use_regex=True),
    )
  ),
  'llama-bpe': _LLAMA3,
  'llama3': _LLAMA3,
  'qwen2': Splitting(_words(r'\p{N}'), normalized=True),
}
# Role of a token -> its key.
_ROLES = {
  'bos_token': 'bos_token_id',
  'eos_token': 'eos_token_id',
  'unk_token': 'unknown_token_id',
  'pad_token': 'padding_token_id',
}
# Keys whose tokens end a completion.
_ENDS = ('eos_token_id', 'eot_token_id', 'eom_token_id')


def tokenizer_json(header: Header) -> dict[str, Any]:
  """tokenizer.json.

  Args:
    header: of the file.

  Raises:
    ValueError: the tokenizer or its splitting is unsupported, or a key is
      missing or of a wrong type; names the file and the key.
  """
  splitting = _splitting(header)
  tokens, types = _tokens(header)
  vocabulary = {
    text: number
    for number, text in enumerate(tokens)
    if types[number] != _UNUSED or text != f'[PAD{number}]'
  }
  if len(set(tokens)) < len(tokens):
    raise _error(header, 'tokens', 'has a token twice')
  return {
    'version': '1.0',
    'truncation': None,
    'padding': None,
    'added_tokens': [
      {
        'id': number,
        'content': tokens[number],
        'single_word': False,
        'lstrip': False,
        'rstrip': False,
        'normalized': False,
        'special': bool(types[number] == _CONTROL),
      }
      for number in map(
        int, np.flatnonzero(np.isin(types, (_CONTROL, _USER_DEFINED)))
      )
    ],
    'normalizer': {'type': 'NFC'} if splitting.normalized else None,
    'pre_tokenizer': {
      'type': 'Sequence',
      'pretokenizers': list(splitting.steps),
    },
    'post_processor': _framing(header, splitting, tokens),
    'decoder': _bytes(use_regex=True),
    'model': {
      'type': 'BPE',
      'dropout': None,
      'unk_token': None,
      'continuing_subword_prefix': None,
      'end_of_word_suffix': None,
      'fuse_unk': False,
      'byte_fallback': False,
      'ignore_merges': splitting.whole_words,
      'vocab': vocabulary,
      'merges': _merges(header),
    },
  }


def tokenizer_config_json(header: Header) -> dict[str, Any]:
  """tokenizer_config.json: special tokens by role, and the chat template.

  Raises:
    ValueError: as for `tokenizer_json`.
  """
  tokens, _ = _tokens(header)
  found: dict[str, Any] = {'tokenizer_class': 'PreTrainedTokenizerFast'}
  for role, name in _ROLES.items():
    number = token_id(header, name)
    if number is not None and role != 'unk_token':
      found[role] = tokens[number]
  template = header.metadata.get('tokenizer.chat_template')
  if isinstance(template, str):
    found['chat_template'] = template
  return found


def ids_json(header: Header) -> dict[str, Any]:
  """Ids of generation_config.json: begin, padding and end tokens.

  Raises:
    ValueError: as for `tokenizer_json`.
  """
  if _KEY + 'tokens' not in header.metadata:
    return {}
  ends = [token_id(header, name) for name in _ENDS]
  ends = list(dict.fromkeys(end for end in ends if end is not None))
  found = {
    'bos_token_id': token_id(header, 'bos_token_id'),
    'eos_token_id': ends[0] if len(ends) == 1 else ends,
    'pad_token_id': token_id(header, 'padding_token_id'),
  }
  return {key: value for key, value in found.items() if value not in (None, [])}


def token_id(header: Header, name: str) -> int | None:
  """An id of the metadata; None where there is none.

  Raises:
    ValueError: it is no id of a token.
  """
  got = header.metadata.get(_KEY + name)
  if got is None:
    return None
  count = len(_tokens(header)[0])
  if type(got) is not int or not 0 <= got < count:
    raise _error(
      header, name, f'got {str(got)[:60]}; a number from 0 to {count - 1}'
    )
  return got


def _error(header: Header, name: str, text: str) -> ValueError:
  return ValueError(
    f'{header.path}: {_KEY}{name}: {text}; take another release of the model.'
  )


def _splitting(header: Header) -> Splitting:
  """Refuses tokenizers of another kind, by name."""
  for name, known in (('model', ('gpt2',)), ('pre', SPLITTINGS)):
    got = str(header.metadata.get(_KEY + name, 'none'))[:80]
    if got not in known:
      raise ValueError(
        f'{header.path}: {_KEY}{name}: unsupported {got!r}'
        f'{suggest(got, known)} Name the folder of its tokenizer.json in'
        ' data.tokenizer.'
      )
  return SPLITTINGS[header.metadata[_KEY + 'pre']]


def _tokens(header: Header) -> tuple[list[str], np.ndarray]:
  """Texts and types of all tokens, by id."""
  tokens = header.metadata.get(_KEY + 'tokens')
  if not _are_texts(tokens) or not tokens:
    raise _error(header, 'tokens', 'must be a list of texts')
  types = header.metadata.get(_KEY + 'token_type')
  if types is None:
    types = np.ones(len(tokens), np.int32)
  if not isinstance(types, np.ndarray) or len(types) != len(tokens):
    raise _error(
      header, 'token_type', f'must be a list of {len(tokens)} numbers'
    )
  return tokens, types


def _are_texts(found: Any) -> TypeGuard[list[str]]:
  return isinstance(found, list) and all(isinstance(t, str) for t in found)


def _merges(header: Header) -> list[list[str]]:
  merges: Any = header.metadata.get(_KEY + 'merges')
  if isinstance(merges, np.ndarray) and not merges.size:
    merges = []
  if not _are_texts(merges):
    raise _error(header, 'merges', 'must be a list of texts')
  pairs = [merge.split(' ') for merge in merges]
  for pair in pairs:
    if len(pair) != 2:
      raise _error(
        header, 'merges', f'has {" ".join(pair)[:60]!r}; two texts and a space'
      )
  return pairs


def _framing(
  header: Header, splitting: Splitting, tokens: list[str]
) -> Mapping[str, Any] | None:
  """Tokens that are added around a plain text."""
  around: dict[str, str] = {}
  for name, default in (('bos', splitting.begins), ('eos', False)):
    adds = header.metadata.get(f'{_KEY}add_{name}_token', default)
    number = token_id(header, f'{name}_token_id')
    if adds and number is not None:
      around[name] = tokens[number]
  if not around:
    return None
  text: dict[str, Any] = {'Sequence': {'id': 'A', 'type_id': 0}}
  single = [text]
  if 'bos' in around:
    single.insert(0, {'SpecialToken': {'id': around['bos'], 'type_id': 0}})
  if 'eos' in around:
    single.append({'SpecialToken': {'id': around['eos'], 'type_id': 0}})
  return {
    'type': 'TemplateProcessing',
    'single': single,
    'pair': [*single, {'Sequence': {'id': 'B', 'type_id': 1}}],
    'special_tokens': {
      token: {'id': token, 'ids': [tokens.index(token)], 'tokens': [token]}
      for token in around.values()
    },
  }
