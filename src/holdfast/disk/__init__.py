"""Files that survive: what the broker's store and the client's outbox have in common."""
