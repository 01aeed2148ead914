#!/usr/bin/env bash
# transformers 5.24.0: where a config.json has both forms of the rotary
# embedding, the older one wins, and takes the newer one's theta with it.
#
# `rope_parameters` is the newer form and holds rope_theta. If `rope_scaling`
# stands beside it (an older key that a tool appended to stretch the context,
# say), `rope_parameters` is dropped as a whole: theta falls from 1,000,000 to
# the class default of 10,000, without a word. Keys at the top level are merged
# only where the newer form lacks them, so one expects the opposite.
#
# Seen: {'rope_type': 'linear', 'factor': 4.0, 'rope_theta': 10000.0}
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.24.0 2> "$folder/pip.log" ||
  { cat "$folder/pip.log" >&2; exit 1; }

mkdir "$folder/model"
cat > "$folder/model/config.json" << 'JSON'
{
  "architectures": ["Qwen3ForCausalLM"],
  "model_type": "qwen3",
  "head_dim": 16,
  "hidden_size": 64,
  "intermediate_size": 96,
  "num_attention_heads": 4,
  "num_hidden_layers": 2,
  "num_key_value_heads": 2,
  "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
  "rope_scaling": {"rope_type": "linear", "factor": 4.0},
  "vocab_size": 320
}
JSON

"$folder/venv/bin/python" - "$folder/model" << 'PYTHON'
import sys

from transformers import AutoConfig

found = dict(AutoConfig.from_pretrained(sys.argv[1]).rope_parameters)
print(found)
if found != {'rope_type': 'linear', 'factor': 4.0, 'rope_theta': 10000.0}:
  sys.exit('The behaviour has changed.')
PYTHON
