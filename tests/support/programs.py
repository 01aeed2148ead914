"""Programs that runs in one process share: traced and compiled once.

A run makes its programs anew, so that two runs of one config trace and compile
everything twice, which is most of what a tiny run takes. Here what makes them
is asked once for what it reads.
"""

import collections
import contextlib
import dataclasses
import operator
import sys
from unittest import mock

import jax

from dppo_jax.learner import state as state_lib
from dppo_jax.runtime import iteration
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.evaluation import samplers
from dppo_jax.runtime.programs import compiled, parts
from dppo_jax.runtime.rollouts import conversations, integrity, weight_sync
from dppo_jax.runtime.sft import warm_start
from dppo_jax.sampling.decode import SamplingConfig

_MODEL = ('model', 'lora', 'mesh', 'num_devices')
_HEAD = (*_MODEL, 'learner.head_chunk_tokens')
_STEP = (*_MODEL, 'loss', 'learner', 'optimizer', 'environment.max_turns')
# (module, function), where it is looked up -> paths of what it reads, and what
# it makes when called, of an Experiment.
_MAKERS = {
  (parts, 'assemble_model'): (*_MODEL, 'optimizer'),
  (parts, 'trained_policy'): _MODEL,
  (state_lib, '_compile_init'): (),
  (state_lib, '_compile_restart'): (),
  (compiled, 'compile_anchor_head'): (),
  (compiled, 'compile_batcher'): (
    'sampling.group_size',
    'advantages',
    'rewards.truncated',
    'environment.max_turns',
  ),
  (compiled, 'compile_group_choice'): ('sampling.group_size',),
  (compiled, 'compile_sampler'): (),
  (compiled, 'compile_scorer'): (*_MODEL, 'loss', 'learner'),
  (compiled, 'compile_step'): _STEP,
  (iteration, 'compile_step'): _STEP,
  (integrity, 'compile_canary'): (
    *(*_HEAD, 'sampling.temperature', 'loss.prompt_length'),
  ),
  (conversations, '_compile_turns'): (),
  (samplers, 'compile_sampler'): (),
  (samplers, '_compile_either'): (),
  (warm_start, 'make_optimizer'): (),
  (warm_start.state_lib, 'abstract_state'): (),
  (warm_start, '_make_learner'): (*_HEAD, 'sft.step'),
  (warm_start, 'compile_train_step'): (),
}
_originals = {(m, name): getattr(m, name) for m, name in _MAKERS}
_MOST = 400  # The oldest is forgotten.
# Key -> what was made, and the arguments: an id is of whoever still lives.
_made = collections.OrderedDict()


class _Read:
  """An Experiment of which nothing but the paths of a maker is there."""

  def __init__(self, value, paths):
    self._value, self._paths = value, paths

  def __getattr__(self, name):
    below = [
      p.partition('.')[2] for p in self._paths if p.startswith(f'{name}.')
    ]
    if name in self._paths:
      return getattr(self._value, name)
    if below:
      return _Read(getattr(self._value, name), below)
    raise AttributeError(f'{name}: is read, and _MAKERS does not say so.')

  def key(self):
    """What tells it apart."""
    return tuple(repr(operator.attrgetter(p)(self._value)) for p in self._paths)


def _read(name, value):
  """The part of an argument that a maker reads, so that no other can be."""
  if isinstance(value, _Read):  # One maker asks another.
    value = value._value
  if isinstance(value, Experiment):
    return _Read(value, _MAKERS[name])
  if isinstance(value, SamplingConfig):  # That of rollouts has more.
    fields = dataclasses.fields(SamplingConfig)
    return SamplingConfig(**{f.name: getattr(value, f.name) for f in fields})
  if isinstance(value, weight_sync.WeightSync):
    return dataclasses.replace(value, parts=_read(name, value.parts))
  if isinstance(value, parts.ModelParts):
    fields = dataclasses.fields(parts.ModelParts)
    own = {f.name: getattr(value, f.name) for f in fields}
    if name[1] != 'compile_step':  # The others have no optimizer.
      state = dataclasses.replace(value.abstract_state, opt_state=None)
      own |= {'optimizer': None, 'abstract_state': state}
    return parts.ModelParts(**own)
  return value


def _key(value):
  """What tells arguments apart; by identity where a value has no other."""
  if isinstance(value, _Read):
    return value.key()
  if isinstance(value, weight_sync.WeightSync):
    return _key(value.parts)
  if isinstance(value, parts.ModelParts):
    own = (value.policy, value.optimizer, value.base)
    rest = (value.abstract_state, value.adapter_scale)
    return tuple(map(id, own)), _key(value.mesh), repr(rest)
  if isinstance(value, jax.sharding.Mesh):
    return repr(value), tuple(device.id for device in value.devices.flat)
  text = repr(value)
  return id(value) if ' at 0x' in text else text


def _asked_once(name, make):
  def ask(*args, **kwargs):
    args = tuple(_read(name, value) for value in args)
    key = (
      make,
      tuple(map(_key, args)),
      tuple((k, _key(v)) for k, v in sorted(kwargs.items())),
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
        asked = _asked_once((module, name), make)
        stack.enter_context(mock.patch.object(module, name, asked))
    yield


@contextlib.contextmanager
def apart():
  """Has nothing that is made within shared with what is made elsewhere.

  For a test that replaces what programs are traced from: no key tells of it.
  """
  with mock.patch.object(
    sys.modules[__name__], '_made', collections.OrderedDict()
  ):
    yield
