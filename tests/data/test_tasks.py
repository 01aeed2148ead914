"""Every task: what it draws is right, and what it demonstrates is wanted."""

import dataclasses

import numpy as np
import pytest

from dppo_jax.data import tasks

_NAMES = list(tasks.TASKS)


# Tasks whose completions are made of digits.
_OF_DIGITS = [name for name in _NAMES if name not in ('recital', 'guess')]


def _digits(text):
  return [int(word.split('.')[0]) for word in text.split() if word[0].isdigit()]


@pytest.mark.parametrize('name', _NAMES)
def test_words_are_known_and_lengths_are_reached(name):
  task = tasks.TASKS[name]
  generator = np.random.default_rng(1)
  prompt_lengths, completion_lengths = set(), set()
  for example in tasks.generate_unique(name, 200):
    shown = task.demonstrate(generator, example, 0.5)
    words = example['prompt'].split() + shown.text.split()
    words += example['answer'].split()
    assert set(words) <= set(task.vocabulary) - {tasks.PAD, tasks.EOS}
    prompt_lengths.add(len(example['prompt'].split()))
    completion_lengths.add(len(shown.text.split()) + 1)
  assert max(prompt_lengths) == task.max_prompt_length
  assert max(completion_lengths) == task.max_completion_length


@pytest.mark.parametrize('name', _NAMES)
def test_vocabulary_has_distinct_words_and_a_round_size(name):
  vocabulary = tasks.TASKS[name].vocabulary
  assert len(set(vocabulary)) == len(vocabulary)
  assert len(vocabulary) % 4 == 0
  assert vocabulary[:3] == ('<pad>', '<eos>', '=')


def test_sort_has_the_vocabulary_of_twenty():
  task = tasks.TASKS['sort']
  assert len(task.vocabulary) == 20
  assert task.vocabulary[3:13] == tuple('0123456789')
  assert (task.max_prompt_length, task.max_completion_length) == (9, 9)


@pytest.mark.parametrize('name', ['sort', 'alias_sort'])
def test_sort_answers_in_order(name):
  for example in tasks.generate_unique(name, 50):
    assert _digits(example['answer']) == sorted(_digits(example['prompt']))


def test_addition_adds_high_digit_first():
  for example in tasks.generate_unique('addition', 50):
    left, right = example['prompt'].removesuffix(' =').split(' + ')
    total = int(left.replace(' ', '')) + int(right.replace(' ', ''))
    assert example['answer'] == ' '.join(f'{total:04d}')


def test_running_sum_branches_answer_the_same():
  task = tasks.TASKS['running_sum']
  generator = np.random.default_rng(0)
  seen = set()
  for example in tasks.generate_unique('running_sum', 50):
    digits = _digits(example['prompt'])
    assert example['answer'] == str(sum(digits) % 10)
    branch, *words = task.demonstrate(generator, example, 0.0).text.split()
    seen.add(branch)
    if branch == tasks.DIRECT:
      assert words == [example['answer']]
    else:
      sums = [str(sum(digits[: i + 1]) % 10) for i in range(5)]
      assert words == sums
      assert words[-1] == example['answer']
  assert seen == {tasks.DIRECT, tasks.THINK}


def test_thinking_is_shown_often_and_chosen_rarely():
  task = tasks.TASKS['running_sum']
  generator = np.random.default_rng(0)
  example = {'prompt': '1 2 3 4 5 =', 'answer': '5'}
  shown = [task.demonstrate(generator, example, 0.0) for _ in range(20000)]
  thinking = [d.text.startswith(tasks.THINK) for d in shown]
  assert np.mean(thinking) == pytest.approx(0.5, abs=0.02)
  chosen = [
    thinks
    for d, thinks in zip(shown, thinking, strict=True)
    if not d.num_context
  ]
  # About 101 of 10 101 branch words: four standard deviations are 0.004.
  assert np.mean(chosen) == pytest.approx(tasks.THINK_PROBABILITY, abs=0.004)
  assert {d.num_context for d in shown} == {0, 1}
  assert not any(
    d.num_context for d in shown if d.text.startswith(tasks.DIRECT)
  )


@pytest.mark.parametrize('name', _OF_DIGITS)
def test_noise_is_the_share_of_redrawn_digits(name):
  task = tasks.TASKS[name]
  generator = np.random.default_rng(3)
  changed = []
  for example in tasks.generate_unique(name, 2000):
    shown = _digits(task.demonstrate(generator, example, 0.2).text)
    right = _digits(example['answer'])
    if len(shown) > len(right):  # The visible steps of running_sum.
      right = (np.cumsum(_digits(example['prompt'])) % 10).tolist()
    changed += [a != b for a, b in zip(shown, right, strict=True)]
  # One redrawn digit in ten is the digit it replaces.
  assert np.mean(changed) == pytest.approx(0.18, abs=0.02)


