# Lines of HLO are as long as they are.
# ruff: noqa: E501
import pytest

from dppo_jax.planning.aot import costs, hlo

_TEXT = """\
HloModule jit_step, is_scheduled=true

%product (a: bf16[64,128], b: bf16[256,128]) -> f32[64,256] {
  %a = bf16[64,128]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %b = bf16[256,128]{1,0:T(8,128)(2,1)} parameter(1)
  ROOT %convolution.1 = f32[64,256]{1,0:T(8,128)} convolution(%a, %b), dim_labels=bf_oi->bf
}

%update (big: f32[1024,128], new: f32[8,128], i: s32[]) -> f32[1024,128] {
  %big = f32[1024,128]{1,0} parameter(0)
  %new = f32[8,128]{1,0} parameter(1)
  %i = s32[]{:T(128)S(6)} parameter(2)
  ROOT %dus = f32[1024,128]{1,0} dynamic-update-slice(%big, %new, %i, %i)
}

%slice (big: f32[1024,128], i: s32[]) -> f32[8,128] {
  %big.1 = f32[1024,128]{1,0} parameter(0)
  %i.1 = s32[]{:T(128)S(6)} parameter(1)
  %part = f32[8,128]{1,0} dynamic-slice(%big.1, %i.1, %i.1), dynamic_slice_sizes={8,128}
  ROOT %exp = f32[8,128]{1,0} exponential(%part)
}

%add_rows (big: f32[1024,128], ids: s32[8], rows: f32[8,128]) -> f32[1024,128] {
  %big.2 = f32[1024,128]{1,0} parameter(0)
  %ids = s32[8]{0} parameter(1)
  %rows = f32[8,128]{1,0} parameter(2)
  ROOT %scatter.1 = f32[1024,128]{1,0} scatter(%big.2, %ids, %rows), to_apply=%sum
}

%cond (s: (s32[], f32[1024,128])) -> pred[] {
  %s.1 = (s32[], f32[1024,128]) parameter(0)
  ROOT %lt = pred[] constant(false)
}

%body (s: (s32[], f32[1024,128])) -> (s32[], f32[1024,128]) {
  %s = (s32[], f32[1024,128]) parameter(0)
  %i.2 = s32[]{:T(128)S(6)} get-tuple-element(%s), index=0
  %x = f32[1024,128]{1,0} get-tuple-element(%s), index=1
  %part.1 = f32[8,128]{1,0} fusion(%x, %i.2), kind=kLoop, calls=%slice, metadata={op_name="jit(step)/while/body/exp"}, backend_config={"estimated_cycles":"10"}
  %next = f32[1024,128]{1,0} fusion(%x, %part.1, %i.2), kind=kLoop, calls=%update, metadata={op_name="jit(step)/while/body/put"}
  ROOT %t = (s32[], f32[1024,128]) tuple(%i.2, %next)
}

ENTRY %main (p0: bf16[64,128], p1: bf16[256,128]) -> f32[64,256] {
  %p0 = bf16[64,128]{1,0:T(8,128)(2,1)} parameter(0)
  %p1 = bf16[256,128]{1,0:T(8,128)(2,1)} parameter(1)
  %copy-start = (bf16[64,128]{1,0:T(8,128)(2,1)S(1)}, bf16[64,128]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}) copy-start(%p0)
  %copy-done = bf16[64,128]{1,0:T(8,128)(2,1)S(1)} copy-done(%copy-start)
  %while.1 = (s32[], f32[1024,128]) while(%t0), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %y = f32[1024,128]{1,0} get-tuple-element(%while.1), index=1
  %ids.1 = s32[8]{0} constant({...})
  %rows.1 = f32[8,128]{1,0} constant({...})
  %added = f32[1024,128]{1,0} fusion(%y, %ids.1, %rows.1), kind=kCustom, calls=%add_rows, metadata={op_name="jit(step)/scatter-add"}
  %kernel = f32[8,128]{1,0} custom-call(%rows.1), custom_call_target="tpu_custom_call", metadata={op_name="jit(step)/splash"}
  %free = f32[8,128]{1,0} custom-call(%rows.1), custom_call_target="ConcatBitcast"
  ROOT %fusion = f32[64,256]{1,0:T(8,128)} fusion(%copy-done, %p1), kind=kOutput, calls=%product, metadata={op_name="jit(step)/dot_general"}, backend_config={"window_config":{"estimated_cycles":"4000"}}
}
"""
_ROWS = 8 * 128 * 4


@pytest.fixture(scope='module')
def found():
  return costs.costs(hlo.Module(_TEXT), {})


def test_estimates_are_summed_over_the_turns_of_a_loop(found):
  assert costs.cycles(found) == 4000 + 5 * 10
  product, exp, *others = found
  assert (product.kind, product.origin, product.count) == (
    costs.PRODUCT,
    'dot_general',
    1,
  )
  assert (exp.kind, exp.origin, exp.count, exp.cycles) == (
    'slice',
    'exp',
    5,
    50,
  )
  assert all(one.cycles is None for one in others)


@pytest.mark.parametrize(
  ('kind', 'expected'),
  [
    # Operands on the chip are not read from HBM.
    (costs.PRODUCT, 256 * 128 * 2 + 64 * 256 * 4),
    ('copy', 64 * 128 * 2),
    # Of the large array only what is sliced, updated or added to.
    ('slice', 5 * 2 * _ROWS),
    ('update', 5 * 2 * _ROWS),
    ('scatter', 8 * 4 + _ROWS + 2 * _ROWS),
    ('Pallas call', 2 * _ROWS),
  ],
)
def test_bytes_are_those_that_cross_to_hbm(found, kind, expected):
  assert sum(one.num_bytes for one in found if one.kind == kind) == expected


def test_what_costs_nothing_is_not_listed(found):
  assert {one.kind for one in found} == {
    costs.PRODUCT,
    'copy',
    'slice',
    'update',
    'scatter',
    'Pallas call',
  }


def test_kinds_are_summed_estimated_or_not():
  twice = costs.costs(
    hlo.Module(_TEXT.replace('op_name="jit(step)/put"', '')), {}
  )
  summed = costs.by_kind([*twice, *twice])
  assert costs.cycles(summed) == 2 * costs.cycles(twice)
  assert [one.kind for one in summed][:2] == [costs.PRODUCT, 'slice']
  assert len(summed) == 6


def test_passes_read_all_of_an_array():
  size = 1024 * 128 * 4
  assert costs.passes(hlo.Module(_TEXT), size) == 0
  cut = 'dynamic-slice(%big.1, %i.1, %i.1), dynamic_slice_sizes={8,128}'
  whole = _TEXT.replace(cut, 'reduce(%big.1, %i.1)')
  assert costs.passes(hlo.Module(whole), size) == 5
  assert costs.passes(hlo.Module(whole), size + 1) == 0
  # The product reads the weights; the states are copied onto the chip.
  assert costs.passes(hlo.Module(_TEXT), 64 * 128 * 2) == 1
