"""What a malicious party does: triggers and the poisoning of its own data."""
