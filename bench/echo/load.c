/* A load client for WebSocket echo servers, fast enough not to be the bottleneck.
 *
 *     load HOST PORT [options], see usage() below
 *
 * Each connection sends a periodic stream of bytes, made before the start: a ring of masked
 * frames with different payloads. The expected replies are a second ring. So a read is checked by
 * comparing it to the stream, headers included, however it is split; and frames that are sent
 * together are a slice of the ring, and one write. Only compressed replies have to be parsed,
 * because the server chooses how it compresses.
 *
 *     cc -O2 -o load load.c -lz
 *     cc -O2 -DLOAD_TLS -o load load.c -lz -lssl -lcrypto
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>
#ifdef LOAD_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#endif

enum { EXIT_WRONG = 1, EXIT_USAGE = 2, EXIT_DECLINED = 3 };

/* One key for all: its accept value is in RFC 6455 §1.3. */
#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

/* How many connections to open at a time: fewer than any server's backlog. */
#define OPENING_LIMIT 50
/* Connections to a loopback address, for each address they come from. */
#define PER_SOURCE 5000
#define READ_SIZE (256u << 10)
#define TLS_BUFFER_SIZE (128 << 10)
#define RING_BYTES (4u << 20)
#define RING_MESSAGES 61 /* a prime, so that no batch keeps meeting the same messages */
#define NS 1000000000ull
#define OPEN_TIMEOUT (120 * NS)
#define DRAIN_TIMEOUT (10 * NS)
#define CLOSE_TIMEOUT (1 * NS)

/* Messages ------------------------------------------------------------------------- */

struct message {
    uint8_t *payload;
    uint8_t *seen; /* a compressed reply found right, to compare the next one with */
    size_t seen_length;
};

static struct {
    const char *host, *port;
    unsigned connections, in_flight;
    size_t size;
    bool text, tls, deflate, idle;
    double seconds, warmup;
    long pid;
} options = {
    .connections = 1, .in_flight = 1, .size = 32, .text = true, .seconds = 3, .warmup = 0.5,
};

static struct message messages[RING_MESSAGES];
static unsigned message_count;

/* The frames to send: message_count of them and then the first in_flight of them again, so
 * that what is owed to a connection is in one piece. Frame i begins at out_start[i]. */
static uint8_t *out;
static size_t *out_start;
static size_t out_period;

/* The replies, if they are not compressed: all frames are of the same length. */
static uint8_t *wanted;
static size_t reply_length, wanted_period;

_Noreturn static void die(int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    exit(status);
}

static void *allocate(size_t size)
{
    void *memory = calloc(1, size ? size : 1);
    if (!memory)
        die(EXIT_USAGE, "out of memory");
    return memory;
}

static uint64_t random_state = 0x9e3779b97f4a7c15ull;

static uint32_t random32(void)
{
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(random_state >> 33);
}

static void fill_text(uint8_t *payload, size_t size)
{
    static const char *const words[] = {
        "alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel",
        "india", "juliett", "kilo", "lima", "mike", "november", "oscar", "papa",
    };
    size_t at = 0;
    char piece[160];
    while (at < size) {
        int n = snprintf(
            piece, sizeof piece,
            "%c{\"id\":%u,\"to\":\"%s\",\"ok\":%s,\"at\":%u.%03u,\"tags\":[\"%s\",\"%s\"]}",
            at ? ',' : '[', random32() % 1000000, words[random32() % 16],
            random32() & 1 ? "true" : "false", random32() % 100000, random32() % 1000,
            words[random32() % 16], words[random32() % 16]);
        size_t length = (size_t)n < size - at ? (size_t)n : size - at;
        memcpy(payload + at, piece, length);
        at += length;
    }
    if (size)
        payload[size - 1] = ']';
}

static void fill_binary(uint8_t *payload, size_t size)
{
    for (size_t i = 0; i < size; i++)
        payload[i] = (uint8_t)random32();
}

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

