"""The drawn world: images, shifted test sets and folders that are drawn from a seed."""
