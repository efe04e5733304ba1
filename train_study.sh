#!/usr/bin/env bash
# The training of the study: 16 checkpoints, from the first step to the last, unattended.
#
#     DATA=data/train bash train_study.sh            # or: make study
#     DATA=data/train TIME=600 bash train_study.sh further [PART...]     # the checkpoints, further
#
# Stop it in any way, start it again: finished stages are skipped, the one that was interrupted
# goes on from its last state (at most five minutes back).
#
#     DATA            folder of training images (required; see docs/datasets.md)
#     DEVICE          --gpu_id: '' (GPU 0 if there is one), 'cpu', '0 1 2'                   ['']
#     STEPS           multiplies the number of steps of every stage; 0.001 is a trial          [1]
#     TIME_PER_STAGE  seconds after which a stage is left for the next call; 0: no limit       [0]
#     TIME            the same for all stages of a call together                               [0]
#     MARGIN          seconds of TIME to start a stage and to save it                         [20]
#     BATCH, PATCH    crops a step and process, and their side            [4 256; further: 64 256]
#     PRECISION       bf16 or fp32                       [bf16 where the GPU or CPU computes in it]
#     LANES           1: what depends on nothing of each other is trained at once, up to four runs;
#                     a large GPU is idle for most of a step of one                            [0]
#     CKPTS, RUNS     folders of the checkpoints and of the runs; change both for a trial
#                                       [ckpts runs; further: runs/further/ckpts and runs/further]
#     WEIGHTS         further: folder of the checkpoints to begin with                     [ckpts]
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
#
# `further` is for a large GPU and some minutes at a time. It begins with trained weights, so each
# part is short; STEPS fits them to the machine. When the time is up in a trunk, its averaged weights
# are left too: another machine that has them in WEIGHTS goes on from them.
#
#     trunk_high     the trunk 192, 320, from Hyperprior 0.0483
#     branches_high  from it Hyperprior 0.0483 and 0.025; and Hyperprior (192, 192) 0.013 and 0.0067,
#                    whose transforms are for the context models, in 192_192/
#     trunk_low      the trunk 128, 192, from Hyperprior 0.013
#     branches_low   from it Hyperprior 0.013 and 0.0067; from both trunks the four Factorized
#     priors_high    of Joint and Checkerboard 0.0483 and 0.025, on those transforms, with equal
#     priors_low     budgets; the same at 0.013 and 0.0067; in priors/
set -euo pipefail
cd "$(dirname "$0")"

DATA=${DATA:?is the folder of training images, for example: DATA=data/train bash train_study.sh}
DEVICE=${DEVICE:-}
STEPS=${STEPS:-1}
TIME_PER_STAGE=${TIME_PER_STAGE:-0}
TIME=${TIME:-0}
MARGIN=${MARGIN:-20}
PLAN=${1:-study}
case $PLAN in
study) ;;
further) BATCH=${BATCH:-64} RUNS=${RUNS:-runs/further} CKPTS=${CKPTS:-runs/further/ckpts} ;;
*) echo "train_study.sh: the plan is 'study' or 'further', not '$PLAN'" >&2 && exit 2 ;;
esac
BATCH=${BATCH:-4}
PATCH=${PATCH:-256}
LANES=${LANES:-0}
CKPTS=${CKPTS:-ckpts}
RUNS=${RUNS:-runs}
WEIGHTS=${WEIGHTS:-ckpts}
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
    local folder=$1 model=$2 lmbda=$3 parent=$4 steps=$5 lr=$6 per_epoch left init=() limit=()
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
    left=$(awk "BEGIN { left = $TIME - $SECONDS - $MARGIN; stage = $TIME_PER_STAGE
        print !$TIME ? stage : left < 1 ? \"none\" : stage && stage < left ? stage : left }")
    case $left in
    none) echo "== $folder $model $lmbda: the time is up" && return ;;
    0) ;;
    *) limit=(--time_limit "$left") ;;
    esac
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

# trunk N M MODEL PARENT STEPS FLAGS...
trunk() {
    stage "$CKPTS/trunks/$1_$2" "$3" $TRUNK "$4" "$5" 5e-4 --N "$1" --M "$2" --rest_lr 2e-4 \
        --scheduler constant --ema 0.998 "${@:6}"
}

# branch MODEL LAMBDA PARENT STEPS LR FLAGS...: a point, everything trained.
branch() {
    local record=()
    if [ "$CKPTS" = ckpts ]; then record=(--record); fi # the curves of the study itself
    stage "$CKPTS" "$1" "$2" "$3" "$4" "$5" --rest_lr 2e-4 \
        --scheduler cosine --ema 0.99 --ste_fraction 0.1 ${record[@]+"${record[@]}"} "${@:6}"
}

