"""gRPC servers: servicers, validation, faults, interceptors."""
