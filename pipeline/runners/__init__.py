"""Runners: this process, a local Dask cluster or a remote one. They know shards, not images."""
