"""What a run is judged by, and what is said of it; pure."""
