/* A set of kernels: functions for one instruction set, and how to use them.
 *
 * This file does not know which sets there are: sets.h does.
 */
#ifndef FASTWS_KERNELS_H
#define FASTWS_KERNELS_H

#include "mask.h"
#include "utf8.h"

#define FASTWS_INVALID SIZE_MAX

typedef struct {
    const char *name;
    /* The size, in bytes, from which on these decode text faster than the interpreter does. */
    size_t utf8_least;
    /* Like fastws_mask_words. */
    uint64_t (*mask)(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key);
    /* Return whether n bytes are complete, valid UTF-8. */
    int (*utf8_valid)(const uint8_t *p, size_t n);
    /* Unmask to dst, which does not overlap src; validate and count. Return the number of
     * characters, and the largest byte (below 80 if all are ASCII); or FASTWS_INVALID if what was
     * unmasked is not complete, valid UTF-8. NULL means: call the other functions. */
    size_t (*utf8_unmask)(
        uint8_t *dst, const uint8_t *src, size_t n, uint32_t key, uint8_t *largest
    );
    /* Return the number of characters in valid UTF-8, and its largest byte. NULL means: use the
     * interpreter's own decoder. */
    size_t (*utf8_count)(const uint8_t *p, size_t n, uint8_t *largest);
    /* Decode valid UTF-8 to characters of 1, 2 or 4 bytes, which must be wide enough. */
    void (*utf8_to_1)(const uint8_t *p, size_t n, uint8_t *out);
    void (*utf8_to_2)(const uint8_t *p, size_t n, uint16_t *out);
    void (*utf8_to_4)(const uint8_t *p, size_t n, uint32_t *out);
} fastws_kernels;

/* Below this size, in bytes, calling a kernel costs more time than it saves. */
#define FASTWS_SMALL 64

/* Like fastws_mask_words. */
static inline uint64_t
fastws_mask(
    const fastws_kernels *kernels, uint8_t *dst, const uint8_t *src, size_t n, uint32_t key
)
{
    return n < FASTWS_SMALL ? fastws_mask_words(dst, src, n, key)
                            : kernels->mask(dst, src, n, key);
}

/* Validate the next n bytes. Return 0 if one of them cannot follow; then the state must not be
 * used any more. */
static inline int
fastws_utf8_feed(const fastws_kernels *kernels, fastws_utf8 *state, const uint8_t *p, size_t n)
{
    size_t rest;
    if (state->needed) {
        int used = fastws_utf8_continue(state, p, n);
        if (used < 0) {
            return 0;
        }
        p += used;
        n -= (size_t)used;
    }
    if (!n) {
        return 1;
    }
    rest = fastws_utf8_unfinished(p, n);
    n -= rest;
    if (!kernels->utf8_valid(p, n)) {
        return 0;
    }
    return !rest
           || (fastws_utf8_begin(state, p[n])
               && fastws_utf8_continue(state, p + n + 1, rest - 1) >= 0);
}

#endif
