#!/usr/bin/env bash
# ABNN beside a substitute trained on ImageNet, on CIFAR-10: bash docs/experiments/abnn.sh CIFAR10
#
# Three defences, three seeds; every attack at the benchmark's radius, and the paper's attack at smaller ones as well. Works
# in the current folder; started again, it goes on. All numbers end up in report.csv in tables/ and in tables-autoattack/.
# Took about 140 minutes of CPU time.
set -euo pipefail
# Some awks would else print a decimal comma.
export LC_ALL=C
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
for radius in 1 2 4; do
  eps=$(awk "BEGIN { printf \"%.17g\", $radius / 255 }") step=$(awk "BEGIN { printf \"%.17g\", $radius / 255 / 4 }")
  for seed in 0 1 2; do
    for name in none abnn pgd-at; do
      "${attack[@]}" --checkpoint $name-$seed --limit 500 --attack clean pgd --eps "$eps" --step-size "$step" \
        --out radius-$radius/$name-$seed
    done
  done
done
advbn-gen abnn table none-? abnn-? pgd-at-? radius-*/* --out tables
advbn-gen abnn table autoattack/* --out tables-autoattack
