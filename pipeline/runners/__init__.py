"""Who makes the shards: this process, a local Dask cluster or a remote one; they know shards, not images."""
