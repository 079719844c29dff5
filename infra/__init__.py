"""The outside world: settings, Spark, the Delta lake, Ray, MLflow and data quality."""
