"""Generation, metrics per answer type, the accuracy matrix, gain and forgetting."""
