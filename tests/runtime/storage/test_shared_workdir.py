import json

import pytest

from dppo_jax.runtime.hosts import coordination
from dppo_jax.runtime.storage import shared_workdir, workdir


def test_a_folder_is_made_locked_and_given_its_config(tmp_path):
  folder = tmp_path / 'run'
  with shared_workdir.opened(str(folder), {'seed': 1}) as path:
    assert path == folder
    assert json.loads((folder / workdir.CONFIG).read_text()) == {'seed': 1}
    with (
      pytest.raises(ValueError, match='another process is training'),
      workdir.locked(folder),
    ):
      pass
  assert not (folder / 'hosts').exists()
  with workdir.locked(folder):
    pass


def test_a_folder_of_other_files_stays_as_it_is(tmp_path):
  (tmp_path / 'thesis.tex').touch()
  with (
    pytest.raises(ValueError, match=r'holds no run, and other files'),
    shared_workdir.opened(str(tmp_path), {}),
  ):
    pytest.fail('it was opened')
  assert [path.name for path in tmp_path.iterdir()] == ['thesis.tex']


def test_hosts_must_share_the_folder(tmp_path, monkeypatch):
  monkeypatch.setattr(coordination, 'is_single_process', lambda: False)
  monkeypatch.setattr(
    coordination,
    'first_problem',
    lambda text: text and f'process 1 (b): {text}',
  )
  found = [str(tmp_path / 'elsewhere'), 'token']
  monkeypatch.setattr(coordination, 'from_primary', lambda make, what: found)
  with (
    pytest.raises(ValueError, match=r'cannot be read .* on process 1 \(b\)'),
    shared_workdir.opened('run', {}),
  ):
    pass
  found[0] = str(tmp_path)
  (tmp_path / 'hosts').write_text('token')
  with shared_workdir.opened('run', {}) as path:
    assert path == tmp_path
  (tmp_path / 'hosts').write_text('of another job')
  with (
    pytest.raises(ValueError, match='holds files of another job'),
    shared_workdir.opened('run', {}),
  ):
    pass


def test_config_and_code_must_be_equal_on_all_hosts(monkeypatch):
  asked = []
  monkeypatch.setattr(coordination, 'is_single_process', lambda: False)
  monkeypatch.setattr(coordination, 'compare', lambda *args: asked.append(args))
  shared_workdir.check_hosts({'seed': 0, 'data': {'data_dir': 'a'}})
  mine, differences, _ = asked[0]
  theirs = {
    'config': {'seed': 1, 'data': {'data_dir': 'b'}},
    'code': 'another',
    'jax': mine['jax'],
  }
  assert list(differences(mine, mine)) == []
  assert list(differences(mine, theirs)) == [
    f'code: {mine["code"]} -> another',
    'seed: 0 -> 1',
  ]
