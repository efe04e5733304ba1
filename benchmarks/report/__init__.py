"""CSVs into blocks of the README and the reports, and into figures."""
