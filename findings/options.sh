#!/usr/bin/env bash
# jax 0.10.2: a function made with jax.jit(f, compiler_options=...) stands at the top
# level when it is called, lowered, vmapped or given to eval_shape, and is "nested"
# for grad and make_jaxpr, which raise: so a jitted loss that is given an option can
# no longer be differentiated, nor its jaxpr be looked at, although no other jit is
# anywhere near. Options for a step go to the jit around the gradient, or to XLA_FLAGS.
#
# Output seen:
#   call ok, lower ok, vmap ok, eval_shape ok, grad ValueError, make_jaxpr ValueError
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  jax==0.10.2 jaxlib==0.10.2
cat > "$folder/options.py" << 'END'
import jax
import jax.numpy as jnp

x = jnp.ones(2)
option = {'xla_cpu_enable_fast_math': False}
loss = jax.jit(lambda v: (v * v).sum(), compiler_options=option)
uses = {
  'call': lambda: loss(x),
  'lower': lambda: loss.lower(x).compile(),
  'vmap': lambda: jax.vmap(loss)(jnp.ones((2, 2))),
  'eval_shape': lambda: jax.eval_shape(loss, x),
  'grad': lambda: jax.grad(loss)(x),
  'make_jaxpr': lambda: jax.make_jaxpr(loss)(x),
}
seen = []
for name, use in uses.items():
  try:
    use()
    seen.append(f'{name} ok')
  except ValueError:
    seen.append(f'{name} ValueError')
print(', '.join(seen))
END
found=$(JAX_PLATFORMS=cpu "$folder/venv/bin/python" "$folder/options.py")
echo "$found"
[ "$found" = 'call ok, lower ok, vmap ok, eval_shape ok, grad ValueError, make_jaxpr ValueError' ]
