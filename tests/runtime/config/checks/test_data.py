import pathlib

import pytest

from dppo_jax.data import sources
from dppo_jax.runtime.config import problems
from dppo_jax.runtime.config.checks import data
from tests.support import environments, runs

_FOLDER = str(pathlib.Path(__file__).parents[3] / 'testdata' / 'tokenizer')
_ROWS = dict(data__source='rows', sft__num_steps=0)


def _problems(**overrides):
  return problems.find_problems(runs.config(**overrides).to_dict(), 1)


@pytest.mark.parametrize(
  'overrides',
  [
    dict(**_ROWS, evaluation__split='train'),
    dict(**_ROWS, evaluation__files='x.jsonl'),
    dict(**_ROWS, evaluation__source='math'),
    dict(
      _ROWS,
      data__source='task',
      data__mixture=(('math', '', 1), ['rows', 'x', 0.5]),
      evaluation__source='aime_2024',
    ),
    dict(
      **_ROWS,
      evaluation__source='aime_2024, aime_2025,aime_2026',
      data__fields__extra='target, numbers=meta.nums',
    ),
    dict(
      _ROWS,
      data__source='task',
      data__mixture=(('rows', 'x', 1, (('prompt', '{a} {b}'),)),),
      evaluation__source='math',
    ),
    dict(
      **_ROWS,
      evaluation__split='train',
      data__tokenizer=_FOLDER,
      data__chat_template=True,
      data__system_prompt='S',
      sampling__stop_strings=('</answer>',),
      sampling__top_k=100,
      sampling__max_completion_length=1,
    ),
  ],
)
def test_these_are_fine(overrides):
  assert _problems(**overrides) == []


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    (
      dict(data__prompt_template='{problem}'),
      "data.prompt_template: got '{problem}'; it must hold '{prompt}'",
    ),
    (
      dict(data__chat_template=True),
      'data.chat_template: got True; chats need the tokenizer of a model',
    ),
    (
      dict(data__system_prompt='S'),
      "data.system_prompt: got 'S'; chats need",
    ),
    (
      dict(
        **_ROWS,
        evaluation__split='train',
        data__tokenizer=_FOLDER,
        data__system_prompt='S',
      ),
      'data.system_prompt: needs a chat',
    ),
    (
      dict(sampling__stop_strings=('a', '')),
      "sampling.stop_strings: got ''; texts of at least one character, in qu",
    ),
    (
      dict(**_ROWS, evaluation__source='aime_2024, aime_2027'),
      "evaluation.source: unknown 'aime_2027'; did you mean 'aime_2026'?",
    ),
    (
      dict(**_ROWS, evaluation__source='mth'),
      "evaluation.source: unknown 'mth'; did you mean 'math'?",
    ),
    (
      dict(
        **_ROWS, evaluation__source='math, gsm8k', evaluation__files='x.jsonl'
      ),
      "evaluation.files: got 'x.jsonl' for the sources 'math, gsm8k'",
    ),
    (
      dict(data__fields__extra='prompt'),
      "data.fields.extra: 'prompt' is reserved",
    ),
    (
      dict(evaluation__fields__extra=','),
      "evaluation.fields.extra: got ','",
    ),
    (
      dict(data__chat_template_arguments=(('enable_thinking', False),)),
      'data.chat_template_arguments: chats need the tokenizer of a model',
    ),
    (
      dict(data__chat_template_arguments=('enable_thinking',)),
      "data.chat_template_arguments: got 'enable_thinking'; pairs of a name",
    ),
    (
      dict(
        **_ROWS,
        evaluation__split='train',
        data__tokenizer=_FOLDER,
        sampling__stop_strings=('a<|im_end|>',),
      ),
      "sampling.stop_strings: 'a<|im_end|>' holds the special token",
    ),
    (dict(data__fields__answer=''), "data.fields.answer: got ''; name a field"),
    (
      dict(data__source='mth'),
      "data.source: unknown 'mth'; did you mean 'math'?",
    ),
    (dict(_ROWS), "evaluation.files: empty, and the source 'rows' has no"),
    (
      dict(data__source='math'),
      'sft.num_steps: got 40; demonstrations are of data.task',
    ),
    (
      dict(data__tokenizer=_FOLDER),
      'sft.num_steps: got 40; demonstrations are of data.task',
    ),
    (
      dict(data__tokenizer='/no/such', sft__num_steps=0),
      "data.tokenizer: no file '/no/such/tokenizer.json'",
    ),
    (
      dict(model__vocab_size=8),
      'data.tokenizer: ',
    ),
    (
      dict(
        data__mixture=(('math', '', 1.0),),
        evaluation__source='data',
        sft__num_steps=0,
      ),
      "evaluation.source: got 'data', and data.mixture has no held-out part",
    ),
    (
      dict(
        **_ROWS,
        evaluation__split='train',
        data__tokenizer=_FOLDER,
        sampling__top_k=321,
      ),
      'sampling.top_k: got 321; the vocabulary has 320 tokens',
    ),
  ],
)
def test_a_problem_names_its_key_and_the_fix(overrides, message):
  (problem,) = _problems(**overrides)
  assert problem.startswith(message)


