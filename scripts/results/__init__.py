"""Programs that make the studies, figures and reports of results/, and get their data."""
