from dppo_jax.runtime.storage import code_version


def test_every_source_counts_as_code(tmp_path):
  source = tmp_path / 'dppo_jax' / 'a.py'
  source.parent.mkdir()
  source.write_text('x = 1\n')
  before = code_version.of_sources(tmp_path)
  assert code_version.of_sources(tmp_path) == before
  source.write_text('x = 2\n')
  assert code_version.of_sources(tmp_path) != before
  source.rename(source.with_name('b.py'))
  source.with_name('b.py').write_text('x = 1\n')
  assert code_version.of_sources(tmp_path) != before
