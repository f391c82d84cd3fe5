"""How tests open channels: each with a connection of its own.

Channels to one target share a connection by default, and one that its server has closed can be
handed to a new call before anybody noticed: a second server at the same address would be blamed.
"""

OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)
