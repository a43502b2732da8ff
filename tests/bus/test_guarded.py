"""Brokers that want a password, do not permit everything, and speak TLS."""

from __future__ import annotations

import asyncio
import signal
import ssl

import pytest

from fastws.bus import BusError

from ..tools import optional
from .conftest import BROKERS
from .test_bus import Process, client, processes

CONFIGURATION = {
    "redis": (
        "--include",
        """
        requirepass secret
        user guest on >secret ~* resetchannels &fastws:open +@all
        """,
    ),
    "nats": (
        "--config",
        """
        authorization {
          users = [
            {user: default, password: secret},
            {user: guest, password: secret, permissions: {publish: "fastws.open",
                                                          subscribe: "fastws.open"}},
          ]
        }
        """,
    ),
}


@pytest.fixture(scope="module", params=BROKERS)
def guarded(request, tmp_path_factory):
    """A broker that knows two users: one may do everything, the other has one topic."""
    folder = tmp_path_factory.mktemp("guarded")
    option, text = CONFIGURATION[request.param]
    (folder / "conf").write_text(text)
    broker = BROKERS[request.param](folder, option, "conf")
    try:
        yield broker.start()
    finally:
        broker.kill()


def user(broker, name, password="secret"):
    return {"username" if broker.program == "redis-server" else "user": name, "password": password}


async def test_who_has_no_password_cannot_start(guarded, until, caplog):
    for options in ({}, user(guarded, "default", "wrong"), user(guarded, "nobody")):
        process = Process(guarded, **options)
        with pytest.raises(BusError, match=r"^cannot connect to the broker: .*(?i:auth|password)"):
            await process.bus.start(process.deliver)
        await process.bus.close()
    async with processes(guarded, 2, **user(guarded, "default")) as (one, two):
        await two.bus.subscribe("a")
        await one.bus.publish("a", "x")
        await until(lambda: two.arrived)
    assert caplog.text == ""


async def test_what_is_not_permitted_disturbs_nothing_else(guarded, until, caplog):
    async with (
        processes(guarded, 1, **user(guarded, "guest")) as (guest,),
        processes(guarded, 1, **user(guarded, "default")) as (other,),
    ):
        for topic in ("open", "closed"):
            await other.bus.subscribe(topic)
        # All at once, and one of them again.
        results = await asyncio.gather(
            *(guest.bus.subscribe(topic) for topic in ("closed", "open", "shut")),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [BusError, type(None), BusError]
        with pytest.raises(BusError, match=r"^the broker refuses topic 'closed': .*permission"):
            await guest.bus.subscribe("closed")
        await guest.bus.unsubscribe("shut")
        for _ in range(3):
            await guest.bus.publish("closed", "x")
            await guest.bus.publish("open", "y")
        await other.bus.publish("closed", "x")
        await other.bus.publish("open", "z")
        await until(lambda: len(other.arrived) == 3 and guest.arrived)
        assert other.arrived == [("open", "y")] * 3
        assert guest.arrived == [("open", "z")]
        await until(lambda: not guest.bus.waiting_size)
        await guest.bus.publish("closed", "x")
        await until(lambda: not guest.bus.waiting_size)
        assert caplog.text.count("the broker refuses messages of topic 'closed'") == 1
        assert "lost the broker" not in caplog.text
        # When the broker is back, everything is tried again.
        guarded.kill()
        guarded.start()
        await until(lambda: guest.gaps and other.gaps)
        assert guest.gaps == [{"open"}]
        assert caplog.text.count("the broker refuses topic 'closed'") == 1


async def test_what_is_permitted_depends_on_the_case_of_letters(guarded, until):
    # (nats-py tells of subjects in small letters.)
    topics = ("OPEN", "open", "closed", "Closed", "Open")
    async with (
        processes(guarded, 1, **user(guarded, "guest")) as (guest,),
        processes(guarded, 1, **user(guarded, "default")) as (other,),
    ):
        for _ in range(2):
            results = await asyncio.gather(
                *(guest.bus.subscribe(topic) for topic in topics), return_exceptions=True
            )
            assert [result is None for result in results] == [topic == "open" for topic in topics]
        await other.bus.subscribe("open")
        for topic in topics:
            await guest.bus.publish(topic, "x")
            await other.bus.publish(topic, "y")
        await until(lambda: other.arrived and guest.arrived)
        assert (guest.arrived, other.arrived) == ([("open", "y")], [("open", "x")])


@pytest.mark.parametrize("name", BROKERS)
async def test_what_is_not_permitted_any_more(name, tmp_path, until, caplog):
    option, text = CONFIGURATION[name]
    (tmp_path / "conf").write_text(text.replace("fastws:open", "fastws:*").replace(".open", ".*"))
    broker = BROKERS[name](tmp_path, option, "conf").start()
    try:
        async with (
            processes(broker, 1, **user(broker, "guest")) as (guest,),
            processes(broker, 1, **user(broker, "default")) as (other,),
        ):
            for topic in ("open", "closed"):
                await guest.bus.subscribe(topic)
            if name == "redis":
                async with client(broker, password="secret") as commands:
                    rules = ("resetchannels", "&fastws:open")
                    await commands.execute_command("ACL", "SETUSER", "guest", *rules)
            else:
                (tmp_path / "conf").write_text(text)
                broker.send_signal(signal.SIGHUP)
            await until(lambda: "the broker refuses topic 'closed'" in caplog.text and guest.gaps)
            assert guest.gaps == [{"open"}]
            await other.bus.publish("open", "x")
            await until(lambda: guest.arrived)
    finally:
        broker.kill()


@pytest.mark.parametrize("name", BROKERS)
async def test_tls(name, tmp_path, until):
    ca = optional("trustme").CA()
    certificate = ca.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert")
    ca.cert_pem.write_to_path(tmp_path / "ca")
    files = ("cert", "--tls-key-file", "key", "--tls-ca-cert-file", "ca")
    context = ssl.create_default_context()
    ca.configure_trust(context)
    broker = BROKERS[name](tmp_path)
    if name == "redis":
        broker.more = ("--port", "0", "--tls-port", str(broker.port), "--tls-cert-file", *files)
        broker.more += ("--tls-auth-clients", "no")
        broker.scheme = "rediss"
        trust = {"ssl_ca_certs": str(tmp_path / "ca")}
    else:
        broker.more = ("--tls", "--tlscert", "cert", "--tlskey", "key")
        trust = {"tls": context}
    try:
        broker.start()
        stranger = Process(broker)
        # (Old versions of redis-py do not say why.)
        with pytest.raises(BusError, match=r"^cannot connect to the broker: "):
            await stranger.bus.start(stranger.deliver)
        async with processes(broker, 2, **trust) as (one, two):
            await two.bus.subscribe("a")
            await one.bus.publish("a", "x")
            await until(lambda: two.arrived)
            broker.kill()
            broker.start()
            await until(lambda: two.gaps)
            await one.bus.publish("a", "y")
            await until(lambda: ("a", "y") in two.arrived)
    finally:
        broker.kill()
