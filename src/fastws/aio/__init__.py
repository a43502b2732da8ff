"""WebSocket connections on asyncio. Only the modules of this package do I/O."""
