"""A tokenizer from the folder of a published model.

Its files: tokenizer.json, and where they are there tokenizer_config.json,
special_tokens_map.json, chat_template.jinja, generation_config.json and
config.json. Nothing in them is run but the chat template, in its sandbox.
"""

from collections.abc import Iterable, Mapping
import json
import os
import pathlib
import re
from typing import Any

import numpy as np
import tokenizers

from dppo_jax.data import added_tokens, chat_template

_FILE = 'tokenizer.json'
_WORDS = 'What the assistant says.'  # To find what stands behind them.


class HFTokenizer:
  """Reads and writes text with the vocabulary of a published model.

  Attributes:
    vocab_size: one more than the largest id; a model may have more.
    pad_id: of the pad token, or of the end where the model has no pad.
    eos_ids: of generation_config.json, or else of config.json, or else of
      tokenizer_config.json.
    special_ids: text of each special token -> its id; no text that is decoded
      holds one.
    notes: what other readers of these files do otherwise.
  """

  def __init__(
    self,
    folder: str | os.PathLike[str],
    *,
    prompt_template: str,
    use_chat_template: bool,
    system_prompt: str,
    chat_template_arguments: Mapping[str, Any] | None = None,
  ):
    """Reads the files.

    Args:
      folder: with tokenizer.json; `~` is the home folder.
      prompt_template: the words around a prompt, which stands for '{prompt}'.
      use_chat_template: prompts are the user's turn of a chat.
      system_prompt: the system's turn before it; '' for none.
      chat_template_arguments: what else the template is given.

    Raises:
      ValueError: a file is missing or damaged, no token ends a completion, or
        a chat template is asked for and there is none, or arguments are given
        that it does not read.
    """
    self._folder = pathlib.Path(folder).expanduser()
    self._tokenizer = _read_tokenizer(self._folder)
    ids = self._tokenizer.get_vocab(with_added_tokens=True)
    if not ids:
      raise ValueError(f'data.tokenizer: {self._folder / _FILE} has no tokens.')
    self.vocab_size = max(ids.values()) + 1
    settings = _read_json(self._folder, 'tokenizer_config.json')
    special = _special_tokens(self._folder, settings)
    added = _read_json(self._folder, 'added_tokens.json')
    try:
      added_tokens.check(settings, added, self._tokenizer)
    except ValueError as error:
      raise ValueError(f'data.tokenizer: {self._folder}: {error}') from error
    self.notes = tuple(added_tokens.notes(settings, special, self._tokenizer))
    self.eos_ids = self._find_eos(special, ids)
    self.pad_id = ids.get(special.get('pad_token', ''), self.eos_ids[0])
    self._render = None
    self.special_ids = _special_ids(self._tokenizer)
    self._special = _any_of(self.special_ids)
    self._prompt_template = prompt_template
    self._system_prompt = system_prompt
    if use_chat_template:
      source, origin = _chat_template(self._folder, settings)
      self._render = chat_template.compile_template(
        source, special, origin, chat_template_arguments
      )
    elif system_prompt:
      raise ValueError(
        'data.system_prompt: needs a chat; set data.chat_template=True, or put'
        ' the words into data.prompt_template.'
      )
    elif chat_template_arguments:
      raise ValueError(
        'data.chat_template_arguments: need a chat; set data.chat_template=True'
        f' to pass {", ".join(chat_template_arguments)} to its template.'
      )

  def _find_eos(
    self, special: Mapping[str, str], ids: Mapping[str, int]
  ) -> tuple[int, ...]:
    for name in ('generation_config.json', 'config.json'):
      found = _read_json(self._folder, name).get('eos_token_id')
      if found is None:
        continue
      listed = tuple(found) if isinstance(found, list) else (found,)
      for token in listed:
        if isinstance(token, bool) or not isinstance(token, int) or token < 0:
          raise ValueError(
            f'data.tokenizer: {self._folder / name} has eos_token_id={found!r};'
            ' ids are whole numbers from 0.'
          )
        if token >= self.vocab_size:
          raise ValueError(
            f'data.tokenizer: {self._folder / name} has eos_token_id={found!r}'
            f' and {_FILE} has ids up to {self.vocab_size - 1}; take both from'
            ' one model.'
          )
      if listed:
        return tuple(dict.fromkeys(listed))
    end = special.get('eos_token', '')
    if end not in ids:
      raise ValueError(
        f'data.tokenizer: nothing in {self._folder} says which token ends a'
        ' completion; add eos_token_id to its generation_config.json.'
      )
    return (ids[end],)

  def encode(self, text: str) -> list[int]:
    """Returns the ids of a text, nothing added."""
    return self._tokenizer.encode(text, add_special_tokens=False).ids

  def encode_prompt(self, text: str) -> list[int]:
    """Returns what the policy is shown of a prompt.

    With a chat template: the rendered chat, to which nothing is added.
    Without: the text, with the special tokens this model begins texts with.

    Raises:
      ValueError: the template fails.
    """
    rendered = self.render_prompt(text)
    return self._tokenizer.encode(
      rendered, add_special_tokens=self._render is None
    ).ids

  def render_prompt(self, text: str, *, opened: bool = True) -> str:
    """Returns the text that the policy is shown of a prompt.

    Args:
      text: of the prompt.
      opened: begins the assistant's turn; without a chat there is none.

    Raises:
      ValueError: the template fails.
    """
    # Not str.format: prompts and templates are full of LaTeX's braces.
    text = self._prompt_template.replace('{prompt}', text)
    if self._render is None:
      return text
    messages = [{'role': 'user', 'content': text}]
    if self._system_prompt:
      messages.insert(0, {'role': 'system', 'content': self._system_prompt})
    return self._render(messages, opened)

  def find_special(self, text: str) -> list[str]:
    """Returns the special tokens that a text spells, in its order.

    `encode_prompt` reads them as the tokens: a problem that spells the mark of
    a turn ends the user's.
    """
    return self._special.findall(text)

  def turn_end(self) -> tuple[str, int | None]:
    """Returns what the chat template writes behind an assistant's words.

    Returns:
      The text, '' where the template does not write those words; and the first
      special token in it, None where there is none.

    Raises:
      ValueError: the template fails, or no chat was asked for.
    """
    if self._render is None:
      raise ValueError('turn_end: open the tokenizer with a chat template.')
    messages = [
      {'role': 'user', 'content': 'Hello'},
      {'role': 'assistant', 'content': _WORDS},
    ]
    _, words, behind = self._render(messages, False).rpartition(_WORDS)
    if not words:
      return '', None
    found = self._special.search(behind)
    return behind, self.special_ids[found[0]] if found else None

  def spell(self, ids: Any) -> str:
    """Returns the text of i32 [R] ids, special tokens and ends included."""
    known = np.asarray(ids, np.int64).tolist()
    return self._tokenizer.decode(known, skip_special_tokens=False)

  def encode_answered(self, prompt: str, completion: str) -> list[int]:
    """Returns the ids of a chat of a user's turn and the assistant's.

    What is spelled like a special token in either becomes a space: a completion
    that writes the mark of a turn does not end its own.

    Raises:
      ValueError: the template fails, or none was asked for.
    """
    if self._render is None:
      raise ValueError(
        'encode_answered: open the tokenizer with use_chat_template=True.'
      )
    turns = (('user', prompt), ('assistant', completion))
    messages = [
      {'role': role, 'content': self._special.sub(' ', text)}
      for role, text in turns
    ]
    return self.encode(self._render(messages, False))

  def decode(self, ids: Any) -> str:
    """Returns the text of i32 [R] ids, without special tokens and ends.

    Ids the model has and the tokenizer has not have no text. Bytes that are
    not UTF-8 become U+FFFD.
    """
    return self._tokenizer.decode(self._kept(ids), skip_special_tokens=True)

  def decode_batch(self, ids: Any, mask: Any) -> list[str]:
    """Decodes rows of tokens.

    Args:
      ids: i32 [B, R]; masked positions may hold anything.
      mask: bool [B, R], True on the tokens to read.

    Returns:
      B texts, without special tokens and ends.
    """
    rows = zip(np.asarray(ids), np.asarray(mask), strict=True)
    kept = [self._kept(row[real]) for row, real in rows]
    return self._tokenizer.decode_batch(kept, skip_special_tokens=True)

  def _kept(self, ids: Iterable[Any]) -> list[int]:
    ids = np.asarray(ids, np.int64).tolist()
    return [i for i in ids if i not in self.eos_ids]


