"""The run folder: its parameters, and files written so that a crash loses nothing."""
