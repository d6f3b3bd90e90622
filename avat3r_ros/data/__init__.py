"""Synthetic heads: training data with exact truth, and the synthetic operator."""
