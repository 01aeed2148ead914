import numpy as np
import pytest

from dppo_jax.conformance import hf_models
from tests.support import published


@pytest.mark.parametrize('name', published.ALL)
def test_published_models(name):
  found = hf_models.compare(published.MODELS / name)
  assert found.logits_error <= 1e-6  # The bar is 2e-5.
  assert (found.greedy_differ, found.num_greedy) == (0, 3)
  assert found.conforms


def _expect(folder, **changes):
  name = hf_models.EXPECTED
  with np.load(published.MODELS / folder.name / name) as archive:
    arrays = {key: archive[key] for key in archive.files}
  arrays |= changes
  kept = {key: value for key, value in arrays.items() if value is not None}
  np.savez(folder / name, **kept)
  return arrays


def test_a_miss_is_counted(tmp_path):
  folder = published.copy('qwen2_tied', tmp_path)
  arrays = _expect(folder)
  assert hf_models.compare(folder).conforms

  logits = arrays['logits'].copy()
  logits[0, 3, 5] += 4e-5 * np.abs(logits[arrays['attention_mask'] > 0]).max()
  _expect(folder, logits=logits)
  found = hf_models.compare(folder)
  assert found.logits_error == pytest.approx(4e-5, rel=0.1)
  assert not found.conforms

  greedy = arrays['greedy'].copy()
  greedy[1, -1] += 1
  _expect(folder, greedy=greedy)
  found = hf_models.compare(folder)
  assert found.greedy_differ == 1
  assert not found.conforms


def test_padded_positions_are_not_compared(tmp_path):
  folder = published.copy('qwen2_tied', tmp_path)
  arrays = _expect(folder)
  padded = arrays['attention_mask'][..., None] == 0
  _expect(folder, logits=np.where(padded, np.inf, arrays['logits']))
  assert hf_models.compare(folder).conforms


def test_a_folder_that_cannot_be_loaded_is_a_miss_and_the_rest_goes_on(
  tmp_path,
):
  for name in ('llama3_rope_scaled', 'qwen2_tied'):
    _expect(published.copy(name, tmp_path))
  (tmp_path / 'llama3_rope_scaled' / 'model.safetensors').unlink()
  found = hf_models.compare_folder(tmp_path)
  assert [each.conforms for each in found] == [False, True]
  text = hf_models.describe(tmp_path, found)
  assert 'neither model.safetensors nor' in text
  assert text.endswith(
    'DOES NOT CONFORM: 1 of 2 models (logits within 2e-05, greedy tokens'
    ' equal).'
  )


def test_expectations_that_lack_an_array(tmp_path):
  folder = published.copy('qwen2_tied', tmp_path)
  _expect(folder, greedy=None)
  with pytest.raises(ValueError, match=r'expected\.npz: lacks greedy; it must'):
    hf_models.compare(folder)


def test_a_folder_without_models(tmp_path):
  with pytest.raises(ValueError, match=r'--pretrained: no expected\.npz at or'):
    hf_models.compare_folder(tmp_path)
