"""The embedded student: a world of drawings, a small student trained on it, and its evaluation."""
