"""Models, losses, metrics and training in torch and scikit-learn; no Spark, Ray or MLflow."""
