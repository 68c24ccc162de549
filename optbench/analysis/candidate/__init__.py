"""Judge a candidate against baselines named beforehand, in words and as JSON."""
