"""What the shards are for: fine-tuning with auxiliary batch norm, and scoring networks on shards and test sets."""
