#!/usr/bin/env bash
# Installs tinv in .venv, trains the four networks of Red-Green for a few epochs, and draws how they compare.
set -euo pipefail
source "$(dirname "$0")/environment.sh"

epochs=${EPOCHS:-12}
folder=runs/first_figure
echo "training four networks for $epochs of 50 epochs, one seed of ten: about two minutes on two cores" >&2
.venv/bin/tinv sweep sweeps/red_green.yaml --out "$folder" --jobs "$(nproc)" --only seed_everything=0 \
    -- --trainer.max_epochs="$epochs"
.venv/bin/tinv report "$folder"
cat >&2 <<END

The figure is $PWD/$folder/red_green.png: a network that reads absolute position is right on the similar test and
wrong on the dissimilar one. Next, after '. .venv/bin/activate':
  tinv sweep sweeps/red_green.yaml --out runs/red_green --jobs $(nproc)   # the whole table: 40 runs, about 40 minutes
  tinv inspect resnet18 --source torchvision --padding same_circular --subsampling aps --stem convert
  tinv list                                                       # everything there is to choose from
END
