"""An echo server whose connections are a Cython class, which must be compiled first:

    cd examples/cython_server
    pip install cython setuptools
    python setup.py build_ext --inplace
    python server.py

Try it with `fastws connect ws://localhost:8080`. It is the same as `echo.py`, without the parts of
`fastws.serve` that `echo.pyx` names.
"""

import asyncio
from contextlib import suppress

from echo import Echo


async def main():
    server = await asyncio.get_running_loop().create_server(Echo, "localhost", 8080)
    try:
        await asyncio.Event().wait()
    finally:
        server.close()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
