"""A candidate against baselines that were named beforehand: judged, in words, and as JSON."""
