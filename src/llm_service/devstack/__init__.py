"""The PostgreSQL and Redis of `make run` and `make test`.

The server programs come from two wheels (or from the system) and are started here, as child processes on
private Unix sockets: no TCP port, no daemon, nothing left behind. `start_servers` starts both, or the one
whose URL is not given; `supervise` keeps them and any other children alive until Ctrl-C.
"""

from llm_service.devstack.children import Child, ChildSpec
from llm_service.devstack.errors import DevstackError
from llm_service.devstack.stack import Servers, start_servers
from llm_service.devstack.supervisor import supervise

__all__ = ["Child", "ChildSpec", "DevstackError", "Servers", "start_servers", "supervise"]