/* A message on its own, RFC 7692 §7.2.1. */
static size_t compress_message(const uint8_t *payload, size_t size, uint8_t *to, size_t capacity)
{
    z_stream z = {0};
    if (deflateInit2(&z, 6, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        die(EXIT_USAGE, "zlib does not start");
    z.next_in = (Bytef *)payload;
    z.avail_in = (uInt)size;
    z.next_out = to;
    z.avail_out = (uInt)capacity;
    if (deflate(&z, Z_SYNC_FLUSH) != Z_OK || z.avail_in || !z.avail_out)
        die(EXIT_USAGE, "zlib does not compress");
    deflateEnd(&z);
    return capacity - z.avail_out - 4;
}

static void make_messages(void)
{
    size_t fitting = RING_BYTES / (options.size + 14);
    message_count = fitting < 2 ? 2 : fitting > RING_MESSAGES ? RING_MESSAGES : (unsigned)fitting;
    size_t capacity = options.size + options.size / 100 + 64;
    unsigned total = message_count + options.in_flight;
    uint8_t first = options.text ? 0x81 : 0x82;
    uint8_t *body = allocate(capacity);

    out = allocate(total * (capacity + 14));
    out_start = allocate((total + 1) * sizeof *out_start);
    wanted = allocate(message_count * (options.size + 10));
    size_t out_end = 0;
    for (unsigned i = 0; i < total; i++) {
        struct message *message = &messages[i % message_count];
        out_start[i] = out_end;
        if (i >= message_count) {
            size_t from = out_start[i - message_count];
            size_t length = out_start[i - message_count + 1] - from;
            memcpy(out + out_end, out + from, length);
            out_end += length;
            continue;
        }
        message->payload = allocate(options.size);
        (options.text ? fill_text : fill_binary)(message->payload, options.size);
        size_t length = options.size;
        uint8_t flags = 0;
        memcpy(body, message->payload, length);
        if (options.deflate) {
            length = compress_message(message->payload, length, body, capacity);
            flags = 0x40;
        }
        uint8_t mask[4];
        fill_binary(mask, 4);
        out_end += put_header(out + out_end, first | flags, true, length);
        memcpy(out + out_end, mask, 4);
        out_end += 4;
        for (size_t j = 0; j < length; j++)
            out[out_end + j] = body[j] ^ mask[j & 3];
        out_end += length;

        reply_length = put_header(wanted + wanted_period, first, false, options.size);
        memcpy(wanted + wanted_period + reply_length, message->payload, options.size);
        reply_length += options.size;
        wanted_period += reply_length;
    }
    out_start[total] = out_end;
    out_period = out_start[message_count];
    free(body);
}

/* Time ------------------------------------------------------------------------------ */

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS + (uint64_t)t.tv_nsec;
}

/* Buckets of nanoseconds: exact below 64, then 64 for each power of two. */
#define SUB_BITS 6
#define SUB (1u << SUB_BITS)
static uint64_t histogram[(64 - SUB_BITS + 1) * SUB];

static unsigned bucket_of(uint64_t value)
{
    if (value < SUB)
        return (unsigned)value;
    unsigned shift = 63 - (unsigned)__builtin_clzll(value) - SUB_BITS;
    return (shift + 1) * SUB + (unsigned)((value >> shift) - SUB);
}

static double middle_of(unsigned bucket)
{
    if (bucket < SUB)
        return bucket;
    unsigned shift = bucket / SUB - 1;
    return ((double)(bucket % SUB + SUB) + 0.5) * (double)(1ull << shift);
}

static double percentile(double share)
{
    uint64_t total = 0, seen = 0;
    unsigned count = sizeof histogram / sizeof *histogram;
    for (unsigned i = 0; i < count; i++)
        total += histogram[i];
    for (unsigned i = 0; i < count; i++) {
        seen += histogram[i];
        if (seen && (double)seen >= share * (double)total)
            return middle_of(i);
    }
    return 0;
}

static double own_cpu(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* CPU time of all threads of the server; it is read here so that it covers the same span of time
 * as the messages. */
static double server_cpu(void)
{
    char path[64], text[1024];
    if (!options.pid)
        return 0;
    snprintf(path, sizeof path, "/proc/%ld/stat", options.pid);
    FILE *file = fopen(path, "r");
    if (!file)
        return 0;
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = 0;
    unsigned long user, system;
    char *end_of_name = strrchr(text, ')');
    if (!end_of_name ||
        sscanf(end_of_name + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
               &system) != 2)
        return 0;
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

/* Connections ------------------------------------------------------------------------ */

enum state { CONNECTING, OPENING, OPEN, CLOSING, GONE };

struct connection {
    int fd;
    unsigned number;
    enum state state;
    bool wants_out; /* whether epoll must report when it is writable */
#ifdef LOAD_TLS
    SSL *ssl;
#endif
    /* Sending: the next byte in `out`, and how many are due. */
    size_t out_at, owed;
    unsigned next_out; /* the next message to send, in the ring */
    /* The opening handshake, or an incomplete compressed reply. */
    uint8_t *held;
    size_t held_length, held_capacity;
    size_t request_sent;
    /* Receiving: the next byte in `wanted`, and of the reply it belongs to. */
    size_t wanted_at, reply_at;
    uint64_t replies;
    /* When the messages in flight were sent: a ring. */
    uint64_t *sent_at;
    unsigned oldest, flying;
};

static struct connection *connections;
static int epoll_fd;
static struct addrinfo *address;
static char request[1024];
static size_t request_length;
static uint8_t read_buffer[READ_SIZE];
static unsigned opened, started, gone;
static uint64_t flying_total;

static uint64_t measured;
static bool measuring, sending;

#ifdef LOAD_TLS
static SSL_CTX *tls_context;
#endif

enum { AGAIN = -1, BROKEN = -2 };

/* Bytes read, 0 at the end, AGAIN or BROKEN. */
static ssize_t receive(struct connection *c, void *to, size_t capacity)
{
#ifdef LOAD_TLS
    if (c->ssl) {
        ERR_clear_error();
        int n = SSL_read(c->ssl, to, (int)capacity);
        if (n > 0)
            return n;
        int error = SSL_get_error(c->ssl, n);
        if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
            return AGAIN;
        return error == SSL_ERROR_ZERO_RETURN ? 0 : BROKEN;
    }
#endif
    ssize_t n = recv(c->fd, to, capacity, 0);
    if (n >= 0)
        return n;
    return errno == EAGAIN || errno == EINTR ? AGAIN : BROKEN;
}

static bool has_more(struct connection *c, size_t got, size_t capacity)
{
#ifdef LOAD_TLS
    if (c->ssl)
        return SSL_has_pending(c->ssl);
#endif
    (void)c;
    return got == capacity;
}

static ssize_t transmit(struct connection *c, const void *from, size_t length, bool *wants_out)
{
    *wants_out = false;
#ifdef LOAD_TLS
    if (c->ssl) {
        ERR_clear_error();
        int n = SSL_write(c->ssl, from, length > 1u << 30 ? 1 << 30 : (int)length);
        if (n > 0)
            return n;
        int error = SSL_get_error(c->ssl, n);
        *wants_out = error == SSL_ERROR_WANT_WRITE;
        return *wants_out || error == SSL_ERROR_WANT_READ ? AGAIN : BROKEN;
    }
#endif
    ssize_t n = send(c->fd, from, length, MSG_NOSIGNAL);
    if (n >= 0)
        return n;
    *wants_out = errno == EAGAIN;
    return errno == EAGAIN || errno == EINTR ? AGAIN : BROKEN;
}

/* Flush what transmit() left in a buffer; false if the connection broke. */
static bool settle(struct connection *c, bool *wants_out)
{
#ifdef LOAD_TLS
    if (c->ssl && BIO_flush(SSL_get_wbio(c->ssl)) <= 0) {
        if (!BIO_should_retry(SSL_get_wbio(c->ssl)))
            return false;
        *wants_out = true;
    }
#endif
    (void)c;
    (void)wants_out;
    return true;
}

static void watch(struct connection *c, bool wants_out)
{
    if (c->wants_out == wants_out)
        return;
    struct epoll_event event = {
        .events = EPOLLIN | (wants_out ? (uint32_t)EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
    c->wants_out = wants_out;
}

static void forget(struct connection *c)
{
#ifdef LOAD_TLS
    if (c->ssl) {
        SSL_free(c->ssl);
        c->ssl = NULL;
    }
#endif
    close(c->fd);
    c->state = GONE;
    gone++;
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

static void start(struct connection *c)
{
    c->number = started++;
    unsigned source = 0;
    if (address->ai_family == AF_INET) {
        uint32_t host = ntohl(((struct sockaddr_in *)address->ai_addr)->sin_addr.s_addr);
        if (host >> 24 == 127)
            source = c->number / PER_SOURCE % 250;
    }
    c->fd = connect_from(source);
    c->state = CONNECTING;
    c->wants_out = true;
    /* Connections are at different places of the ring, so mixing them up is noticed. */
    c->next_out = c->number * 7 % message_count;
    c->out_at = out_start[c->next_out];
    c->wanted_at = c->next_out * reply_length;
#ifdef LOAD_TLS
    if (options.tls) {
        /* Without a buffer each record would be a write of its own. */
        BIO *raw = BIO_new_socket(c->fd, BIO_NOCLOSE), *buffer = BIO_new(BIO_f_buffer());
        c->ssl = SSL_new(tls_context);
        if (!raw || !buffer || !c->ssl || !BIO_set_write_buffer_size(buffer, TLS_BUFFER_SIZE))
            die(EXIT_USAGE, "out of memory");
        BIO_up_ref(raw);
        SSL_set0_rbio(c->ssl, raw);
        SSL_set0_wbio(c->ssl, BIO_push(buffer, raw));
        SSL_set_connect_state(c->ssl);
    }
#endif
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event))
        die(EXIT_USAGE, "epoll: %s", strerror(errno));
}

/* Replies --------------------------------------------------------------------------------- */

static uint64_t error_count;

static void complain(struct connection *c, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (!error_count++) {
        fprintf(stderr, "load: connection %u, reply %llu: ", c->number,
                (unsigned long long)c->replies);
        vfprintf(stderr, format, args);
        fputc('\n', stderr);
    }
    va_end(args);
}

static unsigned reply_index(const struct connection *c, unsigned completed)
{
    return (unsigned)((c->number * 7ull + c->replies + completed) % message_count);
}

static void explain(struct connection *c, const uint8_t *data)
{
    size_t at = 0, header = reply_length - options.size;
    size_t into_reply = c->reply_at, into_stream = c->wanted_at;
    while (data[at] == wanted[into_stream]) {
        at++;
        into_stream = (into_stream + 1) % wanted_period;
        into_reply++;
        if (into_reply == reply_length) {
            into_reply = 0;
            c->replies++;
        }
    }
    if (into_reply < header)
        complain(c, "byte %zu of the header is 0x%02x, expected 0x%02x%s", into_reply, data[at],
                 wanted[into_stream],
                 into_reply                  ? ""
                 : (data[at] & 15) == 8      ? " (it closes)"
                 : (data[at] & 15) > 8       ? " (a ping or pong)"
                 : !(data[at] & 128)         ? " (a fragment)"
                 : data[at] & 0x70           ? " (reserved bits)"
                                             : "");
    else
        complain(c, "byte %zu of the payload is 0x%02x, expected 0x%02x", into_reply - header,
                 data[at], wanted[into_stream]);
}

/* How many replies were completed, or BROKEN. */
static long take_plain(struct connection *c, const uint8_t *data, size_t length)
{
    size_t done = 0;
    size_t at = c->wanted_at;
    while (done < length) {
        size_t piece = length - done;
        if (piece > wanted_period - at)
            piece = wanted_period - at;
        if (memcmp(data + done, wanted + at, piece)) {
            explain(c, data);
            return BROKEN;
        }
        done += piece;
        at = at + piece == wanted_period ? 0 : at + piece;
    }
    c->wanted_at = at;
    size_t total = c->reply_at + length;
    c->reply_at = total % reply_length;
    return (long)(total / reply_length);
}

static bool check_compressed(struct connection *c, struct message *m, const uint8_t *data,
                             size_t length)
{
    static const uint8_t tail[4] = {0, 0, 0xff, 0xff};
    if (m->seen && m->seen_length == length && !memcmp(m->seen, data, length))
        return true;
    z_stream z = {0};
    uint8_t *plain = allocate(options.size + 1); /* one more, to notice what is too long */
    if (inflateInit2(&z, -15) != Z_OK)
        die(EXIT_USAGE, "zlib does not start");
    z.next_out = plain;
    z.avail_out = (uInt)options.size + 1;
    z.next_in = (Bytef *)data;
    z.avail_in = (uInt)length;
    int status = inflate(&z, Z_SYNC_FLUSH);
    if (status == Z_OK || status == Z_BUF_ERROR) {
        z.next_in = (Bytef *)tail;
        z.avail_in = sizeof tail;
        status = inflate(&z, Z_SYNC_FLUSH);
    }
    bool right = (status == Z_OK || status == Z_STREAM_END || status == Z_BUF_ERROR) &&
                 z.total_out == options.size && !memcmp(plain, m->payload, options.size);
    inflateEnd(&z);
    free(plain);
    if (!right) {
        complain(c, "the compressed payload is not what was sent");
        return false;
    }
    free(m->seen);
    m->seen = memcpy(allocate(length), data, length);
    m->seen_length = length;
    return true;
}

/* Like take_plain, if frames must be parsed. */
static long take_frames(struct connection *c, const uint8_t *data, size_t length)
{
    if (c->held_length) {
        if (c->held_length + length > c->held_capacity) {
            c->held_capacity = 2 * (c->held_length + length);
            c->held = realloc(c->held, c->held_capacity);
            if (!c->held)
                die(EXIT_USAGE, "out of memory");
        }
        memcpy(c->held + c->held_length, data, length);
        c->held_length += length;
        data = c->held;
        length = c->held_length;
    }
    long completed = 0;
    size_t at = 0;
    while (length - at >= 2) {
        const uint8_t *frame = data + at;
        uint8_t first = frame[0], opcode = options.text ? 1 : 2;
        if ((first & 0xbf) != (0x80 | opcode)) {
            complain(c, "the frame begins with 0x%02x, expected 0x%02x or 0x%02x", first,
                     0xc0 | opcode, 0x80 | opcode);
            return BROKEN;
        }
        if (frame[1] & 0x80) {
            complain(c, "the frame is masked");
            return BROKEN;
        }
        size_t header = 2, size = frame[1];
        if (size >= 126) {
            unsigned width = size == 126 ? 2 : 8;
            if (length - at < 2 + width)
                break;
            size = 0;
            for (unsigned i = 0; i < width; i++)
                size = size << 8 | frame[2 + i];
            header = 2 + width;
        }
        if (size > 2 * options.size + 1024) {
            complain(c, "the frame is of %zu bytes", size);
            return BROKEN;
        }
        if (length - at - header < size || length - at < header)
            break;
        struct message *m = &messages[reply_index(c, (unsigned)completed)];
        if (first & 0x40) {
            if (!check_compressed(c, m, frame + header, size))
                return BROKEN;
        } else if (size != options.size || memcmp(frame + header, m->payload, size)) {
            complain(c, "the payload is not what was sent");
            return BROKEN;
        }
        at += header + size;
        completed++;
    }
    size_t rest = length - at;
    if (rest > c->held_capacity) {
        c->held_capacity = rest + READ_SIZE;
        uint8_t *held = allocate(c->held_capacity);
        memcpy(held, data + at, rest);
        free(c->held);
        c->held = held;
    } else if (rest) {
        memmove(c->held, data + at, rest);
    }
    c->held_length = rest;
    return completed;
}

/* Sending --------------------------------------------------------------------------------- */

static void flush(struct connection *c)
{
    bool wants_out = false;
    while (c->owed) {
        ssize_t n = transmit(c, out + c->out_at, c->owed, &wants_out);
        if (n == AGAIN)
            break;
        if (n == BROKEN) {
            complain(c, "the connection broke while sending");
            return;
        }
        c->owed -= (size_t)n;
        c->out_at = (c->out_at + (size_t)n) % out_period;
    }
    if (settle(c, &wants_out))
        watch(c, wants_out);
    else
        complain(c, "the connection broke while sending");
}

static void queue(struct connection *c, unsigned count, uint64_t time)
{
    c->owed += out_start[c->next_out + count] - out_start[c->next_out];
    c->next_out = (c->next_out + count) % message_count;
    for (unsigned i = 0; i < count; i++) {
        unsigned slot = c->oldest + c->flying++;
        c->sent_at[slot < options.in_flight ? slot : slot - options.in_flight] = time;
    }
    flying_total += count;
}

/* Events ---------------------------------------------------------------------------------- */

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

static void check_response(struct connection *c, const char *head)
{
    const char *accept = field(head, "Sec-WebSocket-Accept");
    if (strncmp(head, "HTTP/1.1 101", 12))
        die(EXIT_WRONG, "the handshake was refused: %.*s", (int)strcspn(head, "\r\n"), head);
    if (!accept || strncmp(accept, ACCEPT, strlen(ACCEPT)) ||
        !strchr("\r \t", accept[strlen(ACCEPT)]))
        die(EXIT_WRONG, "connection %u: Sec-WebSocket-Accept is wrong", c->number);
    const char *extensions = field(head, "Sec-WebSocket-Extensions");
    if (!options.deflate) {
        if (extensions)
            die(EXIT_WRONG, "an extension was chosen that was not offered");
        return;
    }
    char agreed[256] = "";
    if (extensions)
        snprintf(agreed, sizeof agreed, "%.*s", (int)strcspn(extensions, "\r\n"), extensions);
    if (!strstr(agreed, "permessage-deflate"))
        die(EXIT_DECLINED, "the server does not compress");
    if (!strstr(agreed, "server_no_context_takeover"))
        die(EXIT_DECLINED, "the server would keep its window, against the offer");
}

static void on_opening(struct connection *c)
{
    bool wants_out = false;
    while (c->request_sent < request_length) {
        ssize_t n = transmit(c, request + c->request_sent, request_length - c->request_sent,
                             &wants_out);
        if (n == AGAIN)
            break;
        if (n == BROKEN)
            die(EXIT_WRONG, "connection %u: broke in the opening handshake", c->number);
        c->request_sent += (size_t)n;
    }
    if (!settle(c, &wants_out))
        die(EXIT_WRONG, "connection %u: broke in the opening handshake", c->number);
    watch(c, wants_out);
    if (c->request_sent < request_length)
        return;
    if (!c->held) {
        c->held_capacity = 4096;
        c->held = allocate(c->held_capacity);
    }
    char *end = NULL;
    while (!end) { /* until there is no more: TLS may hold data that epoll does not know about */
        size_t room = c->held_capacity - 1 - c->held_length; /* a byte stays free for the NUL */
        if (!room)
            die(EXIT_WRONG, "the response is too long");
        ssize_t n = receive(c, c->held + c->held_length, room);
        if (n == AGAIN)
            return;
        if (n <= 0)
            die(EXIT_WRONG, "connection %u: closed in the opening handshake", c->number);
        c->held_length += (size_t)n;
        c->held[c->held_length] = 0;
        end = strstr((char *)c->held, "\r\n\r\n");
    }
    if (end + 4 != (char *)c->held + c->held_length)
        die(EXIT_WRONG, "connection %u: the server spoke first", c->number);
    end[2] = 0;
    check_response(c, (char *)c->held);
    free(c->held);
    c->held = NULL;
    c->held_length = c->held_capacity = 0;
    c->state = OPEN;
    opened++;
}

static void on_messages(struct connection *c)
{
    long completed = 0;
    for (;;) {
        ssize_t n = receive(c, read_buffer, sizeof read_buffer);
        if (n == AGAIN)
            break;
        if (n <= 0) {
            complain(c, "the server closed the connection");
            return;
        }
        long k = options.deflate ? take_frames(c, read_buffer, (size_t)n)
                                 : take_plain(c, read_buffer, (size_t)n);
        if (k < 0)
            return;
        completed += k;
        c->replies += (uint64_t)k;
        if (completed > (long)c->flying) {
            complain(c, "more replies than messages");
            return;
        }
        if (!has_more(c, (size_t)n, sizeof read_buffer))
            break;
    }
    if (completed) {
        uint64_t time = now();
        for (long i = 0; i < completed; i++) {
            if (measuring)
                histogram[bucket_of(time - c->sent_at[c->oldest])]++;
            c->oldest = c->oldest + 1 == options.in_flight ? 0 : c->oldest + 1;
        }
        if (measuring)
            measured += (uint64_t)completed;
        c->flying -= (unsigned)completed;
        flying_total -= (uint64_t)completed;
        if (sending)
            queue(c, (unsigned)completed, time);
    }
    if (c->owed || c->wants_out)
        flush(c);
}

static void on_closing(struct connection *c)
{
    for (;;) {
        ssize_t n = receive(c, read_buffer, sizeof read_buffer);
        if (n == AGAIN)
            return;
        if (n <= 0)
            break;
    }
    forget(c);
}

static void on_event(struct connection *c)
{
    if (c->state == CONNECTING) {
        int error = 0;
        socklen_t length = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
        if (error)
            die(EXIT_WRONG, "cannot connect: %s", strerror(error));
        c->state = OPENING;
    }
    if (c->state == OPENING)
        on_opening(c);
    else if (c->state == OPEN)
        on_messages(c);
    else if (c->state == CLOSING)
        on_closing(c);
}

static void turn(int timeout_ms)
{
    struct epoll_event events[256];
    int count = epoll_wait(epoll_fd, events, 256, timeout_ms);
    if (count < 0 && errno != EINTR)
        die(EXIT_USAGE, "epoll: %s", strerror(errno));
    for (int i = 0; i < count && !error_count; i++)
        on_event(events[i].data.ptr);
}

/* The run --------------------------------------------------------------------------------- */

static void open_all(void)
{
    uint64_t deadline = now() + OPEN_TIMEOUT;
    while (opened < options.connections && !error_count) {
        while (started < options.connections && started - opened < OPENING_LIMIT)
            start(&connections[started]);
        turn(100);
        if (now() > deadline)
            die(EXIT_WRONG, "%u of %u connections opened in time", opened, options.connections);
    }
}

static void close_all(void)
{
    static const uint8_t close_frame[] = {0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8};
    bool wants_out;
    for (unsigned i = 0; i < options.connections; i++) {
        if (connections[i].state != OPEN || connections[i].owed)
            continue;
        transmit(&connections[i], close_frame, sizeof close_frame, &wants_out);
        settle(&connections[i], &wants_out);
        connections[i].state = CLOSING;
    }
    uint64_t deadline = now() + CLOSE_TIMEOUT;
    while (gone < options.connections && now() < deadline)
        turn(50);
}

static void stay_idle(void)
{
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct pollfd files[] = {{.fd = 0, .events = POLLIN}, {.fd = epoll_fd, .events = POLLIN}};
        char ignored[256];
        if (poll(files, 2, -1) < 0 && errno != EINTR)
            die(EXIT_USAGE, "poll: %s", strerror(errno));
        if (files[0].revents && read(0, ignored, sizeof ignored) <= 0)
            return;
        if (files[1].revents)
            turn(0);
        if (error_count)
            return;
    }
}

static void measure(void)
{
    sending = true;
    uint64_t begin = now();
    for (unsigned i = 0; i < options.connections && !error_count; i++) {
        queue(&connections[i], options.in_flight, now());
        flush(&connections[i]);
    }
    uint64_t warm = begin + (uint64_t)(options.warmup * 1e9);
    while (!error_count && now() < warm)
        turn(10);

    double cpu = own_cpu(), theirs = server_cpu();
    uint64_t from = now(), until = from + (uint64_t)(options.seconds * 1e9);
    measuring = true;
    while (!error_count && now() < until)
        turn(10);
    measuring = false;
    double seconds = (double)(now() - from) / 1e9;
    cpu = own_cpu() - cpu;
    theirs = server_cpu() - theirs;

    /* Messages in flight must come back, too. */
    sending = false;
    uint64_t deadline = now() + DRAIN_TIMEOUT;
    while (!error_count && flying_total && now() < deadline)
        turn(10);
    if (!error_count && flying_total) {
        fprintf(stderr, "load: %llu messages were not answered\n",
                (unsigned long long)flying_total);
        error_count = flying_total;
    }
    if (!measured && !error_count) {
        fprintf(stderr, "load: there was not one reply in time\n");
        error_count = 1;
    }
    double rate = seconds > 0 ? (double)measured / seconds : 0;
    printf("{\"messages\": %llu, \"seconds\": %.6f, \"messages_per_second\": %.1f, "
           "\"megabytes_per_second\": %.3f, \"p50_us\": %.2f, \"p99_us\": %.2f, "
           "\"errors\": %llu, \"cpu_seconds\": %.4f",
           (unsigned long long)measured, seconds, rate, rate * (double)options.size / 1e6,
           percentile(0.50) / 1e3, percentile(0.99) / 1e3, (unsigned long long)error_count, cpu);
    if (options.pid)
        printf(", \"server_cpu_seconds\": %.2f", theirs);
    puts("}");
    fflush(stdout);
}

static void make_request(void)
{
    int n = snprintf(request, sizeof request,
                     "GET / HTTP/1.1\r\nHost: %s:%s\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Key: " KEY "\r\n"
                     "Sec-WebSocket-Version: 13\r\n%s\r\n",
                     options.host, options.port,
                     options.deflate ? "Sec-WebSocket-Extensions: permessage-deflate; "
                                       "client_no_context_takeover; "
                                       "server_no_context_takeover\r\n"
                                     : "");
    if (n < 0 || (size_t)n >= sizeof request)
        die(EXIT_USAGE, "the host's name is too long");
    request_length = (size_t)n;
}

_Noreturn static void usage(void)
{
    fputs("usage: load HOST PORT [options]\n"
          "  --connections N   (1)\n"
          "  --in-flight M     messages in flight on each connection (1)\n"
          "  --size B          bytes of a payload (32)\n"
          "  --text, --binary  (text)\n"
          "  --seconds S       how long to measure (3)\n"
          "  --warmup W        seconds before that (0.5)\n"
          "  --tls             wss://, with any certificate\n"
          "  --deflate         permessage-deflate without context takeover\n"
          "  --pid PID         tell the CPU time of that process, too\n"
          "  --idle            open the connections, print 'ready', wait for the end of stdin\n"
          "Exit status: 1 if anything was wrong with the server, 2 for these options or this\n"
          "machine, 3 if the server declines --deflate as offered.\n",
          stderr);
    exit(EXIT_USAGE);
}

static double number(const char *text, double least, double most)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= least && value <= most))
        die(EXIT_USAGE, "%s is not a number from %g to %g", text, least, most);
    return value;
}

