#!/bin/bash
# bash experiments/launch/tpu_vm.sh NAME ZONE BUCKET: a sweep on all hosts of a TPU slice that exists.
# The folder must be seen by all hosts: here a bucket, mounted by gcsfuse.
set -eu
NAME=$1 ZONE=$2 BUCKET=$3
everywhere() { gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --command="$1"; }
everywhere "python3 -m venv ~/env && ~/env/bin/pip install -q 'jax[tpu]' 'git+$(git remote get-url origin)'"
gcloud compute tpus tpu-vm scp experiments/launch/sweep.toml "$NAME":sweep.toml --zone="$ZONE" --worker=all
everywhere "mkdir -p ~/runs && (mountpoint -q ~/runs || gcsfuse --implicit-dirs $BUCKET ~/runs)"
everywhere "if [ -f ~/runs/sweep/config.json ]; then WORDS='resume runs/sweep'
  else WORDS='sweep sweep.toml --run-dir runs/sweep'; fi
  ~/env/bin/jaxrl-seq \$WORDS --hosts auto"
