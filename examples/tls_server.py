"""An echo server over TLS. Make a certificate for localhost, or use one that you have:

    openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=localhost \\
        -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem
    python examples/tls_server.py cert.pem key.pem

Try it with `fastws connect --ca cert.pem wss://localhost:8443`. After the files have changed, send
SIGHUP to the server: new connections get the new certificate, and the open ones stay open.
"""

import asyncio
import signal
import ssl
import sys

import fastws


async def echo(ws):
    async for message in ws:
        await ws.send(message)


async def main(cert, key):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    if hasattr(signal, "SIGHUP"):  # not on Windows
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, context.load_cert_chain, cert, key)
    async with fastws.serve(echo, "localhost", 8443, ssl=context) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
