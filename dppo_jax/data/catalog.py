"""Table of data sets: where each is published, and the meaning of its fields.

Field names are those of the published files, in every format listed here.
"""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import pathlib
from typing import Any

from dppo_jax.data import fields, reference_answers, tfds_builder
from dppo_jax.data.downloads import Repository

# (split, data_dir) -> rows of the data set.
Prepare = Callable[[str, pathlib.Path], Iterator[Mapping[str, Any]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
  """One data set. Fields are given as paths; the first one present is used.

  Attributes:
    published: where its files are published, for error messages.
    repository: the one of them that a command downloads; None of none.
    splits: splits named by its files; () if it has a single split.
    prompt: fields of the problem: text, chat messages, or a template of several
      fields, '{Body} {Question}', present if all of them are.
    answer: fields of the reference answer, or of a solution that contains it.
    options: fields of multiple-choice options, listed below the problem; the
      answer is then a letter, see `choices`.
    level: fields of the difficulty.
    origin: fields of the origin or the subject.
    extra: fields to keep in the example, in the form of `fields.parse_extra`.
    read_answer: text of `answer` -> reference answer.
    prepared: (split, data_dir) -> rows, used if there is no file; or None.
  """

  published: str
  repository: Repository | None = None
  splits: tuple[str, ...]
  prompt: tuple[str, ...]
  answer: tuple[str, ...]
  options: tuple[str, ...] = ()
  level: tuple[str, ...] = ()
  origin: tuple[str, ...] = ()
  extra: str = fields.EVERY
  read_answer: Callable[[str], str] = reference_answers.as_is
  prepared: Prepare | None = None


SOURCES: Mapping[str, Source] = {
  'gsm8k': Source(
    published='github.com/openai/grade-school-math (grade_school_math/data/'
    'train.jsonl, test.jsonl), or openai/gsm8k on Hugging Face (main/)',
    repository=Repository('openai/gsm8k', 'main/*'),
    splits=('train', 'test'),
    prompt=('question',),
    answer=('answer',),
    read_answer=reference_answers.after_hashes,
    prepared=tfds_builder.load_gsm8k,
  ),
  # The tar of Hendrycks et al. (one JSON file per problem) and parquet copies.
  'math': Source(
    published='EleutherAI/hendrycks_math or DigitalLearningGmbH/MATH-lighteval'
    ' on Hugging Face (train and test, parquet)',
    repository=Repository('EleutherAI/hendrycks_math', '*.parquet'),
    splits=('train', 'test'),
    prompt=('problem',),
    answer=('solution',),
    level=('level',),
    origin=('type', 'subject'),
    read_answer=reference_answers.last_boxed,
  ),
  'math_500': Source(
    published='HuggingFaceH4/MATH-500 on Hugging Face (test.jsonl)',
    repository=Repository('HuggingFaceH4/MATH-500', 'test.jsonl'),
    splits=(),
    prompt=('problem',),
    answer=('answer',),
    level=('level',),
    origin=('subject',),
  ),
  'dapo_math_17k': Source(
    published='BytedTsinghua-SIA/DAPO-Math-17k on Hugging Face'
    ' (data/dapo-math-17k.parquet)',
    repository=Repository(
      'BytedTsinghua-SIA/DAPO-Math-17k', 'data/dapo-math-17k.parquet'
    ),
    splits=(),
    prompt=('prompt',),
    answer=('reward_model.ground_truth',),
    origin=('data_source',),
  ),
  'aime_2024': Source(
    published='HuggingFaceH4/aime_2024 (data/train-*.parquet),'
    ' Maxwell-Jia/AIME_2024 (aime_2024_problems.parquet) or'
    ' BytedTsinghua-SIA/AIME-2024 (data/aime-2024.parquet) on Hugging Face',
    repository=Repository('HuggingFaceH4/aime_2024', 'data/train-*'),
    splits=(),
    prompt=('problem', 'Problem', 'prompt'),
    answer=('answer', 'Answer', 'reward_model.ground_truth'),
    read_answer=reference_answers.integer,
  ),
  'aime_2025': Source(
    published='math-ai/aime25 (test.jsonl), opencompass/AIME2025'
    ' (aime2025-I.jsonl, aime2025-II.jsonl) or MathArena/aime_2025'
    ' (data/train-*.parquet) on Hugging Face',
    repository=Repository('math-ai/aime25', 'test.jsonl'),
    splits=(),
    prompt=('problem', 'question'),
    answer=('answer',),
    read_answer=reference_answers.integer,
  ),
  'aime_2026': Source(
    published='MathArena/aime_2026 (data/train-*.parquet) on Hugging Face',
    repository=Repository('MathArena/aime_2026', 'data/train-*'),
    splits=(),
    prompt=('problem', 'question'),
    answer=('answer',),
    read_answer=reference_answers.integer,
  ),
  # Its rows are numbers only; the wording of the prompt is ours.
  'countdown': Source(
    published='Jiayi-Pan/Countdown-Tasks-3to4 (data/train-*.parquet) on Hugging'
    ' Face',
    repository=Repository('Jiayi-Pan/Countdown-Tasks-3to4', 'data/train-*'),
    splits=(),
    prompt=(
      'Reach {target} with the numbers {nums}: use each of them exactly once,'
      ' with + - * / and parentheses.',
    ),
    answer=('target',),
  ),
  'svamp': Source(
    published='ChilleD/SVAMP (data/train-*.parquet, data/test-*.parquet) on'
    ' Hugging Face; or name the SVAMP.json of github.com/arkilpatel/SVAMP',
    repository=Repository('ChilleD/SVAMP', 'data/*'),
    splits=('train', 'test'),
    prompt=('{Body} {Question}',),
    answer=('Answer',),
    origin=('Type',),
    read_answer=reference_answers.number,
  ),
  'asdiv': Source(
    published='EleutherAI/asdiv (asdiv/validation-*.parquet) on Hugging Face',
    repository=Repository('EleutherAI/asdiv', 'asdiv/validation-*'),
    splits=(),
    prompt=('{body} {question}',),
    answer=('answer',),
    origin=('solution_type',),
    read_answer=reference_answers.without_units,
  ),
  'aqua': Source(
    published='deepmind/aqua_rat (raw/train-*.parquet, validation-*, test-*) on'
    ' Hugging Face; or name the aqua-rat.jsonl of'
    ' github.com/ruixiangcui/AGIEval (data/v1)',
    repository=Repository('deepmind/aqua_rat', 'raw/*'),
    splits=('train', 'validation', 'test'),
    prompt=('question',),
    options=('options',),
    answer=('correct', 'label'),
  ),
  # AGIEval's rows, some with a passage (empty in the others), and those whose
  # 'query' already lists the options.
  'sat': Source(
    published='github.com/ruixiangcui/AGIEval (data/v1/sat-math.jsonl), or'
    ' dmayhem93/agieval-sat-math (data/test-*.parquet) on Hugging Face',
    repository=Repository('dmayhem93/agieval-sat-math', 'data/test-*'),
    splits=(),
    prompt=('{passage}\n\n{question}', 'question', 'query'),
    options=('options',),
    answer=('label', 'gold', 'Answer'),
    read_answer=reference_answers.letter,
  ),
  'mmlu_stem': Source(
    published='TIGER-Lab/MMLU-STEM (data/test-*.parquet) on Hugging Face, or'
    ' github.com/QwenLM/Qwen2.5-Math (evaluation/data/mmlu_stem/test.jsonl)',
    repository=Repository('TIGER-Lab/MMLU-STEM', 'data/test-*'),
    splits=(),
    prompt=('question',),
    options=('choices', 'options'),
    answer=('answer',),
    origin=('subject', 'type', 'topic'),
  ),
  # The exams of 2023 in English, and AGIEval's choice and cloze questions.
  'gaokao': Source(
    published='MARIO-Math-Reasoning/Gaokao2023-Math-En'
    ' (Gaokao2023-Math-En.jsonl) on Hugging Face, or'
    ' github.com/ruixiangcui/AGIEval (data/v1/gaokao-mathqa.jsonl,'
    ' gaokao-mathcloze.jsonl)',
    repository=Repository(
      'MARIO-Math-Reasoning/Gaokao2023-Math-En', 'Gaokao2023-Math-En.jsonl'
    ),
    splits=(),
    prompt=('{passage}\n\n{question}', 'question'),
    options=('options',),
    answer=('label', 'answer'),
    read_answer=reference_answers.without_dollars,
  ),
  # Open-ended problems (OE_TO_…): proofs have no reference answer.
  'olympiadbench': Source(
    published='Hothan/OlympiadBench (OE_TO_maths_en_COMP/*.parquet) on Hugging'
    ' Face, or math-ai/olympiadbench',
    repository=Repository('Hothan/OlympiadBench', 'OE_TO_maths_en_COMP/*'),
    splits=(),
    prompt=('{context}\n\n{question}', 'question'),
    answer=('final_answer',),
    level=('difficulty',),
    origin=('subfield',),
    read_answer=reference_answers.without_dollars,
  ),
  # The user's own files; data.fields maps their fields.
  'rows': Source(
    published='by you',
    splits=(),
    prompt=('prompt',),
    answer=('answer',),
  ),
}
