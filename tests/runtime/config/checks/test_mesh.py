import pytest

from dppo_jax.runtime.config.checks import mesh
from dppo_jax.runtime.config.checks.mesh import slot_problems
from tests.support import runs


def _problems(num_devices=8, **overrides):
  settings = runs.config(**overrides).to_dict()
  return list(mesh.mesh_problems(settings, num_devices))


def test_what_fits_has_no_problem():
  assert not _problems()
  assert not _problems(mesh__fsdp=2, mesh__tensor=2)
  assert not _problems(
    mesh__tensor=2,
    model__shard_sequence=True,
    sampling__max_completion_length=8,
  )


@pytest.mark.parametrize(
  ('overrides', 'parts'),
  [
    (
      dict(mesh__tensor=8, model__num_heads=16, model__num_kv_heads=4),
      ('mesh.tensor: got 8, which does not divide model.num_kv_heads=4', ' 4.'),
    ),
    (
      dict(mesh__tensor=4, model__num_heads=6, model__num_kv_heads=8),
      ('model.num_heads=6', 'the nearest', ' 2.'),
    ),
    (
      dict(
        mesh__tensor=2,
        model__num_heads=8,
        model__num_kv_heads=4,
        model__d_ff=33,
      ),
      ('mesh.tensor: got 2', 'model.d_ff=33', ' 1.'),
    ),
    (
      dict(mesh__tensor=2, model__vocab_size=23),
      ('the vocabulary=23', 'Or pad it: model.vocab_size=24'),
    ),
    (
      dict(mesh__fsdp=4, model__d_model=18),
      ('mesh.fsdp: got 4', 'model.d_model=18', '8 devices: 2.'),
    ),
    (
      # Above, too: 3 divides neither, 2 and 6 do.
      dict(
        num_devices=12,
        mesh__fsdp=4,
        model__d_model=18,
        data__num_prompts=24,
        evaluation__num_prompts=24,
        sft__batch_size=24,
      ),
      ('mesh.fsdp: got 4', '12 devices: 3 or 6.'),
    ),
    (
      dict(
        mesh__tensor=2, model__num_experts=4, model__moe_intermediate_size=9
      ),
      ('model.moe_intermediate_size=9', ' 1.'),
    ),
    (
      dict(mesh__expert=2, model__num_experts=3),
      ('mesh.expert: got 2', 'model.num_experts=3', ' 1.'),
    ),
    (
      dict(mesh__tensor=2, model__shard_sequence=True),
      (
        'sampling.max_completion_length=7',
        'Or set sampling.max_completion_length=8.',
      ),
    ),
    (
      dict(mesh__tensor=2, model__shard_attention='columns'),
      ("model.shard_attention: got 'columns'", 'model.shard_sequence=False'),
    ),
    (
      dict(rewards__model='/a/model', rewards__model_batch_size=12),
      ('rewards.model_batch_size: got 12', 'the nearest that fits is 16'),
    ),
    (
      dict(learner__num_microbatches=16),
      ('a microbatch has 1 rows', 'the nearest that fits is 2.'),
    ),
    (
      dict(sft__batch_size=12),
      ('sft.batch_size: got 12', 'the nearest that fits is 16'),
    ),
  ],
  ids=lambda value: '-'.join(value) if isinstance(value, dict) else '',
)
def test_the_nearest_that_fits_is_named(overrides, parts):
  (problem,) = _problems(**overrides)
  for part in parts:
    assert part in problem


def test_a_mesh_of_another_size_is_one_problem():
  (problem,) = _problems(mesh__data=3)
  assert 'does not multiply to the 8 devices' in problem
  assert problem.endswith('what is left.')  # Three are there.
  (problem,) = _problems(mesh__tensor=16)
  assert 'At least 16 are needed' in problem
  assert '--dry_run --num_devices=16' in problem
  assert problem.endswith('JAX_NUM_CPU_DEVICES=16.')


@pytest.mark.parametrize(
  ('num_slots', 'num_devices', 'messages'),
  [
    (0, 8, []),
    (5, 1, []),
    (24, 8, []),
    (32, 8, []),
    (
      33,
      8,
      [
        'sampling.num_slots: got 33; a step samples 32 completions'
        ' (data.num_prompts=8 times data.group_size=4); set at most 32, or 0'
        ' for all of them.'
      ],
    ),
    (
      12,
      8,
      [
        'sampling.num_slots: got 12, which the 8 batch shards of the mesh'
        ' (data times fsdp times expert) do not divide; the nearest that fit:'
        ' 8 and 16.'
      ],
    ),
    (
      3,
      8,
      [
        'sampling.num_slots: got 3, which the 8 batch shards of the mesh'
        ' (data times fsdp times expert) do not divide; the nearest that fit:'
        ' 8.'
      ],
    ),
  ],
)
def test_each_problem_is_a_sentence(num_slots, num_devices, messages):
  config = runs.config().to_dict()
  config['data'] |= {'num_prompts': 8, 'group_size': 4}
  config['sampling'] |= {'num_slots': num_slots}
  assert list(slot_problems(config, num_devices)) == messages


def test_a_wrong_mesh_is_told_of_elsewhere():
  config = runs.config().to_dict()
  config['mesh'] |= {'data': 3, 'fsdp': 3}
  config['sampling'] |= {'num_slots': 3}
  assert not list(slot_problems(config, 8))
