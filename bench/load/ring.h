/* Messages that an echo server must return: a ring of them, and how to check the replies.
 *
 * Each connection sends a periodic stream of bytes, made before the start: a ring of masked
 * frames with different payloads. The expected replies are a second ring. So a read is checked by
 * comparing it to the stream, headers included, however it is split; and frames that are sent
 * together are a slice of the ring, and one write. Only compressed replies have to be parsed,
 * because the server chooses how it compresses.
 *
 * This file does not know when a message is sent.
 */

#ifndef LOAD_RING_H
#define LOAD_RING_H

#include "connections.h"
#include <zlib.h>

#define RING_BYTES (4u << 20)
#define RING_MESSAGES 61 /* a prime, so that no batch keeps meeting the same messages */

struct message {
    uint8_t *payload;
    uint8_t *seen; /* a compressed reply found right, to compare the next one with */
    size_t seen_length;
};

/* A connection that sends the ring and checks what comes back. */
struct exchange {
    struct connection connection; /* the first member */
    /* Sending: the next byte in `out`, and how many are due. */
    size_t out_at, owed;
    unsigned next_out; /* the next message to send, in the ring */
    /* An incomplete compressed reply. */
    uint8_t *held;
    size_t held_length, held_capacity;
    /* Receiving: the next byte in `wanted`, and of the reply it belongs to. */
    size_t wanted_at, reply_at;
    uint64_t replies;
};

static struct {
    bool text, deflate;
    const char *from;
} content = {.text = true};

#define OPTIONS_OF_CONTENT                                                                        \
    {"text", no_argument, NULL, 't'}, {"binary", no_argument, NULL, 'b'},                         \
        {"deflate", no_argument, NULL, 'd'}, {"from", required_argument, NULL, 'F'}

#define USAGE_OF_CONTENT                                                                          \
    "  --text, --binary  (text)\n"                                                                \
    "  --deflate         permessage-deflate without context takeover\n"                            \
    "  --from FILE       payloads of --size bytes, one after the other, in turn\n"

static struct message messages[RING_MESSAGES];
static unsigned message_count;

/* The frames to send: message_count of them and then the first ones again, as many as are sent
 * together at most, so that they are in one piece. Frame i begins at out_start[i]. */
static uint8_t *out;
static size_t *out_start;
static size_t out_period, out_length;

/* The replies, if they are not compressed: all frames are of the same length. */
static uint8_t *wanted;
static size_t reply_length, wanted_period;

/* Whether it was an option of this file. */
static bool take_content_option(int option)
{
    switch (option) {
    case 't': content.text = true; return true;
    case 'b': content.text = false; return true;
    case 'd': content.deflate = true; return true;
    case 'F': content.from = optarg; return true;
    default: return false;
    }
}

/* The content ----------------------------------------------------------------------------- */

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

