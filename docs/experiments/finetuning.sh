#!/usr/bin/env bash
# Fine-tuning a real network with AdvBN: bash docs/experiments/finetuning.sh IMAGENETTE IMAGES
#
# EfficientNet-Lite0 with a fresh head for ten classes, plain and with AdvBN, three seeds. Run it in the folder of gap.sh,
# whose autoencoder around VGG-19's shape makes the AdvBN shards. IMAGENETTE holds train/ and val/ as class folders;
# IMAGES are other images, whose styles are lent. Started again, it goes on. About an hour and a half on two cores.
set -euo pipefail
imagenette=$1 images=$2
lite0=packaged:efficientnet-lite0
tune="advbn-gen finetune --arch $lite0 --cut blocks.1 --classes 10 --source $imagenette/train --limit 1750
  --image-size 112 --smallest-crop 0.35 --batch-size 32 --epochs 4 --schedule cosine"

# A tenth of the training images that --limit leaves out, on which the learning rate is chosen.
if [ ! -d chosen-on ]; then
  for class in "$imagenette"/train/*/; do
    mkdir -p "chosen-on.tmp/$(basename "$class")"
    ls "$class" | awk 'NR % 10 == 2' | while read -r name; do
      cp "$class$name" "chosen-on.tmp/$(basename "$class")/"
    done
  done
  mv chosen-on.tmp chosen-on
fi
for rate in 0.001 0.003 0.01; do
  $tune --method plain --lr $rate --val chosen-on --out choice/plain-$rate
done
best=$(python -m docs.experiments.best choice/plain-*)

for seed in 0 1 2; do
  $tune --method plain --lr "$best" --seed $seed --val chosen-on --out tuned/plain-$seed
  # Strength as published for EfficientNet-B0.
  $tune --method advbn --eps 0.5 --steps 3 --lr "$best" --seed $seed --val chosen-on --out tuned/advbn-$seed
done

[ -d shifted ] || python -m docs.experiments.shifted_images "$imagenette/val" "$images" shifted
advbn-gen imagenet-advbn --encoder vgg --autoencoder autoencoder-vgg/autoencoder.safetensors --classifier $lite0 \
  --source "$imagenette/val" --image-size 128 --reconstructed --out imagenette-vgg/advbn
advbn-gen evaluate --model tuned/plain-? tuned/advbn-? --imagenet "$imagenette/val" \
  --imagenet-c shifted/imagenet-c --imagenet-instagram shifted/imagenet-instagram \
  --imagenet-sketch shifted/imagenet-sketch --imagenet-style shifted/imagenet-style \
  --advbn imagenette-vgg/advbn imagenette-vgg/reconstructed --out evaluation
python -m docs.experiments.seeds evaluation
