#!/usr/bin/env bash
#SBATCH --job-name=arena-worker
#SBATCH --partition=gpu
#SBATCH --gpus=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
#
# One dask worker with one GPU, for stages that need it. As many as you like, beside workers of other kinds:
#   sbatch --array=1-8 slurm-worker.sh tls://SCHEDULER:8786
# What the worker has is the second argument, GPU=1 by default.
set -euo pipefail

address=${1:?"usage: slurm-worker.sh tls://SCHEDULER:8786 [RESOURCES]"}
resources=${2:-GPU=1}

export OMP_NUM_THREADS=1
scratch=$(mktemp -d "${TMPDIR:-/tmp}/arena-XXXXXX")
export XDG_CACHE_HOME=$scratch/cache # the mirror of a store at a URL
worker=
trap 'if [ -n "$worker" ]; then kill "$worker" || true; wait "$worker" || true; fi; rm -rf "$scratch"' EXIT
trap 'exit 0' TERM

dask worker "$address" --nthreads 1 --resources "$resources" --local-directory "$scratch" \
    --dashboard-address 127.0.0.1:0 --death-timeout 300 &
worker=$!
wait "$worker"
