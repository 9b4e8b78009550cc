"""A run's Prometheus, and its dashboards."""
