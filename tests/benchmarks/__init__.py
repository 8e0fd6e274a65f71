"""Comparisons of two things in one run, as ratios; they assert no times."""
