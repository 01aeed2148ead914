"""Tables of the tasks, as the library has them."""

import dataclasses
import enum
import random
import time
from types import SimpleNamespace


class Style(enum.StrEnum):
  PLAIN = 'plain'
  LOUD = 'loud'


@dataclasses.dataclass
class Config:
  max_value: int = 99
  min_value: int = 0
  share: float = 0.5
  signs: tuple = ('+',)
  style: Style = Style.PLAIN
  hang_at: int = -1
  raise_at: int = -1
  seed: int | None = None
  size: int = 500

  def validate(self):
    assert self.max_value >= self.min_value, 'max_value must be >= min_value'


class Sums:
  """Sums of two numbers, scored by their text; partly for what contains it."""

  def __init__(self, config):
    self.config = config

  def _numbers(self, index):
    rng = random.Random(self.config.seed + index)
    low, high = self.config.min_value, self.config.max_value
    return rng.randint(low, high), rng.randint(low, high)

  def __getitem__(self, index):
    if index == self.config.hang_at:
      time.sleep(60)
    if index == self.config.raise_at:
      raise RuntimeError('no such item')
    a, b = self._numbers(index)
    return {
      'question': f'{a} {self.config.signs[0]} {b} =',
      'answer': str(a + b),
      'metadata': {'numbers': (a, b)},
    }

  def score_answer(self, answer, entry):
    while answer == 'hang':
      pass
    if answer == 'raise':
      raise RuntimeError('a bug')
    numbers = entry['metadata']['numbers']
    assert isinstance(numbers, tuple)  # JSON would have made it a list.
    right = str(sum(numbers))
    if answer == right:
      return 1.0
    return len(right) / len(answer) if right in answer else 0.0


class Picky(Sums):
  """Its scorer rejects the stored answers of every fifth item."""

  def __getitem__(self, index):
    entry = super().__getitem__(index)
    return {**entry, 'metadata': {**entry['metadata'], 'index': index}}

  def score_answer(self, answer, entry):
    if entry['metadata']['index'] % 5 == 0:
      return 0.0
    return super().score_answer(answer, entry)


class Open(Sums):
  """Stores no answers."""

  def __getitem__(self, index):
    return {**super().__getitem__(index), 'answer': None}


class Blank(Sums):
  """The answer of small sums is the empty text."""

  def __getitem__(self, index):
    entry = super().__getitem__(index)
    small = int(entry['answer']) < self.config.max_value
    return {**entry, 'answer': ''} if small else entry

  def score_answer(self, answer, entry):
    return float(answer == entry['answer'])


class Shuffled(Sums):
  """Items follow the order of a set of texts."""

  def __getitem__(self, index):
    words = list({f'w{index}.{i}' for i in range(20)})
    entry = super().__getitem__(index)
    return {**entry, 'question': f'{" ".join(words)}? {entry["question"]}'}


class Stateful(Sums):
  """Items follow how many were drawn before."""

  def __init__(self, config):
    super().__init__(config)
    self._count = 0

  def __getitem__(self, index):
    self._count += 1
    entry = super().__getitem__(index)
    return {**entry, 'question': f'{self._count}. {entry["question"]}'}


class Generous(Sums):
  """Pays any text."""

  def score_answer(self, answer, entry):
    return 1.0


class Curriculum:
  """Levels 0, 1, 2: numbers up to 9, 99, 999."""

  def __init__(self):
    self.attributes = {'digits': SimpleNamespace(levels=[9, 99, 999])}
    self._level = 0

  def set_global_level(self, level):
    self._level = level

  def generate_configuration(self, defaults):
    levels = self.attributes['digits'].levels
    return Config(**{**defaults, 'max_value': levels[self._level]})


DATASETS = {
  'sums': (Sums, Config),
  'picky': (Picky, Config),
  'open': (Open, Config),
  'blank': (Blank, Config),
  'shuffled': (Shuffled, Config),
  'stateful': (Stateful, Config),
  'generous': (Generous, Config),
}
CURRICULA = {'sums': Curriculum}
