"""Messages of businesses: outbound, inbound, delivery, statuses, pre-keys."""
