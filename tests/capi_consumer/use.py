from echo import Echo
from fastws import Connection, Role

client = Connection(Role.CLIENT)
client.send("Hello Server!")
print(client.receive_data(Echo().data_received(client.data_to_send())))
