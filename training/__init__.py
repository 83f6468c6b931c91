"""What every trainer shares: the loop, its data, full-state checkpoints, resume, metric lines."""