def check_vocabulary(
  tokenizer_size: int, model_size: int, where: str
) -> str | None:
  """What is wrong where a model has no row for some ids; None if nothing is.

  Args:
    tokenizer_size: one more than the largest id of the tokenizer.
    model_size: V of the model.
    where: the tokenizer's folder.
  """
  if tokenizer_size <= model_size:
    return None
  return (
    f'data.tokenizer: {where!r} has ids up to {tokenizer_size - 1}, and'
    f' model.vocab_size={model_size} has rows for 0 to {model_size - 1}; use'
    ' the tokenizer of the model, or raise model.vocab_size.'
  )


def _read_tokenizer(folder: pathlib.Path) -> tokenizers.Tokenizer:
  path = folder / _FILE
  if not path.is_file():
    raise ValueError(
      f'data.tokenizer: no file {str(path)!r}; name a folder with the'
      f' {_FILE} of a model, or set it to the empty text for the words of'
      ' data.task.'
    )
  try:
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
  except Exception as error:  # The library raises nothing more precise.
    raise ValueError(
      f'data.tokenizer: cannot read {str(path)!r} ({error}); fetch it again.'
    ) from error
  tokenizer.no_truncation()  # What is too long is counted, never cut.
  tokenizer.no_padding()
  return tokenizer


