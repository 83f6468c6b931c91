"""The parts that all trainers share: settings, requests, data, the loop with its checkpoints, held-out evaluation."""
