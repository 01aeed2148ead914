"""Attention without scores: one contract, implementations by backend.

`dispatch.attend(query, sources, …)` is the only entry. A query token sees the
keys of one or several `sources.KeySource`: its own sequence, the keys of a
prompt that a group of completions shares, or a KV cache. Of each source it sees
the keys whose segment id equals the id it looks for there (and, in its own
sequence, only columns up to its own). Padding has id 0 and is invisible. So a
packed row is a row with several ids, and needs nothing else: rotary angles come
from positions, which are independent of columns.

The numerical contract, which every implementation keeps:

- softmax over the keys of all sources together, scores and sums in f32;
- a query that sees no key gives exact zeros and gets and sends zero gradients;
- keys, values and the gradients of both are those of one copy, however many
  rows share it;
- queries and keys of 16 bits are multiplied as such and summed in f32.
"""
