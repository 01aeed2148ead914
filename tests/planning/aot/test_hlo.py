# Lines of HLO are as long as they are.
# ruff: noqa: E501
import jax
import jax.numpy as jnp
import pytest

from dppo_jax.models.attention import dispatch
from dppo_jax.planning.aot import hlo
from tests.support import attention_cases

_TEXT = """\
HloModule jit_step, is_scheduled=true

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add = f32[] add(%a, %b)
}

%all-reduce-scatter.1 (p: f32[64,8]) -> f32[16,8] {
  %p = f32[64,8]{1,0} parameter(0)
  %all-reduce.9 = f32[64,8]{1,0:T(8,128)} all-reduce(%p), replica_groups=[2,4]<=[8], to_apply=%sum
  ROOT %slice = f32[16,8]{1,0} dynamic-slice(%all-reduce.9)
}

%inner (c: (s32[], bf16[8,128])) -> (s32[], bf16[8,128]) {
  %c = (s32[], bf16[8,128]) parameter(0)
  %gte = bf16[8,128]{1,0} get-tuple-element(%c), index=1
  %all-gather-start.1 = (bf16[8,128]{1,0}, bf16[32,128]{1,0:T(8,128)(2,1)}) all-gather-start(%gte), replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}, metadata={op_name="jit(step)/layers/gather"}
  %all-gather-done.1 = bf16[32,128]{1,0} all-gather-done(%all-gather-start.1)
  ROOT %t = (s32[], bf16[8,128]) tuple(%gte)
}

%inner_cond (c: (s32[], bf16[8,128])) -> pred[] {
  %c = (s32[], bf16[8,128]) parameter(0)
  ROOT %lt = pred[] constant(false)
}

%body (s: (s32[], f32[64,8], /*index=2*/bf16[2,4,6,2,8])) -> (s32[], f32[64,8]) {
  %s = (s32[], f32[64,8]) parameter(0)
  %x = f32[64,8]{1,0} get-tuple-element(%s), index=1
  %fusion = f32[16,8]{1,0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1
  %big = f32[640,8]{1,0} broadcast(%x), metadata={op_name="jit(step)/mlp"}
  %while.2 = (s32[], bf16[8,128]) while(%t0), condition=%inner_cond, body=%inner, metadata={op_name="jit(step)/shard_map/while"}
  ROOT %t = (s32[], f32[64,8]) tuple(%x)
}

%cond (s: (s32[], f32[64,8])) -> pred[] {
  %s = (s32[], f32[64,8]) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %n = s32[]{:T(128)} constant(10)
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

%known (s: (s32[], f32[4])) -> (s32[], f32[4]) {
  %s = (s32[], f32[4]) parameter(0)
  %y = f32[4]{0} get-tuple-element(%s), index=1
  ROOT %all-reduce.1 = f32[4]{0} all-reduce(%y), replica_groups=[4,2]<=[8], to_apply=%sum
}

ENTRY %main (p0: f32[64,8]) -> f32[64,8] {
  %p0 = f32[64,8]{1,0} parameter(0)
  %while.1 = (s32[], f32[64,8], /*index=2*/bf16[2,4,6,2,8]) while(%t), condition=%cond, body=%body, metadata={op_name="jit(step)/while"}
  %while.3 = (s32[], f32[4]) while(%t), condition=%inner_cond, body=%known, backend_config={"known_trip_count":{"n":"36"},"x":1}
  %send = (f32[3,4]{1,0}, u32[], token[]) send(%p0, %after-all), channel_id=2, is_host_transfer=true
  ROOT %permute = f32[64,8]{1,0} collective-permute(%p0), source_target_pairs={{0,1},{1,0}}
}
"""


def _by_kind(given):
  found, loops = hlo.collectives(hlo.Module(_TEXT), given)
  return {one.kind: (one.count, one.num_bytes) for one in found}, loops


def test_collectives_are_counted_once_for_every_turn():
  found, loops = _by_kind({'shard_map': 5})
  assert found == {
    # 10 turns of a bound, 5 given within; 3 of 4 parts of bf16[32,128] sent.
    'all-gather': (50, 50 * 32 * 128 * 2 * 3 / 4),
    # An all-reduce whose sum is cut: once f32[64,8], not twice.
    'reduce-scatter': (10, 10 * 64 * 8 * 4 * 3 / 4),
    # 36 stated turns; among two, each sends half of it twice.
    'all-reduce': (36, 36 * 4 * 4),
    'collective-permute': (1, 64 * 8 * 4),
    'send': (1, 48),
  }
  assert [(one.origin, one.trips, one.known) for one in loops] == [
    ('jit(step)/while', 10, True),
    ('jit(step)/shard_map/while', 5, True),
  ]


