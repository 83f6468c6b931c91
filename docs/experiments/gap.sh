#!/usr/bin/env bash
# The reconstruction gap and its curve over the severity, on real networks: bash docs/experiments/gap.sh IMAGENETTE IMAGES
#
# IMAGENETTE holds train/ and val/, on whose images the decoders are trained; IMAGES are other ImageNet images in class
# folders, which are perturbed and scored. Works in the current folder; started again, it goes on. Took 110 minutes of
# CPU time, about an hour on two cores.
set -euo pipefail
imagenette=$1 images=$2
lite0=packaged:efficientnet-lite0

decoder=(--source "$imagenette/train" --val "$imagenette/val" --image-size 160 --batch-size 16 --epochs 3 --lr 1e-3
  --schedule cosine)
advbn-gen train-autoencoder --encoder $lite0@blocks.1 --width 0.375 "${decoder[@]}" --out autoencoder-lite0
# No weights of VGG-19 are at hand: a narrow one is trained on the ten classes.
advbn-gen train-classifier --arch vgg19_bn --width 0.25 --source "$imagenette/train" --val "$imagenette/val" \
  --image-size 112 --epochs 16 --out vgg19
advbn-gen train-autoencoder --encoder vgg --encoder-weights vgg19/classifier.safetensors "${decoder[@]}" \
  --out autoencoder-vgg

attack=(--classifier $lite0 --source "$images" --batches-per-shard 4 --reconstructed)
own=(--encoder $lite0@blocks.1 --autoencoder autoencoder-lite0/autoencoder.safetensors)
advbn-gen imagenet-advbn "${own[@]}" "${attack[@]}" --out lite0-256/advbn
advbn-gen imagenet-advbn "${own[@]}" "${attack[@]}" --image-size 224 --limit 256 --out lite0-224/advbn
advbn-gen imagenet-advbn --encoder vgg --autoencoder autoencoder-vgg/autoencoder.safetensors "${attack[@]}" \
  --out vgg-256/advbn

for scale in 0.25 0.5 0.75; do
  advbn-gen render lite0-256/advbn/perturbations.h5 --source "$images" \
    --autoencoder autoencoder-lite0/autoencoder.safetensors --scale $scale --out lite0-256/advbn-$scale
done

networks=($lite0 packaged:efficientnet-lite1 packaged:efficientnet-lite2)
report=(advbn-gen report gap --original "$images" --model "${networks[@]}")
"${report[@]}" --reconstructed lite0-256/reconstructed --advbn lite0-256/advbn \
  --scaled lite0-256/advbn-0.25 lite0-256/advbn-0.5 lite0-256/advbn-0.75 --out lite0-256/report
"${report[@]}" --reconstructed lite0-224/reconstructed --advbn lite0-224/advbn --common --out lite0-224/report
"${report[@]}" --reconstructed vgg-256/reconstructed --advbn vgg-256/advbn --out vgg-256/report
