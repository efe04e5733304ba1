#!/usr/bin/env bash
# The training of the study: 16 checkpoints, from the first step to the last, unattended.
#
#     DATA=data/train bash train_study.sh            # or: make study
#
# Stop it in any way, start it again: finished stages are skipped, the one that was interrupted
# goes on from its last state (at most five minutes back).
#
#     DATA            folder of training images (required; see docs/datasets.md)
#     DEVICE          --gpu_id: '' (GPU 0 if there is one), 'cpu', '0 1 2'                   ['']
#     STEPS           multiplies the number of steps of every stage; 0.01 is a trial           [1]
#     TIME_PER_STAGE  seconds after which a stage is left for the next call; 0: no limit       [0]
#     BATCH, PATCH    crops a step and process, and their side                            [16 256]
#     PRECISION       bf16 or fp32                       [bf16 where the GPU or CPU computes in it]
#     CKPTS, RUNS     folders of the checkpoints and of the runs; change both for a trial
#                                                                                    [ckpts runs]
#     OPTIONS         more flags for train.py, such as '--compile'                            ['']
#
# Order: of every (N, M) the highest lambda first, then fine-tuned to the lower one; transforms
# are handed on to the next model (--init_ckpt takes every tensor that fits, and widens the
# transforms of a narrower one).
#
#     192, 320   Factorized 0.0483 -> 0.025
#                   |-> Hyperprior 0.0483 -> 0.025
#                          |-> Joint 0.0483 -> 0.025
#                                |-> Checkerboard 0.0483     |-> Checkerboard 0.025
#     128, 192   Factorized 0.013 -> 0.0067
#                   |-> Hyperprior 0.013 -> 0.0067
#     192, 192             |-> Joint 0.013 -> 0.0067
#                                |-> Checkerboard 0.013      |-> Checkerboard 0.0067
set -euo pipefail
cd "$(dirname "$0")"

DATA=${DATA:?is the folder of training images, for example: DATA=data/train bash train_study.sh}
DEVICE=${DEVICE:-}
STEPS=${STEPS:-1}
TIME_PER_STAGE=${TIME_PER_STAGE:-0}
BATCH=${BATCH:-16}
PATCH=${PATCH:-256}
CKPTS=${CKPTS:-ckpts}
RUNS=${RUNS:-runs}
OPTIONS=${OPTIONS:-}
RECORD=
if [ "$CKPTS" = ckpts ]; then RECORD=--record; fi # the curves of the study itself
if [ -z "${PRECISION:-}" ]; then
    has_bf16=$(DEVICE=$DEVICE python -c 'import os, torch
gpu = os.environ["DEVICE"] != "cpu" and torch.cuda.is_available()
print(gpu or torch.cpu._is_avx512_bf16_supported())')
    if [ "$has_bf16" = True ]; then PRECISION=bf16; else PRECISION=fp32; fi
fi

J=JointAutoregressiveHierarchicalPriors
C=CheckerboardAutogressive

final() { # final MODEL LAMBDA: the path of the checkpoint that a stage ends with
    case $1 in "$J" | "$C") echo "$CKPTS/$1/epoch_249_lmbda_$2.safetensors" ;;
    *) echo "$CKPTS/$1/epoch_199_lmbda_$2.safetensors" ;; esac
}

# stage MODEL LAMBDA PARENT STEPS LR: train one checkpoint; PARENT is a checkpoint or 'none'.
# STEPS is divided evenly among the 200 or 250 epochs of the model, at least one step in each.
stage() {
    local model=$1 lmbda=$2 parent=$3 steps=$4 lr=$5 epochs=200 per_epoch init=()
    case $model in "$J" | "$C") epochs=250 ;; esac
    if [ -e "$(final "$model" "$lmbda")" ]; then
        echo "== $model $lmbda: done"
        return
    fi
    if [ "$parent" != none ]; then
        if [ ! -e "$parent" ]; then
            echo "== $model $lmbda: waits for $parent"
            return
        fi
        init=(--init_ckpt "$parent")
    fi
    per_epoch=$(awk "BEGIN { n = int($steps * $STEPS / $epochs + 0.5); print n < 1 ? 1 : n }")
    echo "== $model $lmbda: $((per_epoch * epochs)) steps, from ${parent}"
    # shellcheck disable=SC2086  # OPTIONS is several words, RECORD may be none
    python train.py --model_name "$model" --lmbda "$lmbda" --dataset "$DATA" --gpu_id "$DEVICE" \
        --epoch "$epochs" --steps_per_epoch "$per_epoch" --batch_size "$BATCH" \
        --patch_size "$PATCH" --precision "$PRECISION" \
        --optimizer muon --lr "$lr" --scheduler cosine --warmup 50 --clip 1 --ema 0.999 \
        --ste_fraction 0.1 --val_time 5 --check_time 20 --time_limit "$TIME_PER_STAGE" \
        --ckpts "$CKPTS" --runs "$RUNS" --exp_version "study_lmbda_$lmbda" --resume $RECORD \
        ${init[@]+"${init[@]}"} $OPTIONS
}

# A failed stage ends the plan with its message; Ctrl-C ends it too, with the state saved.
SCRATCH=60000 HANDED=40000 TUNED=20000

# N, M = 192, 320
stage Factorized 0.0483 none                          $SCRATCH 1e-3
stage Hyperprior 0.0483 "$(final Factorized 0.0483)"  $HANDED  1e-3
stage "$J"       0.0483 "$(final Hyperprior 0.0483)"  $HANDED  1e-3
stage "$C"       0.0483 "$(final "$J" 0.0483)"        $TUNED   5e-4
stage Factorized 0.025  "$(final Factorized 0.0483)"  $TUNED   5e-4
stage Hyperprior 0.025  "$(final Hyperprior 0.0483)"  $TUNED   5e-4
stage "$J"       0.025  "$(final "$J" 0.0483)"        $TUNED   5e-4
stage "$C"       0.025  "$(final "$J" 0.025)"         $TUNED   5e-4

# N, M = 128, 192
stage Factorized 0.013  none                          $SCRATCH 1e-3
stage Hyperprior 0.013  "$(final Factorized 0.013)"   $HANDED  1e-3
stage Factorized 0.0067 "$(final Factorized 0.013)"   $TUNED   5e-4
stage Hyperprior 0.0067 "$(final Hyperprior 0.013)"   $TUNED   5e-4

# N, M = 192, 192
stage "$J"       0.013  "$(final Hyperprior 0.013)"   $HANDED  1e-3
stage "$C"       0.013  "$(final "$J" 0.013)"         $TUNED   5e-4
stage "$J"       0.0067 "$(final "$J" 0.013)"         $TUNED   5e-4
stage "$C"       0.0067 "$(final "$J" 0.0067)"        $TUNED   5e-4
