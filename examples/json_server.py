"""A server that speaks JSON: `pip install orjson`, then `python examples/json_server.py`.

    fastws connect ws://localhost:8080
    > {"id": 1, "sort": ["tea", "cocoa", "coffee"]}
    < {"id":1,"sorted":["cocoa","coffee","tea"]}

orjson reads and writes UTF-8. So text is received and sent as bytes (`decode_text=False`,
`send_text`), and never becomes a `str`.
"""

import asyncio

import orjson

import fastws


class Sorter(fastws.WebSocketProtocol[fastws.Text]):
    def on_message(self, message):
        match message:
            case fastws.Text(data):
                self.send_text(orjson.dumps(answer(data)))
            case bytes():
                self.close(1003, "JSON in text messages, please")


def answer(data):
    try:
        request = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        return {"error": f"not JSON: {exc}"}
    match request:
        case {"id": int(number), "sort": [*words]} if all(isinstance(w, str) for w in words):
            return {"id": number, "sorted": sorted(words)}
    return {"error": 'expected {"id": number, "sort": [text, …]}'}


async def main():
    async with fastws.serve(Sorter, "localhost", 8080, decode_text=False) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
