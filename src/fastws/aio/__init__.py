"""WebSocket connections on asyncio: the only place where fastws does I/O."""
