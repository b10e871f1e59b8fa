"""How well planted anomalies are recovered."""
