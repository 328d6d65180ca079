"""Networks and losses. Everything here is torch; nothing here knows of Flower."""
