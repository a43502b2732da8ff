/* Non-blocking streams, plain or over TLS, under one epoll.
 *
 * A connection begins with its stream, so that a pointer to one is a pointer to the other. This
 * file does not know what travels.
 */

#ifndef LOAD_SOCKETS_H
#define LOAD_SOCKETS_H

#include "basics.h"
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#ifdef LOAD_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#endif

/* Connections to a loopback address, for each address they come from. */
#define PER_SOURCE 5000
#define TLS_BUFFER_SIZE (128 << 10)

struct stream {
    int fd;
    bool wants_out; /* whether epoll must report when it is writable */
#ifdef LOAD_TLS
    SSL *ssl;
#endif
};

enum { AGAIN = -1, BROKEN = -2 };

static int epoll_fd;
static struct addrinfo *address;
#ifdef LOAD_TLS
static SSL_CTX *tls_context;
#endif

/* Bytes read, 0 at the end, AGAIN or BROKEN. */
static ssize_t receive(struct stream *s, void *to, size_t capacity)
{
#ifdef LOAD_TLS
    if (s->ssl) {
        ERR_clear_error();
        int n = SSL_read(s->ssl, to, (int)capacity);
        if (n > 0)
            return n;
        int error = SSL_get_error(s->ssl, n);
        if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
            return AGAIN;
        return error == SSL_ERROR_ZERO_RETURN ? 0 : BROKEN;
    }
#endif
    ssize_t n = recv(s->fd, to, capacity, 0);
    if (n >= 0)
        return n;
    return errno == EAGAIN || errno == EINTR ? AGAIN : BROKEN;
}

static inline bool has_more(struct stream *s, size_t got, size_t capacity)
{
#ifdef LOAD_TLS
    if (s->ssl)
        return SSL_has_pending(s->ssl);
#endif
    (void)s;
    return got == capacity;
}

static ssize_t transmit(struct stream *s, const void *from, size_t length, bool *wants_out)
{
    *wants_out = false;
#ifdef LOAD_TLS
    if (s->ssl) {
        ERR_clear_error();
        int n = SSL_write(s->ssl, from, length > 1u << 30 ? 1 << 30 : (int)length);
        if (n > 0)
            return n;
        int error = SSL_get_error(s->ssl, n);
        *wants_out = error == SSL_ERROR_WANT_WRITE;
        return *wants_out || error == SSL_ERROR_WANT_READ ? AGAIN : BROKEN;
    }
#endif
    ssize_t n = send(s->fd, from, length, MSG_NOSIGNAL);
    if (n >= 0)
        return n;
    *wants_out = errno == EAGAIN;
    return errno == EAGAIN || errno == EINTR ? AGAIN : BROKEN;
}

/* Flush what transmit() left in a buffer; false if the connection broke. */
static bool settle(struct stream *s, bool *wants_out)
{
#ifdef LOAD_TLS
    if (s->ssl && BIO_flush(SSL_get_wbio(s->ssl)) <= 0) {
        if (!BIO_should_retry(SSL_get_wbio(s->ssl)))
            return false;
        *wants_out = true;
    }
#endif
    (void)s;
    (void)wants_out;
    return true;
}

static void watch(struct stream *s, bool wants_out)
{
    if (s->wants_out == wants_out)
        return;
    struct epoll_event event = {
        .events = EPOLLIN | (wants_out ? (uint32_t)EPOLLOUT : 0), .data.ptr = s};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, s->fd, &event);
    s->wants_out = wants_out;
}

static int connect_from(unsigned source)
{
    int one = 1;
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die(EXIT_USAGE, "no more sockets: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (source) {
        struct sockaddr_in local = {.sin_family = AF_INET};
        local.sin_addr.s_addr = htonl(INADDR_LOOPBACK + source);
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (bind(fd, (struct sockaddr *)&local, sizeof local))
            die(EXIT_USAGE, "cannot use 127.0.0.%u: %s", source + 1, strerror(errno));
    }
    if (connect(fd, address->ai_addr, address->ai_addrlen) && errno != EINPROGRESS)
        die(EXIT_WRONG, "cannot connect: %s", strerror(errno));
    return fd;
}

/* Begin to connect. `number` counts the connections of this process: there are not enough ports
 * to make all of them from one address. */
static void start_stream(struct stream *s, unsigned number)
{
    unsigned source = 0;
    if (address->ai_family == AF_INET) {
        uint32_t host = ntohl(((struct sockaddr_in *)address->ai_addr)->sin_addr.s_addr);
        if (host >> 24 == 127)
            source = number / PER_SOURCE % 250;
    }
    s->fd = connect_from(source);
    s->wants_out = true;
#ifdef LOAD_TLS
    if (options.tls) {
        /* Without a buffer each record would be a write of its own. */
        BIO *raw = BIO_new_socket(s->fd, BIO_NOCLOSE), *buffer = BIO_new(BIO_f_buffer());
        s->ssl = SSL_new(tls_context);
        if (!raw || !buffer || !s->ssl || !BIO_set_write_buffer_size(buffer, TLS_BUFFER_SIZE))
            die(EXIT_USAGE, "out of memory");
        BIO_up_ref(raw);
        SSL_set0_rbio(s->ssl, raw);
        SSL_set0_wbio(s->ssl, BIO_push(buffer, raw));
        SSL_set_connect_state(s->ssl);
    }
#endif
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = s};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, s->fd, &event))
        die(EXIT_USAGE, "epoll: %s", strerror(errno));
}

/* Call this at the first event of a stream. */
static void check_connected(struct stream *s)
{
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error)
        die(EXIT_WRONG, "cannot connect: %s", strerror(error));
}

static void end_stream(struct stream *s)
{
#ifdef LOAD_TLS
    if (s->ssl) {
        SSL_free(s->ssl);
        s->ssl = NULL;
    }
#endif
    close(s->fd);
}

static void turn(int timeout_ms, void (*on_event)(struct stream *))
{
    struct epoll_event events[256];
    int count = epoll_wait(epoll_fd, events, 256, timeout_ms);
    if (count < 0 && errno != EINTR)
        die(EXIT_USAGE, "epoll: %s", strerror(errno));
    for (int i = 0; i < count && !error_count; i++)
        on_event(events[i].data.ptr);
}

/* After the options are known. */
static void start_network(void)
{
    signal(SIGPIPE, SIG_IGN);
    if (options.tls) {
#ifdef LOAD_TLS
        tls_context = SSL_CTX_new(TLS_client_method());
        if (!tls_context)
            die(EXIT_USAGE, "OpenSSL does not start");
        SSL_CTX_set_verify(tls_context, SSL_VERIFY_NONE, NULL);
        SSL_CTX_set_mode(tls_context,
                         SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        SSL_CTX_set_read_ahead(tls_context, 1);
        SSL_CTX_set_default_read_buffer_len(tls_context, TLS_BUFFER_SIZE);
#else
        die(EXIT_USAGE, "built without OpenSSL");
#endif
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    int error = getaddrinfo(options.host, options.port, &hints, &address);
    if (error)
        die(EXIT_USAGE, "%s: %s", options.host, gai_strerror(error));
    raise_file_limit();
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0)
        die(EXIT_USAGE, "epoll: %s", strerror(errno));
}

#endif
