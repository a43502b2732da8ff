/* Masking (RFC 6455 §5.3): XOR with a 4-byte key.
 *
 * This file knows bytes, words and keys. It does not know Python, frames or roles.
 *
 * A key is stored in memory order: memcpy loads the four bytes in the order of the frame, so
 * nothing depends on the byte order of the machine. Words are loaded with memcpy too, so they need
 * not be aligned. Nothing outside src[0..n) is read.
 */
#ifndef FASTWS_MASK_H
#define FASTWS_MASK_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define FASTWS_HIGH_BITS UINT64_C(0x8080808080808080)

static inline uint64_t
fastws_load64(const uint8_t *p)
{
    uint64_t word;
    memcpy(&word, p, 8);
    return word;
}

static inline uint32_t
fastws_load32(const uint8_t *p)
{
    uint32_t word;
    memcpy(&word, p, 4);
    return word;
}

/* Return the key, rotated so that it begins `offset` bytes further on. */
static inline uint32_t
fastws_rotate_key(uint32_t key, size_t offset)
{
    uint8_t twice[8];
    memcpy(twice, &key, 4);
    memcpy(twice + 4, &key, 4);
    return fastws_load32(twice + (offset & 3));
}

static inline uint64_t
fastws_double_key(uint32_t key)
{
    uint8_t twice[8];
    memcpy(twice, &key, 4);
    memcpy(twice + 4, &key, 4);
    return fastws_load64(twice);
}

/* Write src XOR key to dst, which is src itself or does not overlap it. Return the OR of all words
 * written: a bit of FASTWS_HIGH_BITS is set in it if and only if some byte is not ASCII.
 *
 * Instead of a loop over the last bytes, the last word overlaps the one before it. It is loaded
 * first and stored last, so that this works in place. */
static inline uint64_t
fastws_mask_words(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    uint64_t seen = 0;
    if (n >= 8) {
        uint64_t wide = fastws_double_key(key);
        uint64_t last = fastws_load64(src + n - 8)
                        ^ fastws_double_key(fastws_rotate_key(key, n));
        size_t i;
        for (i = 0; i + 8 <= n; i += 8) {
            uint64_t word = fastws_load64(src + i) ^ wide;
            seen |= word;
            memcpy(dst + i, &word, 8);
        }
        memcpy(dst + n - 8, &last, 8);
        return seen | last;
    }
    if (n >= 4) {
        uint32_t head = fastws_load32(src) ^ key;
        uint32_t last = fastws_load32(src + n - 4) ^ fastws_rotate_key(key, n);
        memcpy(dst, &head, 4);
        memcpy(dst + n - 4, &last, 4);
        return (uint64_t)(head | last);
    }
    {
        uint8_t octets[4];
        size_t i;
        memcpy(octets, &key, 4);
        for (i = 0; i < n; i++) {
            uint8_t octet = src[i] ^ octets[i];
            seen |= octet;
            dst[i] = octet;
        }
    }
    return seen;
}

#endif