static void parse_arguments(int argc, char **argv)
{
    static const struct option known[] = {
        {"connections", required_argument, NULL, 'c'}, {"in-flight", required_argument, NULL, 'f'},
        {"size", required_argument, NULL, 's'},        {"text", no_argument, NULL, 't'},
        {"binary", no_argument, NULL, 'b'},            {"seconds", required_argument, NULL, 'S'},
        {"warmup", required_argument, NULL, 'W'},      {"tls", no_argument, NULL, 'T'},
        {"deflate", no_argument, NULL, 'd'},           {"idle", no_argument, NULL, 'i'},
        {"pid", required_argument, NULL, 'p'},         {NULL, 0, NULL, 0},
    };
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;)
        switch (option) {
        case 'c': options.connections = (unsigned)number(optarg, 1, 1e6); break;
        case 'f': options.in_flight = (unsigned)number(optarg, 1, 65536); break;
        case 's': options.size = (size_t)number(optarg, 1, 16 << 20); break;
        case 't': options.text = true; break;
        case 'b': options.text = false; break;
        case 'S': options.seconds = number(optarg, 0.01, 86400); break;
        case 'W': options.warmup = number(optarg, 0, 3600); break;
        case 'T': options.tls = true; break;
        case 'd': options.deflate = true; break;
        case 'i': options.idle = true; break;
        case 'p': options.pid = (long)number(optarg, 1, 1e9); break;
        default: usage();
        }
    if (argc - optind != 2)
        usage();
    options.host = argv[optind];
    options.port = argv[optind + 1];
}

int main(int argc, char **argv)
{
    parse_arguments(argc, argv);
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
    make_messages();
    make_request();
    connections = allocate(options.connections * sizeof *connections);
    uint64_t *times = allocate((size_t)options.connections * options.in_flight * sizeof *times);
    for (unsigned i = 0; i < options.connections; i++)
        connections[i].sent_at = times + (size_t)i * options.in_flight;
    struct rlimit files;
    if (!getrlimit(RLIMIT_NOFILE, &files)) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0)
        die(EXIT_USAGE, "epoll: %s", strerror(errno));

    open_all();
    if (options.idle)
        stay_idle();
    else
        measure();
    if (!error_count)
        close_all();
    return error_count ? EXIT_WRONG : 0;
}
