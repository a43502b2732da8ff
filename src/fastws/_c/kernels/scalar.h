/* The portable kernels. They process words of 64 bits, and one character at a time. */
#ifndef FASTWS_SCALAR_H
#define FASTWS_SCALAR_H

#include "kernels.h"

/* The table needs a function that is not inline. */
static uint64_t
fastws_mask_scalar(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    return fastws_mask_words(dst, src, n, key);
}

/* Return whether n bytes are complete, valid UTF-8. */
static int
fastws_utf8_valid_scalar(const uint8_t *p, size_t n)
{
    const uint8_t *end = p + n;
    while (p < end) {
        if (*p < 0x80) {
            while (end - p >= 16
                   && !((fastws_load64(p) | fastws_load64(p + 8)) & FASTWS_HIGH_BITS)) {
                p += 16;
            }
            while (p < end && *p < 0x80) {
                p++;
            }
        }
        else if (*p < 0xE0) {
            if (end - p < 2 || p[0] < 0xC2 || !fastws_is_continuation(p[1])) {
                return 0;
            }
            p += 2;
        }
        else if (*p < 0xF0) {
            uint8_t low = p[0] == 0xE0 ? 0xA0 : 0x80;
            uint8_t high = p[0] == 0xED ? 0x9F : 0xBF;
            if (end - p < 3 || p[1] < low || p[1] > high || !fastws_is_continuation(p[2])) {
                return 0;
            }
            p += 3;
        }
        else {
            uint8_t low = p[0] == 0xF0 ? 0x90 : 0x80;
            uint8_t high = p[0] == 0xF4 ? 0x8F : 0xBF;
            if (end - p < 4 || p[0] > 0xF4 || p[1] < low || p[1] > high
                || !fastws_is_continuation(p[2]) || !fastws_is_continuation(p[3])) {
                return 0;
            }
            p += 4;
        }
    }
    return 1;
}

static const fastws_kernels fastws_scalar = {
    "scalar", SIZE_MAX, fastws_mask_scalar, fastws_utf8_valid_scalar, NULL, NULL, NULL, NULL, NULL
};

#endif
