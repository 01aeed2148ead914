from dppo_jax.planning import dry_run
from tests.support import runs


def test_a_plan_is_for_devices_that_are_not_here():
  config = '--config=configs/tiny.py'
  four = '--config.mesh.fsdp=2', '--config.mesh.tensor=2'
  for flags, count in ((('--num_devices=2',), 2), (four, 4)):
    code, out, err = runs.end(runs.start('train', config, '--dry_run', *flags))
    assert code == 0, err
    assert f'devices            {count}, mesh ' in out


def test_the_plan_counts_tokens():
  with runs.quick_compilation():
    text = dry_run.describe(runs.experiment())
  for line in (
    'train steps        6 of 2 updates',
    'completions        32 per step (8 prompts × 4)',
    'sampled tokens     at most 224 per step, 1,344 in all',
    'trained tokens     at most 416 per step',
    '  parameters       25.4 KiB',
  ):
    assert line in text.splitlines()
