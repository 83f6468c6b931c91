"""What lies on disk of a data set: its plan, shard files, ledger and manifest; knows nothing of a run."""