# prior MODEL LAMBDA PARENT STEPS FLAGS...: the prior of a context model on fixed transforms. Crops
# of kept latents cost little: of 8 a step, two thirds of the time would be Muon's. y is not trained,
# so half of the steps can have it rounded, as the file does. A single view of the photographs would
# be learned by heart.
prior() {
    stage "$CKPTS/priors" "$1" "$2" "$3" "$4" 1e-3 --fixed g_a g_s --latent_views 4 \
        --batch_size 32 --scheduler cosine --ema 0.99 --ste_fraction 0.5 "${@:5}"
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

# The parts of `further`. A checkpoint takes as long as a hundred steps: one at the end is enough.
RARELY=(--val_time 20 --check_time 250)

# there FILE: a checkpoint of this plan, or else of WEIGHTS.
there() { if [ -e "$CKPTS/$1" ]; then echo "$CKPTS/$1"; else echo "$WEIGHTS/$1"; fi; }

# grown N_M FOLDER...: the latest weights of a trunk in the first of the folders that has any.
grown() {
    local folder
    for folder in "${@:2}"; do
        find "$folder/trunks/$1/$H" -name '*.safetensors' -printf '%T@ %p\n' 2>/dev/null |
            sort -n | tail -n 1 | cut -d ' ' -f 2- | grep . && return
    done
    echo "$2/trunks/$1/$H" # which is not there: the stage waits for it
}

# onward N M LAMBDA STEPS: a trunk, from its weights in WEIGHTS or those of Hyperprior at LAMBDA.
onward() {
    local parent
    parent=$(grown "$1_$2" "$WEIGHTS")
    if [ ! -e "$parent" ]; then parent=$(final "$WEIGHTS" $H "$3"); fi
    trunk "$1" "$2" $H "$parent" "$4" --lr 1e-3 --rest_lr 3e-4 "${RARELY[@]}"
}
trunk_high() { onward 192 320 0.0483 16000; }
trunk_low() { onward 128 192 0.013 14000; }

hyperpriors_192_320() {
    local parent
    parent=$(grown 192_320 "$CKPTS" "$WEIGHTS")
    branch $H 0.0483 "$parent" 3000 1e-3 --rest_lr 3e-4 "${RARELY[@]}"
    branch $H 0.025 "$parent" 3000 1e-3 --rest_lr 3e-4 "${RARELY[@]}"
}
hyperpriors_192_192() {
    local lmbda
    for lmbda in 0.013 0.0067; do
        CKPTS=$CKPTS/192_192 branch $H $lmbda "$(grown 192_320 "$CKPTS" "$WEIGHTS")" 3000 1e-3 \
            --rest_lr 3e-4 "${RARELY[@]}" --N 192 --M 192
    done
}
branches_high() { together hyperpriors_192_320 hyperpriors_192_192; }

hyperpriors_128_192() {
    local lmbda
    for lmbda in 0.013 0.0067; do
        branch $H $lmbda "$(grown 128_192 "$CKPTS" "$WEIGHTS")" 3000 1e-3 \
            --rest_lr 3e-4 "${RARELY[@]}"
    done
}
# Its own density of y, on the transforms of a trunk.
factorized() {
    local lmbda
    for lmbda in "${@:2}"; do
        branch $F "$lmbda" "$(final "$WEIGHTS" $F "$lmbda")" 2500 7e-4 \
            --init_transforms "$(grown "$1" "$CKPTS" "$WEIGHTS")" "${RARELY[@]}"
    done
}
factorized_128_192() { factorized 128_192 0.013 0.0067; }
factorized_192_320() { factorized 192_320 0.0483 0.025; }
branches_low() { together hyperpriors_128_192 factorized_128_192 factorized_192_320; }

# Eight views of the photographs, so that they are not learned by heart; y as the file has it.
views() {
    prior "$1" "$2" "$3" 4000 --latent_views 8 --batch_size 64 --ste_fraction 1 "${RARELY[@]}" \
        "${@:4}"
}
# The channels of y are those of the prior that is there.
views_high() {
    local lmbda
    for lmbda in 0.0483 0.025; do
        views "$1" $lmbda "$(final "$WEIGHTS" "$1" $lmbda)" \
            --init_transforms "$(there "$(final . $H $lmbda)")"
    done
}
# They are not: all but the transforms and z begins anew.
views_low() {
    local lmbda
    for lmbda in 0.013 0.0067; do
        views "$1" $lmbda "$(there "192_192/$(final . $H $lmbda)")" --N 192 --M 192
    done
}
joint_high() { views_high $J; }
joint_low() { views_low $J; }
checkerboard_high() { views_high $C; }
checkerboard_low() { views_low $C; }
priors_high() { together joint_high checkerboard_high; }
priors_low() { together joint_low checkerboard_low; }

if [ "$PLAN" = study ]; then
    trunk 128 192 $H none 90000
    together low high
else
    all="trunk_high branches_high trunk_low branches_low priors_high priors_low" parts=${*:2}
    for part in ${parts:-$all}; do
        case " $all " in
        *" $part "*) "$part" ;;
        *) echo "train_study.sh: the parts are $all; not '$part'" >&2 && exit 2 ;;
        esac
    done
fi
