"""Programs that runs in one process share: traced and compiled once.

A run makes its programs anew, so that two runs of one config trace and compile
everything twice, which is most of what a tiny run takes. Here what makes them
is asked once for the same arguments.
"""

import collections
import contextlib
from unittest import mock

import jax

from dppo_jax.runtime import iteration
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.evaluation import evaluate
from dppo_jax.runtime.programs import compiled, parts
from dppo_jax.runtime.sft import warm_start

# Sections of an experiment that no program reads.
_UNREAD = {
  *('resolved', 'seed', 'data', 'checkpoints', 'writers', 'ledger', 'profile'),
  *('evaluation', 'compilation_cache', 'num_steps'),
}
# What makes a model reads these; its rule, for one, is of another program.
_OF_THE_MODEL = ('model', 'lora', 'optimizer', 'mesh', 'num_devices')
# (module, function), where the function is looked up.
_MAKERS = (
  (parts, 'assemble_model'),
  (compiled, 'compile_anchor_head'),
  (compiled, 'compile_batcher'),
  (compiled, 'compile_group_choice'),
  (compiled, 'compile_sampler'),
  (compiled, 'compile_scorer'),
  (iteration, 'compile_step'),
  (evaluate, 'compile_sampler'),
  (warm_start, 'make_optimizer'),
  (warm_start.state_lib, 'abstract_state'),
  (warm_start, '_make_learner'),
  (warm_start, 'compile_train_step'),
)
_originals = {(m, name): getattr(m, name) for m, name in _MAKERS}
_MOST = 200  # The oldest is forgotten.
# Key -> what was made, and the arguments: an id is of whoever still lives.
_made = collections.OrderedDict()


def _key(value, sections):
  """What tells arguments apart; by identity where a value has no other."""
  if isinstance(value, Experiment):
    return tuple(
      (name, repr(field))
      for name, field in vars(value).items()
      if (name in sections if sections else name not in _UNREAD)
    )
  if isinstance(value, parts.ModelParts):
    own = (value.policy, value.optimizer, value.base, value.mesh)
    return tuple(map(id, own)), repr(value.abstract_state), value.adapter_scale
  if isinstance(value, jax.sharding.Mesh):
    return repr(value), tuple(device.id for device in value.devices.flat)
  text = repr(value)
  return id(value) if ' at 0x' in text else text


def _asked_once(name, make):
  sections = _OF_THE_MODEL if name == 'assemble_model' else ()

  def ask(*args, **kwargs):
    key = (
      name,
      tuple(_key(value, sections) for value in args),
      tuple((k, _key(v, sections)) for k, v in sorted(kwargs.items())),
    )
    if key not in _made:
      _made[key] = make(*args, **kwargs), (args, kwargs)
      if len(_made) > _MOST:
        _made.popitem(last=False)
    return _made[key][0]

  return ask


@contextlib.contextmanager
def shared():
  """Has runs and parts that are made within share their programs."""
  with contextlib.ExitStack() as stack:
    for (module, name), make in _originals.items():
      if getattr(module, name) is make:  # Not within, nor replaced by a test.
        asked = _asked_once(name, make)
        stack.enter_context(mock.patch.object(module, name, asked))
    yield
