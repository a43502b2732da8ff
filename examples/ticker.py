"""A ticker: `python examples/ticker.py`, then `fastws connect ws://localhost:8080`.

Send the name of a share, such as `tea`, to get its price whenever it changes, and the name again to
get it no more. A client that takes too little gets only the newest price of each share.
"""

import asyncio
import random

import fastws

PRICES = {"tea": 420, "coffee": 880, "cocoa": 310}
topics = fastws.Topics(slow="latest")


class Customer(fastws.WebSocketProtocol):
    def on_message(self, message):
        if message not in PRICES:
            self.send(f"unknown share (choose from {', '.join(PRICES)})")
        elif message in topics.of(self):
            topics.unsubscribe(self, message)
        else:
            topics.subscribe(self, message)
            self.send(quote(message))


def quote(share):
    return f"{share} {PRICES[share] / 100:.2f}"


async def trade(interval=0.2):
    while True:
        share = random.choice(list(PRICES))
        PRICES[share] += random.randint(-3, 3)
        topics.publish(share, quote(share))
        await asyncio.sleep(interval)


async def main():
    async with fastws.serve(Customer, "localhost", 8080) as server:
        trading = asyncio.create_task(trade())
        await server.serve_forever()
        trading.cancel()


if __name__ == "__main__":
    asyncio.run(main())
