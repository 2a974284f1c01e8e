#!/usr/bin/env bash
# The whole road on the simulated world: raw interactions -> itemic tokens -> warm-up -> alignment -> ranked items, then
# what follows in a short pipeline: SFT, reinforcement, specialists, distillation.
# Ten minutes on 2 CPU cores. `make demo` runs it; RUN=other/folder keeps several runs apart.
set -euo pipefail
RUN=${RUN:-runs/demo}
STEPS=10
step=0
began=$SECONDS
say() { step=$((step + 1)); printf '\n\033[1m[%d/%d] %s\033[0m  (%d s)\n' "$step" "$STEPS" "$1" $((SECONDS - began)); }
export TOKENIZERS_PARALLELISM=false
# accelerate gives a process one CPU thread unless told otherwise; a model this small gains nothing from more than 8
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(python -c 'import os; print(min(8, os.cpu_count() or 1))')}
command -v nvidia-smi > /dev/null || export DS_ACCELERATOR=cpu  # else DeepSpeed warns at each start that it found no GPU

say "A simulated world: four domains, users whose interests move"
onereason simulate --out "$RUN/world" --users 2000 --items 2000 --topics 12 --seed 0 --overwrite

say "Semantic ids: captions -> embedding -> residual k-means"
onereason tokenize --data "$RUN/world" --out "$RUN/catalog" --format onereason --levels 2 --codes 64 \
    --collaborative-weight 0.5 --save-vectors --overwrite

say "A random small Qwen3 learns the itemic tokens' names"
onereason extend --base tiny --base-config hidden_size=128 num_hidden_layers=3 num_attention_heads=4 \
    --catalog "$RUN/catalog" --init vectors --out "$RUN/base" --overwrite

say "Corpora of the four alignment tasks"
python -m data_builders.build_persona --data "$RUN/world" --catalog "$RUN/catalog" --max-history 3 \
    --out "$RUN/corpora/persona" --overwrite
python -m data_builders.build_sequential --data "$RUN/world" --catalog "$RUN/catalog" --out "$RUN/corpora/sequential" --overwrite
python -m data_builders.build_captions --catalog "$RUN/catalog" --out "$RUN/corpora/caption" --overwrite
python -m data_builders.build_general --synthetic 2000 --out "$RUN/corpora/general" --overwrite

say "Token warm-up: only the new rows learn"
rm -rf "$RUN/warmup" "$RUN/align"
accelerate launch --config_file recipes/accelerate_configs/single.yaml -m recipes.warmup \
    --config recipes/configs/warmup/tiny.yaml model="$RUN/base" out="$RUN/warmup" data.corpora.persona="$RUN/corpora/persona"

say "Alignment: all parameters on the four tasks, checkpoint chosen on validation users"
accelerate launch --config_file recipes/accelerate_configs/single.yaml -m recipes.align \
    --config recipes/configs/align/tiny.yaml model="$RUN/warmup/model" out="$RUN/align" selection.data="$RUN/world" \
    data.corpora.persona="$RUN/corpora/persona" data.corpora.sequential="$RUN/corpora/sequential" \
    data.corpora.caption="$RUN/corpora/caption" data.corpora.general="$RUN/corpora/general"

say "Evaluation: all test users, exact constrained beams, against two baselines"
onereason evaluate --model "$RUN/align/model" --data "$RUN/world" --split test --out "$RUN/results.json" --overwrite

say "One user's recommendations"
onereason recommend --model "$RUN/align/model" --data "$RUN/world" --user u000000 --k 5

say "Thinking, in short: cognition corpora -> SFT -> reinforcement -> specialists -> distillation, a few steps each"
rm -rf "$RUN/pipeline"
onereason pipeline recipes/configs/pipeline/demo.yaml vars.demo="$RUN" run="$RUN/pipeline"

say "Done"
echo "results: $RUN/results.json"
echo "report:  $RUN/report.md"
echo "stages:  $RUN/pipeline/report.md"
