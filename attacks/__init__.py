"""Everything that climbs a loss: one ascent loop, and what may be moved by it."""
