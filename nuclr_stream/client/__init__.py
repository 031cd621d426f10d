"""What a rig imports: publish spikes, iterate predictions, ask for embeddings.

>>> from nuclr_stream.client import Publisher, Query, subscribe
"""

from nuclr_stream.client.publisher import Publisher
from nuclr_stream.client.subscriber import Query, QueryError, Subscription, subscribe

__all__ = ["Publisher", "Query", "QueryError", "Subscription", "subscribe"]
