"""What happened in a run: events, written by the server and the command line, read by reports. No torch, no Flower."""
