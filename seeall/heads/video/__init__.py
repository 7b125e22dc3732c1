"""Seeing a video for less: the parts of a network on different frames at once, and what has not changed skipped."""
