#!/usr/bin/env bash
# Makes every row of the table of recipe `bridge` (docs/experiments.md): its variants, and each backbone alone.
#
#   bash examples/bridge/rows.sh DATA OUTPUT [SEED ...]
#
# DATA has the English text of the recipe and, in eval/, the sentences of `lusifer evaluate`. The default seeds are 0 and
# 1. A row takes about two hours of one CPU core with bfloat16; no row was timed on a GPU. Repeat the call to resume an
# interrupted one.
#
#   ONLY=full,connector-ff   only these variants; ONLY=none: no variants
#   BACKBONES=none           no backbones alone
#   SET="KEY=VALUE ..."      changes of the recipe for every row
#   DTYPE=float32            dtype of the evaluation (bfloat16 by default)
#
# Make the tables with: python examples/bridge/table.py OUTPUT
set -euo pipefail
data=$1 output=$2
shift 2
here=$(dirname "$0")
score=(--data "$data/eval" --tasks "${TASKS:-SIB200ZeroShotTopics,SIB200TranslationToEnglishDev}" --dtype "${DTYPE:-bfloat16}")
read -ra keys <<< "${SET:-}"
settings=("${keys[@]/#/--set=}")
[ $# -gt 0 ] || set -- 0 1

backbone() {  # NAME OPTION...: one backbone, trained and scored
  local folder=$output/seed-$seed/$1
  if [ ! -d "$folder/model" ]; then
    rm -rf "$folder/half"
    mkdir -p "$folder"
    python "$here/alone.py" bridge "${@:2}" "${settings[@]}" --set seed="$seed" --set data_root="$data" \
      --output "$folder/half"
    mv "$folder/half" "$folder/model"
  fi
  lusifer evaluate "$folder/model" "${score[@]}" --name "$1" --output "$folder/scores" > /dev/null
}

for seed in "$@"; do
  if [ "${ONLY:-}" != none ]; then
    lusifer ablate bridge --output "$output/seed-$seed" "${score[@]}" ${ONLY:+--only "$ONLY"} \
      "${settings[@]}" --set seed="$seed" --set data_root="$data"
  fi
  if [ "${BACKBONES:-}" != none ]; then
    backbone llm-alone --backbone llm
    backbone encoder-alone --backbone encoder
    backbone encoder-linear --backbone encoder --train linear
    backbone encoder-as-read --backbone encoder --train none
    for layers in 4 8 12; do
      backbone "encoder-alone-$layers" --backbone encoder --set model.encoder.layers=$layers
    done
  fi
done
