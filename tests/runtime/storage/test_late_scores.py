import pytest

from dppo_jax.runtime.storage import late_scores


def test_scores_are_added_and_dropped(tmp_path):
  late_scores.add(tmp_path, 3, 'a', 0.5)
  late_scores.add(tmp_path, 3, 'b', 0.25)
  late_scores.add(tmp_path, 6, 'a', 0.75)
  assert late_scores.read(tmp_path) == {
    '3': {'a': 0.5, 'b': 0.25},
    '6': {'a': 0.75},
  }
  late_scores.drop(tmp_path, 3)
  late_scores.drop(tmp_path, 4)
  assert late_scores.read(tmp_path) == {'6': {'a': 0.75}}


def test_only_numbers_are_scores(tmp_path):
  (tmp_path / late_scores.FILE).write_text('{"3": {"a": "1", "b": 2, "c": []}}')
  assert late_scores.read(tmp_path) == {'3': {'b': 2}}


@pytest.mark.parametrize('text', ['', '[1]', '[' * 10**5, '{"3": null}'])
def test_a_damaged_file_holds_none(tmp_path, text):
  (tmp_path / late_scores.FILE).write_text(text)
  assert late_scores.read(tmp_path) == {}
