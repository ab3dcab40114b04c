#!/bin/bash
# sbatch experiments/launch/slurm.sh: one task a node, all devices of all nodes in one sweep.
#SBATCH --job-name=jaxrl-sweep
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=16
#SBATCH --time=12:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
# Two minutes before the end every task gets SIGTERM, saves and leaves with 85: then ask for more time.
RUN=${RUN:-runs/sweep-$SLURM_JOB_ID}
if [ -f "$RUN/config.json" ]; then COMMAND="resume $RUN"
else COMMAND="sweep experiments/launch/sweep.toml --run-dir $RUN"; fi
srun --kill-on-bad-exit=1 jaxrl-seq $COMMAND --hosts auto
CODE=$?
[ $CODE -eq 85 ] && scontrol requeue "$SLURM_JOB_ID"
exit $CODE
