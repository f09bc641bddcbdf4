#!/usr/bin/env bash
# One run on Slurm: Ray on every node of the allocation, the job on the first, and all of it gone afterwards.
#
#   sbatch cluster/slurm.sh run examples/demo.yaml --set output.dir=runs/demo
#
# Submit from the root of the repository, on a file system that all nodes share, with the environment made
# before (make install). Arguments are those of fused-ray.

#SBATCH --job-name=fused-ray
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=01:00:00
#SBATCH --output=fused-ray-%j.log
# Whole nodes: at its end symmetric-run calls `ray stop`, which would hit your other Ray jobs on the node.
#SBATCH --exclusive

set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
bin="$PWD/.venv/bin"
export PATH="$bin:$PATH" RAY_USAGE_STATS_ENABLED=0
# Others share the network: Ray takes a token, which this job alone has, from whoever talks to it.
export RAY_AUTH_MODE="${RAY_AUTH_MODE:-token}"
export RAY_AUTH_TOKEN="${RAY_AUTH_TOKEN:-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')}"
# Nodes of a busy machine come up slowly; Ray waits half a minute unless told otherwise.
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=180

# An address, not a name: some nodes resolve their own name to 127.0.1.1, and then none would be the head.
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
ip=$(srun --nodes=1 --ntasks=1 -w "$first" hostname -I | awk '{print $1}')
address="$ip:6379"

# RAY_ADDRESS is set for our command alone. It makes the run join this cluster; unset, it would start one of its own.
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" \
  ray symmetric-run --address "$address" --min-nodes "$SLURM_JOB_NUM_NODES" --num-cpus="$SLURM_CPUS_PER_TASK" \
  -- env RAY_ADDRESS="$address" python cluster/job.py "$@"
