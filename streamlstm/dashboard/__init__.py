"""What the live page shows: pure aggregation of committed records, in bounded memory. No clock, file or network."""
