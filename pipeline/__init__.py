"""Source -> shards: the plan, the perturbation of a batch, shard files, ledger, manifest, verification."""
