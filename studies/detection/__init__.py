"""Studies of who is flagged, and of attackers that know how."""
