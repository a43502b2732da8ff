/* UTF-8 validation (RFC 3629), in pieces, failing at the first impossible byte.
 *
 * This file knows bytes and code points. It does not know Python or messages.
 */
#ifndef FASTWS_UTF8_H
#define FASTWS_UTF8_H

#include "mask.h"

/* Where in a code point we are: how many bytes it still needs, and the bounds of the next.
 * All bounds but those of a second byte are 80..BF. */
typedef struct {
    uint8_t needed;
    uint8_t low;
    uint8_t high;
} fastws_utf8;

/* Validate the next n bytes. Returns 0 at the first byte that cannot follow; the state is
 * of no use then. */
static inline int
fastws_utf8_feed(fastws_utf8 *state, const uint8_t *p, size_t n)
{
    const uint8_t *end = p + n;
    while (p < end) {
        uint8_t octet;
        if (state->needed) {
            octet = *p++;
            if (octet < state->low || octet > state->high) {
                return 0;
            }
            state->needed--;
            state->low = 0x80;
            state->high = 0xBF;
            continue;
        }
        while (end - p >= 8 && !(fastws_load64(p) & FASTWS_HIGH_BITS)) {
            p += 8;
        }
        if (p == end) {
            break;
        }
        octet = *p++;
        if (octet < 0x80) {
            continue;
        }
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
    }
    return 1;
}

#endif
