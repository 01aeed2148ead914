import jax
import numpy as np
import pytest

from dppo_jax.configs import qwen3_8b_base
from dppo_jax.planning import mesh_layouts
from dppo_jax.planning.mesh_layouts import Layout
from tests.support import runs


def test_layouts_cover_what_is_promised():
  layouts = mesh_layouts.LAYOUTS
  assert {layout.num_devices for layout in layouts} == {1, 2, 4, 8}
  assert layouts[0].num_devices == 1
  orders = {layout.order for layout in layouts if layout.num_devices == 8}
  assert orders == {'as given', 'reversed', 'shuffled'}
  assert {layout.expert for layout in layouts} > {1}
  assert len(set(layouts)) == len(layouts)


def test_orders_are_permutations_of_the_devices():
  def ids(order):
    grid = mesh_layouts.arrange(Layout(data=2, tensor=4, order=order))
    assert grid.shape == (2, 1, 1, 4)
    return [device.id for device in grid.flat]

  orders = [ids(order) for order in ('as given', 'reversed', 'shuffled')]
  assert orders[0] == list(range(8))
  assert orders[1] == orders[0][::-1]
  assert sorted(orders[2]) == orders[0]
  assert orders[2] not in orders[:2]


def test_eight_devices_are_here_already():
  assert mesh_layouts.have_devices() == jax.device_count() == 8


def test_what_does_not_divide_is_left_out_with_its_reason():
  layouts = (Layout(), Layout(tensor=4), Layout(expert=2), Layout(data=16))
  found = list(mesh_layouts.choose(runs.config(), 8, layouts))
  assert [experiment is not None for _, experiment, _ in found] == [
    True,
    False,
    False,
    False,
  ]
  assert 'mesh.tensor: got 4' in found[1][2]
  assert 'num_kv_heads=2' in found[1][2]
  assert 'num_experts=0' in found[2][2]
  assert found[3][2] == 'only 8 devices'


def test_a_config_that_is_wrong_anywhere_is_an_error():
  settings = runs.config(sampling__top_k=99)
  with pytest.raises(ValueError, match=r'sampling\.top_k: got 99'):
    list(mesh_layouts.choose(settings, 8))


def test_the_model_of_a_paper_is_too_big_and_says_so():
  settings = qwen3_8b_base.get_config()
  ((_, experiment, why),) = mesh_layouts.choose(settings, 8, (Layout(),))
  assert experiment is None
  assert why.startswith('too ')


def test_too_long_for_a_cpu(monkeypatch):
  monkeypatch.setattr(mesh_layouts, '_MOST_WORK', 1e3)
  ((_, experiment, why),) = mesh_layouts.choose(runs.config(), 8, (Layout(),))
  assert experiment is None
  assert why.startswith('too long')


def test_the_batch_is_small_and_the_mesh_is_the_layout():
  settings = runs.config(learner__num_minibatches=8, mesh__fsdp=2)
  built = mesh_layouts.build(settings, Layout(data=2, tensor=2), 8)
  assert built.data.num_prompts == 8
  assert built.learner.num_minibatches == 2
  sizes = (built.mesh.data, built.mesh.fsdp, built.mesh.tensor)
  assert sizes == (2, 1, 2)
  assert settings.mesh.fsdp == 2
  assert np.isinf(built.loss.ratio_cap)
