#!/usr/bin/env bash
# Every row of the table of recipe `bridge` (docs/experiments.md): its variants, and each tower alone.
#
#   bash examples/bridge/rows.sh DATA OUTPUT [SEED ...]
#
# DATA has the English text of the recipe and, in eval/, the sentences of `lusifer evaluate`. Seeds are 0 and 1 unless
# some are given. A row takes about two hours of one CPU core with bfloat16; on a GPU none was timed. The same call goes on where
# one was stopped. ONLY=full,connector-ff takes some of the variants; ONLY=none leaves them all out, and TOWERS=none the
# towers. SET="KEY=VALUE ..." changes the recipe for every row, DTYPE the number format of scoring (bfloat16). The
# tables: python examples/bridge/table.py OUTPUT
set -euo pipefail
data=$1 output=$2
shift 2
here=$(dirname "$0")
score=(--data "$data/eval" --tasks "${TASKS:-SIB200ZeroShotTopics,SIB200TranslationToEnglishDev}" --dtype "${DTYPE:-bfloat16}")
read -ra keys <<< "${SET:-}"
settings=("${keys[@]/#/--set=}")
[ $# -gt 0 ] || set -- 0 1

tower() {  # NAME OPTION...: one tower, trained and scored
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
  if [ "${TOWERS:-}" != none ]; then
    tower llm-alone --tower llm
    tower encoder-alone --tower encoder
    tower encoder-linear --tower encoder --train linear
    tower encoder-as-read --tower encoder --train none
    for layers in 4 8 12; do
      tower "encoder-alone-$layers" --tower encoder --set model.encoder.layers=$layers
    done
  fi
done
