// An echo server with uWebSockets: the fastest that many know.
//
//     uws PORT [--deflate] [--tls CERT KEY]
//
// bench/load/programs.py builds it.

#include "App.h"
#include "arguments.h"

#include <csignal>
#include <iostream>
#include <string>

namespace {

constexpr unsigned max_message_size = 16u << 20;

struct Nothing {};

template <class App>
int serve(App&& app, int port, bool deflate)
{
    bool listening = false;
    typename App::template WebSocketBehavior<Nothing> behavior = {
        // Without context takeover in both directions, as the load client offers.
        .compression = deflate
                           ? uWS::CompressOptions(uWS::SHARED_COMPRESSOR | uWS::SHARED_DECOMPRESSOR)
                           : uWS::DISABLED,
        .maxPayloadLength = max_message_size,
        .idleTimeout = 0,
        .maxBackpressure = 0, // no limit
        .sendPingsAutomatically = false,
        .message = [deflate](auto* ws, std::string_view message,
                             uWS::OpCode opcode) { ws->send(message, opcode, deflate); },
    };
    app.template ws<Nothing>("/*", std::move(behavior))
        .listen("127.0.0.1", port, [&](auto* socket) { listening = socket != nullptr; })
        .run();
    if (!listening)
        std::cerr << "cannot listen on port " << port << "\n";
    return 1; // it does not end while it listens
}

} // namespace

int main(int argc, char** argv)
{
    auto [port, deflate, certificate, key] = parse_arguments(argc, argv, "uws");
    std::signal(SIGUSR2, SIG_IGN); // the benchmark's "collect your garbage"
    if (certificate.empty())
        return serve(uWS::App(), port, deflate);
    return serve(uWS::SSLApp({.key_file_name = key.c_str(), .cert_file_name = certificate.c_str()}),
                 port, deflate);
}