def _special_ids(tokenizer: tokenizers.Tokenizer) -> dict[str, int]:
  """Text -> id of the tokens that decoding leaves out."""
  added = tokenizer.get_added_tokens_decoder().items()
  return {t.content: i for i, t in added if t.special and t.content}


def _any_of(special: Iterable[str]) -> re.Pattern[str]:
  """Matches the text of any special token, the longest there is."""
  texts = sorted(special, key=len, reverse=True)
  return re.compile('|'.join(map(re.escape, texts)) or r'(?!)')


def _read_json(folder: pathlib.Path, name: str) -> dict[str, Any]:
  """A JSON object from a file that need not be there."""
  path = folder / name
  if not path.is_file():
    return {}
  try:
    found = json.loads(path.read_text(encoding='utf-8'))
  except (ValueError, OSError) as error:
    raise ValueError(
      f'data.tokenizer: cannot read {str(path)!r} ({error}); fetch it again.'
    ) from error
  if not isinstance(found, dict):
    raise ValueError(f'data.tokenizer: {str(path)!r} holds no JSON object.')
  return found


def _special_tokens(
  folder: pathlib.Path, settings: Mapping[str, Any]
) -> dict[str, str]:
  """'bos_token', 'eos_token', … -> their text; of either form of the files."""
  both = {**_read_json(folder, 'special_tokens_map.json'), **settings}
  found = {}
  for name, value in both.items():
    if isinstance(value, dict):
      value = value.get('content')
    if name.endswith('_token') and isinstance(value, str):
      found[name] = value
  return found


def _chat_template(
  folder: pathlib.Path, settings: Mapping[str, Any]
) -> tuple[str, str]:
  """The source of a model's chat template, and where it was found."""
  path = folder / 'chat_template.jinja'
  if path.is_file():
    try:
      return path.read_text(encoding='utf-8'), str(path)
    except (ValueError, OSError) as error:
      raise ValueError(
        f'data.chat_template: cannot read {str(path)!r} ({error}).'
      ) from error
  origin = str(folder / 'tokenizer_config.json')
  found = settings.get('chat_template')
  if isinstance(found, list):  # Several, by name.
    named = {t.get('name'): t.get('template') for t in found if t}
    found = named.get('default')
  if not isinstance(found, str):
    raise ValueError(
      f'data.chat_template: neither {str(path)!r} nor {origin!r} has one; set'
      ' data.chat_template=False and spell the prompt in data.prompt_template.'
    )
  return found, origin
