"""The Letterlock daemon: gateway, relay and registry."""
