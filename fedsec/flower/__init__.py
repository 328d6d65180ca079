"""The one door to Flower: messages, replies, the roll call."""
