"""What an honest-but-curious server can read from one client's update. Probes get a view, never the truth."""
