#!/bin/bash
# bash experiments/launch/gke_xpk.sh CLUSTER IMAGE: a sweep as an xpk workload; IMAGE has jaxrl_seq and jax[tpu].
# /runs must be a volume that all pods see (xpk storage attach ... --mount-point=/runs).
set -eu
CLUSTER=$1 IMAGE=$2
xpk workload create \
  --cluster="$CLUSTER" \
  --workload=jaxrl-sweep \
  --tpu-type=v5litepod-16 \
  --num-slices=1 \
  --max-restarts=10 \
  --docker-image="$IMAGE" \
  --command="if [ -f /runs/sweep/config.json ]; then WORDS='resume /runs/sweep'; \
else WORDS='sweep experiments/launch/sweep.toml --run-dir /runs/sweep'; fi; jaxrl-seq \$WORDS --hosts auto"
