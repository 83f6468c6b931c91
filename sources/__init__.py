"""Where images come from: folders, tars, shards, the drawn world; their labels, their order, their decoding."""
