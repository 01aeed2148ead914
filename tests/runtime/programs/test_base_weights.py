import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax import parallel
from dppo_jax.models import policy as policy_lib
from dppo_jax.runtime.programs import base_weights
from dppo_jax.runtime.programs import parts as parts_lib
from dppo_jax.runtime.programs import state as state_lib
from tests.support import published, runs


def _experiment(**overrides):
  return runs.experiment(runs.smallest(lora__rank=2, **overrides))


def _bits(tree):
  return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def test_the_base_of_a_seed_is_that_of_a_whole_run():
  with runs.devices():
    base = base_weights.load_base(_experiment())
    whole = runs.experiment(runs.smallest())
    parts = parts_lib.assemble(whole)
    state = state_lib.initial_state(
      whole, parts, parts.optimizer, parts.shardings
    )
    assert _bits(base) == _bits(state.params)
    other = base_weights.load_base(_experiment(seed=1))
  assert base_weights.fingerprint(base) != base_weights.fingerprint(other)


@pytest.fixture(scope='module')
def mixed(tmp_path_factory):
  """A published model with weights in bfloat16 and norms in float32."""
  folder = published.copy('qwen3_gqa', tmp_path_factory.mktemp('mixed'))
  arrays = {
    name: array if 'norm' in name else array.astype(jnp.bfloat16)
    for name, array in published.arrays(folder).items()
  }
  published.rewrite(folder, arrays)
  return folder


def test_every_weight_keeps_its_published_dtype(mixed):
  experiment = _experiment(model__pretrained=str(mixed))
  with runs.devices():
    base = base_weights.load_base(experiment)
  assert base['embedding'].dtype == jnp.bfloat16
  assert base['layers']['mlp']['up']['kernel'].dtype == jnp.bfloat16
  assert base['final_norm']['scale'].dtype == jnp.float32
  stored = published.arrays(mixed)['model.embed_tokens.weight']
  assert np.asarray(base['embedding']).tobytes() == stored.tobytes()


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('is_published', [True, False])
def test_unless_another_is_asked_for(mixed, dtype, is_published):
  source = {'model__pretrained': str(mixed)} if is_published else {}
  experiment = _experiment(lora__base_dtype=dtype, **source)
  with runs.devices():
    base = base_weights.load_base(experiment)
    like = base_weights.abstract_base(experiment)
  assert {str(leaf.dtype) for leaf in jax.tree.leaves(base)} == {dtype}
  assert {str(leaf.dtype) for leaf in jax.tree.leaves(like)} == {dtype}


def test_a_missing_folder_is_named(tmp_path, mixed):
  experiment = _experiment(model__pretrained=str(mixed))
  experiment = dataclasses.replace(experiment, pretrained=str(tmp_path / 'x'))
  with (
    runs.devices(),
    pytest.raises(ValueError, match=r'^model\.pretrained: .*neither model'),
  ):
    base_weights.load_base(experiment)


# Fingerprints.


def _tree(dtype=np.float32):
  rng = np.random.default_rng(0)
  return {'a': rng.standard_normal((8, 4, 6)).astype(dtype), 'b': {'c': _B}}


_B = np.arange(4, dtype=np.float32)


@pytest.mark.parametrize('dtype', [np.float32, jnp.bfloat16, np.float16])
def test_every_bit_and_its_place_count(dtype):
  tree = _tree(dtype)
  names = {base_weights.fingerprint(tree)}
  flipped, swapped, negated = (jax.tree.map(np.copy, tree) for _ in range(3))
  word = np.uint32 if dtype == np.float32 else np.uint16
  flipped['a'].view(word)[3, 2, 1] ^= 1
  swapped['a'][[0, 1]] = swapped['a'][[1, 0]]
  negated['b']['c'][0] = -0.0
  names |= {base_weights.fingerprint(t) for t in (flipped, swapped, negated)}
  names.add(base_weights.fingerprint({'a': tree['a'], 'b': {'d': _B}}))
  names.add(base_weights.fingerprint({**tree, 'b': {'c': _B[None]}}))
  assert len(names) == 6


def test_the_mesh_does_not_count():
  tree = _tree()
  sharding = jax.sharding.NamedSharding(
    parallel.make_mesh(2, 2, 2), jax.sharding.PartitionSpec('fsdp', 'tensor')
  )
  spread = {**tree, 'a': jax.device_put(tree['a'], sharding)}
  assert base_weights.fingerprint(spread) == base_weights.fingerprint(tree)


def test_the_name_is_stable():
  """Checkpoints hold it: another one would refuse them."""
  tree = {'a': _B, 'b': _B.reshape(2, 2)}
  assert base_weights.fingerprint(tree) == 'fcc5652b0af0eef8'


def test_another_base_is_refused():
  with runs.devices():
    experiment = _experiment()
    parts = parts_lib.assemble(experiment)
    assert base_weights.metadata(parts) == {}
    parts = base_weights.with_base(experiment, parts)
  stored = base_weights.metadata(parts)
  base_weights.check(parts, stored)
  for other in ({'base_fingerprint': '0' * 16}, {}):
    with pytest.raises(ValueError, match='trained on frozen weights with') as e:
      base_weights.check(parts, other)
  assert f'have {parts.base_fingerprint}' in str(e.value)


def test_without_an_adapter_there_is_no_base():
  experiment = runs.experiment(runs.smallest())
  parts = runs.parts(runs.smallest())
  assert base_weights.with_base(experiment, parts) is parts
  base_weights.check(parts, {})
  assert parts_lib.complete(parts, None, {'x': 1}) == {'x': 1}


def test_a_forgotten_base_is_said():
  parts = runs.parts(runs.smallest(lora__rank=2))
  with pytest.raises(ValueError, match=r'lora\.rank: .*weights\.with_base'):
    parts_lib.complete(parts, None, {})


def test_parameters_are_counted():
  experiment = _experiment()
  with runs.devices():
    like = base_weights.abstract_base(experiment)
    assert base_weights.num_parameters(experiment) == sum(
      leaf.size for leaf in jax.tree.leaves(like)
    )
  params = policy_lib.make_policy(experiment.model).init
  shapes = jax.eval_shape(params, jax.random.PRNGKey(0))
  assert base_weights.num_parameters(experiment) == sum(
    leaf.size for leaf in jax.tree.leaves(shapes)
  )
