/* Validation of UTF-8 that may be split anywhere (RFC 3629; the Unicode Standard, table 3-7).
 *
 * This file knows bytes and code points, one at a time; simd.h processes many at a time. It does
 * not know Python, frames or masks.
 */
#ifndef FASTWS_UTF8_H
#define FASTWS_UTF8_H

#include "mask.h"

/* The state inside a character: how many more bytes it needs, and the bounds of the next one. The
 * bounds are 80..BF, except those of a second byte. */
typedef struct {
    uint8_t needed;
    uint8_t low;
    uint8_t high;
} fastws_utf8;

/* Read the first byte of a character that is not ASCII. Return 0 if the byte cannot begin one. */
static inline int
fastws_utf8_begin(fastws_utf8 *state, uint8_t octet)
{
    state->low = 0x80;
    state->high = 0xBF;
    if (octet < 0xC2) { /* a continuation byte, or an overlong form of ASCII */
        return 0;
    }
    else if (octet < 0xE0) {
        state->needed = 1;
    }
    else if (octet < 0xF0) {
        state->needed = 2;
        if (octet == 0xE0) { /* overlong */
            state->low = 0xA0;
        }
        else if (octet == 0xED) { /* surrogates */
            state->high = 0x9F;
        }
    }
    else if (octet < 0xF5) {
        state->needed = 3;
        if (octet == 0xF0) { /* overlong */
            state->low = 0x90;
        }
        else if (octet == 0xF4) { /* beyond U+10FFFF */
            state->high = 0x8F;
        }
    }
    else {
        return 0;
    }
    return 1;
}

/* Read bytes until the character is complete or the bytes end. Return how many bytes were read, or
 * -1 if one of them cannot follow. */
static inline int
fastws_utf8_continue(fastws_utf8 *state, const uint8_t *p, size_t n)
{
    int used = 0;
    while (state->needed && (size_t)used < n) {
        uint8_t octet = p[used++];
        if (octet < state->low || octet > state->high) {
            return -1;
        }
        state->needed--;
        state->low = 0x80;
        state->high = 0xBF;
    }
    return used;
}

static inline int
fastws_is_continuation(uint8_t octet)
{
    return (octet & 0xC0) == 0x80;
}

/* Return how many bytes at the end belong to an incomplete character. This assumes that the bytes
 * before it are valid. */
static inline size_t
fastws_utf8_unfinished(const uint8_t *p, size_t n)
{
    size_t back;
    for (back = 1; back <= 3 && back <= n; back++) {
        uint8_t octet = p[n - back];
        if (!fastws_is_continuation(octet)) {
            size_t size = octet < 0xC0 ? 1 : octet < 0xE0 ? 2 : octet < 0xF0 ? 3 : 4;
            return size > back ? back : 0;
        }
    }
    return 0;
}

#endif
