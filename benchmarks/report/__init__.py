"""CSVs into blocks of the README and the report, and into figures."""
