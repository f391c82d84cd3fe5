"""The `letterlock` command."""

import os

# Read when gRPC is first imported. A failed call is told in one line; gRPC's own lines are noise.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
