/* Fuzzes the kernels of the accelerated twin against references that cannot be wrong.
 *
 * The buffers are as large as what they hold, so that AddressSanitizer sees every byte read or
 * written beyond it. fuzz/run.py builds this with clang; the input is a mask key of 4 bytes, a
 * byte that moves the buffer away from where malloc puts it, one that says where to cut, and
 * the data.
 */
#include <stdio.h>
#include <stdlib.h>

#include "mask.h"
#include "utf8.h"

#define MAX_SHIFT 31
/* All cuts are tried in data up to this size, so many of them in larger data. */
#define ALL_CUTS 64

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

/* A copy that ends where its memory does, and begins `shift` bytes after it. */
typedef struct {
    uint8_t *memory;
    uint8_t *data;
} Copy;

static Copy
copy_of(const uint8_t *data, size_t size, size_t shift)
{
    Copy copy;
    copy.memory = malloc(size + shift);
    CHECK(copy.memory != NULL || size + shift == 0);
    copy.data = copy.memory + shift;
    if (size) {
        memcpy(copy.data, data, size);
    }
    return copy;
}

/* Masking ------------------------------------------------------------------------------ */

static void
check_mask(const uint8_t *data, size_t size, uint32_t key, size_t shift)
{
    uint8_t octets[4];
    uint8_t expected_high = 0;
    Copy expected = copy_of(data, size, 0);
    Copy source = copy_of(data, size, shift);
    Copy target = copy_of(data, size, (shift * 7) % (MAX_SHIFT + 1));
    uint64_t seen;
    size_t i;

    memcpy(octets, &key, 4);
    for (i = 0; i < size; i++) {
        expected.data[i] = (uint8_t)(data[i] ^ octets[i % 4]);
        expected_high |= expected.data[i] & 0x80;
    }
    seen = fastws_mask(target.data, source.data, size, key);
    CHECK(size == 0 || memcmp(target.data, expected.data, size) == 0);
    CHECK(size == 0 || memcmp(source.data, data, size) == 0);
    CHECK(((seen & FASTWS_HIGH_BITS) != 0) == (expected_high != 0));
    /* In place */
    seen = fastws_mask(source.data, source.data, size, key);
    CHECK(size == 0 || memcmp(source.data, expected.data, size) == 0);
    CHECK(((seen & FASTWS_HIGH_BITS) != 0) == (expected_high != 0));
    free(source.memory);
    free(target.memory);
    free(expected.memory);
}

/* A payload that is masked in two pieces */
static void
check_mask_cut(const uint8_t *data, size_t size, uint32_t key, size_t cut)
{
    Copy whole = copy_of(data, size, 0);
    Copy first = copy_of(data, cut, 0);
    Copy second = copy_of(data + cut, size - cut, 0);

    fastws_mask(whole.data, whole.data, size, key);
    fastws_mask(first.data, first.data, cut, key);
    fastws_mask(second.data, second.data, size - cut, fastws_rotate_key(key, cut));
    CHECK(cut == 0 || memcmp(first.data, whole.data, cut) == 0);
    CHECK(cut == size || memcmp(second.data, whole.data + cut, size - cut) == 0);
    free(whole.memory);
    free(first.memory);
    free(second.memory);
}

/* UTF-8 -------------------------------------------------------------------------------- */

/* How many bytes of the data begin something that is UTF-8 (RFC 3629): all of them, or those
 * in front of the first that cannot follow. `missing` is how many bytes the last code point
 * still needs then. A code point is judged by the range of values it can still have. */
static size_t
utf8_prefix(const uint8_t *data, size_t size, unsigned *missing)
{
    static const uint32_t least[4] = {0, 0x80, 0x800, 0x10000};
    size_t i = 0;
    *missing = 0;
    while (i < size) {
        uint8_t lead = data[i];
        unsigned length = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
        uint32_t value = length == 1 ? lead : lead & (0x7Fu >> length);
        unsigned left = length - 1;
        if (lead >= 0xF8 || (lead >= 0x80 && lead < 0xC0)) {
            return i;
        }
        for (;;) {
            uint32_t low = value << (6 * left);
            uint32_t high = low | ((1u << (6 * left)) - 1);
            low = low > least[length - 1] ? low : least[length - 1];
            high = high < 0x10FFFF ? high : 0x10FFFF;
            if (low > high || (low >= 0xD800 && high <= 0xDFFF)) {
                return i;
            }
            i++;
            if (left == 0) {
                break;
            }
            if (i == size) {
                *missing = left;
                return size;
            }
            if ((data[i] & 0xC0) != 0x80) {
                return i;
            }
            value = value << 6 | (data[i] & 0x3F);
            left--;
        }
    }
    return size;
}

static void
check_utf8_cut(
    const uint8_t *data, size_t size, size_t cut, size_t shift, size_t good, unsigned missing
)
{
    fastws_utf8 state = {0, 0, 0};
    Copy first = copy_of(data, cut, shift);
    Copy second = copy_of(data + cut, size - cut, shift);
    int valid = fastws_utf8_feed(&state, first.data, cut);

    CHECK((valid != 0) == (good >= cut));
    if (valid) {
        valid = fastws_utf8_feed(&state, second.data, size - cut);
        CHECK((valid != 0) == (good == size));
    }
    if (valid) {
        CHECK(state.needed == missing);
    }
    free(first.memory);
    free(second.memory);
}

/* The beginning of the data: valid or not, and in the middle of a code point or not */
static void
check_utf8_prefix(const uint8_t *data, size_t size, size_t shift)
{
    unsigned missing;
    size_t good = utf8_prefix(data, size, &missing);
    check_utf8_cut(data, size, size, shift, good, missing);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint32_t key;
    size_t shift, seed, good, i, cuts;
    unsigned missing;

    if (size < 6) {
        return 0;
    }
    memcpy(&key, data, 4);
    shift = data[4] % (MAX_SHIFT + 1);
    seed = data[5];
    data += 6;
    size -= 6;

    check_mask(data, size, key, shift);
    good = utf8_prefix(data, size, &missing);
    cuts = size <= ALL_CUTS ? size + 1 : ALL_CUTS;
    for (i = 0; i < cuts; i++) {
        size_t cut = size <= ALL_CUTS ? i : (seed * 131 + i * 257) % (size + 1);
        check_mask_cut(data, size, key, cut);
        check_utf8_cut(data, size, cut, shift, good, missing);
        check_utf8_prefix(data, cut, shift);
    }
    return 0;
}
