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
#     STEPS           multiplies the number of steps of every stage; 0.001 is a trial          [1]
#     TIME_PER_STAGE  seconds after which a stage is left for the next call; 0: no limit       [0]
#     BATCH, PATCH    crops a step and process, and their side                             [4 256]
#     PRECISION       bf16 or fp32                       [bf16 where the GPU or CPU computes in it]
#     LANES           1: what depends on nothing of each other is trained at once, up to four runs;
#                     a large GPU is idle for most of a step of one                            [0]
#     CKPTS, RUNS     folders of the checkpoints and of the runs; change both for a trial
#                                                                                    [ckpts runs]
#     OPTIONS         more flags for train.py, such as '--threads 2'                 ['--compile']
#
# One trunk for each width and kind of prior learns the transforms, at the highest lambda and a
# constant rate. Every point is a branch: the trunk's weights with the latents rescaled to its
# lambda, and a rate that cools down. The context models take a Hyperprior's transforms: first
# their prior alone, on kept latents, then everything.
#
#     128, 192   trunk Hyperprior --> Hyperprior 0.013 --> Hyperprior 0.0067
#                  |-> trunk Factorized --> Factorized 0.013 --> Factorized 0.0067
#     192, 320     |-> trunk Hyperprior --> Hyperprior 0.0483 --> Hyperprior 0.025
#                        |-> trunk Factorized --> Factorized 0.0483 --> Factorized 0.025
#     each lambda  Hyperprior --> Joint's prior --> Joint --> Checkerboard's prior --> Checkerboard
set -euo pipefail
cd "$(dirname "$0")"

DATA=${DATA:?is the folder of training images, for example: DATA=data/train bash train_study.sh}
DEVICE=${DEVICE:-}
STEPS=${STEPS:-1}
TIME_PER_STAGE=${TIME_PER_STAGE:-0}
BATCH=${BATCH:-4}
PATCH=${PATCH:-256}
LANES=${LANES:-0}
CKPTS=${CKPTS:-ckpts}
RUNS=${RUNS:-runs}
OPTIONS=${OPTIONS---compile}
if [ -z "${PRECISION:-}" ]; then
    has_bf16=$(DEVICE=$DEVICE python -c 'import os, torch
gpu = os.environ["DEVICE"] != "cpu" and torch.cuda.is_available()
print(gpu or torch.cpu._is_avx512_bf16_supported())')
    if [ "$has_bf16" = True ]; then PRECISION=bf16; else PRECISION=fp32; fi
fi
# A CPU spends a quarter of a step on getting memory and giving it back, unless it keeps it.
export GLIBC_TUNABLES=${GLIBC_TUNABLES-glibc.malloc.hugetlb=1}
export MALLOC_MMAP_MAX_=${MALLOC_MMAP_MAX_-0} MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_-99999999999}

F=Factorized H=Hyperprior
J=JointAutoregressiveHierarchicalPriors
C=CheckerboardAutogressive
TRUNK=0.0483 # lambda of the trunks

epochs() { case $1 in "$J" | "$C") echo 250 ;; *) echo 200 ;; esac; }

# final FOLDER MODEL LAMBDA: the checkpoint that a stage ends with.
final() { echo "$1/$2/epoch_$(($(epochs "$2") - 1))_lmbda_$3.safetensors"; }

# stage FOLDER MODEL LAMBDA PARENT STEPS LR FLAGS...: train one checkpoint into FOLDER.
# PARENT is a checkpoint or 'none'. STEPS is divided evenly among the 200 or 250 epochs of the
# model, at least one step in each.
stage() {
    local folder=$1 model=$2 lmbda=$3 parent=$4 steps=$5 lr=$6 per_epoch init=() limit=()
    if [ -e "$(final "$folder" "$model" "$lmbda")" ]; then
        echo "== $folder $model $lmbda: done"
        return
    fi
    if [ "$parent" != none ]; then
        if [ ! -e "$parent" ]; then
            echo "== $folder $model $lmbda: waits for $parent"
            return
        fi
        init=(--init_ckpt "$parent")
    fi
    if [ "$TIME_PER_STAGE" != 0 ]; then limit=(--time_limit "$TIME_PER_STAGE"); fi
    per_epoch=$(awk "BEGIN { n = int($steps * $STEPS / $(epochs "$model") + 0.5); print n < 1 ? 1 : n }")
    echo "== $folder $model $lmbda: $per_epoch steps in each of $(epochs "$model") epochs, from $parent"
    # shellcheck disable=SC2086  # OPTIONS is several words
    python train.py --model_name "$model" --lmbda "$lmbda" --dataset "$DATA" --gpu_id "$DEVICE" \
        --epoch "$(epochs "$model")" --steps_per_epoch "$per_epoch" --batch_size "$BATCH" \
        --patch_size "$PATCH" --precision "$PRECISION" --optimizer muon --lr "$lr" --clip 1 \
        --warmup 50 --val_time 10 --check_time 20 \
        --ckpts "$folder" --runs "$RUNS" --exp_version "$(basename "$folder")_$lmbda" --resume \
        ${init[@]+"${init[@]}"} ${limit[@]+"${limit[@]}"} "${@:7}" $OPTIONS
}

