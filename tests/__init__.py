"""Tests spawn processes beside open gRPC channels. The children never use gRPC's state of their
parent, so its fork handlers have nothing to save and would only warn that they cannot."""

import os

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
