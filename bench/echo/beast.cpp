// An echo server with Boost.Beast: what one core can do without Python.
//
//     beast PORT [--deflate] [--tls CERT KEY]
//
// One thread, one io_context. A connection reads a message, writes it back and reads the
// next; what arrives meanwhile waits in its buffer or the socket's.
//
//     c++ -O3 -std=c++17 -o beast beast.cpp
//     c++ -O3 -std=c++17 -DBEAST_TLS -o beast beast.cpp -lssl -lcrypto

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/websocket.hpp>
#ifdef BEAST_TLS
#include <boost/asio/ssl.hpp>
#include <boost/beast/ssl.hpp>
#include <boost/beast/websocket/ssl.hpp>
#endif

#include "arguments.h"

#include <csignal>
#include <iostream>
#include <memory>
#include <string>
#include <utility>

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace websocket = beast::websocket;
using boost::system::error_code;
using tcp = asio::ip::tcp;

namespace {

constexpr std::size_t max_message_size = 16u << 20;
// Large enough for a compressed reply to be one frame, and one write.
constexpr std::size_t write_buffer_size = 64u << 10;
bool deflate = false;

// One WebSocket connection over Stream: a TCP socket, or TLS on one.
template <class Stream>
class Session : public std::enable_shared_from_this<Session<Stream>> {
public:
    template <class... Args>
    explicit Session(tcp::socket&& socket, Args&... args) : ws_(std::move(socket), args...) {}

    void open()
    {
#ifdef BEAST_TLS
        if constexpr (!std::is_same_v<Stream, tcp::socket>) {
            ws_.next_layer().async_handshake(
                asio::ssl::stream_base::server,
                [self = this->shared_from_this()](error_code error) {
                    if (!error)
                        self->accept();
                });
            return;
        }
#endif
        accept();
    }

private:
    void accept()
    {
        websocket::permessage_deflate compression;
        compression.server_enable = deflate;
        ws_.set_option(compression);
        ws_.auto_fragment(false);
        ws_.write_buffer_bytes(write_buffer_size);
        ws_.read_message_max(max_message_size);
        ws_.async_accept([self = this->shared_from_this()](error_code error) {
            if (!error)
                self->read();
        });
    }

    void read()
    {
        ws_.async_read(buffer_, [self = this->shared_from_this()](error_code error, std::size_t) {
            if (!error)
                self->write();
        });
    }

    void write()
    {
        ws_.text(ws_.got_text());
        ws_.async_write(
            buffer_.data(), [self = this->shared_from_this()](error_code error, std::size_t) {
                self->buffer_.clear();
                if (!error)
                    self->read();
            });
    }

    websocket::stream<Stream> ws_;
    beast::flat_buffer buffer_;
};

// Accepts forever; `start` turns a socket into a session.
template <class Start>
void listen(tcp::acceptor& acceptor, Start start)
{
    acceptor.async_accept([&acceptor, start](error_code error, tcp::socket socket) {
        if (!error) {
            error_code ignored;
            socket.set_option(tcp::no_delay(true), ignored);
            start(std::move(socket));
        }
        listen(acceptor, start);
    });
}

} // namespace

int main(int argc, char** argv)
{
    auto [port, deflates, certificate, key] = parse_arguments(argc, argv, "beast");
    deflate = deflates;
    std::signal(SIGUSR2, SIG_IGN); // the benchmark's "collect your garbage"
    asio::io_context context{1};
    tcp::endpoint endpoint{asio::ip::address_v4::loopback(), static_cast<unsigned short>(port)};
    tcp::acceptor acceptor{context, endpoint};
    if (certificate.empty()) {
        listen(acceptor, [](tcp::socket&& socket) {
            std::make_shared<Session<tcp::socket>>(std::move(socket))->open();
        });
        context.run();
        return 0;
    }
#ifdef BEAST_TLS
    asio::ssl::context tls{asio::ssl::context::tls_server};
    tls.use_certificate_chain_file(certificate);
    tls.use_private_key_file(key, asio::ssl::context::pem);
    listen(acceptor, [&tls](tcp::socket&& socket) {
        using Stream = asio::ssl::stream<tcp::socket>;
        std::make_shared<Session<Stream>>(std::move(socket), tls)->open();
    });
    context.run();
    return 0;
#else
    std::cerr << "built without OpenSSL\n";
    return 2;
#endif
}
