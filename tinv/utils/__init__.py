"""What every other room uses: files, memory, progress, the outputs of the process."""
