"""Objects followed through a video: a frame and what is kept of earlier ones to masks and what to keep."""