def test_demonstrations_without_noise_are_answers():
  generator = np.random.default_rng(3)
  for name in ('sort', 'addition', 'recital'):
    for example in tasks.generate_unique(name, 20):
      shown = tasks.TASKS[name].demonstrate(generator, example, 0.0)
      assert shown == (example['answer'], 0)


def test_spellings_follow_zipf():
  task = tasks.TASKS['alias_sort']
  generator = np.random.default_rng(0)
  example = {'prompt': '', 'answer': '0.0 1.0 2.0 3.0 4.0 5.0'}
  ranks = np.array(
    [
      int(word.split('.')[1])
      for _ in range(5000)
      for word in task.demonstrate(generator, example, 0.0).text.split()
    ]
  )
  harmonic = (1 / np.arange(1, 401)).sum()
  for rank in (0, 1, 9):
    expected = 1 / ((rank + 1) * harmonic)
    assert np.mean(ranks == rank) == pytest.approx(expected, rel=0.15)
  assert ranks.max() > 350
  assert ranks.max() < tasks.NUM_ALIASES


def test_recital_repeats_the_bits_of_the_prompt():
  for example in tasks.generate_unique('recital', 20):
    *given, separator = example['prompt'].split()
    assert separator == '='
    bits = dict(word.split('.') for word in given)
    said = [word.split('.') for word in example['answer'].split()]
    assert [place for place, _ in said] == [f'w{i}' for i in range(192)]
    assert all(bits[f'p{i % 16}'] == bit for i, (_, bit) in enumerate(said))


def test_noise_of_recital_redraws_bits():
  task = tasks.TASKS['recital']
  generator = np.random.default_rng(3)
  changed = []
  for example in tasks.generate_unique('recital', 100):
    right = example['answer'].split()
    shown = task.demonstrate(generator, example, 0.2).text.split()
    assert [w[:-1] for w in shown] == [w[:-1] for w in right]
    changed += [a != b for a, b in zip(shown, right, strict=True)]
  # One redrawn bit in two is the bit it replaces; 19,200 words.
  assert np.mean(changed) == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize('name', _NAMES)
def test_digits_of_tokens(name):
  task = tasks.TASKS[name]
  digits = task.digits
  assert digits.shape == (len(task.vocabulary),)
  for word, digit in zip(task.vocabulary, digits.tolist(), strict=True):
    spelled = word.split('.')[0] if word[0] in '0123456789' else '-1'
    assert digit == int(spelled)
  per_digit = np.bincount(digits[digits >= 0])
  counts = {'alias_sort': {400}, 'recital': set()}
  assert set(per_digit.tolist()) == counts.get(name, {1})


@pytest.mark.parametrize('name', _NAMES)
def test_examples_are_unique_and_deterministic(name):
  rows = tasks.generate_unique(name, 3000)
  assert len({row['prompt'] for row in rows}) == 3000
  assert tasks.generate_unique(name, 100) == rows[:100]


def test_the_sequence_is_pinned():
  # Changed examples need a new version of the builder.
  assert tasks.generate_unique('sort', 1)[0]['prompt'] == '7 5 7 9 2 9 6 3 ='


def test_unknown_task_is_named_with_a_suggestion():
  with pytest.raises(ValueError, match=r"data\.task: unknown 'sorte'.*'sort'"):
    tasks.find_task('sorte')
  with pytest.raises(ValueError, match=r'Known: sort, addition'):
    tasks.find_task('zzz')


def test_tasks_are_frozen():
  with pytest.raises(dataclasses.FrozenInstanceError):
    tasks.TASKS['sort'].verifier = 'numeric'


def test_a_vocabulary_is_filled_up_to_the_head_of_a_model():
  words = tasks.TASKS['sort'].vocabulary
  filled = tasks.fill_up(words, 40)
  assert (len(filled), filled[: len(words)]) == (40, words)
  assert len(set(filled)) == 40
  assert tasks.fill_up(words, 3) == words


def test_guesses_are_demonstrated_at_random():
  """The number of a game says nothing about what is to be found."""
  generator = np.random.default_rng(0)
  examples = tasks.generate_unique('guess', 400)
  wanted = [int(example['answer']) for example in examples]
  shown = [
    int(tasks.TASKS['guess'].demonstrate(generator, example, 0.0).text)
    for example in examples
  ]
  for numbers in (wanted, shown):
    assert set(numbers) == set(range(10))
  assert np.mean(np.equal(wanted, shown)) < 0.2
