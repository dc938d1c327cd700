"""What happens around training: checkpoints to resume from, checks of the data, guards, signals, progress."""
