#!/usr/bin/env bash
# Make the model mini: recipes/pretraining/make_mini.sh RFAM.tsv.gz TS0.tsv RUNS
#
# Needs the package with its extras train and vienna, and CD-HIT. Takes hours on two CPU cores; the
# last training needs a GPU. The same command resumes an interrupted run.
set -euo pipefail
rfam=$1 ts0=$2 runs=$3
cd "$(dirname "$0")/../.."
mkdir -p "$runs"
ids=$runs/left_out.txt made=$runs/predicted.tsv.gz

on_cpu() {
    OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node 2 -m recipes.pretraining.train "$@" \
        --leave-out "$ids" --cpu --resume
}

[ -e "$ids" ] || python -m scripts.near_duplicates "$rfam" "$ts0" examples/rna.fasta -o "$ids"
on_cpu mini "$rfam" "$runs/mini"
on_cpu mini-2 "$rfam" "$runs/mini"
on_cpu mini-3 "$rfam" "$runs/mini-3" --start-from "$runs/mini"
[ -e "$made" ] || python -m recipes.pretraining.predict_structures "$rfam" "$made" --count 250000 \
    --leave-out "$ids"
python -m recipes.pretraining.train mini-4 "$rfam" "$runs/mini-4" --leave-out "$ids" \
    --predicted "$made" --start-from "$runs/mini-3" --resume
python -m recipes.pretraining.export "$runs/mini-4" -o "$runs/export" --force \
    --card ernie_rna/mini/README.md --structures "$rfam" --sequences 400 \
    --max-length 300
python -m scripts.calibrate_pairs "$runs/export" "$rfam" --per-family 3 --max-length 150
