"""Measuring a codec: points, photographs, the bench, results, metrics, curves and plots."""
