"""What a tuned study tells beside its verdict: warnings of poor tuning, and spreads."""
