"""Tokenizer of a published model, from its folder or GGUF file.

It reads tokenizer.json and, if present, tokenizer_config.json,
special_tokens_map.json, chat_template.jinja, generation_config.json and
config.json. The chat template is the only code in them; it runs in a sandbox.
"""

from collections.abc import Iterable, Mapping
import json
import os
import pathlib
import re
from typing import Any

import numpy as np
import tokenizers

from dppo_jax import bounded_json
from dppo_jax.data import added_tokens, chat_template, downloads
from dppo_jax.gguf_files import as_folder

_FILE = 'tokenizer.json'
_WORDS = 'What the assistant says.'  # A marker, to find the text after it.
_CHARACTERS = 64  # Of a text, for each of the tokens that it may have.


class HFTokenizer:
  """Encodes and decodes text with the vocabulary of a published model.

  Attributes:
    vocab_size: largest id + 1; a model may have more rows.
    pad_id: of the pad token, or of the end token if there is no pad token.
    eos_ids: from generation_config.json, else config.json, else
      tokenizer_config.json.
    special_ids: text of each special token -> its id; decoded text contains
      none of them.
    notes: sentences on how other libraries would read these files differently.
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
      folder: with tokenizer.json, or a GGUF file; `~` is the home folder.
      prompt_template: text in which '{prompt}' is replaced by the prompt.
      use_chat_template: whether prompts are the user's turn of a chat.
      system_prompt: system turn before it; '' for none.
      chat_template_arguments: further template arguments.

    Raises:
      ValueError: a file is missing or damaged, there is no end token, the chat
        template is missing, or it does not read one of the arguments.
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
        'data.system_prompt: needs a chat template; set'
        ' data.chat_template=True, or put the text into data.prompt_template.'
      )
    elif chat_template_arguments:
      raise ValueError(
        'data.chat_template_arguments: need a chat template; set'
        ' data.chat_template=True to pass'
        f' {", ".join(chat_template_arguments)} to it.'
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
        f'data.tokenizer: no file in {self._folder} defines the end token; add'
        ' eos_token_id to its generation_config.json.'
      )
    return (ids[end],)

  def encode(self, text: str) -> list[int]:
    """Ids of a text, without added special tokens."""
    return self._tokenizer.encode(text, add_special_tokens=False).ids

  def encode_prompt(self, text: str) -> list[int]:
    """Ids of a prompt, as the policy sees it.

    With a chat template: the rendered chat, without added special tokens.
    Without: the text, with the special tokens that the tokenizer adds.

    Raises:
      ValueError: the template fails.
    """
    rendered = self.render_prompt(text)
    return self._tokenizer.encode(
      rendered, add_special_tokens=self._render is None
    ).ids

  def render_prompt(self, text: str, *, opened: bool = True) -> str:
    """Text of a prompt, as the policy sees it.

    Args:
      text: of the prompt.
      opened: whether to open the assistant's turn, with a chat template.

    Raises:
      ValueError: the template fails.
    """
    # Not str.format: prompts and templates contain LaTeX braces.
    text = self._prompt_template.replace('{prompt}', text)
    if self._render is None:
      return text
    messages = [{'role': 'user', 'content': text}]
    if self._system_prompt:
      messages.insert(0, {'role': 'system', 'content': self._system_prompt})
    return self._render(messages, opened)

  def find_special(self, text: str) -> list[str]:
    """Special-token strings in a text, in order.

    `encode_prompt` encodes them as special tokens: a problem that contains an
    end-of-turn string ends the user's turn.
    """
    return self._special.findall(text)

  def turn_end(self) -> tuple[str, int | None]:
    """Text that the chat template writes after an assistant's message.

    Returns:
      The text, '' if the template does not render the message; and the id of
      the first special token in it, None if there is none.

    Raises:
      ValueError: the template fails, or there is no chat template.
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

  def encode_reply(self, text: str, max_length: int) -> tuple[list[int], bool]:
    """Ids between two turns of the assistant, and whether the text was cut.

    With a chat template the text is a user's turn, and the assistant's is
    opened again; without, it has a line of its own. A special token's string in
    the text is text like any other.

    Args:
      text: of the reply.
      max_length: of its ids, those of the template aside.

    Raises:
      ValueError: the template fails.
    """
    before, after = '\n', '\n'
    if self._render is not None:
      before, after = chat_template.around_reply(self._render, self._special)
    shown = text[: _CHARACTERS * max_length]
    try:
      self._tokenizer.encode_special_tokens = True
      ids = self.encode(shown)
    finally:
      self._tokenizer.encode_special_tokens = False
    if not set(self.special_ids.values()).isdisjoint(ids):
      ids = self.encode(self._special.sub(' ', shown))
    cut = len(ids) > max_length or len(shown) < len(text)
    return self.encode(before) + ids[:max_length] + self.encode(after), cut

  def decode_raw(self, ids: Any) -> str:
    """Text of i32 [R] ids, special tokens and end tokens included."""
    known = np.asarray(ids, np.int64).tolist()
    return self._tokenizer.decode(known, skip_special_tokens=False)

  def encode_answered(self, prompt: str, completion: str) -> list[int]:
    """Ids of a chat with a user's and an assistant's turn.

    Special-token strings in either text are replaced by spaces, so that a
    completion cannot end its own turn.

    Raises:
      ValueError: the template fails, or there is no chat template.
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
    """Text of i32 [R] ids, without special tokens and end tokens.

    Ids unknown to the tokenizer have no text. Invalid UTF-8 becomes U+FFFD.
    """
    return self._tokenizer.decode(self._kept(ids), skip_special_tokens=True)

  def decode_batch(self, ids: Any, mask: Any) -> list[str]:
    """Texts of a batch of token sequences.

    Args:
      ids: i32 [B, R]; masked positions may hold anything.
      mask: bool [B, R], True on the tokens to decode.

    Returns:
      B texts, without special tokens and end tokens.
    """
    rows = zip(np.asarray(ids), np.asarray(mask), strict=True)
    kept = [self._kept(row[real]) for row, real in rows]
    return self._tokenizer.decode_batch(kept, skip_special_tokens=True)

  def _kept(self, ids: Iterable[Any]) -> list[int]:
    ids = np.asarray(ids, np.int64).tolist()
    return [i for i in ids if i not in self.eos_ids]


def _read_tokenizer(folder: pathlib.Path) -> tokenizers.Tokenizer:
  path = folder / _FILE
  if not as_folder.is_file(path):
    lacking = folder if as_folder.is_inside(path) else path
    raise ValueError(
      f'data.tokenizer: no file {str(lacking)!r}; {downloads.advice(folder)}'
      ' The empty text is the word tokenizer of data.task.'
    )
  made = None
  if as_folder.is_inside(path):
    made = json.dumps(_gguf_table(path))
  try:
    if made is None:
      tokenizer = tokenizers.Tokenizer.from_file(str(path))
    else:
      tokenizer = tokenizers.Tokenizer.from_str(made)
  except (KeyboardInterrupt, SystemExit):
    raise
  except BaseException as error:  # Of this library: also what a panic becomes.
    raise ValueError(
      f'data.tokenizer: cannot read {str(path)!r} ({error}); fetch it again.'
    ) from error
  tokenizer.no_truncation()  # Overlong prompts are counted, never truncated.
  tokenizer.no_padding()
  return tokenizer


def _gguf_table(path: pathlib.Path) -> dict[str, Any]:
  """The table of a GGUF file that a path names."""
  try:
    return as_folder.read_table(path)
  except ValueError as error:
    raise ValueError(f'data.tokenizer: {error}') from error


def _special_ids(tokenizer: tokenizers.Tokenizer) -> dict[str, int]:
  """Text -> id of the special tokens, which decoding skips."""
  added = tokenizer.get_added_tokens_decoder().items()
  return {t.content: i for i, t in added if t.special and t.content}


def _any_of(special: Iterable[str]) -> re.Pattern[str]:
  """Pattern that matches any special token, the longest first."""
  texts = sorted(special, key=len, reverse=True)
  return re.compile('|'.join(map(re.escape, texts)) or r'(?!)')


def _read_json(folder: pathlib.Path, name: str) -> dict[str, Any]:
  """JSON object of a file; empty if there is no such file."""
  path = folder / name
  if not as_folder.is_file(path):
    return {}
  if as_folder.is_inside(path):
    return _gguf_table(path)
  try:
    return bounded_json.read_object(path)
  except (ValueError, OSError) as error:
    raise ValueError(
      f'data.tokenizer: cannot read {str(path)!r} ({error}); fetch it again.'
    ) from error


def _special_tokens(
  folder: pathlib.Path, settings: Mapping[str, Any]
) -> dict[str, str]:
  """'bos_token', 'eos_token', … -> text, from both files."""
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
  """Source of a model's chat template, and its file."""
  path = folder / 'chat_template.jinja'
  if path.is_file():
    try:
      # A character has up to four bytes; `compile_template` counts them.
      limit = 4 * chat_template.MAX_TEMPLATE_LENGTH
      return bounded_json.read_bytes(path, limit).decode('utf-8'), str(path)
    except (ValueError, OSError) as error:
      raise ValueError(
        f'data.chat_template: cannot read {str(path)!r} ({error}).'
      ) from error
  origin = str(folder / 'tokenizer_config.json')
  found = settings.get('chat_template')
  if isinstance(found, list):  # Several, by name.
    named = [t for t in found if isinstance(t, dict)]
    named = [t.get('template') for t in named if t.get('name') == 'default']
    found = named[-1] if named else None
  if not isinstance(found, str):
    raise ValueError(
      f'data.chat_template: neither {str(path)!r} nor {origin!r} has one; set'
      ' data.chat_template=False and write the prompt in data.prompt_template.'
    )
  return found, origin
