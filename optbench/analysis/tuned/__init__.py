"""Results of a tuned study beside its verdict: poor tuning, spreads and maps."""
