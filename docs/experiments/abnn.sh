#!/usr/bin/env bash
# ABNN beside a substitute trained on ImageNet, on CIFAR-10: bash docs/experiments/abnn.sh CIFAR10
#
# Three defences, three seeds. Works in the current folder; started again, it goes on. Its time is not known yet.
set -euo pipefail
cifar10=$1
train=(advbn-gen abnn train --task cifar10 --data "$cifar10" --width 0.125 --limit 10000 --epochs 12)
attack=(advbn-gen abnn attack --data "$cifar10")
for seed in 0 1 2; do
  "${train[@]}" --seed $seed --defence none --out none-$seed
  "${train[@]}" --seed $seed --defence abnn --substitute packaged:efficientnet-lite0 --out abnn-$seed
  "${train[@]}" --seed $seed --defence pgd-at --out pgd-at-$seed
done
for seed in 0 1 2; do
  for name in none abnn pgd-at; do
    "${attack[@]}" --checkpoint $name-$seed --limit 500 --attack clean pgd pgd-50 adaptive transfer \
      --surrogate none-$(((seed + 1) % 3))
    "${attack[@]}" --checkpoint $name-$seed --limit 200 --attack clean pgd autoattack --out autoattack/$name-$seed
  done
done
advbn-gen abnn table none-? abnn-? pgd-at-?
advbn-gen abnn table autoattack/*
