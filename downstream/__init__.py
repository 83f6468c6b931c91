"""What others do with the shards: scoring networks on them."""
