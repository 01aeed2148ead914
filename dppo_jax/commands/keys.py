"""Keys of a config on a command line: which one was meant, and its value."""

import ast
from collections.abc import Mapping
import difflib
import re
from typing import Any

from dppo_jax.configs import default

# What other training programs call a key.
ALIASES: Mapping[str, str] = {
  'batch_size': 'data.num_prompts',
  'beta': 'objective.kl_coefficient',
  'clip': 'trust_region.clip',
  'clip_eps': 'trust_region.clip',
  'clip_range': 'trust_region.clip',
  'clip_ratio': 'trust_region.clip',
  'data_path': 'data.files',
  'dataset': 'data.source',
  'dataset_name': 'data.source',
  'eval_every': 'evaluation.every_n_steps',
  'eval_steps': 'evaluation.every_n_steps',
  'iterations': 'num_steps',
  'kl': 'objective.kl_coefficient',
  'kl_coef': 'objective.kl_coefficient',
  'lr': 'optimizer.learning_rate',
  'max_new_tokens': 'sampling.max_completion_length',
  'max_prompt_len': 'data.max_prompt_length',
  'max_steps': 'num_steps',
  'max_tokens': 'sampling.max_completion_length',
  'model_name': 'model.pretrained',
  'model_name_or_path': 'model.pretrained',
  'model_path': 'model.pretrained',
  'num_generations': 'data.group_size',
  'num_samples_per_prompt': 'data.group_size',
  'num_train_steps': 'num_steps',
  'prompts_per_step': 'data.num_prompts',
  'rollouts_per_prompt': 'data.group_size',
  'samples_per_prompt': 'data.group_size',
  'save_every': 'checkpoints.every_n_steps',
  'save_steps': 'checkpoints.every_n_steps',
  'steps': 'num_steps',
  'total_steps': 'num_steps',
  'tp': 'mesh.tensor',
  'train_batch_size': 'data.num_prompts',
  'train_file': 'data.files',
  'train_steps': 'num_steps',
  'warmup_steps': 'optimizer.num_warmup_steps',
}
_BOUNDS = ('_low', '_high')  # A rule has one for A < 0 and one for A > 0.
_INDEX = re.compile(r'\[-?\d+\]')


def known() -> dict[str, Any]:
  """Default of every key, by path: 'trust_region.delta_low'."""
  return flat(default.get_config().to_dict())


def flat(tree: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Values of a plain config by path."""
  found = {}
  for name, value in tree.items():
    if isinstance(value, Mapping):
      found |= flat(value, f'{prefix}{name}.')
    else:
      found[f'{prefix}{name}'] = value
  return found


def is_key(path: str, keys: Mapping[str, Any]) -> bool:
  """Whether a path names a key, or an entry of one that is a list."""
  return _INDEX.sub('', path) in keys


def meant(
  path: str,
  keys: Mapping[str, Any],
  value: str = '',
  *,
  misspelled: bool = True,
) -> str:
  """Overrides that a path which is no key may stand for; '' of none.

  Args:
    path: without '--config.'.
    keys: of `known`.
    value: to repeat in them; '' for none.
    misspelled: whether it may be written otherwise; else only its section, its
      end or its name in other programs.

  Returns:
    Such as '--config.trust_region.delta_low=.1 --config.…delta_high=.1'.
  """
  given = f'={value}' if value else ''
  plain = _plain(path)
  # Twins are set together; keys of one name in several sections are not.
  for found, between in (
    (_exact(plain, keys), ' '),
    (_exact(ALIASES.get(plain.rpartition('.')[2], ''), keys), ' '),
    (_anywhere(plain.rpartition('.')[2], keys), ' or '),
    (_near(plain, keys) if misspelled else [], ' or '),
  ):
    if found:
      return between.join(f'--config.{key}{given}' for key in found)
  return ''


def _plain(path: str) -> str:
  return path.replace('-', '_').casefold()


def _exact(path: str, keys: Mapping[str, Any]) -> list[str]:
  """The key of a path, or its two bounds."""
  if path in keys:
    return [path]
  return [f'{path}{end}' for end in _BOUNDS if f'{path}{end}' in keys]


def _anywhere(name: str, keys: Mapping[str, Any]) -> list[str]:
  """Keys of that name in any section, or their bounds."""
  found = [key for key in keys if key.rpartition('.')[2] == name]
  twins = [
    key for key in keys for end in _BOUNDS if key.endswith(f'.{name}{end}')
  ]
  return found or twins


def _near(path: str, keys: Mapping[str, Any]) -> list[str]:
  close = difflib.get_close_matches(path, keys, n=1, cutoff=0.75)
  if close:
    return close
  section, _, name = path.rpartition('.')
  inside = [key for key in keys if key.startswith(f'{section}.')]
  names = {key.rpartition('.')[2]: key for key in (inside or keys)}
  return [names[each] for each in difflib.get_close_matches(name, names, n=1)]


def problem(path: str, value: str, keys: Mapping[str, Any], file: str) -> str:
  """Says that an override names no key, and which one was meant; '' of a key.

  Args:
    path: without '--config.'.
    value: given to it.
    keys: of `known`.
    file: that lists them.
  """
  if is_key(path, keys):
    return ''
  inside = [key for key in keys if key.startswith(f'{path}.')]
  if inside:
    return (
      f'--config.{path}: a section; set its keys one by one, such as'
      f' --config.{inside[0]}=….'
    )
  likely = meant(path, keys, value)
  if likely:
    hint = f'did you mean {likely}? '
  else:
    section = path.rpartition('.')[0] + '.'
    rests = [k.removeprefix(section) for k in keys if k.startswith(section)]
    names = dict.fromkeys(rest.partition('.')[0] for rest in rests)
    hint = f'{section[:-1]} has {", ".join(names)}; ' if names else ''
  return f'--config.{path}: no such key; {hint}{file} lists them all.'


def readable(path: str, value: str, keys: Mapping[str, Any]) -> str:
  """A value in the form in which its key reads it.

  A list of words, `query,value`, needs no quotes and brackets, and a whole
  number may be written 1e3.

  Args:
    path: of the key.
    value: as written.
    keys: of `known`.
  """
  before = keys.get(path)
  if isinstance(before, int) and not isinstance(before, bool):
    if re.fullmatch(r'[0-9]+(\.[0-9]+)?[eE]\+?[0-9]{1,2}', value):
      number = float(value)
      return str(int(number)) if number.is_integer() else value
  if isinstance(before, tuple | list):
    try:
      ast.literal_eval(value)
    except (ValueError, SyntaxError):
      words = [word.strip() for word in value.strip('()[]').split(',')]
      if all(words):
        return repr(tuple(words))
  return value


def refused(path: str, value: str, keys: Mapping[str, Any]) -> str:
  """Says what a key takes, of a value that it did not."""
  before = keys.get(path)
  if isinstance(before, bool):
    wanted = 'True or False'
  elif isinstance(before, int):
    wanted = f'a whole number, such as {before}'
  elif isinstance(before, float):
    wanted = f'a number, such as {before}'
  elif isinstance(before, tuple | list):
    wanted = f'a list, such as {before or ("a", "b")}'
  else:
    wanted = f'a {type(before).__name__}'
  return f'--config.{path}: got {value!r}; {wanted}.'
