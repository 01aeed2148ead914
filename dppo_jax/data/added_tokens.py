"""Consistency of tokenizer.json with the files beside it.

Only tokenizer.json is used here. Other libraries also apply the settings beside
it; where those differ, a model gets other ids than it was trained on.
"""

from collections.abc import Iterator, Mapping
import re
from typing import Any

import tokenizers

_SHOWN = 5


def check(
  settings: Mapping[str, Any],
  added: Mapping[str, Any],
  tokenizer: tokenizers.Tokenizer,
) -> None:
  """Compares the added tokens of the settings with those of tokenizer.json.

  Args:
    settings: from tokenizer_config.json.
    added: from added_tokens.json, text -> id; empty if there is none.
    tokenizer: from tokenizer.json.

  Raises:
    ValueError: an id has another text, or none, in tokenizer.json.
  """
  listed = [
    *(
      (name, entry.get('content') if isinstance(entry, dict) else entry)
      for name, entry in _table(settings.get('added_tokens_decoder')).items()
    ),
    *((number, text) for text, number in added.items()),
  ]
  for name, text in listed:
    number = int(name) if re.fullmatch('[0-9]{1,10}', str(name)) else -1
    # The library's ids have 32 bits.
    found = tokenizer.id_to_token(number) if 0 <= number < 2**32 else None
    if found != text:
      raise ValueError(
        f'token {name} is {text!r} in tokenizer_config.json or'
        f' added_tokens.json, and {found!r} in tokenizer.json; take all of them'
        ' from one release.'
      )


def notes(
  settings: Mapping[str, Any],
  special: Mapping[str, str],
  tokenizer: tokenizers.Tokenizer,
) -> Iterator[str]:
  """Sentences on how other libraries would read these settings differently.

  Args:
    settings: from tokenizer_config.json.
    special: 'bos_token', … -> its text.
    tokenizer: from tokenizer.json.
  """
  ids = tokenizer.encode('1', add_special_tokens=True).ids
  for key, at, where in (
    ('add_bos_token', slice(1), 'begin'),
    ('add_eos_token', slice(-1, None), 'end'),
  ):
    text = special.get(key.removeprefix('add_'))
    does = text is not None and ids[at] == [tokenizer.token_to_id(text)]
    said = settings.get(key)
    if isinstance(said, bool) and said != does:
      yield (
        f'tokenizer_config.json has {key}={said}, but by tokenizer.json, which'
        f' is used, plain texts {"do" if does else "do not"} {where} with it'
      )
  known = {
    token.content
    for token in tokenizer.get_added_tokens_decoder().values()
    if token.special
  }
  entries = _values(settings.get('added_tokens_decoder'))
  named = [
    *_values(settings.get('additional_special_tokens')),
    *_values(settings.get('extra_special_tokens')),
    *(e for e in entries if isinstance(e, dict) and e.get('special')),
  ]
  texts = {
    entry.get('content') if isinstance(entry, dict) else entry
    for entry in named
    if isinstance(entry, (str, dict))
  }
  others = sorted(text for text in texts - known if isinstance(text, str))
  if others:
    yield (
      f'tokenizer_config.json calls {", ".join(map(repr, others[:_SHOWN]))}'
      ' special, and tokenizer.json does not: they stay in the text that is'
      ' verified'
    )


def _values(found: Any) -> list[Any]:
  """Values of a list or of an object; empty for anything else."""
  if isinstance(found, dict):
    return list(found.values())
  return found if isinstance(found, list) else []


def _table(found: Any) -> Mapping[str, Any]:
  return found if isinstance(found, dict) else {}
