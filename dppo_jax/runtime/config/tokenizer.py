"""Which tokenizer a config asks for, and how many rows its model has."""

from collections.abc import Mapping, Sequence
import functools
from typing import Any

from dppo_jax.base import Tokenizer
from dppo_jax.data import hf_tokenizer, tasks
from dppo_jax.data.word_tokenizer import WordTokenizer


def open_tokenizer(data: Mapping[str, Any], num_ids: int = 0) -> Tokenizer:
  """The tokenizer of section `data`; read once, however often asked for.

  Args:
    data: the section.
    num_ids: rows of the model's head. It may be wider than the words of a task;
      filler words then stand for the rest, so that any id drawn has a text.

  Raises:
    ValueError: its files are missing or damaged.
  """
  return _open(
    data['task'],
    data['tokenizer'],
    data['prompt_template'],
    data['chat_template'],
    data['system_prompt'],
    template_arguments(data),
    num_ids,
  )


@functools.lru_cache(maxsize=4)
def _open(
  task: str,
  folder: str,
  prompt_template: str,
  chat: bool,
  system_prompt: str,
  arguments: tuple[tuple[str, Any], ...],
  num_ids: int,
) -> Tokenizer:
  if not folder:
    words = tasks.find_task(task).vocabulary
    return WordTokenizer(tasks.fill_up(words, num_ids), prompt_template)
  return hf_tokenizer.HFTokenizer(
    folder,
    prompt_template=prompt_template,
    use_chat_template=chat,
    system_prompt=system_prompt,
    chat_template_arguments=dict(arguments),
  )


def template_arguments(data: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
  """data.chat_template_arguments as (name, value) pairs that can be hashed.

  Raises:
    ValueError: they are no pairs of a name and a text, number or boolean.
  """
  given = data['chat_template_arguments']
  if hasattr(given, 'items'):
    given = tuple(given.items())
  pairs = []
  for pair in given:
    named = isinstance(pair, (list, tuple)) and len(pair) == 2
    if not named or not isinstance(pair[0], str) or not pair[0].isidentifier():
      raise ValueError(
        f'data.chat_template_arguments: got {pair!r}; pairs of a name and its'
        " value, as (('enable_thinking', False),)."
      )
    if not isinstance(pair[1], (str, int, float, bool, type(None))):
      raise ValueError(
        f'data.chat_template_arguments: {pair[0]!r} is a'
        f' {type(pair[1]).__name__}; a text, a number, a boolean or None.'
      )
    pairs.append((pair[0], pair[1]))
  return tuple(pairs)


def split_stops(
  tokenizer: Tokenizer, stop_strings: Sequence[str]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
  """Stop strings to look for in the text, and the ids of those that are tokens.

  Special tokens are left out of the text that a completion is read as, so that
  none of them is ever found there; the token itself ends the completion.

  Args:
    tokenizer: of the policy.
    stop_strings: of the config.

  Raises:
    ValueError: a stop string holds a special token and other text, and could
      never be found.
  """
  special = dict(getattr(tokenizer, 'special_ids', {}))
  texts, ids = [], []
  for stop in stop_strings:
    if stop in special:
      ids.append(special[stop])
      continue
    inside = [text for text in special if text in stop]
    if inside:
      raise ValueError(
        f'sampling.stop_strings: {stop!r} holds the special token'
        f' {inside[0]!r}, which is no part of the text that is searched; name'
        f' {inside[0]!r} alone, or the text without it.'
      )
    texts.append(stop)
  return tuple(texts), tuple(ids)


def vocabulary_size(config: Mapping[str, Any]) -> int:
  """V of the model: model.vocab_size, or the tokenizer's where that is 0.

  Raises:
    ValueError: the tokenizer cannot be read, or has ids that V has not.
  """
  data = config['data']
  size = open_tokenizer(data).vocab_size
  rows = config['model']['vocab_size'] or size
  where = data['tokenizer'] or f'the words of task {data["task"]}'
  problem = check_vocabulary(size, rows, where)
  if problem:
    raise ValueError(problem)
  return rows


def check_vocabulary(
  tokenizer_size: int, model_size: int, where: str
) -> str | None:
  """Problem if a model's vocabulary is too small for a tokenizer; else None.

  Args:
    tokenizer_size: the tokenizer's largest id + 1.
    model_size: V of the model.
    where: the tokenizer's folder.
  """
  if tokenizer_size <= model_size:
    return None
  return (
    f'data.tokenizer: {where!r} has ids up to {tokenizer_size - 1}, and'
    f' model.vocab_size={model_size} has rows 0 to {model_size - 1}; use'
    ' the tokenizer of the model, or raise model.vocab_size.'
  )
