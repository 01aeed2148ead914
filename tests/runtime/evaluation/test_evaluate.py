import numpy as np
import pytest

from dppo_jax.base import Rollout, TokenStats
from dppo_jax.learner import state as state_lib
from dppo_jax.rewards.pool import VerifierPool
from dppo_jax.rewards.verdicts import Verdict
from dppo_jax.runtime.evaluation import evaluate as evaluate_lib
from dppo_jax.runtime.rollouts import verify
from dppo_jax.runtime.rollouts.reward_model import Scored
from tests.support import runs, silence


class _Pool:
  """Judges by the place of an item, and counts what it was asked."""

  def __init__(self):
    self.seen = []
    self.told = []

  def verify_terms(self, completions, examples, truncated):
    self.told += list(truncated)
    self.seen += [example['example_id'] for example in examples]
    verdicts = [
      Verdict(float(i % 5 == 0 and i // 5 % 2), 'judged')
      for i in range(len(examples))
    ]
    # What forms and lengths earn is no accuracy.
    return [verdicts, [Verdict(1.0, 'right')] * len(examples)]


@pytest.fixture
def parts():
  return runs.parts()


def _evaluate(monkeypatch, parts, pool, num_prompts, model=None, **overrides):
  """Evaluates a policy whose completions are one token each."""

  def compile_sampler(config):
    def sampler(params, prompts, key):
      del params, key
      rows = np.repeat(prompts.tokens, config.group_size, axis=0)
      drawn = np.full((len(rows), 7), config.pad_id)
      drawn[:, :2] = 5
      mask = np.arange(13) >= 6
      mask = np.tile(mask & (np.arange(13) < 8), (len(rows), 1))
      return Rollout(
        tokens=np.concatenate([rows, drawn], axis=1),
        token_mask=mask,
        completion_mask=mask,
        stats=TokenStats(log_probs=np.zeros(mask.shape, np.float32)),
        group_id=np.zeros(len(rows)),
        example_id=np.repeat(prompts.example_id, config.group_size),
        truncated=np.arange(len(rows)) % 2 == 0,
      )

    return sampler

  def compile_samplers(parts, config, pool):
    greedy = config.greedy and compile_sampler(config.greedy)
    return compile_sampler(config.sampled), greedy

  monkeypatch.setattr(evaluate_lib, 'compile_samplers', compile_samplers)
  config = runs.experiment(runs.config(**overrides)).evaluation
  with runs.quick_compilation():
    state = state_lib.init_state(
      parts.policy, parts.optimizer, parts.shardings, 0
    )
  evaluate = evaluate_lib.compile_evaluation(parts, config, pool, model)
  return evaluate(state, num_prompts)


def test_the_filling_of_the_last_chunk_is_not_counted(monkeypatch, parts):
  pool = _Pool()
  found = _evaluate(
    monkeypatch, parts, pool, 20, evaluation__num_samples=5
  )  # Chunks of 16.
  expected = parts.held_out.first(20).example_id  # No prefix of the split.
  assert len(set(expected.tolist())) == 20
  assert expected.max() >= 16404
  np.testing.assert_array_equal(pool.seen[:100], np.repeat(expected, 5))
  assert len(pool.seen) == 120  # 20 more, decoded greedily.
  np.testing.assert_array_equal(found.sampled.example_id, expected)
  assert found.sampled.rewards().shape == (20, 5)
  # One sample in five is right, for every other prompt.
  assert found.metrics['evaluation/sampled_accuracy'] == pytest.approx(0.1)
  assert found.metrics['evaluation/pass_at_k'] == pytest.approx(0.5)
  assert found.metrics['evaluation/length_mean'] == 2.0
  assert found.metrics['evaluation/truncated'] == 0.5
  assert found.greedy is not None
  metrics = found.metrics
  low = metrics['evaluation/sampled_accuracy_low']
  assert 0 < low < 0.1 < metrics['evaluation/sampled_accuracy_high'] < 0.2
  # One right sample of five for half of the problems.
  assert metrics['evaluation/pass_at_1'] == pytest.approx(1 / 5 / 2)
  assert metrics['evaluation/pass_at_4'] == pytest.approx(4 / 5 / 2)
  assert len(found.statistics.pass_at) == 5


def test_samples_are_drawn_in_passes_and_belong_together(monkeypatch, parts):
  pool = _Pool()
  found = _evaluate(
    monkeypatch,
    parts,
    pool,
    20,
    evaluation__num_samples=5,
    evaluation__samples_per_pass=2,
  )
  # Three passes of two; the sixth sample is not counted, nor verified.
  expected = np.repeat(parts.held_out.first(20).example_id, 5)
  np.testing.assert_array_equal(pool.seen[:100], expected)
  assert len(pool.seen) == 120
  assert found.sampled.rewards().shape == (20, 5)
  assert found.sampled.lengths.shape == (100,)
  # Rows of the sampler were cut in turn: in each pass the first of two.
  assert (
    found.sampled.truncated.reshape(20, 5).tolist()
    == [[True, False, True, False, True]] * 20
  )


def test_passes_have_keys_of_their_own(monkeypatch, parts):
  keys = []
  fold_in = evaluate_lib.jax.random.fold_in

  def record(key, number):
    keys.append(number)
    return fold_in(key, number)

  monkeypatch.setattr(evaluate_lib.jax.random, 'fold_in', record)
  _evaluate(
    monkeypatch,
    parts,
    _Pool(),
    20,
    evaluation__num_samples=5,
    evaluation__samples_per_pass=2,
    evaluation__greedy=False,
  )
  assert sorted(keys[-6:]) == [0, 1, 2, 3, 4, 5]


def test_without_greedy_there_is_no_such_metric(monkeypatch, parts):
  found = _evaluate(monkeypatch, parts, _Pool(), 4, evaluation__greedy=False)
  assert found.greedy is None
  assert 'evaluation/greedy_accuracy' not in found.metrics


@pytest.mark.parametrize('policy', ['zero', 'score'])
def test_evaluation_has_a_policy_of_its_own(monkeypatch, parts, policy):
  pool = _Pool()
  _evaluate(
    monkeypatch,
    parts,
    pool,
    4,
    rewards__truncated='mask',
    evaluation__truncated=policy,
    evaluation__greedy=False,
  )
  assert pool.told[:4] == [policy == 'zero', False] * 2


@pytest.mark.parametrize('policy', ['zero', 'score', 'mask'])
def test_what_a_completion_cut_by_the_limit_earns(parts, policy):
  """A right answer, whether it ended or not."""
  prompt = parts.held_out.first(1)
  (example,) = parts.held_out.examples(prompt.example_id)
  ids = parts.tokenizer.encode(example['answer'])
  tokens = np.concatenate([prompt.tokens, np.array([ids])], axis=1)
  mask = np.arange(tokens.shape[1])[None] >= prompt.tokens.shape[1]
  rollout = Rollout(
    tokens=tokens,
    token_mask=mask,
    completion_mask=mask,
    stats=TokenStats(log_probs=np.zeros(tokens.shape, np.float32)),
    group_id=np.zeros(1),
    example_id=prompt.example_id,
    truncated=np.array([True]),
  )
  width = prompt.tokens.shape[1]
  with VerifierPool('last_word', 'whole', 0, 1.0, 4096, 60.0) as pool:
    verifier = verify.CompletionVerifier(
      tokenizer=parts.tokenizer,
      stream=parts.held_out,
      pool=pool,
      prompt_length=width,
      truncated=policy,
    )
    _, ((verdict,),) = verifier.verify(rollout)
  right = policy != 'zero'
  assert verdict == ((1.0, 'right') if right else (0.0, 'truncated'))


class _Scorer:
  """Scores a text by the id of its prompt."""

  def score(self, prompts, completions):
    assert all(isinstance(text, str) for text in (*prompts, *completions))
    return Scored(40.0 + np.arange(len(prompts)) % 5, {})


def test_a_reward_model_evaluates_alone(monkeypatch, parts):
  how = dict(
    rewards__model='/a/model',
    rewards__model_weight=0.5,
    evaluation__reward='model',
    evaluation__num_samples=5,
    checkpoints__best_metric='evaluation/model_score',
  )
  found = _evaluate(monkeypatch, parts, _Pool(), 20, _Scorer(), **how)
  # Neither weighted nor added to what the verifier says.
  assert found.sampled.rewards().tolist() == [[40, 41, 42, 43, 44]] * 20
  metrics = found.metrics
  assert metrics['evaluation/model_score'] == 42.0
  assert metrics['evaluation/model_score_low'] == 42.0
  assert metrics['evaluation/greedy_model_score'] == pytest.approx(41.85, 0.01)
  assert not [name for name in metrics if 'accuracy' in name or 'pass' in name]
  with pytest.raises(ValueError, match=r'evaluation\.reward: the reward model'):
    _evaluate(monkeypatch, parts, _Pool(), 4, **how)


def test_sources_put_together_have_an_accuracy_each(monkeypatch, parts):
  examples = parts.held_out.examples

  def named(ids):
    return [
      {**example, 'component': i % 2, 'source': f'aime_{2024 + i % 2}'}
      for i, example in enumerate(examples(ids))
    ]

  monkeypatch.setattr(parts.held_out, 'examples', named)
  found = _evaluate(
    monkeypatch, parts, _Pool(), 20, evaluation__num_samples=5
  ).metrics
  # One sample in five is right, for every other prompt.
  assert found['evaluation/accuracy_aime_2024'] == 0.0
  assert found['evaluation/accuracy_aime_2025'] == pytest.approx(0.2)
  assert found['evaluation/sampled_accuracy'] == pytest.approx(0.1)


def test_a_long_evaluation_says_how_far_it_is(monkeypatch, parts):
  pool = _Pool()
  with silence.of_command(monkeypatch) as heard:
    pool.verify_terms = heard.slow(pool.verify_terms)
    _evaluate(
      monkeypatch,
      parts,
      pool,
      20,
      evaluation__num_samples=5,
      evaluation__samples_per_pass=3,
    )
  assert heard.told == [  # Chunks of 16; two passes of 3 samples.
    'evaluation: sampling, 0 of 20 prompts, pass 2:'
    ' verifying 80 completions … 11 s',
    'evaluation: sampling, 16 of 20 prompts, pass 2:'
    ' verifying 20 completions … 22 s',
    'evaluation, greedy: sampling, 0 of 20 prompts:'
    ' verifying 16 completions … 33 s',
    'evaluation, greedy: sampling, 16 of 20 prompts:'
    ' verifying 4 completions … 44 s',
  ]
