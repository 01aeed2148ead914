"""Conversations against a replay of their environment, and in a run."""

import dataclasses
import functools
import types

import chex
import jax
import numpy as np
import pytest

from dppo_jax.learner import state as state_lib
from dppo_jax.rewards.environments import table
from dppo_jax.rewards.environments.replies import Reply, end
from dppo_jax.runtime import loop
from dppo_jax.runtime.rollouts import conversations
from dppo_jax.runtime.rollouts.verify import CompletionVerifier, open_pool
from dppo_jax.runtime.storage import workdir
from tests.support import runs

_WIDTH, _LENGTH, _TURNS, _GROUP = 7, 12, 3, 4
_KEY = jax.random.PRNGKey(5)


def _settings(**overrides):
  return runs.smallest(
    **{
      'data__task': 'guess',
      'data__max_prompt_length': _WIDTH,
      'data__group_size': _GROUP,
      'environment__name': 'scripted',
      'environment__max_turns': _TURNS,
      'environment__max_turn_length': 4,
      'environment__max_reply_length': 2,
      'rewards__verifier': 'none',
      'sampling__max_completion_length': _LENGTH,
      **overrides,
    }
  )


def _scripted(message, state, example, seed):
  """Tells how many words it was sent in all, and ends at six."""
  count = (state or 0) + len(message.split())
  if count >= 6:
    return end(seed / 2**32 + float(example['answer']), f'{count} words')
  return f'{count} higher', count, None, ''


_ANSWERS = [_scripted]


@pytest.fixture
def scripted(monkeypatch):
  """Installs the environment, or another in its place."""
  monkeypatch.setitem(
    table.ENVIRONMENTS, 'scripted', lambda *item: _ANSWERS[-1](*item)
  )
  yield _ANSWERS.append
  del _ANSWERS[1:]


@functools.cache
def _sampler(ends, num_slots):
  """(sampler, parameters, parts, experiment) of an untrained policy."""
  settings = _settings()
  experiment, parts = runs.experiment(settings), runs.parts(settings)
  with runs.quick_compilation():
    state = state_lib.init_state(
      parts.policy, parts.optimizer, parts.shardings, 0
    )
  sampler = conversations.ConversationSampler(
    parts,
    parts.prompts,
    # Any of these words ends a turn, so that there are many.
    dataclasses.replace(
      experiment.sampling, eos_ids=tuple(ends), num_slots=num_slots
    ),
    experiment.environment,
    open_pool(experiment.rewards, experiment.environment.name),
    'zero',
  )
  return sampler, state.params, parts, experiment


def _sample(key=_KEY, ends=range(1, 8), num_slots=0):
  """(rollout on the host, parts, experiment)."""
  sampler, params, parts, experiment = _sampler(ends, num_slots)
  with runs.quick_compilation():
    rollout = sampler(params, parts.prompts.batch(0), key)
  return jax.device_get(rollout), parts, experiment


def _turns(rollout, row):
  """(begin, end) of the turns of a row, in completion columns."""
  turn = np.asarray(rollout.conversation.turn)[row, _WIDTH:]
  for number in range(1, turn.max() + 1):
    columns = np.flatnonzero(turn == number)
    assert (np.diff(columns) == 1).all()
    yield int(columns[0]), int(columns[-1]) + 1


