from dppo_jax.commands import entry_points


def test_every_entry_point_is_a_command():
  known = entry_points.commands()
  assert {'train', 'evaluate', 'figures', 'bench.head'} <= set(known)
  assert known['train'] == 'Trains a policy: config -> experiment -> run.'
  assert 'tables' in known
  assert 'figures.settings' not in known


def test_commands_of_a_clone_are_listed_in_one(monkeypatch):
  assert entry_points.in_clone()
  assert set(entry_points.OF_A_CLONE) <= set(entry_points.commands())
  monkeypatch.setattr(entry_points, 'in_clone', lambda: False)
  known = entry_points.commands()
  assert 'train' in known
  assert not set(entry_points.OF_A_CLONE) & set(known)


def test_a_command_has_a_file():
  assert entry_points.file_of('train').name == 'train.py'
  assert entry_points.file_of('figures').name == '__main__.py'
  assert entry_points.file_of('figures.anchor').name == 'anchor.py'
  for nothing in ('', 'Trian', '--config=tiny', 'figures.nothing'):
    assert entry_points.file_of(nothing) is None


def test_paths_are_shown_from_here_or_whole(monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  assert entry_points.shown(tmp_path / 'a/b') == 'a/b'
  assert entry_points.shown(tmp_path.parent) == str(tmp_path.parent)
  keys = entry_points.keys_file()
  assert keys == str(entry_points.CONFIGS / 'default.py')
  monkeypatch.chdir(entry_points.CONFIGS.parent)
  assert entry_points.keys_file() == 'configs/default.py'