# trunk N M MODEL PARENT STEPS
trunk() {
    stage "$CKPTS/trunks/$1_$2" "$3" $TRUNK "$4" "$5" 5e-4 --N "$1" --M "$2" --rest_lr 2e-4 \
        --scheduler constant --ema 0.998
}

# branch MODEL LAMBDA PARENT STEPS LR: a point, everything trained.
branch() {
    local record=()
    if [ "$CKPTS" = ckpts ]; then record=(--record); fi # the curves of the study itself
    stage "$CKPTS" "$1" "$2" "$3" "$4" "$5" --rest_lr 2e-4 \
        --scheduler cosine --ema 0.99 --ste_fraction 0.1 ${record[@]+"${record[@]}"}
}

# prior MODEL LAMBDA PARENT STEPS: the prior of a context model on fixed transforms. Crops of kept
# latents cost little: of 8 a step, two thirds of the time would be Muon's. y is not trained, so
# half of the steps can have it rounded, as the file does. A single view of the photographs would be
# learned by heart.
prior() {
    stage "$CKPTS/priors" "$1" "$2" "$3" "$4" 1e-3 --fixed g_a g_s --latent_views 4 \
        --batch_size 32 --scheduler cosine --ema 0.99 --ste_fraction 0.5
}

# together FUNCTION...: call them one after the other, or at once.
together() {
    local lane lanes=()
    for lane; do
        if [ "$LANES" = 1 ]; then "$lane" & lanes+=($!); else "$lane"; fi
    done
    for lane in ${lanes[@]+"${lanes[@]}"}; do wait "$lane"; done
}

# context LAMBDA: the models with a context, on Hyperprior's transforms.
context() {
    prior $J "$1" "$(final "$CKPTS" $H "$1")" 4000
    branch $J "$1" "$(final "$CKPTS/priors" $J "$1")" 3000 3e-4
    prior $C "$1" "$(final "$CKPTS" $J "$1")" 4000
    branch $C "$1" "$(final "$CKPTS/priors" $C "$1")" 1500 2e-4
}

# A failed stage ends the plan with its message; Ctrl-C ends it too, with the state saved.
low=$CKPTS/trunks/128_192 high=$CKPTS/trunks/192_320

hyperpriors_low() {
    branch $H 0.013 "$(final "$low" $H $TRUNK)" 6000 5e-4
    branch $H 0.0067 "$(final "$CKPTS" $H 0.013)" 3000 3e-4
    context 0.013
    context 0.0067
}
factorized_low() {
    trunk 128 192 $F "$(final "$low" $H $TRUNK)" 25000
    branch $F 0.013 "$(final "$low" $F $TRUNK)" 6000 5e-4
    branch $F 0.0067 "$(final "$CKPTS" $F 0.013)" 3000 3e-4
}
low() { together hyperpriors_low factorized_low; }

hyperpriors_high() {
    branch $H 0.0483 "$(final "$high" $H $TRUNK)" 5000 5e-4
    branch $H 0.025 "$(final "$CKPTS" $H 0.0483)" 3000 3e-4
    context 0.0483
    context 0.025
}
factorized_high() {
    trunk 192 320 $F "$(final "$high" $H $TRUNK)" 12000
    branch $F 0.0483 "$(final "$high" $F $TRUNK)" 5000 5e-4
    branch $F 0.025 "$(final "$CKPTS" $F 0.0483)" 3000 3e-4
}
high() {
    trunk 192 320 $H "$(final "$low" $H $TRUNK)" 45000
    together hyperpriors_high factorized_high
}

trunk 128 192 $H none 90000
together low high
