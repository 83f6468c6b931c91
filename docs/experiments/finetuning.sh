#!/usr/bin/env bash
# Fine-tuning a real network with AdvBN: bash docs/experiments/finetuning.sh IMAGENETTE IMAGES
#
# EfficientNet-Lite0 with a fresh head for ten classes, plain and with AdvBN, three seeds. Run it in the folder of gap.sh,
# whose autoencoder around VGG-19's shape makes the first AdvBN shards. IMAGENETTE holds train/ and val/ as class folders;
# IMAGES are other images, whose styles are lent. Started again, it goes on. Took about 140 minutes of CPU time.
set -euo pipefail
export LC_ALL=C
# The Python modules below are those of the checkout that this recipe is in.
root=$(cd "$(dirname "$0")/../.." && pwd)
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
imagenette=$1 images=$2
lite0=packaged:efficientnet-lite0

# A tenth of the training images is kept for the choice of the learning rate.
if [ ! -d part ]; then
  rm -rf part.tmp
  for class in "$imagenette"/train/*/; do
    name=$(basename "$class")
    mkdir -p "part.tmp/train/$name" "part.tmp/chosen-on/$name"
    number=0
    for image in "$class"*; do
      number=$((number + 1))
      if [ $((number % 10)) = 0 ]; then cp "$image" "part.tmp/chosen-on/$name/"; else cp "$image" "part.tmp/train/$name/"; fi
    done
  done
  mv part.tmp part
fi
tune=(advbn-gen finetune --arch $lite0 --cut blocks.1 --classes 10 --source part/train --val part/chosen-on --limit 1750
  --image-size 112 --smallest-crop 0.35 --batch-size 32 --epochs 4 --schedule cosine)
for rate in 0.001 0.003 0.01 0.03; do
  "${tune[@]}" --method plain --lr $rate --out choice/plain-$rate
done
best=$(python -m docs.experiments.best choice/plain-*)

for seed in 0 1 2; do
  "${tune[@]}" --method plain --lr "$best" --seed $seed --out tuned/plain-$seed
  # Strength as published for EfficientNet-B0.
  "${tune[@]}" --method advbn --eps 0.5 --steps 3 --lr "$best" --seed $seed --out tuned/advbn-$seed
done

if [ ! -d shifted ]; then
  rm -rf shifted.tmp
  python -m docs.experiments.shifted_images "$imagenette/val" "$images" shifted.tmp
  mv shifted.tmp shifted
fi
advbn-gen imagenet-advbn --encoder vgg --autoencoder autoencoder-vgg/autoencoder.safetensors --classifier $lite0 \
  --source "$imagenette/val" --image-size 128 --reconstructed --out imagenette-vgg/advbn
advbn-gen evaluate --model tuned/plain-? tuned/advbn-? --imagenet "$imagenette/val" \
  --imagenet-c shifted/imagenet-c --imagenet-instagram shifted/imagenet-instagram \
  --imagenet-sketch shifted/imagenet-sketch --imagenet-style shifted/imagenet-style \
  --advbn imagenette-vgg/advbn imagenette-vgg/reconstructed --out evaluation
python -m docs.experiments.seeds evaluation

# The same by another front that was trained on ImageNet, whose reconstructions are better.
lite1=packaged:efficientnet-lite1@blocks.1
advbn-gen train-autoencoder --encoder $lite1 --width 0.375 --source "$imagenette/train" --val "$imagenette/val" \
  --image-size 160 --batch-size 16 --epochs 3 --lr 1e-3 --schedule cosine --out autoencoder-lite1
advbn-gen imagenet-advbn --encoder $lite1 --autoencoder autoencoder-lite1/autoencoder.safetensors --classifier $lite0 \
  --source "$imagenette/val" --image-size 128 --reconstructed --out imagenette-lite1/advbn
advbn-gen evaluate --model tuned/plain-? tuned/advbn-? --advbn imagenette-lite1/advbn imagenette-lite1/reconstructed \
  --out evaluation-lite1
python -m docs.experiments.seeds evaluation-lite1
