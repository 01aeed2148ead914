#!/usr/bin/env bash
# jax 0.10.2: heartbeat_timeout_seconds of jax.distributed.initialize counts from
# the last heartbeat, and one is sent every half of it. A process that dies just
# before its next heartbeat is therefore missed after half the limit, and the
# others do not get an exception: they abort (SIGABRT). Whoever wants to report a
# dead process before that must be done within half the limit, not within it.
#
# Output seen (limit 24 s; killed 10 s and 14 s after the start):
#   killed before the next heartbeat: exit -6 after 14.9 s
#   killed after it:                  exit -6 after 23.1 s
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  jax==0.10.2 jaxlib==0.10.2
cat > "$folder/peer.py" <<'EOF'
import os, signal, sys, time
import jax
port, index, wait = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
jax.distributed.initialize(
    f'127.0.0.1:{port}', 2, index, heartbeat_timeout_seconds=24)
time.sleep(wait if index else 3600)
print(time.time(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
EOF
cat > "$folder/try.py" <<'EOF'
import socket, subprocess, sys, time

def after(wait):
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    port = str(probe.getsockname()[1])
  first, second = [
      subprocess.Popen([sys.executable, sys.argv[1], port, str(i), str(wait)],
                       stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                       text=True) for i in (0, 1)]
  killed = float(second.communicate()[0])
  code = first.wait(120)
  return code, time.time() - killed

early, late = after(10), after(14)
print('killed before the next heartbeat: exit %d after %.1f s' % early)
print('killed after it:                  exit %d after %.1f s' % late)
assert early[0] == late[0] == -6
assert early[1] < 19 < late[1]
EOF
JAX_PLATFORMS=cpu "$folder/venv/bin/python" "$folder/try.py" "$folder/peer.py"