@pytest.mark.parametrize(
  ('kind', 'type_', 'expected'),
  [
    ('reduce-scatter', 'f32[16,8]{1,0}', 3 * 16 * 8 * 4),
    ('reduce-scatter-start', '((f32[64,8]), f32[16,8])', 3 * 16 * 8 * 4),
    ('all-gather-start', '((f32[16,8]), (f32[64,8]))', 48 * 8 * 4),
    ('all-reduce-start', '(f32[64,8], f32[64,8])', 2 * 2 * 48 * 8 * 4),
  ],
)
def test_what_is_sent_is_read_from_the_result(kind, type_, expected):
  """Asynchronous forms name operands and results; only results count."""
  text = (
    'ENTRY %main (p: f32[64,8]) -> f32[64,8] {\n'
    '  %p = f32[64,8] parameter(0)\n'
    f'  %x = {type_} {kind}(%p), replica_groups=[2,4]<=[8]\n}}\n'
  )
  (found,), _ = hlo.collectives(hlo.Module(text), {})
  assert found.kind == kind.removesuffix('-start')
  assert found.num_bytes == expected


@pytest.mark.parametrize(
  ('groups', 'size'),
  [
    ('[2,4]<=[8]', 4),
    ('{{0,1,2},{3,4,5}}', 3),
    ("mesh['a'=8,'b'=2] {'a'}", 8),
    ("@mesh['a'=8,'b'=2] {'a','b'}", 16),
    ("mesh['a'=8,'b'=2] {'a':(2)4}", 4),
  ],
)
def test_devices_of_a_group(groups, size):
  text = (
    'ENTRY %main (p: f32[64]) -> f32[64] {\n'
    f'  %x = f32[64] all-gather(%p), replica_groups={groups}, dimensions={{0}}\n'
    '}\n'
  )
  (found,), _ = hlo.collectives(hlo.Module(text), {})
  assert found.num_bytes == 64 * 4 * (size - 1) / size


def test_operands_are_named():
  (fusion,) = [
    one
    for one in hlo.Module(_TEXT).computations['body']
    if one.opcode == 'fusion'
  ]
  assert (fusion.name, fusion.operands) == ('fusion', ['x'])
  text = 'f32[2]{0} %a, (s32[], u32[]) %b, %c), window={size=2x2}, to=%d'
  one = hlo.Instruction(name='n', type='f32[]', opcode='dot', text=text)
  assert one.operands == ['a', 'b', 'c']


def test_a_loop_of_unknown_length_is_counted_once_and_said_to_be():
  found, loops = _by_kind({})
  assert found['all-gather'][0] == 10
  assert [one.known for one in loops] == [True, False]


@pytest.fixture
def _scopes():
  """Keeps the names of scopes in programs, which tests leave out."""
  names = (
    'jax_include_full_tracebacks_in_locations',
    'jax_compilation_cache_include_metadata_in_key',
  )
  before = {name: getattr(jax.config, name) for name in names}
  for name in names:
    jax.config.update(name, True)
  yield
  for name in names:
    jax.config.update(name, before[name])


@pytest.mark.usefixtures('_scopes')
def test_blocks_of_attention_are_counted_as_full_rows_need_them():
  case = attention_cases.shared_prompt(prompt_length=300, length=600)

  def loss(arrays):
    out = dispatch.attend(
      arrays[0], case.sources(arrays), implementation='blockwise', mesh=None
    )
    return jnp.sum(out)

  compiled = jax.jit(jax.grad(loss)).lower(case.arrays).compile()
  _, loops = hlo.Module(compiled.as_text()).walk({})
  # Blocks of 128: of the prompt 3, of 5 of their own columns 3 on average;
  # forward and backward.
  assert sorted(loop.trips for loop in loops) == [3, 3, 3, 3]
  assert all(loop.known for loop in loops)


def test_the_largest_arrays_are_named():
  first, *rest = hlo.largest_arrays(hlo.Module(_TEXT), 3)
  assert first == hlo.NamedArray(
    name='jit(step)/mlp', shape='f32[640,8]', num_bytes=640 * 8 * 4
  )
  assert len(rest) == 2
  assert all(one.num_bytes <= first.num_bytes for one in rest)


def test_loops_tell_what_they_carry():
  loops = list(hlo.loop_carries(hlo.Module(_TEXT)))
  assert ('bf16[2,4,6,2,8]', (2, 4, 6, 2, 8)) in loops[0]
  assert len(loops) == 3


@pytest.mark.parametrize(
  ('text', 'size'),
  [
    ('f32[]', 4),
    ('pred[7]{0}', 7),
    ('(s32[2]{0}, (bf16[3,2]{1,0:T(8,128)(2,1)S(1)}, u8[5]))', 8 + 12 + 5),
    ('f8e4m3fn[10]', 10),
    ('s4[10]', 5),
    ('token[]', 0),
  ],
)
def test_types_have_sizes(text, size):
  assert hlo.type_bytes(text) == size


def test_other_text_is_refused():
  with pytest.raises(ValueError, match='no ENTRY'):
    hlo.Module('func.func @main() {}')
