#!/usr/bin/env bash
# Teaching to think, on the simulated world: corpora -> alignment -> mixture of R0 to R3 -> SFT -> both modes, side by side.
#
#   bash recipes/cognition.sh            # everything under runs/cognition, its own world and model
#   RUN=runs/other USERS=10000 WIDTH=256 LAYERS=4 bash recipes/cognition.sh
#
# SPLIT=validation while settings are chosen. TARGETS: training items of each user that traces lead up to; CONCLUSION:
# hindsight or belief. Further key=value arguments reach the SFT's configuration.
set -euo pipefail
RUN=${RUN:-runs/cognition} USERS=${USERS:-2000} TARGETS=${TARGETS:-8} CONCLUSION=${CONCLUSION:-hindsight}
WIDTH=${WIDTH:-128} LAYERS=${LAYERS:-3} EVALUATED=${EVALUATED:-500} SPLIT=${SPLIT:-test}
began=$SECONDS
say() { printf '\n\033[1m%s\033[0m  (%d s)\n' "$1" $((SECONDS - began)); }
export TOKENIZERS_PARALLELISM=false
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(python -c 'import os; print(min(8, os.cpu_count() or 1))')}
command -v nvidia-smi > /dev/null || export DS_ACCELERATOR=cpu

say "A world and its semantic ids"
onereason simulate --out "$RUN/world" --users "$USERS" --items 2000 --seed 0 --overwrite
onereason tokenize --data "$RUN/world" --out "$RUN/catalog" --format onereason --levels 2 --codes 64 \
    --collaborative-weight 0.5 --save-vectors --overwrite

say "Corpora"
python -m data_builders.build_all --data "$RUN/world" --catalog "$RUN/catalog" --out "$RUN/corpora" --synthetic 3000 \
    --only persona,sequential,caption,perception,derivation,evolution,recommendation,instruction,general \
    persona.max_history=3 instruction.num_rows=4000 \
    recommendation.targets="$TARGETS" recommendation.detail=brief recommendation.conclusion="$CONCLUSION"

say "Mixture: shares, half of the rows of a domain think, users held out"
python -m data_builders.build_mixture --out "$RUN/mixture" --think 0.5 --held-out 0.05 --overwrite \
    --corpus recommendation="$RUN/corpora/recommendation":70 --corpus perception="$RUN/corpora/perception":10 \
    --corpus derivation="$RUN/corpora/derivation":8 --corpus evolution="$RUN/corpora/evolution":4 \
    --corpus instruction="$RUN/corpora/instruction":4 --corpus general="$RUN/corpora/general":4
onereason data inspect "$RUN/mixture" --catalog "$RUN/catalog" --rows 2 --html "$RUN/mixture.html"

say "A random small Qwen3 that knows the words of the corpora, aligned on the four tasks"
onereason extend --base tiny --base-config hidden_size="$WIDTH" num_hidden_layers="$LAYERS" num_attention_heads=4 \
    --catalog "$RUN/catalog" --init vectors --corpora "$RUN/mixture" --out "$RUN/base" --overwrite
rm -rf "$RUN/align" "$RUN/sft"
accelerate launch --config_file recipes/accelerate_configs/single.yaml -m recipes.align \
    --config recipes/configs/align/tiny.yaml model="$RUN/base" out="$RUN/align" selection.data="$RUN/world" \
    data.corpora.persona="$RUN/corpora/persona" data.corpora.sequential="$RUN/corpora/sequential" \
    data.corpora.caption="$RUN/corpora/caption" data.corpora.general="$RUN/corpora/general"

say "SFT on the mixture, through TRL"
accelerate launch --config_file recipes/accelerate_configs/single.yaml -m recipes.sft \
    --config recipes/configs/sft/mixture.yaml model="$RUN/align/model" out="$RUN/sft" data.corpora.mixture="$RUN/mixture" \
    selection.data="$RUN/world" "$@"

say "Recommendation in every mode"
onereason evaluate --model "$RUN/sft/model" --data "$RUN/world" --split "$SPLIT" --out "$RUN/results/results.json" \
    --prompt chat --modes no_think,think,race --num-traces 4 --think-budget 256 --num-beams 64 --k 1,8,64 \
    --indicators --max-users "$EVALUATED" --overwrite

say "Layers R0 to R3, written freely"
python -m data_builders.build_layers --data "$RUN/world" --catalog "$RUN/catalog" --max-rows 100 --out "$RUN/layers" --overwrite
onereason evaluate-layers --model "$RUN/sft/model" --rows "$RUN/layers/rows.jsonl" --out "$RUN/layers_results" \
    --modes no_think,think --think-budget 256 --overwrite

say "Done: $RUN/results/report.md, $RUN/layers_results, $RUN/mixture.html"
