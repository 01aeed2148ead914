"""Small verifiable tasks: generators of examples and of demonstrations.

A task is an entry of `TASKS` made of pure functions. Text is words separated by
single spaces and every word is one token, so that lengths in words are lengths
in tokens. The end token belongs to the tokenizer and never occurs in text.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import string
from typing import NamedTuple

import numpy as np

from dppo_jax.suggestions import suggest

PAD, EOS, SEPARATOR = '<pad>', '<eos>', '='
DIRECT, THINK = 'direct', 'think'
DIGITS = tuple(str(digit) for digit in range(10))
NUM_ALIASES = 400  # Aliases of each digit in alias_sort.
NUM_SLOTS, NUM_RECITED = 16, 192  # Bits per prompt of recital, and words.
THINK_PROBABILITY = 0.01  # Fraction of demonstrations that choose to think.
SPLIT_SIZES = {'train': 16384, 'validation': 1024, 'test': 1024}


class Demonstration(NamedTuple):
  """Demonstrated completion, for SFT.

  Attributes:
    text: the completion, without the end token.
    num_context: leading words without loss: the policy is trained on the words
      after them. Nonzero for `running_sum` only.
  """

  text: str
  num_context: int = 0


GenerateFn = Callable[[np.random.Generator], dict[str, str]]
DemonstrateFn = Callable[
  [np.random.Generator, Mapping[str, str], float], Demonstration
]


@dataclasses.dataclass(frozen=True)
class Task:
  """One task.

  Attributes:
    vocabulary: words, indexed by token id.
    generate: draws an example, {'prompt': text, 'answer': text}.
    demonstrate: (generator, example, noise) -> a completion in which every
      digit is replaced by a random digit with probability `noise`.
    max_prompt_length: longest prompt, tokens.
    max_completion_length: longest right completion, tokens, with end token.
    verifier: key of `VERIFIERS` for this task.
  """

  vocabulary: tuple[str, ...]
  generate: GenerateFn
  demonstrate: DemonstrateFn
  max_prompt_length: int
  max_completion_length: int
  verifier: str

  @property
  def digits(self) -> np.ndarray:
    """Digit of each token, i32 [V]; -1 if the token is no digit."""
    digits = [
      int(word[0]) if word[0] in string.digits else -1
      for word in self.vocabulary
    ]
    return np.asarray(digits, np.int32)


def _vocabulary(words: tuple[str, ...], size: int) -> tuple[str, ...]:
  """Special words, the separator and `words`, padded to `size` words."""
  # A round size can be sharded over a mesh axis of 2 or 4.
  return fill_up((PAD, EOS, SEPARATOR, *words), size)


def fill_up(words: tuple[str, ...], size: int) -> tuple[str, ...]:
  """Vocabulary of at least `size` words; fillers never occur in text.

  Args:
    words: the task's.
    size: V of the model, whose ids must all be words.

  Returns:
    The words, followed by fillers.

  >>> fill_up(('a', 'b'), 4)
  ('a', 'b', '<unused2>', '<unused3>')
  """
  return words + tuple(f'<unused{i}>' for i in range(len(words), size))


def _example(prompt: list[str], answer: list[str]) -> dict[str, str]:
  return {'prompt': ' '.join(prompt), 'answer': ' '.join(answer)}


def _redraw(
  generator: np.random.Generator, digits: list[str], noise: float
) -> list[str]:
  """Digits, each resampled uniformly with probability `noise`."""
  changed = generator.random(len(digits)) < noise
  if not changed.any():
    return digits
  other = generator.integers(0, 10, len(digits))
  return [
    DIGITS[new] if change else old
    for old, new, change in zip(
      digits, other.tolist(), changed.tolist(), strict=True
    )
  ]


def _generate_sort(generator: np.random.Generator) -> dict[str, str]:
  digits = [DIGITS[d] for d in generator.integers(0, 10, 8).tolist()]
  return _example([*digits, SEPARATOR], sorted(digits))


def _demonstrate_answer(
  generator: np.random.Generator, example: Mapping[str, str], noise: float
) -> Demonstration:
  words = _redraw(generator, example['answer'].split(), noise)
  return Demonstration(' '.join(words))


def _generate_addition(generator: np.random.Generator) -> dict[str, str]:
  left, right = generator.integers(0, 1000, 2).tolist()
  prompt = [*f'{left:03d}', '+', *f'{right:03d}', SEPARATOR]
  return _example(prompt, [*f'{left + right:04d}'])


def _generate_running_sum(generator: np.random.Generator) -> dict[str, str]:
  digits = generator.integers(0, 10, 5).tolist()
  prompt = [*(DIGITS[d] for d in digits), SEPARATOR]
  return _example(prompt, [DIGITS[sum(digits) % 10]])


def _demonstrate_running_sum(
  generator: np.random.Generator,
  example: Mapping[str, str],
  noise: float,
  think_probability: float,
) -> Demonstration:
  """Demonstration that answers directly, or thinks: running sums, then done.

  Both branches are demonstrated equally often, or the rare one would not be
  learned. The branch word of a thinking demonstration is trained on only so
  often that p(think) = `think_probability` among the branch words trained on,
  and so in a policy that fits them.
  """
  if generator.random() < 0.5:
    words = _redraw(generator, [example['answer']], noise)
    return Demonstration(' '.join([DIRECT, *words]))
  digits = [int(word) for word in example['prompt'].split()[:-1]]
  sums = [DIGITS[s % 10] for s in np.cumsum(digits).tolist()]
  words = _redraw(generator, sums, noise)
  odds = think_probability / (1.0 - think_probability)
  trained_on = generator.random() < odds
  return Demonstration(' '.join([THINK, *words]), 0 if trained_on else 1)


def _generate_recital(generator: np.random.Generator) -> dict[str, str]:
  bits = generator.integers(0, 2, NUM_SLOTS).tolist()
  prompt = [f'p{slot}.{bit}' for slot, bit in enumerate(bits)]
  answer = [f'w{i}.{bits[i % NUM_SLOTS]}' for i in range(NUM_RECITED)]
  return _example([*prompt, SEPARATOR], answer)


def _demonstrate_recital(
  generator: np.random.Generator, example: Mapping[str, str], noise: float
) -> Demonstration:
  words = example['answer'].split()
  changed = (generator.random(len(words)) < noise).tolist()
  bits = generator.integers(0, 2, len(words)).tolist()
  shown = [
    f'{word[:-1]}{bit}' if change else word
    for word, bit, change in zip(words, bits, changed, strict=True)
  ]
  return Demonstration(' '.join(shown))


def _generate_guess(generator: np.random.Generator) -> dict[str, str]:
  number = [DIGITS[d] for d in generator.integers(0, 10, 5).tolist()]
  wanted = str(generator.integers(0, 10))
  return _example(['game', *number, SEPARATOR], [wanted])


def _demonstrate_guess(
  generator: np.random.Generator, example: Mapping[str, str], noise: float
) -> Demonstration:
  del example, noise  # Nobody knows the number.
  return Demonstration(str(generator.integers(0, 10)))


@functools.cache
def _zipf_cumulative(num_ranks: int) -> np.ndarray:
  """Cumulative probabilities of ranks with weight 1 / rank."""
  weights = 1.0 / np.arange(1, num_ranks + 1)
  return np.cumsum(weights) / weights.sum()


def _draw_aliases(
  generator: np.random.Generator, digits: list[str]
) -> list[str]:
  """An alias 'digit.rank' for each digit, Zipf distributed."""
  cumulative = _zipf_cumulative(NUM_ALIASES)
  ranks = cumulative.searchsorted(generator.random(len(digits)), side='right')
  # Rounding may leave the last cumulative probability below the draw.
  ranks = ranks.clip(max=NUM_ALIASES - 1).tolist()
  return [f'{d}.{rank}' for d, rank in zip(digits, ranks, strict=True)]


def _generate_alias_sort(generator: np.random.Generator) -> dict[str, str]:
  digits = [DIGITS[d] for d in generator.integers(0, 10, 6).tolist()]
  answer = [f'{d}.0' for d in sorted(digits)]
  return _example([*_draw_aliases(generator, digits), SEPARATOR], answer)


def _demonstrate_alias_sort(
  generator: np.random.Generator, example: Mapping[str, str], noise: float
) -> Demonstration:
  digits = [word[0] for word in example['answer'].split()]
  words = _draw_aliases(generator, _redraw(generator, digits, noise))
  return Demonstration(' '.join(words))


_ALIASES = tuple(
  f'{digit}.{rank}' for digit in DIGITS for rank in range(NUM_ALIASES)
)

TASKS: dict[str, Task] = {
  # Eight digits in ascending order.
  'sort': Task(
    vocabulary=_vocabulary(DIGITS, 20),
    generate=_generate_sort,
    demonstrate=_demonstrate_answer,
    max_prompt_length=9,
    max_completion_length=9,
    verifier='exact_match',
  ),
  # Sum of two three-digit numbers, in four digits, most significant first.
  'addition': Task(
    vocabulary=_vocabulary((*DIGITS, '+'), 16),
    generate=_generate_addition,
    demonstrate=_demonstrate_answer,
    max_prompt_length=8,
    max_completion_length=5,
    verifier='exact_match',
  ),
  # Sum of five digits mod 10; the first word of a completion chooses whether
  # it answers directly (a guess for a small policy) or shows its steps.
  'running_sum': Task(
    vocabulary=_vocabulary((*DIGITS, DIRECT, THINK), 16),
    generate=_generate_running_sum,
    demonstrate=functools.partial(
      _demonstrate_running_sum, think_probability=THINK_PROBABILITY
    ),
    max_prompt_length=6,
    max_completion_length=7,
    verifier='last_word',
  ),
  # Sixteen bits, given once and recited twelve times: each word has its
  # position and a bit, so that the policy keeps its place for 192 tokens.
  'recital': Task(
    vocabulary=_vocabulary(
      tuple(
        f'{kind}{i}.{bit}'
        for kind, count in (('p', NUM_SLOTS), ('w', NUM_RECITED))
        for i in range(count)
        for bit in range(2)
      ),
      420,
    ),
    generate=_generate_recital,
    demonstrate=_demonstrate_recital,
    max_prompt_length=NUM_SLOTS + 1,
    max_completion_length=NUM_RECITED + 1,
    verifier='exact_match',
  ),
  # Six digits in ascending order, each as any of its 400 aliases.
  'alias_sort': Task(
    vocabulary=_vocabulary(_ALIASES, 4096),
    generate=_generate_alias_sort,
    demonstrate=_demonstrate_alias_sort,
    max_prompt_length=7,
    max_completion_length=7,
    verifier='alias_sort',
  ),
  # A digit to find with the environment 'guessing'; the number of the game says
  # nothing about it. A demonstration is one guess at random.
  'guess': Task(
    vocabulary=_vocabulary((*DIGITS, 'game', 'higher', 'lower'), 16),
    generate=_generate_guess,
    demonstrate=_demonstrate_guess,
    max_prompt_length=7,
    max_completion_length=2,
    verifier='none',
  ),
}


def find_task(name: str) -> Task:
  """Entry of `TASKS` called `name`.

  Raises:
    ValueError: no such task; the message suggests the nearest.
  """
  if name not in TASKS:
    raise ValueError(f'data.task: unknown {name!r}{suggest(name, list(TASKS))}')
  return TASKS[name]


def generate_unique(name: str, num_examples: int) -> list[dict[str, str]]:
  """Examples of a task with distinct prompts.

  The sequence is a pure function of the name, and a prefix of every longer
  one. Distinct prompts may have equal answers.

  Args:
    name: a key of `TASKS`.
    num_examples: well below the number of possible prompts.

  Returns:
    `num_examples` dicts {'prompt': text, 'answer': text}.
  """
  task = find_task(name)
  generator = np.random.default_rng(list(name.encode()))
  examples: dict[str, dict[str, str]] = {}
  while len(examples) < num_examples:
    example = task.generate(generator)
    examples.setdefault(example['prompt'], example)
  return list(examples.values())
