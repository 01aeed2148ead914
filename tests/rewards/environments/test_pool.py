"""No environment can end, stall or confuse a run."""

import re
import textwrap

import pytest

from dppo_jax.rewards import pool as pool_lib
from dppo_jax.rewards.environments import pool as environments_pool
from dppo_jax.rewards.environments.pool import (
  EnvironmentPool,
  check_environment,
)
from dppo_jax.rewards.environments.replies import MAX_TEXT_LENGTH, Reply

_SOURCE = """
import os, time

def talk(message, state, example, seed):
  if message == 'hang':
    while True:
      pass
  if message == 'sleep':
    time.sleep(60)
  if message == 'exit':
    os._exit(3)
  if message == 'raise':
    raise KeyError('no such row')
  if message == 'megabyte':
    return 'x' * 2**20, None, None, ''
  if message == 'end':
    return '', None, example['weight'], 'own words'
  seen = (state or []) + [message]
  return f'{len(seen)} {seed}', seen, None, ''
"""


@pytest.fixture(scope='module')
def name(tmp_path_factory):
  folder = tmp_path_factory.mktemp('environment')
  (folder / 'an_environment.py').write_text(textwrap.dedent(_SOURCE))
  patch = pytest.MonkeyPatch()
  patch.syspath_prepend(str(folder))
  yield 'an_environment:talk'
  patch.undo()


def _open(name, num_workers=1):
  return EnvironmentPool(
    verifier=name,
    extraction='whole',
    num_workers=num_workers,
    time_limit_s=0.5,
    memory_limit_mb=4096,
    wall_limit_s=1.0,
  )


def test_failures_end_their_own_conversation_only(name):
  said = ['a', 'hang', 'sleep', 'exit', 'raise', 'megabyte', 'end', 'b']
  with _open(name) as pool:
    found = pool.reply([(m, ['x'], {'weight': 0.5}, 7) for m in said])
  assert found[0] == Reply('2 7', ['x', 'a'], None, '')
  assert found[-1] == Reply('2 7', ['x', 'b'], None, '')
  assert [(reply.reward, reply.reason) for reply in found[1:5]] == [
    (0.0, 'timeout'),
    (0.0, 'timeout'),
    (0.0, 'crashed'),
    (0.0, "error: KeyError: 'no such row'"),
  ]
  assert (len(found[5].text), found[5].cut) == (MAX_TEXT_LENGTH, True)
  assert found[6] == Reply('', None, 0.5, 'own words')


def test_own_environments_need_no_process():
  with _open('guessing', num_workers=0) as pool:
    example = {'answer': '7'}
    found = pool.reply([('3', None, example, 0), ('7', None, example, 0)])
    assert pool.reply([]) == []
  assert [reply.text for reply in found] == ['higher', '']
  with pytest.raises(ValueError, match='closed'):
    pool.reply([])


def test_a_forged_reply_counts_as_a_crash(name, monkeypatch):
  """A worker's bytes are data, whatever wrote them."""
  forged = environments_pool.EnvironmentPool._result
  with _open(name) as pool:
    monkeypatch.setattr(
      pool, '_result', lambda *fields: forged(pool, 3, None, None, '')
    )
    (found,) = pool.reply([('a', None, {}, 0)])
  assert (found.reward, found.reason) == (0.0, pool_lib.CRASHED.reason)


@pytest.mark.parametrize(
  ('name', 'num_workers', 'message'),
  [
    ('gessing', 0, "environment.name: unknown 'gessing'; did you mean"),
    ('os.path:', 1, "environment.name: unknown 'os.path:'"),
    ('a.module:talk', 0, 'rewards.num_workers: got 0 for the environment'),
    ('reasoning_gym', 0, 'rewards.num_workers: got 0 for the environment'),
  ],
)
def test_names_are_checked(name, num_workers, message):
  with pytest.raises(ValueError, match='^' + re.escape(message)):
    check_environment(name, num_workers)


def test_what_cannot_be_imported_is_told():
  with pytest.raises(ValueError, match=r'^environment\.name: cannot import'):
    _open('no_such_module:talk')
