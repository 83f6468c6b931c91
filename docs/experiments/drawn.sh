#!/usr/bin/env bash
# AdvBN against plain fine-tuning on the drawn world, three seeds: bash docs/experiments/drawn.sh
#
# Needs no data. Works in the current folder; started again, it goes on. About 10 minutes a training with AdvBN, and 3 to 4
# without, of which there are three each.
set -euo pipefail
# The Python module below is that of the checkout that this recipe is in.
root=$(cd "$(dirname "$0")/../.." && pwd)
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}

advbn-gen sample-data drawn --size 48
advbn-gen imagenet-advbn --encoder vgg --out advbn-vgg
for seed in 0 1 2; do
  for method in plain advbn; do
    advbn-gen finetune --arch resnet50 --method $method --seed $seed --epochs 12 --decay-every 6 --lr 0.05 \
      --batch-size 32 --out $method-$seed
  done
done
advbn-gen evaluate --model plain-0 plain-1 plain-2 advbn-0 advbn-1 advbn-2 --imagenet drawn/val \
  --imagenet-c drawn/imagenet-c --imagenet-instagram drawn/imagenet-instagram --imagenet-sketch drawn/imagenet-sketch \
  --imagenet-style drawn/imagenet-style --advbn advbn-vgg --out evaluation
python -m docs.experiments.seeds evaluation
