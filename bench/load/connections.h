/* WebSocket connections: how to open and close many, and the headers of frames.
 *
 * A load client has structures that begin with a `struct connection`, and defines:
 */

#ifndef LOAD_CONNECTIONS_H
#define LOAD_CONNECTIONS_H

#include "sockets.h"
#include <strings.h>

/* One key for all: its accept value is in RFC 6455 §1.3. */
#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

/* How many connections to open at a time: fewer than any server's backlog. */
#define OPENING_LIMIT 50
#define READ_SIZE (256u << 10)
#define RESPONSE_LIMIT 4096
#define OPEN_TIMEOUT (120 * NS)
#define CLOSE_TIMEOUT (1 * NS)

enum state { CONNECTING, OPENING, OPEN, CLOSING, GONE };

struct opening {
    size_t sent; /* of the request */
    char *response;
    size_t length;
};

struct connection {
    struct stream stream; /* the first member */
    unsigned number;
    enum state state;
    struct opening opening;
};

static struct connection *connection_at(unsigned number);
/* What happens when one is open, and when something arrives then. */
static void on_opened(struct connection *c, const char *response);
static void on_messages(struct connection *c);

static unsigned started, opened, gone;
static char request[2048];
static size_t request_length;
static uint8_t read_buffer[READ_SIZE];

static size_t put_header(uint8_t *at, uint8_t first, bool masked, size_t length)
{
    uint8_t flag = masked ? 0x80 : 0;
    at[0] = first;
    if (length < 126) {
        at[1] = flag | (uint8_t)length;
        return 2;
    }
    unsigned width = length < 65536 ? 2 : 8;
    at[1] = flag | (width == 2 ? 126 : 127);
    for (unsigned i = 0; i < width; i++)
        at[2 + i] = (uint8_t)((uint64_t)length >> 8 * (width - 1 - i));
    return 2 + width;
}

/* The opening handshake ------------------------------------------------------------------- */

/* `fields` are lines in addition to the ones that RFC 6455 requires. */
static void make_request(const char *fields)
{
    int n = snprintf(request, sizeof request,
                     "GET / HTTP/1.1\r\nHost: %s:%s\r\nConnection: Upgrade\r\n"
                     "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                     "Sec-WebSocket-Key: " KEY "\r\n%s\r\n",
                     options.host, options.port, fields);
    if (n < 0 || (size_t)n >= sizeof request)
        die(EXIT_USAGE, "the host's name is too long");
    request_length = (size_t)n;
}

static const char *field(const char *head, const char *name)
{
    size_t length = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (!strncasecmp(line, name, length) && line[length] == ':') {
            line += length + 1;
            return line + strspn(line, " \t");
        }
    }
    return NULL;
}

static void check_response(unsigned number, const char *head)
{
    const char *accept = field(head, "Sec-WebSocket-Accept");
    if (strncmp(head, "HTTP/1.1 101", 12))
        die(EXIT_WRONG, "the handshake was refused: %.*s", (int)strcspn(head, "\r\n"), head);
    if (!accept || strncmp(accept, ACCEPT, strlen(ACCEPT)) ||
        !strchr("\r \t", accept[strlen(ACCEPT)]))
        die(EXIT_WRONG, "connection %u: Sec-WebSocket-Accept is wrong", number);
}

static void on_opening(struct connection *c)
{
    struct stream *s = &c->stream;
    struct opening *o = &c->opening;
    bool wants_out = false;
    while (o->sent < request_length) {
        ssize_t n = transmit(s, request + o->sent, request_length - o->sent, &wants_out);
        if (n == AGAIN)
            break;
        if (n == BROKEN)
            die(EXIT_WRONG, "connection %u: broke in the opening handshake", c->number);
        o->sent += (size_t)n;
    }
    if (!settle(s, &wants_out))
        die(EXIT_WRONG, "connection %u: broke in the opening handshake", c->number);
    watch(s, wants_out);
    if (o->sent < request_length)
        return;
    if (!o->response)
        o->response = allocate(RESPONSE_LIMIT);
    char *end = NULL;
    while (!end) { /* until there is no more: TLS may hold data that epoll does not know about */
        size_t room = RESPONSE_LIMIT - 1 - o->length; /* a byte stays free for the NUL */
        if (!room)
            die(EXIT_WRONG, "the response is too long");
        ssize_t n = receive(s, o->response + o->length, room);
        if (n == AGAIN)
            return;
        if (n <= 0)
            die(EXIT_WRONG, "connection %u: closed in the opening handshake", c->number);
        o->length += (size_t)n;
        o->response[o->length] = 0;
        end = strstr(o->response, "\r\n\r\n");
    }
    if (end + 4 != o->response + o->length)
        die(EXIT_WRONG, "connection %u: the server spoke first", c->number);
    end[2] = 0;
    check_response(c->number, o->response);
    c->state = OPEN;
    opened++;
    on_opened(c, o->response);
    free(o->response);
    *o = (struct opening){0};
}

/* Events ---------------------------------------------------------------------------------- */

static void start(struct connection *c)
{
    c->number = started++;
    c->state = CONNECTING;
    start_stream(&c->stream, c->number);
}

static void forget(struct connection *c)
{
    end_stream(&c->stream);
    c->state = GONE;
    gone++;
}

static void on_closing(struct connection *c)
{
    for (;;) {
        ssize_t n = receive(&c->stream, read_buffer, sizeof read_buffer);
        if (n == AGAIN)
            return;
        if (n <= 0)
            break;
    }
    forget(c);
}

static void on_event(struct stream *s)
{
    struct connection *c = (struct connection *)s;
    if (c->state == CONNECTING) {
        check_connected(s);
        c->state = OPENING;
    }
    if (c->state == OPENING)
        on_opening(c);
    else if (c->state == OPEN)
        on_messages(c);
    else if (c->state == CLOSING)
        on_closing(c);
}

static inline void turn_until(uint64_t time)
{
    while (!error_count && now() < time)
        turn(10, on_event);
}

static inline void expect_some(uint64_t count, const char *what)
{
    if (!count && !error_count) {
        fprintf(stderr, "load: there was not one %s in time\n", what);
        error_count = 1;
    }
}

/* All of them ----------------------------------------------------------------------------- */

static void open_all(void)
{
    uint64_t deadline = now() + OPEN_TIMEOUT;
    while (opened < options.connections && !error_count) {
        while (started < options.connections && started - opened < OPENING_LIMIT)
            start(connection_at(started));
        turn(100, on_event);
        if (now() > deadline)
            die(EXIT_WRONG, "%u of %u connections opened in time", opened, options.connections);
    }
}

static void send_close(struct connection *c)
{
    static const uint8_t close_frame[] = {0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8};
    bool wants_out;
    transmit(&c->stream, close_frame, sizeof close_frame, &wants_out);
    settle(&c->stream, &wants_out);
    c->state = CLOSING;
}

/* Wait for the server to end those that send_close was called for. */
static void close_all(unsigned count)
{
    uint64_t deadline = now() + CLOSE_TIMEOUT;
    while (gone < count && now() < deadline)
        turn(50, on_event);
}

#endif