def test_every_row_is_what_its_environment_makes_of_it(scripted):
  rollout, parts, _ = _sample()
  verdicts = conversations.read_verdicts(rollout.conversation)
  sampled = np.asarray(rollout.completion_mask)[:, _WIDTH:]
  real = np.asarray(rollout.token_mask)[:, _WIDTH:]
  seeds = jax.random.bits(_KEY, (len(sampled) // _GROUP,), np.uint32).tolist()
  seen = set()
  for row, verdict in enumerate(verdicts):
    tokens = np.asarray(rollout.tokens)[row, _WIDTH:]
    (example,) = parts.prompts.examples(rollout.example_id[row : row + 1])
    state, column, spans = None, 0, list(_turns(rollout, row))
    for number, (begin, stop) in enumerate(spans, 1):
      assert begin == column
      assert sampled[row, begin:stop].all()
      message = parts.tokenizer.decode(tokens[begin:stop])
      ended = tokens[stop - 1] in range(1, 8)
      assert not any(t in range(1, 8) for t in tokens[begin : stop - 1])
      if not ended:
        assert stop - begin == 4 or stop == _LENGTH
        expected, cut = (0.0, 'truncated'), True
        break
      text, state, reward, reason = _scripted(
        message, state, example, seeds[row // _GROUP]
      )[:4]
      if reward is not None:
        expected, cut = (reward, reason), False
      elif number == _TURNS:
        expected, cut = (0.0, 'out_of_turns'), False
      elif number == len(spans):  # No room for more.
        assert stop + 2 >= _LENGTH
        expected, cut = (0.0, 'truncated'), True
      else:
        told = parts.tokenizer.encode(text)
        column = stop + len(told)
        np.testing.assert_array_equal(tokens[stop:column], told)
        assert not sampled[row, stop:column].any()
        continue
      break
    assert (verdict.reward, verdict.reason) == (
      pytest.approx(expected[0]),
      expected[1],
    )
    assert rollout.truncated[row] == cut
    np.testing.assert_array_equal(real[row], np.arange(_LENGTH) < stop)
    assert sampled[row].sum() == sum(b - a for a, b in spans)
    seen.add(verdict.reason.lstrip('0123456789 '))
  assert {'truncated', 'out_of_turns', 'words'} <= seen


def test_a_rollout_is_a_function_of_its_inputs(scripted):
  first, second = _sample()[0], _sample()[0]
  jax.tree.map(np.testing.assert_array_equal, first, second)
  other = _sample(key=jax.random.PRNGKey(6))[0]
  assert (first.tokens != other.tokens).any()


def test_texts_hold_what_was_told(scripted):
  rollout, parts, experiment = _sample()
  with open_pool(experiment.rewards, 'scripted') as pool:
    verifier = CompletionVerifier(
      tokenizer=parts.tokenizer,
      stream=parts.prompts,
      pool=pool,
      prompt_length=_WIDTH,
    )
    texts, (verdicts,) = verifier.verify(rollout)
  assert verdicts == conversations.read_verdicts(rollout.conversation)
  for row, text in enumerate(texts):
    assert text.split().count('higher') >= len(list(_turns(rollout, row))) - 1


def test_slots_change_nothing(scripted):
  """Neither a token nor a turn nor a verdict; only when replies are given."""
  expected, *_ = _sample()
  asked = []

  def listening(*item):
    asked.append(item[0])
    return _scripted(*item)

  scripted(listening)
  got, *_ = _sample(num_slots=4)
  assert len(asked) > 16  # Of 16 rows some talked for longer.
  same = dict(decode_steps=None, stats=None)
  jax.tree.map(
    np.testing.assert_array_equal, got.replace(**same), expected.replace(**same)
  )
  np.testing.assert_allclose(
    got.stats.log_probs, expected.stats.log_probs, atol=1e-5
  )
  assert got.decode_steps.sum() < expected.decode_steps.sum()
  sampler, params, parts, _ = _sampler(range(1, 8), 4)
  found = sampler.shapes(params, parts.prompts.batch(0), _KEY)
  jax.tree.map(
    lambda shape, leaf: chex.assert_shape(leaf, shape.shape), found, got
  )


def _fails(message, state, example, seed):
  del message, state, example, seed
  raise KeyError('no such row')


@pytest.mark.parametrize(
  ('environment', 'reason'),
  [
    (_fails, "error: KeyError: 'no such row'"),
    # As text it is no word of this tokenizer, and never the end token.
    (lambda *_: ('3 <eos>', None, None, ''), "error: unknown word '<eos>'"),
    (lambda *_: end(0.25, 'é' * 500), 'é' * 200),
  ],
)
def test_an_environment_that_fails_ends_its_conversations(
  scripted, environment, reason
):
  scripted(environment)
  rollout, *_ = _sample(ends=range(16))  # A turn is one word.
  for verdict in conversations.read_verdicts(rollout.conversation):
    assert verdict.reason.startswith(reason)
    assert verdict.reward == (0.25 if 'é' in reason else 0.0)
  assert (np.asarray(rollout.conversation.turn).max(axis=1) == 1).all()
  assert not rollout.truncated.any()


def test_a_long_reply_is_cut_and_counted(scripted):
  scripted(lambda *_: ('higher ' * 2**17, None, None, ''))  # A mebibyte.
  rollout, parts, _ = _sample(ends=range(16))
  (higher,) = parts.tokenizer.encode('higher')
  tokens = np.asarray(rollout.tokens)[:, _WIDTH:]
  # Three turns of one word, and two replies of two.
  assert (tokens[:, [1, 2, 4, 5]] == higher).all()
  np.testing.assert_array_equal(rollout.conversation.replies_cut, 2)
  assert not np.asarray(rollout.token_mask)[:, _WIDTH + 7 :].any()


@pytest.mark.parametrize('truncated', ['zero', 'score', 'mask'])
def test_a_turn_that_never_ends_is_cut(scripted, monkeypatch, truncated):
  scripted(lambda *_: end(1.0, 'judged'))
  sampler = _sampler(range(1, 8), 0)[0]
  monkeypatch.setattr(sampler, 'truncated', truncated)
  rollout, *_ = _sample()
  cut = np.asarray(rollout.truncated)
  assert 0.1 < cut.mean() < 0.9
  lengths = np.asarray(rollout.completion_mask).sum(axis=1)
  assert (lengths[cut] == 4).all()
  for is_cut, verdict in zip(
    cut, conversations.read_verdicts(rollout.conversation), strict=True
  ):
    unjudged = is_cut and truncated == 'zero'
    assert verdict == ((0.0, 'truncated') if unjudged else (1.0, 'judged'))


class _Killed(BaseException):
  """What no environment is forgiven."""


def _run(settings, folder):
  """As `runs.run`, with the many ends of `_sampler`."""
  ends = tuple(range(1, 8))
  built = runs.changed(runs.experiment(settings), sampling__eos_ids=ends)
  folder = workdir.open_workdir(folder)
  with runs.quick_compilation(), workdir.locked(folder):
    workdir.check_config(folder, built.resolved)
    return loop.run(built, folder)


@pytest.mark.slow
def test_a_run_killed_while_a_tool_runs_resumes_bit_for_bit(
  scripted, tmp_path, capsys
):
  # With a lag, a checkpoint holds the conversations of the next step.
  settings = _settings(
    checkpoints__every_n_steps=1,
    sampling__lag=1,
    sampling__integrity_every_n_steps=1,
  )
  settings.num_steps = 4
  seen = []

  def counting(message, state, example, seed):
    seen.append(state)
    return _scripted(message, state, example, seed)

  scripted(counting)
  _run(settings, tmp_path / 'whole')
  assert 'turns     scripted, at most 3\n' in capsys.readouterr().err
  # In a later turn of the third step or so.
  last = next(i for i in range(len(seen) * 4 // 5, 0, -1) if seen[i])
  calls = iter(range(last))

  def dying(*arguments):
    if next(calls, None) is None:
      raise _Killed
    return _scripted(*arguments)

  scripted(dying)
  with pytest.raises(_Killed):
    _run(settings, tmp_path / 'killed')
  assert 0 < runs.last_step(tmp_path / 'killed') < 4
  scripted(_scripted)
  _run(settings, tmp_path / 'killed')
  runs.assert_same(tmp_path / 'killed', tmp_path / 'whole', settings)
  row = [r for r in runs.rows(tmp_path / 'whole') if 'loss/total' in r][-1]
  checked = [
    r['integrity/turn_edges']
    for r in runs.rows(tmp_path / 'whole')
    if 'integrity/turn_edges' in r
  ]
  assert len(checked) == 3  # At the last step nothing is sampled.
  assert 0.0 < max(checked) <= 1e-4
  assert 1.0 <= row['rollout/turns_mean'] <= _TURNS
  shares = [row[f'rollout/share_turns_{k + 1}'] for k in range(_TURNS)]
  assert sum(shares) == pytest.approx(1.0)
  means = [row[f'rewards/mean_turns_{k + 1}'] for k in range(_TURNS)]
  assert np.dot(shares, means) == pytest.approx(row['rewards/mean'])
  assert 0.0 < row['rollout/told_share'] < 1.0
  assert f'trust_region/fraction_masked_turn_{_TURNS}' in row


@pytest.mark.parametrize(('room', 'goes_on'), [(3, True), (2, False)])
def test_a_reply_leaves_a_column_for_the_next_turn(room, goes_on):
  """Two words are told; a turn of no column would sample beyond the last."""
  told = types.SimpleNamespace(
    _environment=types.SimpleNamespace(max_turns=2, max_reply_length=2),
    _config=types.SimpleNamespace(max_completion_length=_LENGTH),
    _parts=types.SimpleNamespace(
      tokenizer=types.SimpleNamespace(
        encode_reply=lambda text, limit: ([4, 5], False)
      )
    ),
  )
  row = conversations._Conversation({}, 0)
  row.number = 1
  reply = Reply('lower than', None, None, '')
  take = conversations.ConversationSampler._take
  ids = take(told, row, reply, _LENGTH - room)
  assert (ids == [4, 5]) if goes_on else (ids is None)
  assert (row.verdict is None) == goes_on == (not row.truncated)


def test_shapes_are_those_of_a_rollout(scripted):
  sampler, params, parts, _ = _sampler(range(1, 8), 0)
  found = sampler.shapes(params, parts.prompts.batch(0), _KEY)
  rollout, *_ = _sample()
  jax.tree.map(
    lambda shape, leaf: chex.assert_shape(leaf, shape.shape), found, rollout
  )
  assert jax.tree.map(lambda leaf: leaf.dtype, found) == jax.tree.map(
    lambda leaf: leaf.dtype, rollout
  )


def test_an_environment_must_be_open():
  settings = _settings(environment__name='guessing')
  experiment, parts = runs.experiment(settings), runs.parts(settings)
  with pytest.raises(ValueError, match=r'^environment\.name: .* is not open'):
    conversations.ConversationSampler(
      parts,
      parts.prompts,
      experiment.sampling,
      experiment.environment,
      None,
      'zero',
    )
