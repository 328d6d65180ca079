"""One value each for defence.name, attack.name, data.format and leakage.attacks."""
