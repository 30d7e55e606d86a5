"""How good a model is, and how sure one can be: metrics with intervals, paired comparisons, calibration. numpy only."""
