"""Programs that make the studies, figures and reports of results/, and fetch data."""
