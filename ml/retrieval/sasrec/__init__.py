"""SASRec: a causal transformer over item ids that predicts the next item at every place."""
