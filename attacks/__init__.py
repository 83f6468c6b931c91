"""Everything that climbs a loss: one ascent loop, and the threat models that it runs on."""
