"""Which tokenizer a config asks for, and how many rows its model has."""

from collections.abc import Mapping
import functools
from typing import Any

from dppo_jax.base import Tokenizer
from dppo_jax.data import hf_tokenizer, tasks
from dppo_jax.data.tokenizer import WordTokenizer


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
    num_ids,
  )


@functools.lru_cache(maxsize=4)
def _open(
  task: str,
  folder: str,
  prompt_template: str,
  chat: bool,
  system_prompt: str,
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
  )


def vocabulary_size(config: Mapping[str, Any]) -> int:
  """V of the model: model.vocab_size, or the tokenizer's where that is 0.

  Raises:
    ValueError: the tokenizer cannot be read, or has ids that V has not.
  """
  data = config['data']
  size = open_tokenizer(data).vocab_size
  rows = config['model']['vocab_size'] or size
  where = data['tokenizer'] or f'the words of task {data["task"]}'
  problem = hf_tokenizer.check_vocabulary(size, rows, where)
  if problem:
    raise ValueError(problem)
  return rows
