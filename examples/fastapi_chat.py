"""A chat with rooms on FastAPI and uvicorn: `pip install fastapi uvicorn`, then

    python examples/fastapi_chat.py

Open http://localhost:8080/ in two windows. Each of them shows what both say. The part of the
address after the # is the room: http://localhost:8080/#tea is another one.

`connection_of` works under any ASGI server. Under uvicorn with the class of fastws, publishing is
fastest, and a member that reads too slowly is disconnected instead of using more and more memory.
"""

import fastapi
import uvicorn
from fastapi.responses import HTMLResponse

import fastws
from fastws.integrations.asgi import connection_of

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>Chat</title>
<link rel="icon" href="data:,">
<form><input aria-label="Message" autocomplete="off"> <button>Say</button></form>
<ol></ol>
<script>
  const room = location.hash.slice(1) || 'lobby';
  const ws = new WebSocket(`${location.origin.replace('http', 'ws')}/rooms/${room}`);
  const show = (text) => {
    const line = document.createElement('li');
    line.textContent = text;
    document.querySelector('ol').append(line);
  };
  ws.onmessage = (event) => show(event.data);
  ws.onclose = (event) => show(`The connection has ended (${event.code}).`);
  const input = document.querySelector('input');
  input.focus();
  document.querySelector('form').onsubmit = (event) => {
    event.preventDefault();
    ws.send(input.value);
    input.value = '';
  };
  window.onhashchange = () => location.reload();
</script>
"""

app = fastapi.FastAPI()
topics = fastws.Topics()


@app.get("/")
def page() -> HTMLResponse:
    return HTMLResponse(PAGE)


@app.websocket("/rooms/{room}")
async def chat(ws: fastapi.WebSocket, room: str) -> None:
    await ws.accept()
    topics.subscribe(connection_of(ws), room)
    topics.publish(room, f"{topics.count(room)} in this room")
    async for text in ws.iter_text():
        topics.publish(room, text)


if __name__ == "__main__":
    protocol = "fastws.integrations.uvicorn:WebSocketProtocol"
    uvicorn.run(app, port=8080, ws=protocol, log_level="warning")
