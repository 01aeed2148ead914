"""A run that trains an adapter: what it keeps, saves, resumes and exports."""

import functools
import json
import shutil
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dppo_jax.models import policy as policy_lib
from dppo_jax.runtime import export as export_lib
from dppo_jax.runtime.evaluation import offline
from dppo_jax.runtime.hub import load_weights, peft_io
from dppo_jax.runtime.programs import base_weights
from dppo_jax.runtime.programs import parts as parts_lib
from dppo_jax.runtime.programs import state as state_lib
from dppo_jax.runtime.storage import workdir
from dppo_jax.runtime.storage.checkpoints import Checkpoints
from tests.runtime.hub.test_load_weights import like
from tests.support import factories, published, runs

_SOURCE = published.MODELS / 'qwen3_gqa'


def _settings(**overrides):
  settings = runs.smallest(
    **{
      'lora__rank': 2,
      'lora__alpha': 4.0,
      'model__pretrained': str(_SOURCE),
      'checkpoints__every_n_steps': 1,
      'checkpoints__keep': 3,
      'objective__entropy_coefficient': 0.1,
      'objective__kl_coefficient': 0.1,
      **overrides,
    }
  )
  settings.num_steps = 2
  return settings


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A run of two steps, and the frozen weights that it ended with."""
  folder = tmp_path_factory.mktemp('lora')
  held = []
  load = base_weights.load_base

  def holding(experiment):
    held.append(load(experiment))
    return held[-1]

  with mock.patch.object(base_weights, 'load_base', holding):
    runs.run(_settings(), folder)
  return folder, held


@functools.cache
def _state(folder, step='latest'):
  experiment = runs.experiment(_settings())
  with runs.devices():
    parts = base_weights.with_base(experiment, parts_lib.assemble(experiment))
    state = offline.load_policy(parts, experiment.checkpoints, folder, step)
  return experiment, parts, state


def _export(folder, out, **given):
  with runs.devices():
    return export_lib.export(
      runs.experiment(_settings()),
      folder,
      out,
      **{'step': 'latest', 'dtype': '', 'max_bytes': 10**9, **given},
    )


def test_the_frozen_bits_stay(trained):
  _, held = trained
  assert len(held) == 1  # One copy, of the policy and of the reference.
  fresh = load_weights.load_params(_SOURCE, like(_SOURCE))
  for got, expected in zip(
    *map(jax.tree.leaves, (held[0], fresh)), strict=True
  ):
    assert np.asarray(got).tobytes() == np.asarray(expected).tobytes()


def test_the_optimizer_holds_the_adapter_alone(trained):
  experiment, parts, state = _state(trained[0])
  shapes = {leaf.shape for leaf in jax.tree.leaves(state.params)}
  assert all(2 in shape for shape in shapes)
  total = sum(leaf.size for leaf in jax.tree.leaves(state.params))
  for name in ('mu', 'nu'):
    moments = optax.tree.get(state.opt_state, name)
    assert jax.tree.map(jnp.shape, moments) == jax.tree.map(
      jnp.shape, state.params
    )
  scalars = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state))
  assert scalars - 2 * total < 10  # Counters.
  assert total < base_weights.num_parameters(experiment) / 10
  assert parts.adapter_scale == 2.0


def test_training_moves_both_factors(trained):
  _, _, before = _state(trained[0], '0')
  _, _, after = _state(trained[0])
  moved = jax.tree.map(
    lambda a, b: bool(np.any(np.asarray(a) != b)), before.params, after.params
  )
  assert all(jax.tree.leaves(moved))


def test_the_checkpoint_is_of_the_size_of_the_adapter(trained):
  _, _, state = _state(trained[0])
  own = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
  folder = trained[0] / workdir.CHECKPOINTS / '2' / 'state'
  stored = sum(p.stat().st_size for p in folder.rglob('d/*') if p.is_file())
  base = sum(a.nbytes for a in published.arrays(_SOURCE).values())
  assert own < base / 4
  assert 0 < stored < base / 4


def test_the_penalty_is_toward_the_base(trained):
  """What is kept of the reference is an adapter that adds nothing."""
  _, parts, state = _state(trained[0])
  like_ = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=leaf.sharding
    ),
    state.params,
  )
  store = Checkpoints(trained[0] / 'reference', 1, '', read_only=True)
  reference, _ = store.restore_params(like_, None)
  store.close()
  adapted = parts_lib.complete(parts, parts.base, reference)
  base = _logits(parts.base)
  np.testing.assert_allclose(_logits(adapted), base, atol=1e-6)


def test_an_interrupted_run_goes_on_bit_for_bit(trained, tmp_path):
  folder = tmp_path / 'run'
  shutil.copytree(trained[0], folder)
  shutil.rmtree(folder / workdir.CHECKPOINTS / '2')
  (folder / 'summary.json').unlink(missing_ok=True)
  runs.run(_settings(), folder)
  _, _, expected = _state(trained[0])
  _, _, got = _state(folder)
  for mine, other in zip(*map(jax.tree.leaves, (got, expected)), strict=True):
    assert np.asarray(mine).tobytes() == np.asarray(other).tobytes()


def _logits(params):
  experiment = runs.experiment(_settings())
  policy = policy_lib.make_policy(experiment.model)
  prompts = factories.make_prompts(4, 6)

  @jax.jit
  def run(params):
    hidden = policy.apply(params, prompts.tokens, prompts.mask)
    return policy.logits(params, hidden)

  return np.asarray(run(params))


def test_merged_weights_have_the_logits_of_the_run(trained, tmp_path):
  written = _export(trained[0], tmp_path / 'out')
  assert {'model.safetensors', 'config.json'} <= {p.name for p in written}
  merged = load_weights.load_params(tmp_path / 'out', like(tmp_path / 'out'))
  _, parts, state = _state(trained[0])
  own = _logits(parts_lib.complete(parts, parts.base, state.params))
  np.testing.assert_allclose(_logits(merged), own, atol=2e-5 * abs(own).max())
  assert np.abs(own - _logits(parts.base)).max() > 1e-3
  unmoved = 'model.embed_tokens.weight'
  np.testing.assert_array_equal(
    published.arrays(tmp_path / 'out')[unmoved],
    published.arrays(_SOURCE)[unmoved],
  )


def test_an_adapter_begins_another_run(trained, tmp_path):
  out = tmp_path / 'out'
  written = _export(trained[0], out, lora='adapter')
  assert {p.name for p in written} == {
    peft_io.CONFIG,
    peft_io.WEIGHTS,
  }
  config = json.loads((out / peft_io.CONFIG).read_text())
  assert config['base_model_name_or_path'] == str(_SOURCE)
  _, _, state = _state(trained[0])
  experiment = runs.experiment(_settings(lora__pretrained=str(out)))
  with runs.devices():
    parts = parts_lib.assemble(experiment)
    again = state_lib.initial_state(
      experiment, parts, parts.optimizer, parts.shardings
    )
  for got, expected in zip(
    *map(jax.tree.leaves, (again.params, state.params)), strict=True
  ):
    np.testing.assert_array_equal(got, expected)


def test_an_adapter_of_another_shape_is_refused(trained, tmp_path):
  _export(trained[0], tmp_path / 'out', lora='adapter')
  experiment = runs.experiment(
    _settings(lora__rank=3, lora__pretrained=str(tmp_path / 'out'))
  )
  with runs.devices():
    parts = parts_lib.assemble(experiment)
    with pytest.raises(ValueError, match=r'(?s)^lora\.pretrained: .* r is 2,'):
      state_lib.initial_state(
        experiment, parts, parts.optimizer, parts.shardings
      )


def test_a_changed_base_is_refused(trained, tmp_path):
  """Neither going on nor merging; the adapter alone may be had."""
  source = published.copy('qwen3_gqa', tmp_path)
  arrays = published.arrays(source)
  arrays['model.norm.weight'][0] += 1
  published.rewrite(source, arrays)
  folder = tmp_path / 'run'
  shutil.copytree(trained[0], folder)
  settings = _settings(model__pretrained=str(source))
  recorded = workdir.read_config(folder)
  recorded['model']['pretrained'] = str(source)
  (folder / workdir.CONFIG).write_text(json.dumps(recorded))
  with pytest.raises(ValueError, match='trained on frozen weights with'):
    runs.run(settings, folder)
  with runs.devices():
    export = (runs.experiment(settings), folder, tmp_path / 'out', 'latest', '')
    with pytest.raises(ValueError, match='trained on frozen weights with'):
      export_lib.export(*export, 10**9)
    export_lib.export(*export, 10**9, 'adapter')


def test_what_has_no_adapter_keeps_none(trained, tmp_path):
  with pytest.raises(ValueError, match=r"--lora: got 'both'; one of merged, a"):
    _export(trained[0], tmp_path / 'out', lora='both')
  experiment = runs.experiment(runs.smallest())
  with pytest.raises(ValueError, match=r"--lora: got 'adapter', and lora\.ran"):
    export_lib.export(
      experiment, trained[0], tmp_path / 'out', 'latest', '', 1, 'adapter'
    )