@pytest.mark.parametrize(
  ('row', 'message'),
  [
    ('math', "data.mixture: got 'math'; a row is (source, files, weight)"),
    (('math', 1.0), 'data.mixture: got'),
    (('math', 0, 1.0), 'data.mixture: got'),
    (('mth', '', 1.0), "data.mixture: unknown source 'mth'; did you mean 'ma"),
    (
      ('rows', 'x', 1.0, {'promt': 'q'}),
      "data.mixture: unknown field 'promt' of 'rows'; did you mean 'prompt'?",
    ),
    (('math', '', 0.0), "data.mixture: weight 0.0 of 'math'; a number above 0"),
    (('math', '', True), "data.mixture: weight True of 'math'"),
    (('math', '', float('nan')), 'data.mixture: weight nan'),
  ],
)
def test_a_row_of_a_mixture(row, message):
  (problem,) = _problems(
    data__mixture=(row,), evaluation__source='math', sft__num_steps=0
  )
  assert problem.startswith(message)


def test_a_mixture_has_room_for_all_its_rows():
  rows = (('math', '', 1.0),) * 101
  (problem,) = _problems(
    data__mixture=rows, evaluation__source='math', sft__num_steps=0
  )
  assert problem == 'data.mixture: 101 rows; at most 100.'


@pytest.mark.parametrize(
  ('source', 'files', 'message'),
  [
    (
      'aime_2024, aime_205',
      '',
      "evaluation.source: unknown 'aime_205'; did you mean 'aime_2025'?",
    ),
    ('aime', '', "evaluation.source: unknown 'aime'; did you mean 'aime_20"),
    (
      'aime_2024, task',
      '',
      "evaluation.source: got 'task' in 'aime_2024, task'; several are",
    ),
    (
      'aime_2024,aime_2024',
      '',
      "evaluation.source: got 'aime_2024' in 'aime_2024,aime_2024'; several",
    ),
    (
      'aime_2024, aime_2025',
      'x.jsonl',
      "evaluation.files: got 'x.jsonl' for the sources 'aime_2024, aime_2025'",
    ),
  ],
)
def test_sources_to_evaluate_on_are_checked(source, files, message):
  config = runs.config(
    evaluation__source=source, evaluation__files=files
  ).to_dict()
  (found,) = data.find_unknown_sources(config)
  assert found.startswith(message)
  assert found in problems.find_problems(config, 1)


def test_names_of_sources_are_separated_by_commas():
  names = ('aime_2024', 'aime_2025')
  assert tuple(sources.split_names('aime_2024 ,aime_2025')) == names
  config = runs.config(evaluation__source=', '.join(names)).to_dict()
  assert not list(data.find_unknown_sources(config))


@pytest.fixture
def library(monkeypatch):
  environments.stand_in(monkeypatch)
  yield
  environments.forget()


_DRAWN = dict(
  data__source='reasoning_gym', data__tokenizer=_FOLDER, sft__num_steps=0
)


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    (dict(_DRAWN), 'data.tasks: empty; name tasks of reasoning-gym'),
    (
      dict(_DRAWN, data__tasks=('sumz',)),
      "data.tasks: unknown 'sumz'; did you mean 'sums'?",
    ),
    (
      dict(data__tasks=('sums',)),
      "data.tasks: got ('sums',), and data.source is 'task'",
    ),
    (
      dict(_DRAWN, data__tasks=('sums',), data__num_items=20_001),
      'data.num_items: got 20001; at most 20000 of a task',
    ),
    (
      dict(_DRAWN, data__tasks=('sums',), data__tokenizer=''),
      "data.tokenizer: empty, and the prompts of 'reasoning_gym' are English",
    ),
    (
      dict(
        data__mixture=(('reasoning_gym', '', 1.0),),
        evaluation__source='math',
        sft__num_steps=0,
      ),
      "data.mixture: 'reasoning_gym' has weights of its own: set data.source",
    ),
    (
      dict(
        _DRAWN,
        data__tasks=('sums',),
        evaluation__source='reasoning_gym, aime_2024',
      ),
      "evaluation.source: got 'reasoning_gym' in 'reasoning_gym, aime_2024'",
    ),
  ],
)
def test_tasks_that_a_library_draws(overrides, message, library):
  (problem,) = _problems(**overrides)
  assert problem.startswith(message)


def test_tasks_to_train_or_only_to_evaluate_on(library):
  assert not _problems(**_DRAWN, data__tasks=('sums', ('open', 2.0)))
  assert not _problems(
    **_ROWS,
    data__tokenizer=_FOLDER,
    data__tasks=('sums',),
    evaluation__source='reasoning_gym',
  )