/* The next payload in the file, or the first one again. */
static void fill_from(FILE *file, uint8_t *payload, size_t size)
{
    if (fread(payload, 1, size, file) == size)
        return;
    rewind(file);
    if (fread(payload, 1, size, file) != size)
        die(EXIT_USAGE, "%s has no payload of %zu bytes", content.from, size);
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

/* `together` messages at most are sent in one piece. */
static void make_messages(unsigned together)
{
    size_t fitting = RING_BYTES / (options.size + 14);
    message_count = fitting < 2 ? 2 : fitting > RING_MESSAGES ? RING_MESSAGES : (unsigned)fitting;
    size_t capacity = options.size + options.size / 100 + 64;
    unsigned total = message_count + together;
    uint8_t first = content.text ? 0x81 : 0x82;
    uint8_t *body = allocate(capacity);
    FILE *file = content.from ? fopen(content.from, "rb") : NULL;
    if (content.from && !file)
        die(EXIT_USAGE, "cannot open %s", content.from);

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
        if (file)
            fill_from(file, message->payload, options.size);
        else
            (content.text ? fill_text : fill_binary)(message->payload, options.size);
        size_t length = options.size;
        uint8_t flags = 0;
        memcpy(body, message->payload, length);
        if (content.deflate) {
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
    if (file)
        fclose(file);
    out_start[total] = out_end;
    out_period = out_start[message_count];
    out_length = out_end;
    free(body);
}

/* Offer what `--deflate` means. */
static void make_request_of_content(void)
{
    make_request(content.deflate ? "Sec-WebSocket-Extensions: permessage-deflate; "
                                   "client_no_context_takeover; "
                                   "server_no_context_takeover\r\n"
                                 : "");
}

static void check_extensions(const char *head)
{
    const char *extensions = field(head, "Sec-WebSocket-Extensions");
    if (!content.deflate) {
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

/* Sending --------------------------------------------------------------------------------- */

static void start_exchange(struct exchange *x)
{
    /* Connections are at different places of the ring, so mixing them up is noticed. */
    x->next_out = x->connection.number * 7 % message_count;
    x->out_at = out_start[x->next_out];
    x->wanted_at = x->next_out * reply_length;
}

static void flush(struct exchange *x)
{
    bool wants_out = false;
    struct stream *s = &x->connection.stream;
    while (x->owed) {
        size_t piece = x->owed < out_length - x->out_at ? x->owed : out_length - x->out_at;
        ssize_t n = transmit(s, out + x->out_at, piece, &wants_out);
        if (n == AGAIN)
            break;
        if (n == BROKEN) {
            complain(x->connection.number, "the connection broke while sending");
            return;
        }
        x->owed -= (size_t)n;
        x->out_at = (x->out_at + (size_t)n) % out_period;
    }
    if (settle(s, &wants_out))
        watch(s, wants_out);
    else
        complain(x->connection.number, "the connection broke while sending");
}

/* The next `count` messages are due; flush() sends them. */
static void owe(struct exchange *x, unsigned count)
{
    x->owed += out_start[x->next_out + count] - out_start[x->next_out];
    x->next_out = (x->next_out + count) % message_count;
}

/* Replies --------------------------------------------------------------------------------- */

static void complain_of_reply(struct exchange *x, const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    complain(x->connection.number, "reply %llu: %s", (unsigned long long)x->replies, text);
}

static unsigned reply_index(const struct exchange *x, unsigned completed)
{
    return (unsigned)((x->connection.number * 7ull + x->replies + completed) % message_count);
}

static void explain(struct exchange *x, const uint8_t *data)
{
    size_t at = 0, header = reply_length - options.size;
    size_t into_reply = x->reply_at, into_stream = x->wanted_at;
    while (data[at] == wanted[into_stream]) {
        at++;
        into_stream = (into_stream + 1) % wanted_period;
        into_reply++;
        if (into_reply == reply_length) {
            into_reply = 0;
            x->replies++;
        }
    }
    if (into_reply < header)
        complain_of_reply(x, "byte %zu of the header is 0x%02x, expected 0x%02x%s", into_reply, data[at],
                 wanted[into_stream],
                 into_reply                  ? ""
                 : (data[at] & 15) == 8      ? " (it closes)"
                 : (data[at] & 15) > 8       ? " (a ping or pong)"
                 : !(data[at] & 128)         ? " (a fragment)"
                 : data[at] & 0x70           ? " (reserved bits)"
                                             : "");
    else
        complain_of_reply(x, "byte %zu of the payload is 0x%02x, expected 0x%02x", into_reply - header,
                 data[at], wanted[into_stream]);
}

/* How many replies were completed, or BROKEN. */
static long take_plain(struct exchange *x, const uint8_t *data, size_t length)
{
    size_t done = 0;
    size_t at = x->wanted_at;
    while (done < length) {
        size_t piece = length - done;
        if (piece > wanted_period - at)
            piece = wanted_period - at;
        if (memcmp(data + done, wanted + at, piece)) {
            explain(x, data);
            return BROKEN;
        }
        done += piece;
        at = at + piece == wanted_period ? 0 : at + piece;
    }
    x->wanted_at = at;
    size_t total = x->reply_at + length;
    x->reply_at = total % reply_length;
    return (long)(total / reply_length);
}

static bool check_compressed(struct exchange *x, struct message *m, const uint8_t *data,
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
        complain_of_reply(x, "the compressed payload is not what was sent");
        return false;
    }
    free(m->seen);
    m->seen = memcpy(allocate(length), data, length);
    m->seen_length = length;
    return true;
}

/* Like take_plain, if frames must be parsed. */
static long take_frames(struct exchange *x, const uint8_t *data, size_t length)
{
    if (x->held_length) {
        if (x->held_length + length > x->held_capacity) {
            x->held_capacity = 2 * (x->held_length + length);
            x->held = realloc(x->held, x->held_capacity);
            if (!x->held)
                die(EXIT_USAGE, "out of memory");
        }
        memcpy(x->held + x->held_length, data, length);
        x->held_length += length;
        data = x->held;
        length = x->held_length;
    }
    long completed = 0;
    size_t at = 0;
    while (length - at >= 2) {
        const uint8_t *frame = data + at;
        uint8_t first = frame[0], opcode = content.text ? 1 : 2;
        if ((first & 0xbf) != (0x80 | opcode)) {
            complain_of_reply(x, "the frame begins with 0x%02x, expected 0x%02x or 0x%02x", first,
                     0xc0 | opcode, 0x80 | opcode);
            return BROKEN;
        }
        if (frame[1] & 0x80) {
            complain_of_reply(x, "the frame is masked");
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
            complain_of_reply(x, "the frame is of %zu bytes", size);
            return BROKEN;
        }
        if (length - at - header < size || length - at < header)
            break;
        struct message *m = &messages[reply_index(x, (unsigned)completed)];
        if (first & 0x40) {
            if (!check_compressed(x, m, frame + header, size))
                return BROKEN;
        } else if (size != options.size || memcmp(frame + header, m->payload, size)) {
            complain_of_reply(x, "the payload is not what was sent");
            return BROKEN;
        }
        at += header + size;
        completed++;
    }
    size_t rest = length - at;
    if (rest > x->held_capacity) {
        x->held_capacity = rest + READ_SIZE;
        uint8_t *held = allocate(x->held_capacity);
        memcpy(held, data + at, rest);
        free(x->held);
        x->held = held;
    } else if (rest) {
        memmove(x->held, data + at, rest);
    }
    x->held_length = rest;
    return completed;
}

/* Read all that has arrived; the number of replies that were completed, or BROKEN. */
static long take_replies(struct exchange *x)
{
    struct stream *s = &x->connection.stream;
    long completed = 0;
    for (;;) {
        ssize_t n = receive(s, read_buffer, sizeof read_buffer);
        if (n == AGAIN)
            return completed;
        if (n <= 0) {
            complain_of_reply(x, "the server closed the connection");
            return BROKEN;
        }
        long k = content.deflate ? take_frames(x, read_buffer, (size_t)n)
                                 : take_plain(x, read_buffer, (size_t)n);
        if (k < 0)
            return BROKEN;
        completed += k;
        x->replies += (uint64_t)k;
        if (!has_more(s, (size_t)n, sizeof read_buffer))
            return completed;
    }
}

#endif
